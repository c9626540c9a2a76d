"""Greedy removal: replace one operator at a time, always the one that hurts least.

A control without randomness. From the source on, every network that differs in the operator of one
edge is scored, and the best of them is next if it scores higher, or equal at lower cost. Where none
does the search is over: it asks for nothing more.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from prunas.supernet.space import Candidate
from prunas.transformer_nat.method import Scored, State, begin, rank, told
from prunas.transformer_nat.transformation import TransformationSpace


@dataclass(frozen=True)
class GreedyRemoval:
    """Ask for what is one replacement away from the best so far."""

    def start(self, space: TransformationSpace, rng: np.random.Generator) -> State:
        return begin(space, rng)

    def ask(self, state: State, n: int) -> tuple[State, list[Candidate]]:
        known = set(state.asked)
        asked = [each for each in _around(state) if each not in known][: max(0, n)]
        return replace(state, asked=state.asked + tuple(asked)), asked

    def tell(self, state: State, scored: Sequence[Scored]) -> State:
        return told(state, scored)


def _around(state: State) -> list[Candidate]:
    """What has to be scored before the next step: the source first, then all neighbours."""
    space = state.space
    scores = {entry.candidate: entry for entry in state.told}
    best = space.source
    while best in scores:
        neighbours = list(_neighbours(space, best))
        if any(each not in scores for each in neighbours):
            return neighbours
        found = max((scores[each] for each in [best, *neighbours]), key=lambda e: rank(space, e))
        if found.candidate == best or not math.isfinite(found.score):
            return []
        best = found.candidate
    return [best]


def _neighbours(space: TransformationSpace, candidate: Candidate) -> Iterator[Candidate]:
    for edge, names in enumerate(space.options):
        for position in range(len(names)):
            neighbour = Candidate((*candidate[:edge], position, *candidate[edge + 1 :]))
            if position != candidate[edge] and space.connected(neighbour):
                yield neighbour
