"""Whole numbers that come from outside: those of Python and of numpy; True is none."""

from numbers import Integral
from typing import Any

from prunas.errors import InputError


def is_whole(value: Any) -> bool:
    """Whether it is a whole number."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def refuse_below(least: int, what: str, **values: Any) -> None:
    """Raise an InputError about `what` unless each value is a whole number of at least `least`."""
    for name, value in values.items():
        if not is_whole(value) or value < least:
            raise InputError(f"{name}={value!r} of {what} must be a whole number, {least} or more")
