"""Strict fairness: every choice of every gene runs equally often."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil, lcm
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from prunas.supernet.schedules.schedule import Step
from prunas.supernet.space import Candidate, SearchSpace

_MOST: Final = 12  # 2, 3, 4, 6 and 12 choices divide it; its paths take as long as 12 steps of one
_STREAM: Final = 6  # of a run's seed: 1 other paths, 2 images, 3 the search, 4 dropout, 5 ranking

Places = NDArray[np.int64]


@final
@dataclass(frozen=True, eq=False)
class Fair:
    """A step runs as many paths as genes have choices, each choice of a gene in one of them.

    Chu, Zhang and Xu, "FairNAS", ICCV 2021, algorithm 1: for each gene a random permutation of its
    m choices, path j takes the j-th of each, the m gradients are added, then the weights change.
    All learn from the labels.

    There all genes have m choices. Here a gene of k choices goes through one random permutation of
    them after another, path by path and step by step, so that **after every k paths each of its
    choices has run equally often, exactly**. A step has as many paths as the least common multiple
    of the numbers of choices, 12 at most: genes whose number divides it are strictly fair within
    every step, the others over a few steps. Where operators, kernels or blocks are searched,
    widths, of which a layer offers 16 or more, do not make steps longer.

    A choice runs where its gene is at work: what is inside an alternative, or a block, that the
    path does without is chosen and not trained.

    Attributes:
        space: the candidates.
        paths: a step has this many at least; rounded up to whole multiples.
        seed: decides the permutations. They outlast a step, so they are not drawn from its `rng`.
    """

    space: SearchSpace
    paths: int = 1
    seed: int = 0

    @cached_property
    def per_step(self) -> int:
        """How many paths a step runs."""
        every = [len(gene.choices) for gene in self.space.genes]
        narrow = [len(gene.choices) for gene in self.space.genes if gene.kind != "width"]
        whole = min(lcm(*(narrow or every)), _MOST)
        return whole * ceil(self.paths / whole)

    def step(self, number: int, steps: int, rng: np.random.Generator) -> Step:
        first = number * self.per_step
        values = np.empty((self.per_step, len(self.space.genes)), dtype=np.int64)
        for count, genes in self._of_equal_counts.items():
            places = self._places(count, len(genes), first)
            for gene, column in zip(genes, places.T, strict=True):
                values[:, gene] = np.array(self.space.genes[gene].choices)[column]
        return Step(tuple(Candidate(row) for row in values.tolist()))

    @cached_property
    def _of_equal_counts(self) -> Mapping[int, list[int]]:
        """Number of choices -> the genes that have it."""
        found: dict[int, list[int]] = {}
        for index, gene in enumerate(self.space.genes):
            found.setdefault(len(gene.choices), []).append(index)
        return found

    def _places(self, count: int, genes: int, first: int) -> Places:
        """(paths, genes) places of `genes` genes of `count` choices, from path `first` on."""
        blocks = range(first // count, (first + self.per_step - 1) // count + 1)
        rows = np.concatenate([self._permutations(count, genes, block) for block in blocks])
        start = first - blocks[0] * count
        return np.asarray(rows[start : start + self.per_step])

    def _permutations(self, count: int, genes: int, block: int) -> Places:
        """(count, genes) one random permutation for each gene."""
        rng = np.random.default_rng([self.seed, _STREAM, count, block])
        return np.asarray(rng.permuted(np.tile(np.arange(count)[:, None], genes), axis=0))
