"""A search method of one's own, against those of prunas, on a table where every score is known.

A method is three pure functions over an explicit state; budgets, archives, resuming and workers are
the loop's. This one cools down: a new candidate is a mutant of one of the best so far, of fewer and
fewer of them.

Run: python examples/own_search.py [SEEDS]
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prunas.search.budget import Budget, Feasible, as_candidates, as_values
from prunas.search.genetics import mutants, mutation_odds
from prunas.search.method import Scored, Search, State, begin, propose, told
from prunas.search.methods import SEARCHES
from prunas.search.prior import Prior
from prunas.search.table import Table, read_table
from prunas.supernet.space import Candidate, SearchSpace

EVALUATIONS, BATCH = 200, 10


@dataclass(frozen=True)
class Cooling:
    """Mutants of the best candidates: of half of those known at first, of one in the end."""

    rate: float = 0.1

    def start(
        self, space: SearchSpace, budget: Feasible, prior: Prior | None, rng: np.random.Generator
    ) -> State:
        return begin(budget, prior, rng)

    def ask(self, state: State, n: int) -> tuple[State, list[Candidate]]:
        feasible = state.feasible
        if len(state.told) < 2 * BATCH:
            return propose(state, n, feasible.sample)
        share = max(0.0, 0.5 - len(state.told) / (2 * EVALUATIONS))
        ranked = sorted(state.told, key=lambda entry: -entry.score)
        parents = [entry.candidate for entry in ranked[: 1 + int(share * len(ranked))]]
        odds = mutation_odds(feasible.space, state.prior, self.rate)

        def draw(rng: np.random.Generator, count: int) -> list[Candidate]:
            chosen = [parents[place] for place in rng.integers(len(parents), size=count)]
            children = mutants(feasible.space, chosen, odds, rng)
            return as_candidates(feasible.repair(as_values(children), rng))

        return propose(state, n, draw, feasible.sample)

    def tell(self, state: State, scored: Sequence[Scored]) -> State:
        return told(state, scored)


def best_test_score(method: Search, table: Table, feasible: Feasible, seed: int) -> float:
    """What the search's choice scores on images that the search has not seen."""
    state = method.start(table.space, feasible, None, np.random.default_rng(seed))
    for _ in range(EVALUATIONS // BATCH):
        state, asked = method.ask(state, BATCH)
        scores = table.scores(asked, seed % table.seeds)
        state = method.tell(state, [Scored(*pair) for pair in zip(asked, scores, strict=True)])
    best = max(state.told, key=lambda entry: entry.score).candidate
    return float(table.test_scores([best], seed % table.seeds)[0])


def main(seeds: int) -> None:
    table = read_table("mobilenetv2-digits")
    feasible = Feasible(table.space, Budget.parse("macs=30%"), table.costs)
    methods: dict[str, Search] = {"cooling": Cooling()}
    methods |= {name: SEARCHES[name] for name in ("random", "evolution", "regression")}
    for name, method in methods.items():
        found = [best_test_score(method, table, feasible, seed) for seed in range(seeds)]
        print(f"{name:<12}{np.mean(found):.4f} ± {np.std(found):.4f}, {seeds} seeds")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4)
