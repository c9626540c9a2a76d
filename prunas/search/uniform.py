"""The baseline that every search has to beat: the same share of every gene."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from prunas.search.budget import Feasible, as_candidates, as_values
from prunas.search.method import Scored, State, begin, propose, told
from prunas.search.prior import Prior
from prunas.supernet.space import Candidate, Gene, SearchSpace


@dataclass(frozen=True)
class Uniform:
    """Ask for the uniform-width candidates inside the limits, the largest first."""

    def start(
        self, space: SearchSpace, budget: Feasible, prior: Prior | None, rng: np.random.Generator
    ) -> State:
        return begin(budget, prior, rng)

    def ask(self, state: State, n: int) -> tuple[State, list[Candidate]]:
        candidates = uniform_candidates(state.feasible)
        return propose(state, n, lambda rng, missing: candidates)

    def tell(self, state: State, scored: Sequence[Scored]) -> State:
        return told(state, scored)


def uniform_candidates(feasible: Feasible) -> list[Candidate]:
    """All distinct `space.uniform(ratio)` inside the limits, the largest first.

    A gene changes its choice where the ratio passes halfway between two of them, so these
    ratios, and 0 for the smallest widths, give every uniform candidate there is. The smallest
    candidate, without blocks, ends the list: where nothing else fits, it is what is left.
    """
    space = feasible.space
    halfway = [np.array(_halfway(gene)) for gene in space.genes]
    ratios = np.unique(np.concatenate([[0.0], *halfway]))[::-1]
    columns = [
        np.array(gene.choices)[np.searchsorted(between, ratios, side="right")]
        for gene, between in zip(space.genes, halfway, strict=True)
    ]
    rows = as_values([*as_candidates(np.stack(columns, axis=1)), feasible.cheapest])
    return list(dict.fromkeys(as_candidates(rows[feasible.contains(rows)])))


def _halfway(gene: Gene) -> list[float]:
    """Ratios at which a gene takes its next choice; blocks and kernels are whole at any."""
    if gene.kind != "width":
        return [-1.0] * (len(gene.choices) - 1)
    return [(a + b) / (2 * gene.choices[-1]) for a, b in pairwise(gene.choices)]
