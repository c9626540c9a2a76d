"""Which networks of a space to measure, so that the rest can be predicted from them."""

import numpy as np

from prunas.errors import InputError
from prunas.supernet.space import Candidate, Gene, SearchSpace


def designed(space: SearchSpace, n: int, rng: np.random.Generator) -> list[Candidate]:
    """The full network and `n - 1` others, from nearly the smallest to nearly the full one.

    Independent choices for every gene give networks that all cost about the same (sums of many
    terms), which says little about small or large ones. So each network has a level, one from
    each of n equal parts of [0, 1], and a looseness drawn from [0, 1]: a width takes the choice at
    the place level + looseness * u, with u uniform in [-1, 1], and a block is kept with
    probability (1 + level) / 2.

    Raises:
        InputError: n is not positive.
    """
    if n < 1:
        raise InputError(f"a design of {n} networks measures nothing; ask for 1 or more")
    levels = rng.permutation((np.arange(n - 1) + rng.random(n - 1)) / max(1, n - 1))
    return [space.full(), *(_drawn(space, level, rng) for level in levels.tolist())]


def _drawn(space: SearchSpace, level: float, rng: np.random.Generator) -> Candidate:
    looseness = rng.random()
    return Candidate(_choice(gene, level, looseness, rng) for gene in space.genes)


def _choice(gene: Gene, level: float, looseness: float, rng: np.random.Generator) -> int:
    if gene.kind == "depth":
        return int(rng.random() < (1 + level) / 2)
    place = np.clip(level + looseness * rng.uniform(-1, 1), 0, 1)
    return gene.choices[round(float(place) * (len(gene.choices) - 1))]
