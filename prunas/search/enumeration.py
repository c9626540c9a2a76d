"""All ways to choose, as arrays."""

import math
from collections.abc import Sequence

import numpy as np

from prunas.search.costs import Values
from prunas.supernet.space import SearchSpace


def product(choices: Sequence[Sequence[int]]) -> Values:
    """(ways, genes) one choice of every gene in all ways, the last gene fastest.

    Without a limit on the number of genes, which numpy's grids have.
    """
    ways = math.prod(map(len, choices))
    left = np.arange(ways)
    result = np.empty((ways, len(choices)), dtype=np.int64)
    for gene in reversed(range(len(choices))):
        left, place = np.divmod(left, len(choices[gene]))
        result[:, gene] = np.asarray(choices[gene], dtype=np.int64)[place]
    return result


def enumerated(space: SearchSpace) -> Values:
    """(size, genes) all candidates, the last gene fastest."""
    return product([gene.choices for gene in space.genes])
