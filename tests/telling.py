"""What searches and transformers both promise about the scores that they are told."""

from collections.abc import Callable
from typing import Any


def assert_kinds_of_numbers_make_no_difference(
    method: Any,
    start: Any,
    number: Callable[[int], Any],
    *,
    scored: Callable[[Any, Any], Any],
    to_json: Callable[[Any], Any],
) -> None:
    """Told scores of that kind, a method is where it is when told floats."""
    theirs, ours = start, start
    for _ in range(4):
        theirs, asked = method.ask(theirs, 4)
        ours, same = method.ask(ours, 4)
        assert asked == same
        theirs = method.tell(theirs, [scored(each, number(sum(each))) for each in asked])
        ours = method.tell(ours, [scored(each, float(sum(each))) for each in asked])
    assert theirs == ours
    assert to_json(theirs) == to_json(ours)
