"""Random search: independent candidates of the window."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prunas.search.budget import Feasible, as_candidates
from prunas.search.method import Draw, Scored, State, begin, propose, told
from prunas.search.prior import Prior
from prunas.supernet.space import Candidate, SearchSpace


@dataclass(frozen=True)
class Randomly:
    """Ask for random candidates on the budget; the prior is not used.

    The control of every other search: same budget, same number of evaluations, no learning.
    """

    def start(
        self, space: SearchSpace, budget: Feasible, prior: Prior | None, rng: np.random.Generator
    ) -> State:
        return begin(budget, prior, rng)

    def ask(self, state: State, n: int) -> tuple[State, list[Candidate]]:
        return propose(state, n, state.feasible.sample, window(state.feasible))

    def tell(self, state: State, scored: Sequence[Scored]) -> State:
        return told(state, scored)


def window(feasible: Feasible) -> Draw:
    """All candidates of the window in random order, if the space is small: the last resort."""

    def draw(rng: np.random.Generator, n: int) -> list[Candidate]:
        return as_candidates(rng.permutation(feasible.window()))

    return draw
