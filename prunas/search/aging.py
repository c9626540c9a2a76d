"""Aging (regularised) evolution: the oldest dies, however good it is.

Real et al., "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019; sizes as
for the widths of NATS-Bench (Dong et al., TPAMI 2021): a population of 10, tournaments of 3, and
one gene drawn anew in a child.

What differs here. Children outside the budget are repaired; a batch has one population for all its
children (ask for one at a time to have it as published). With a prior, its allocation is among the
first candidates and genes whose width matters more are drawn more often.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from deap import tools

from prunas.given_numbers import refuse_below
from prunas.search.budget import Feasible, as_candidates, as_values
from prunas.search.genetics import deap_random, mutants, mutation_odds
from prunas.search.method import Scored, State, allocated, begin_informed, propose, told
from prunas.search.prior import Prior
from prunas.search.randomly import window
from prunas.supernet.space import Candidate, SearchSpace


@dataclass(frozen=True)
class AgingEvolution:
    """Ask for children that differ in one gene from the winners among the youngest.

    Attributes:
        population: how many of the last candidates told are alive; as many are asked before the
            first children.
        tournament: how many of them, drawn with replacement, compete for one child.

    Raises:
        InputError: a setting that no search can be made with.
    """

    population: int = 10
    tournament: int = 3

    def __post_init__(self) -> None:
        refuse_below(1, "aging evolution", population=self.population, tournament=self.tournament)

    def start(
        self, space: SearchSpace, budget: Feasible, prior: Prior | None, rng: np.random.Generator
    ) -> State:
        return begin_informed(budget, prior, rng)

    def ask(self, state: State, n: int) -> tuple[State, list[Candidate]]:
        feasible = state.feasible
        grown = len(state.asked) >= self.population and len(state.told) > 0

        def draw(rng: np.random.Generator, n: int) -> list[Candidate]:
            return self._children(state, rng, n) if grown else feasible.sample(rng, n)

        return propose(state, n, allocated(state), draw, feasible.sample, window(feasible))

    def tell(self, state: State, scored: Sequence[Scored]) -> State:
        return told(state, scored)

    def _children(self, state: State, rng: np.random.Generator, n: int) -> list[Candidate]:
        feasible = state.feasible
        alive = state.told[-self.population :]
        with deap_random(rng):
            winners = tools.selTournament(alive, n, self.tournament, fit_attr="score")
        odds = mutation_odds(feasible.space, state.prior, 0.0)
        genes = rng.choice(len(odds), size=n, p=odds / odds.sum())
        one = np.eye(len(odds))[genes]  # (n, genes): only the drawn gene of a child changes
        children = mutants(feasible.space, [w.candidate for w in winners], one, rng)
        return as_candidates(feasible.repair(as_values(children), rng))
