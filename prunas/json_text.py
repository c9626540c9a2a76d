"""JSON that nobody vouches for."""

import json
from typing import Any


def parsed(text: str | bytes) -> Any:
    """What the text says.

    Raises:
        ValueError: it is no JSON, or nested so deeply that reading it would end the program.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
