"""Peak activation memory of candidates, in closed form.

The operators of a network run in the order of its forward. A result is live from the operator that
computes it to the last one that reads it, an output of the network to the end, an input from the
start. Results in the same memory (views, in-place operators) are one. At operator t,

    live_t(w) = sum over what is live at t of bytes(w),      peak(w) = max over t of live_t(w),

and bytes(w), the size of a result, is a polynomial in the genes. Without a block its operators do
not run, and its output is its input.

This is what an ideal planner needs in that order: results that nothing reads (statistics of a
normalisation) do not count, nor do weights, nor the working memory inside an operator. Eager torch
may hold more, since a caller's variables keep its inputs alive; a runtime that fuses operators may
hold less.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import nn

from prunas.eval.products import Products, table_of
from prunas.supernet.activations import Activations, activations
from prunas.supernet.space import Candidate, SearchSpace

Condition = frozenset[int]
"""What must hold together: g + 1 that gene g keeps its block, -(g + 1) that it does not."""

_ALWAYS: Condition = frozenset()
_CHUNK = 4_096  # candidates whose sizes are held at once


@dataclass(frozen=True)
class _Share:
    """Some memory that is there if it was made, and if somebody still reads it."""

    place: int
    made: Condition
    read: frozenset[Condition]


@dataclass(frozen=True)
class _Moment:
    """What is live while one operator runs, if it does run."""

    runs: Condition
    live: frozenset[_Share]


@final
class PeakMemory:
    """Bytes of live activations at the worst moment, exact, for one image.

    Results are in the types of the network that is given: four bytes a number in float32.

    Args:
        network: the traced network; it is not changed, and its weights are not read.
        space: its search space, with genes of width and of depth.

    Raises:
        InputError: the space has genes of another kind, or the network is not the traced one.
    """

    def __init__(self, network: nn.Module, space: SearchSpace) -> None:
        self.space = space
        found = activations(network, space)
        self._sizes = Products(found.stored)
        self._moments = list(_telling(_Lives(found).moments()))
        shares = dict.fromkeys(share for moment in self._moments for share in moment.live)
        self._shares = list(shares)
        column = {share: index for index, share in enumerate(shares)}
        self._live = np.zeros((len(shares), len(self._moments)))
        for index, moment in enumerate(self._moments):
            self._live[[column[share] for share in moment.live], index] = 1

    def bytes(self, candidates: Sequence[Candidate] | ArrayLike) -> NDArray[np.int64]:
        """Peak of each candidate, shape (n,).

        Args:
            candidates: candidates of the space, or an integer array (n, genes) of chosen values.

        Raises:
            InputError: the rows do not have one value per gene.
        """
        table = table_of(self.space, candidates)
        starts = range(0, len(table), _CHUNK)
        parts = [self._peaks(table[start : start + _CHUNK]) for start in starts]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def _peaks(self, table: NDArray[np.int64]) -> NDArray[np.int64]:
        stored = self._sizes.values(table)
        shares = stored[:, [share.place for share in self._shares]]
        for column, share in enumerate(self._shares):
            if share.made or _ALWAYS not in share.read:
                present = _holds(share.made, table) & _any_holds(share.read, table)
                shares[:, column] *= present
        live = shares @ self._live
        for column, moment in enumerate(self._moments):
            if moment.runs:
                live[:, column] *= _holds(moment.runs, table)
        peaks: NDArray[np.int64] = np.rint(live.max(axis=1)).astype(np.int64)
        return peaks


def _holds(condition: Condition, table: NDArray[np.int64]) -> NDArray[np.bool_]:
    result = np.ones(len(table), dtype=bool)
    for literal in condition:
        result &= (table[:, abs(literal) - 1] != 0) == (literal > 0)
    return result


def _any_holds(conditions: Iterable[Condition], table: NDArray[np.int64]) -> NDArray[np.bool_]:
    result = np.zeros(len(table), dtype=bool)
    for condition in conditions:
        result |= _holds(condition, table)
    return result


def _telling(moments: Iterable[_Moment]) -> Iterator[_Moment]:
    """Those that are not plainly below the one before or after them."""
    held: _Moment | None = None
    for moment in moments:
        if held is None or (held.runs >= moment.runs and held.live <= moment.live):
            held = moment
        elif not (moment.runs >= held.runs and moment.live <= held.live):
            yield held
            held = moment
    if held is not None:
        yield held


class _Lives:
    """From when to when, and under which conditions, each memory is needed."""

    def __init__(self, found: Activations) -> None:
        self.found = found
        self.end = len(found.steps)
        self.runs = [frozenset(gene + 1 for gene in step.blocks) for step in found.steps]
        self.runs.append(_ALWAYS)  # the end, when the outputs are handed over
        self.made = dict.fromkeys(found.given, 0)
        self.read_at: dict[int, list[int]] = {place: [self.end] for place in found.returned}
        for index, step in enumerate(found.steps):
            for place in step.writes:
                self.made.setdefault(place, index)
            for place in step.reads:
                self.read_at.setdefault(place, []).append(index)
        self.handed: dict[int, list[tuple[int, int]]] = {}
        for gene, (before, after) in found.passes.items():
            if before != after:
                self.handed.setdefault(before, []).append((gene, after))
        self._readers: dict[int, list[tuple[int, Condition]]] = {}

    def moments(self) -> Iterator[_Moment]:
        """One for each operator, in order, and the end."""
        first: list[list[int]] = [[] for _ in range(self.end + 1)]
        for place, index in self.made.items():
            first[index].append(place)
        known: set[int] = set()
        for index, fresh in enumerate(first):
            known.update(place for place in fresh if self.readers(place))
            shares = {place: self._share(place, index) for place in known}
            known = {place for place, share in shares.items() if share is not None}
            live = frozenset(share for share in shares.values() if share is not None)
            yield _Moment(self.runs[index], live)

    def readers(self, place: int) -> list[tuple[int, Condition]]:
        """(operator, condition under which it reads that memory).

        What reads a block's output reads its input when the block is left out.
        """
        if place not in self._readers:
            own = [(index, self.runs[index]) for index in self.read_at.get(place, ())]
            passed = [
                (index, condition | {-(gene + 1)})
                for gene, after in self.handed.get(place, ())
                for index, condition in self.readers(after)
                if gene + 1 not in condition
            ]
            self._readers[place] = own + passed
        return self._readers[place]

    def _share(self, place: int, index: int) -> _Share | None:
        given = place in self.found.given
        made = _ALWAYS if given else self.runs[self.made[place]]
        sure = made | self.runs[index]
        later = {condition - sure for at, condition in self.readers(place) if at >= index}
        possible = frozenset(c for c in later if not any(-literal in sure for literal in c))
        if not later:
            return None
        return _Share(place, made - self.runs[index], _simplified(possible))


def _simplified(conditions: frozenset[Condition]) -> frozenset[Condition]:
    """The same disjunction with fewer and shorter members: {a} or {not a, b} is {a} or {b}."""
    while True:
        single = {literal for c in conditions if len(c) == 1 for literal in c}
        shorter = frozenset(
            c if len(c) == 1 and not _denied(c, single) else c - {-literal for literal in single}
            for c in conditions
        )
        if _ALWAYS in shorter:
            return frozenset((_ALWAYS,))
        if shorter == conditions:
            return shorter
        conditions = shorter


def _denied(condition: Condition, single: set[int]) -> bool:
    return any(-literal in single for literal in condition)
