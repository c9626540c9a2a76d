"""DEAP's operators on candidates, with the caller's generator in charge.

DEAP draws from Python's global `random`. Inside `deap_random` that generator is seeded from the
caller's; afterwards it is put back as it was found.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from deap import tools
from numpy.typing import NDArray

from prunas.search.prior import Prior
from prunas.supernet.space import Candidate, SearchSpace

_MOST_ODDS = 0.5  # a gene that changes more often than not would forget its parent


@contextmanager
def deap_random(rng: np.random.Generator) -> Iterator[None]:
    """Let `rng` decide what DEAP draws, and leave the global `random` as found.

    Not for two threads at once: the global generator is borrowed.
    """
    found = random.getstate()
    random.seed(int(rng.integers(2**63)))
    try:
        yield
    finally:
        random.setstate(found)


def mutation_odds(space: SearchSpace, prior: Prior | None, rate: float) -> NDArray[np.float64]:
    """(genes,) probability that a mutation changes each gene.

    Without a prior it is `rate` for all, or 1 / genes where that is more, so that a mutant of a
    small network differs too. With a prior half of it is shared out by what the choices of a gene
    differ in worth: a gene whose width matters is tried more often, none is frozen.
    """
    genes = len(space.genes)
    even = max(rate, 1 / genes)
    if prior is None:
        return np.full(genes, even)
    stakes = np.array(
        [
            worth[gene.choices[-1]] - worth[gene.choices[0]]
            for gene, worth in zip(space.genes, prior.values, strict=True)
        ]
    )
    mean = stakes.mean()
    odds: NDArray[np.float64] = even * (1 + stakes / mean) / 2 if mean > 0 else np.full(genes, even)
    return np.minimum(odds, _MOST_ODDS)


def mutants(
    space: SearchSpace,
    parents: Sequence[Candidate],
    odds: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    least_shift: int = 1,
) -> list[Candidate]:
    """Each parent with every gene changed, with its odds, to one of its other choices at random.

    MetaPruning's mutation: a cyclic shift of the choice by U{1 .. choices - 1}. Equal odds for
    all other choices, the present one excluded.

    Args:
        space: the candidates.
        parents: one for each mutant.
        odds: (genes,) or (parents, genes) probability of a change.
        rng: decides.
        least_shift: 0 lets a gene draw its present choice again, as in Single Path One-Shot.
    """
    most = [max(len(gene.choices) - 1, least_shift) for gene in space.genes]
    with deap_random(rng):
        none = [0] * len(most)
        drawn = [
            tools.mutUniformInt(none[:], low=least_shift, up=most, indpb=1.0)[0] for _ in parents
        ]
    changed = rng.random((len(parents), len(most))) < odds
    shifts = np.where(changed, np.reshape(drawn, changed.shape), 0).tolist()
    return [_shifted(space, *row) for row in zip(parents, shifts, strict=True)]


def _shifted(space: SearchSpace, parent: Candidate, shifts: Sequence[int]) -> Candidate:
    return Candidate(
        gene.choices[(gene.choices.index(value) + shift) % len(gene.choices)] if shift else value
        for gene, value, shift in zip(space.genes, parent, shifts, strict=True)
    )


def crossovers(parents: Sequence[Candidate], n: int, rng: np.random.Generator) -> list[Candidate]:
    """`n` children of two different parents each, every gene from either, as likely."""
    pairs = [rng.choice(len(parents), 2, replace=False) for _ in range(n)]
    return crossed([(parents[left], parents[right]) for left, right in pairs], rng)


def crossed(
    pairs: Iterable[tuple[Candidate, Candidate]], rng: np.random.Generator
) -> list[Candidate]:
    """A child of each pair, every gene from one of the two, either as likely."""
    with deap_random(rng):
        children = [tools.cxUniform(list(a), list(b), indpb=0.5)[0] for a, b in pairs]
    return [Candidate(child) for child in children]
