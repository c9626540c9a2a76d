"""NSGA-II: the whole front of score against multiply-accumulates in one run.

Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", IEEE Transactions on
Evolutionary Computation 6(2), 2002. Selection by non-dominated sorting and crowding distance is
DEAP's; the population is selected from every candidate scored so far.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from deap import base, tools

from prunas.given_numbers import refuse_below
from prunas.search.budget import Feasible, as_candidates, as_values
from prunas.search.costs import Costs
from prunas.search.genetics import crossed, deap_random, mutants, mutation_odds
from prunas.search.method import Scored, State, allocated, begin_informed, propose, told
from prunas.search.prior import Prior
from prunas.search.uniform import uniform_candidates
from prunas.supernet.space import Candidate, SearchSpace

_Fitness: Any = type("_Fitness", (base.Fitness,), {"weights": (1.0, -1.0)})
"""DEAP's fitness: most score, least multiply-accumulates."""


@dataclass(frozen=True, eq=False)
class _Individual:
    scored: Scored
    fitness: Any


@dataclass(frozen=True)
class Nsga2:
    """Multi-objective evolution below the limits; candidates have any cost.

    Attributes:
        population: how many candidates are asked before the first children, and how many of all
            scored ones are selected to have children; at least 4, which tournaments take at once.

    Raises:
        InputError: a setting that no search can be made with.
    """

    population: int = 50

    def __post_init__(self) -> None:
        refuse_below(4, "NSGA-II", population=self.population)

    def start(
        self, space: SearchSpace, budget: Feasible, prior: Prior | None, rng: np.random.Generator
    ) -> State:
        return begin_informed(budget, prior, rng)

    def ask(self, state: State, n: int) -> tuple[State, list[Candidate]]:
        feasible = state.feasible
        breed = self._founders if len(state.asked) < self.population else self._children

        def draw(rng: np.random.Generator, missing: int) -> list[Candidate]:
            return breed(state, rng, missing)

        def rest(rng: np.random.Generator, missing: int) -> list[Candidate]:
            return as_candidates(rng.permutation(feasible.listed()))

        return propose(state, n, allocated(state), draw, feasible.front_sample, rest)

    def tell(self, state: State, scored: Sequence[Scored]) -> State:
        return told(state, scored)

    def _founders(self, state: State, rng: np.random.Generator, n: int) -> list[Candidate]:
        """Uniform networks of all sizes, and random candidates."""
        feasible = state.feasible
        uniform = uniform_candidates(feasible)
        anchors = uniform[:: math.ceil(4 * len(uniform) / self.population)]
        return anchors + feasible.front_sample(rng, n)

    def _children(self, state: State, rng: np.random.Generator, n: int) -> list[Candidate]:
        feasible = state.feasible
        known = _individuals(state.told, feasible.cost)
        if len(known) < 4:  # DEAP's tournament takes individuals by fours
            return feasible.front_sample(rng, n)
        pool = tools.selNSGA2(known, self.population, nd="log")
        odds = mutation_odds(feasible.space, state.prior, 0.0)
        parents = _tournaments(pool, 2 * n, rng)
        children = crossed(zip(parents[::2], parents[1::2], strict=True), rng)
        changed = mutants(feasible.space, children, odds, rng)
        return as_candidates(feasible.reduce(as_values(changed), rng))


def front(scored: Iterable[Scored], cost: Costs) -> list[Scored]:
    """The candidates that no other one beats in both score and MACs, by ascending MACs."""
    individuals = _individuals(scored, cost)
    if not individuals:
        return []
    first = tools.sortNondominated(individuals, len(individuals), first_front_only=True)[0]
    return [each.scored for each in sorted(first, key=lambda each: each.fitness.values[1])]


def _individuals(scored: Iterable[Scored], cost: Costs) -> list[_Individual]:
    """Those with a finite score: crowding distances have no meaning for the others."""
    finite = [entry for entry in scored if math.isfinite(entry.score)]
    if not finite:
        return []
    macs = cost.macs(as_values([entry.candidate for entry in finite])).tolist()
    return [_Individual(s, _Fitness((s.score, m))) for s, m in zip(finite, macs, strict=True)]


def _tournaments(pool: Sequence[_Individual], n: int, rng: np.random.Generator) -> list[Candidate]:
    """`n` winners of binary tournaments by dominance, then by crowding distance."""
    size = len(pool) // 4 * 4
    with deap_random(rng):
        rounds = [tools.selTournamentDCD(pool, size) for _ in range(math.ceil(n / size))]
    winners = [each.scored.candidate for winners in rounds for each in winners]
    return winners[:n]
