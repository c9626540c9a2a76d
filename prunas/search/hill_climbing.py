"""Hill climbing: mutants of the best candidate so far.

The control of evolution: the same mutation, repair and first candidates, but no population and no
crossover. What evolution gains over it is what these two are worth. It needs no restarts: no
candidate is asked twice, so at a local optimum the mutants reach ever further out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prunas.given_numbers import refuse_outside
from prunas.search.budget import Feasible, as_candidates, as_values
from prunas.search.genetics import mutants, mutation_odds
from prunas.search.method import (
    Scored,
    State,
    allocated,
    allocation,
    begin_informed,
    propose,
    told,
)
from prunas.search.prior import Prior
from prunas.search.randomly import window
from prunas.search.uniform import uniform_candidates
from prunas.supernet.space import Candidate, SearchSpace


@dataclass(frozen=True)
class HillClimbing:
    """Ask for mutants of the best, from the prior's allocation or the uniform network on.

    Attributes:
        rate: mean probability that a mutation changes a gene.

    Raises:
        InputError: a setting that no search can be made with.
    """

    rate: float = 0.1

    def __post_init__(self) -> None:
        refuse_outside("[0, 1]", "hill climbing", rate=self.rate)

    def start(
        self, space: SearchSpace, budget: Feasible, prior: Prior | None, rng: np.random.Generator
    ) -> State:
        return begin_informed(budget, prior, rng)

    def ask(self, state: State, n: int) -> tuple[State, list[Candidate]]:
        feasible = state.feasible
        odds = mutation_odds(feasible.space, state.prior, self.rate)
        foot = [] if state.told else uniform_candidates(feasible)[:1]

        def draw(rng: np.random.Generator, n: int) -> list[Candidate]:
            children = mutants(feasible.space, [summit(state)] * n, odds, rng)
            return as_candidates(feasible.repair(as_values(foot + children), rng))

        return propose(state, n, allocated(state), draw, feasible.sample, window(feasible))

    def tell(self, state: State, scored: Sequence[Scored]) -> State:
        return told(state, scored)


def summit(state: State) -> Candidate:
    """The best candidate so far, the earliest of equals; at first what a search starts from."""
    if state.told:
        return max(state.told, key=lambda scored: scored.score).candidate
    return (allocation(state) or uniform_candidates(state.feasible))[0]
