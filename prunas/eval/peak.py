"""Peak activation memory of candidates, in closed form.

The operators of a network run in the order of its forward. A result is live from the operator that
computes it to the last one that reads it, an output of the network to the end, an input from the
start. Results in the same memory (views, in-place operators) are one. At operator t,

    live_t(w) = sum over what is live at t of bytes(w),      peak(w) = max over t of live_t(w),

and bytes(w), the size of a result, is a polynomial in the genes. Without a block its operators do
not run, and its output is its input; of a choice one alternative runs, whose output is that of the
choice. Images of another side are another run, with moments of its own.

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
from prunas.supernet.activations import Activations, Passage, activations
from prunas.supernet.conditions import ALWAYS, Condition, Held, both, implies, rest, simplified
from prunas.supernet.resolution import rows_by_side, sides_of
from prunas.supernet.space import Candidate, SearchSpace

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
        space: its search space.

    Raises:
        InputError: the network is not the traced one, or computes other intermediate results with
            a smaller kernel.
    """

    def __init__(self, network: nn.Module, space: SearchSpace) -> None:
        self.space = space
        self._at = {
            side: _Moments(activations(network, space, side), space) for side in sides_of(space)
        }

    def bytes(self, candidates: Sequence[Candidate] | ArrayLike) -> NDArray[np.int64]:
        """Peak of each candidate, shape (n,).

        Args:
            candidates: candidates of the space, or an integer array (n, genes) of chosen values.

        Raises:
            InputError: the rows do not have one value per gene.
        """
        table = table_of(self.space, candidates)
        result = np.zeros(len(table), dtype=np.int64)
        for side, rows in rows_by_side(self.space, table):
            for start in range(0, len(rows), _CHUNK):
                some = rows[start : start + _CHUNK]
                result[some] = self._at[side].peaks(table[some])
        return result


class _Moments:
    """What is live while each operator of one run runs, and what that takes."""

    def __init__(self, found: Activations, space: SearchSpace) -> None:
        self._sizes = Products(found.stored, found.conditions)
        self._moments = list(_telling(_Lives(found, space).moments()))
        self._shares = list(dict.fromkeys(s for moment in self._moments for s in moment.live))
        column = {share: index for index, share in enumerate(self._shares)}
        self._live = np.zeros((len(self._shares), len(self._moments)))
        for index, moment in enumerate(self._moments):
            self._live[[column[share] for share in moment.live], index] = 1

    def peaks(self, table: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) for chosen values (n, genes)."""
        held, stored = Held(table), self._sizes.values(table)
        shares = stored[:, [share.place for share in self._shares]]
        for column, share in enumerate(self._shares):
            if share.made or ALWAYS not in share.read:
                shares[:, column] *= held.all(share.made) & held.any(share.read)
        live = shares @ self._live
        for column, moment in enumerate(self._moments):
            if moment.runs:
                live[:, column] *= held.all(moment.runs)
        peaks: NDArray[np.int64] = np.rint(live.max(axis=1)).astype(np.int64)
        return peaks


def _telling(moments: Iterable[_Moment]) -> Iterator[_Moment]:
    """Those that are not plainly below the one before or after them."""
    held: _Moment | None = None
    for moment in moments:
        if held is None or (implies(held.runs, moment.runs) and held.live <= moment.live):
            held = moment
        elif not (implies(moment.runs, held.runs) and moment.live <= held.live):
            yield held
            held = moment
    if held is not None:
        yield held


class _Lives:
    """From when to when, and under which conditions, each memory is needed."""

    def __init__(self, found: Activations, space: SearchSpace) -> None:
        self.found = found
        self.choices = {number: gene.choices for number, gene in enumerate(space.genes)}
        self.end = len(found.steps)
        self.runs = [*(step.runs for step in found.steps), ALWAYS]  # and the outputs handed over
        self.made = dict.fromkeys(found.given, 0)
        self.read_at: dict[int, list[int]] = {place: [self.end] for place in found.returned}
        for index, step in enumerate(found.steps):
            for place in step.writes:
                if place not in step.reads:  # else it is there, or has been handed on
                    self.made.setdefault(place, index)
            for place in step.reads:
                self.read_at.setdefault(place, []).append(index)
        self.handed: dict[int, list[Passage]] = {}
        for passage in found.passages:
            self.handed.setdefault(passage.before, []).append(passage)
        self._readers: dict[int, list[tuple[int, Condition]]] = {}

    def moments(self) -> Iterator[_Moment]:
        """One for each operator, in order, and the end."""
        first: list[list[int]] = [[] for _ in range(self.end + 1)]
        for place, index in self.made.items():
            first[index].append(place)
        known: set[int] = set()
        for index, fresh in enumerate(first):
            known.update(fresh)
            known = {place for place in known if self._later(place, index)}
            shares = (self._share(place, index) for place in known)
            yield _Moment(self.runs[index], frozenset(s for s in shares if s is not None))

    def readers(self, place: int) -> list[tuple[int, Condition]]:
        """(operator, condition under which it reads that memory).

        What reads a block's output reads its input when the block is left out; what reads that of
        a choice reads that of the chosen alternative.
        """
        if place not in self._readers:
            found = [(index, self.runs[index]) for index in self.read_at.get(place, ())]
            for passage in self.handed.get(place, ()):
                for index, condition in self.readers(passage.after):
                    together = both(condition, passage.when)
                    if together is not None:
                        found.append((index, together))
            self._readers[place] = found
        return self._readers[place]

    def _later(self, place: int, index: int) -> list[Condition]:
        """Under which conditions memory is read from an operator on."""
        return [condition for at, condition in self.readers(place) if at >= index]

    def _share(self, place: int, index: int) -> _Share | None:
        """What is asked for memory to be live while an operator runs; None: it never is."""
        runs = self.runs[index]
        made = ALWAYS if place in self.found.given else self.runs[self.made[place]]
        sure, asked = both(made, runs), rest(made, runs)
        if sure is None or asked is None:
            return None
        later = (rest(condition, sure) for condition in self._later(place, index))
        read = simplified((c for c in later if c is not None), self.choices)
        return _Share(place, asked, read) if read else None
