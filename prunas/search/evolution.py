"""Evolution of candidates, as in MetaPruning and Single Path One-Shot.

Liu et al., "MetaPruning: Meta Learning for Automatic Neural Network Channel Pruning", ICCV 2019,
and Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV
2020: 50 candidates a generation, parents are the ten best of all time, half of the children are
mutants and half crossovers, random candidates fill up.

What differs here. Children outside the budget are repaired, not rejected: rejection stalls at
tight budgets. A generation is whatever is asked at once, so small batches use their scores
sooner. The first generation holds the uniform network and, with a prior, its best allocation,
mutants of it and shapes between the two; genes whose width matters more then mutate more often.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from deap import tools

from prunas.given_numbers import refuse_below, refuse_outside
from prunas.search.budget import Feasible, as_candidates, as_values
from prunas.search.genetics import crossovers, mutants, mutation_odds
from prunas.search.method import (
    Scored,
    State,
    allocated,
    allocation,
    begin_informed,
    propose,
    told,
)
from prunas.search.prior import Prior, leaning
from prunas.search.randomly import window
from prunas.search.uniform import uniform_candidates
from prunas.supernet.space import Candidate, SearchSpace


@dataclass(frozen=True)
class Evolution:
    """Evolutionary search for the best score on the budget.

    Attributes:
        population: how many candidates are asked before the first children.
        parents: how many of the best of all time have children.
        rate: mean probability that a mutation changes a gene.

    Raises:
        InputError: a setting that no search can be made with.
    """

    population: int = 50
    parents: int = 10
    rate: float = 0.1

    def __post_init__(self) -> None:
        refuse_below(1, "evolution", population=self.population)
        refuse_below(2, "evolution", parents=self.parents)
        refuse_outside("[0, 1]", "evolution", rate=self.rate)

    def start(
        self, space: SearchSpace, budget: Feasible, prior: Prior | None, rng: np.random.Generator
    ) -> State:
        return begin_informed(budget, prior, rng)

    def ask(self, state: State, n: int) -> tuple[State, list[Candidate]]:
        feasible = state.feasible
        breed = self.founders if len(state.asked) < self.population else self.children

        def draw(rng: np.random.Generator, missing: int) -> list[Candidate]:
            return as_candidates(feasible.repair(as_values(breed(state, rng, missing)), rng))

        return propose(state, n, allocated(state), draw, feasible.sample, window(feasible))

    def tell(self, state: State, scored: Sequence[Scored]) -> State:
        return told(state, scored)

    def founders(self, state: State, rng: np.random.Generator, n: int) -> list[Candidate]:
        feasible = state.feasible
        uniform = uniform_candidates(feasible)[:1]
        best = allocation(state)
        if not best:
            return [*uniform, *feasible.sample(rng, n)]
        near = self._mutants(state, best * (n // 2), rng)
        shapes = leaning(feasible.space, best[0], rng.random(n - len(near)))
        between = feasible.sample(rng, n - len(near), weights=shapes)
        return [*uniform, *near, *between]

    def children(self, state: State, rng: np.random.Generator, n: int) -> list[Candidate]:
        best = tools.selBest(state.told, self.parents, fit_attr="score")
        parents = [scored.candidate for scored in best]
        if len(parents) < 2:
            return state.feasible.sample(rng, n)
        mutations = (n + int(rng.integers(2))) // 2  # half of them, in the mean, for odd n too
        mothers = [parents[index] for index in rng.integers(len(parents), size=mutations)]
        children = self._mutants(state, mothers, rng)
        return children + crossovers(parents, n - mutations, rng)

    def _mutants(
        self, state: State, parents: Sequence[Candidate], rng: np.random.Generator
    ) -> list[Candidate]:
        space = state.feasible.space
        odds = mutation_odds(space, state.prior, self.rate)
        return mutants(space, parents, odds, rng)
