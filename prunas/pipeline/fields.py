"""Whether values out of a file are of the types that a dataclass declares."""

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from prunas.errors import InputError

_NAMES: Mapping[type, str] = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    NoneType: "null",
}


def require_types(kind: type, values: Mapping[str, Any]) -> None:
    """See that each value is of the type of the field that it is for; tuples are lists in files.

    Raises:
        InputError: one is not; the sentence names it.
    """
    hints = get_type_hints(kind)
    for name, value in values.items():
        if name in hints and not _fits(hints[name], value):
            raise InputError(f"{name} must be {_said(hints[name])}, not {repr(value)[:80]}")


def _fits(hint: Any, value: Any) -> bool:
    if isinstance(hint, UnionType):
        return any(_fits(each, value) for each in get_args(hint))
    if get_origin(hint) is tuple:
        (inner, _) = get_args(hint)
        return isinstance(value, list | tuple) and all(_fits(inner, each) for each in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is hint


def _said(hint: Any) -> str:
    if isinstance(hint, UnionType):
        return " or ".join(map(_said, get_args(hint)))
    if get_origin(hint) is tuple:
        return f"a list in which each is {_said(get_args(hint)[0])}"
    return _NAMES[hint]
