"""The evolution of MetaPruning and of Single Path One-Shot, as they were published.

Liu et al., "MetaPruning: Meta Learning for Automatic Neural Network Channel Pruning", ICCV 2019,
and Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV
2020: 50 random candidates, then generations of 25 mutants and 25 crossovers, whose parents are
the ten best of all time; random candidates make up for those that cannot be found in ten rounds.
The two differ in the mutation: MetaPruning's moves a gene to another choice, Single Path
One-Shot's draws among all of them.

What differs here. Children outside the budget are repaired, not rejected: rejection stalls at
tight budgets. A generation ends when its scores are told, so that any number can be asked at
once. With a prior, its allocation is the first candidate; nothing else uses the prior. `Evolution`
is the same idea with better founders, parents as new as can be, and mutation that never idles.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from deap import tools

from prunas.given_numbers import refuse_below, refuse_outside
from prunas.search.budget import Feasible, as_candidates, as_values
from prunas.search.genetics import crossovers, mutants
from prunas.search.method import Draw, Scored, State, allocated, begin_informed, propose, told
from prunas.search.prior import Prior
from prunas.search.randomly import window
from prunas.supernet.space import Candidate, SearchSpace


@dataclass(frozen=True)
class PublishedEvolution:
    """Evolution in generations, half mutants and half crossovers of the best of all time.

    Attributes:
        generation: how many candidates have the same parents; the first ones are random.
        parents: how many of the best of all time have children.
        rate: probability that a mutation moves a gene.
        least_shift: 1 if a move always changes the choice, 0 if it may draw the present one.

    Raises:
        InputError: a setting that no search can be made with.
    """

    generation: int = 50
    parents: int = 10
    rate: float = 0.1
    least_shift: int = 1

    def __post_init__(self) -> None:
        refuse_below(1, "the evolution", generation=self.generation)
        refuse_below(2, "the evolution", parents=self.parents)
        refuse_outside("[0, 1]", "the evolution", rate=self.rate)
        refuse_below(0, "the evolution", least_shift=self.least_shift)

    def start(
        self, space: SearchSpace, budget: Feasible, prior: Prior | None, rng: np.random.Generator
    ) -> State:
        return begin_informed(budget, prior, rng)

    def ask(self, state: State, n: int) -> tuple[State, list[Candidate]]:
        asked: list[Candidate] = []
        while len(asked) < n:
            state, more = self._ask_alike(state, n - len(asked))
            if not more:
                break
            asked += more
        return state, asked

    def tell(self, state: State, scored: Sequence[Scored]) -> State:
        return told(state, scored)

    def parents_of(self, state: State) -> list[Candidate]:
        """The parents of the present generation; none in the first one."""
        past = len(state.told) // self.generation * self.generation
        best = tools.selBest(state.told[:past], self.parents, fit_attr="score")
        return [scored.candidate for scored in best]

    def _ask_alike(self, state: State, n: int) -> tuple[State, list[Candidate]]:
        """Up to `n` candidates that are founders, or mutants, or crossovers."""
        feasible, parents = state.feasible, self.parents_of(state)
        place, half = len(state.asked) % self.generation, self.generation // 2

        def mutate(rng: np.random.Generator, n: int) -> list[Candidate]:
            mothers = [parents[index] for index in rng.integers(len(parents), size=n)]
            odds = np.full(len(feasible.space.genes), self.rate)
            return mutants(feasible.space, mothers, odds, rng, least_shift=self.least_shift)

        def cross(rng: np.random.Generator, n: int) -> list[Candidate]:
            return crossovers(parents, n, rng)

        draw: Draw = feasible.sample
        if len(parents) >= 2:
            draw = _repaired(feasible, mutate if place < half else cross)
            n = min(n, (half if place < half else self.generation) - place)
        return propose(state, n, allocated(state), draw, feasible.sample, window(feasible))


def _repaired(feasible: Feasible, breed: Draw) -> Draw:
    return lambda rng, n: as_candidates(feasible.repair(as_values(list(breed(rng, n))), rng))


METAPRUNING: Final = PublishedEvolution()
SPOS: Final = PublishedEvolution(least_shift=0)
