"""Many products of sizes at once, for many candidates."""

from collections.abc import Iterable, Sequence
from math import prod
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prunas.errors import InputError
from prunas.supernet.space import Candidate, SearchSpace, Size


class Product(Protocol):
    """constant * product of sizes, each a polynomial in the genes."""

    @property
    def constant(self) -> int: ...
    @property
    def sizes(self) -> tuple[Size, ...]: ...


class Products:
    """Values of k products for n candidates; sizes that are alike are computed once.

    Args:
        products: what to compute.
        conditions: (gene, value) pairs whose variables come after those of the genes; see `Size`.
    """

    def __init__(
        self, products: Iterable[Product], conditions: Sequence[tuple[int, int]] = ()
    ) -> None:
        self._conditions = tuple(conditions)
        place: dict[Size, int] = {}
        self._rows = [
            (row.constant, [place.setdefault(size, len(place)) for size in row.sizes])
            for row in products
        ]
        self._sizes = list(place)

    def values(self, table: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n, k) for chosen values (n, genes); whole numbers below 2**53 are exact."""
        wide = variables(table, self._conditions).astype(np.float64)
        lengths = [_length(size, wide) for size in self._sizes]
        result = np.empty((len(table), len(self._rows)))
        for column, (constant, places) in enumerate(self._rows):
            result[:, column] = constant
            for place in places:
                result[:, column] *= lengths[place]
        return result


def _length(size: Size, table: NDArray[np.float64]) -> NDArray[np.float64]:
    total = np.zeros(len(table))
    for coefficient, genes in size:
        total += coefficient * prod((table[:, gene] for gene in genes), start=np.float64(1))
    return total


def variables(table: NDArray[np.int64], conditions: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """(n, genes + conditions) what polynomials are in: the chosen values, and what holds."""
    if not conditions:
        return table
    genes, values = map(np.array, zip(*conditions, strict=True))
    return np.concatenate([table, table[:, genes] == values], axis=1)


def table_of(space: SearchSpace, candidates: Sequence[Candidate] | ArrayLike) -> NDArray[np.int64]:
    """Candidates as chosen values, shape (n, genes).

    Raises:
        InputError: the rows do not have one value per gene.
    """
    genes = len(space.genes)
    table = np.asarray(candidates, dtype=np.int64)
    if table.size == 0:
        return np.zeros((0, genes), dtype=np.int64)
    if table.ndim != 2 or table.shape[1] != genes:
        raise InputError(
            f"candidates of shape {table.shape} do not fit a space of {genes} genes; give a"
            " list of candidates or an array of shape (n, genes)"
        )
    return table
