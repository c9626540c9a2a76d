"""Numbers that come from outside: those of Python, of numpy and, as scores, of torch."""

import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, Final, Literal

from prunas.errors import InputError

Interval = Literal["[0, 1]", "[0, 1)", "(0, 1]", "[0, inf)", "(0, inf)"]

_INSIDE: Final[Mapping[Interval, Callable[[Any], bool]]] = {
    "[0, 1]": lambda value: 0 <= value <= 1,
    "[0, 1)": lambda value: 0 <= value < 1,
    "(0, 1]": lambda value: 0 < value <= 1,
    "[0, inf)": lambda value: 0 <= value < math.inf,
    "(0, inf)": lambda value: 0 < value < math.inf,
}


def is_whole(value: Any) -> bool:
    """Whether it is a whole number; True is none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def refuse_below(least: int, what: str, **values: Any) -> None:
    """Raise an InputError about `what` unless each value is a whole number of at least `least`."""
    for name, value in values.items():
        if not is_whole(value) or value < least:
            raise InputError(f"{name}={value!r} of {what} must be a whole number, {least} or more")


def refuse_outside(interval: Interval, what: str, **values: Any) -> None:
    """Raise an InputError about `what` unless each value is a number in the interval."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not _INSIDE[interval](value):
            raise InputError(f"{name}={value!r} of {what} must be a number in {interval}")


def plain_score(score: Any) -> float:
    """The score as Python's number, also where numpy or torch gave it; what is none, as the worst.

    Raises:
        InputError: it is no number.
    """
    try:
        number = float(score.__float__())  # `float` alone reads texts too
    except (AttributeError, TypeError, ValueError, RuntimeError, OverflowError):
        raise InputError(
            f"the score {score!r} is no number; tell one number for each candidate, and NaN where"
            " there is none"
        ) from None
    return number if math.isfinite(number) else -math.inf


def saved_score(value: Any) -> float:
    """A score as JSON has it: a number, or a text where it is not finite.

    Raises:
        ValueError, TypeError: it is something else.
    """
    number = float(value)
    if isinstance(value, bool) or isinstance(value, str) == math.isfinite(number):
        raise ValueError(f"the score {value!r} is no number")
    return number


def saved_place(value: Any, count: int) -> int:
    """Which of `count` candidates a saved score is about.

    Raises:
        ValueError: none of them.
    """
    if not is_whole(value) or value not in range(count):
        raise ValueError(f"a score is about number {value!r} of {count} candidates")
    return int(value)
