"""Which networks of a space to measure, so that the rest can be predicted from them."""

from functools import partial

import numpy as np

from prunas.errors import InputError
from prunas.supernet.space import Candidate, Gene, SearchSpace


def designed(space: SearchSpace, n: int, rng: np.random.Generator) -> list[Candidate]:
    """The full network and `n - 1` others, from nearly the smallest to nearly the full one.

    Independent choices for every gene give networks that all cost about the same (sums of many
    terms), which says little about small or large ones. So each network has a level, one from
    each of n equal parts of [0, 1], and a looseness drawn from [0, 1]: a width, a kernel and a
    resolution take the choice at the place level + looseness * u, with u uniform in [-1, 1], and a
    block is kept with probability (1 + level) / 2.

    Alternatives are in no order of size. Each network has one from each of n equal parts of [0, 1]
    as its taste: of k alternatives, the one at the place floor(k * taste) is taken with probability
    1 - looseness, and else any; so is a gate. So every alternative is taken equally often, in
    networks with much of it and with little.

    Raises:
        InputError: n is not positive.
    """
    if n < 1:
        raise InputError(f"a design of {n} networks measures nothing; ask for 1 or more")
    levels, tastes = _evenly(n - 1, rng), _evenly(n - 1, rng)
    return [space.full(), *map(partial(_drawn, space, rng), levels, tastes)]


def _evenly(n: int, rng: np.random.Generator) -> list[float]:
    """One number from each of n equal parts of [0, 1], in random order."""
    numbers: list[float] = rng.permutation((np.arange(n) + rng.random(n)) / max(1, n)).tolist()
    return numbers


def _drawn(space: SearchSpace, rng: np.random.Generator, level: float, taste: float) -> Candidate:
    looseness = rng.random()

    def chosen(gene: Gene) -> int:
        many = len(gene.choices)
        if gene.kind == "depth":
            return int(rng.random() < (1 + level) / 2)
        if gene.kind == "operator":
            place = rng.random() if rng.random() < looseness else taste
            return gene.choices[int(many * place)]
        place = np.clip(level + looseness * rng.uniform(-1, 1), 0, 1)
        return gene.choices[round(float(place) * (many - 1))]

    return Candidate(map(chosen, space.genes))
