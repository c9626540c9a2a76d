"""Whether what a saved search has learnt belongs to the search that is to go on with it."""

import math
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from prunas.search.adam import moments_of
from prunas.search.learnt import Array, Learnt

_ROWS: Final = ("pending", "waiting")  # of any number of candidates
_LATER: Final = {"baseline": ()}

Shape = tuple[int, ...]


def refuse_strange(found: Learnt, start: Learnt, genes: int) -> None:
    """Raise a ValueError unless `found` can have been learnt by a search that began with `start`.

    Names and shapes tell methods and spaces apart. What comes later than the start may be there:
    moments, a baseline, rows of candidates.
    """
    later: dict[str, Shape] = {**_LATER}
    for name, array in start.items():
        later |= moments_of(name, array)
    first = {n: a.shape for n, a in start.items() if n not in later and n not in _ROWS}
    for name in _required(found, first, start):
        if name not in found:
            raise ValueError(f"another method or space: it has not learnt {name!r}")
    for name, array in found.items():
        if name in _ROWS:
            fits = array.shape == (0,) or _are_rows(name, array, first.values(), genes)
        else:
            fits = array.shape == {**later, **first}.get(name)
        if not fits:
            raise ValueError(f"another method or space: it has learnt {name!r} {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name!r}, which it has learnt, is not finite")


def _required(found: Learnt, first: Mapping[str, Shape], start: Learnt) -> Iterable[str]:
    """What a method needs: all that it starts with, and all moments or none."""
    yield from first
    for name in first:
        moments = moments_of(name, start[name])
        if any(each in found for each in moments):
            yield from moments


def _are_rows(name: str, array: Array, first: Iterable[Shape], genes: int) -> bool:
    """A row is a candidate and the slope of what is learnt, or such a slope and a reward."""
    if array.ndim != 2:
        return False
    sizes = [1] if name == "waiting" else [math.prod(shape) for shape in first]
    return array.shape[1] - genes in sizes
