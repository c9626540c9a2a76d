"""DEAP's operators on candidates, with the caller's generator in charge.

DEAP draws from Python's global `random`. Inside `deap_random` that generator is seeded from the
caller's; afterwards it is put back as it was found.
"""

import random
from collections.abc import Iterator
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


def mutant(
    space: SearchSpace, parent: Candidate, odds: NDArray[np.float64], rng: np.random.Generator
) -> Candidate:
    """`parent` with each gene changed, with its odds, to one of its other choices at random.

    MetaPruning's mutation: a cyclic shift of the choice by U{1 .. choices - 1}. Equal odds for
    all other choices, the present one excluded.
    """
    counts = [len(gene.choices) for gene in space.genes]
    with deap_random(rng):
        most = [max(count - 1, 1) for count in counts]
        (shifts,) = tools.mutUniformInt([0] * len(counts), low=1, up=most, indpb=1.0)
    changed = rng.random(len(counts)) < odds
    rows = zip(space.genes, parent, shifts, changed, strict=True)
    return Candidate(
        gene.choices[(gene.choices.index(value) + shift) % len(gene.choices)] if change else value
        for gene, value, shift, change in rows
    )


def crossover(left: Candidate, right: Candidate, rng: np.random.Generator) -> Candidate:
    """Each gene from one of the two parents, either as likely."""
    with deap_random(rng):
        child, _ = tools.cxUniform(list(left), list(right), indpb=0.5)
    return Candidate(child)
