"""Many products of sizes at once, for many candidates."""

from collections.abc import Iterable, Sequence
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
    """Values of k products for n candidates, in as many steps as the longest product has factors.

    Sizes that are alike are computed once. Every term of a size has as many variables as the
    longest one, and every product as many sizes: what is missing is 1.

    Args:
        products: what to compute.
        conditions: (gene, value) pairs whose variables come after those of the genes; see `Size`.
    """

    def __init__(
        self, products: Iterable[Product], conditions: Sequence[tuple[int, int]] = ()
    ) -> None:
        self._conditions = tuple(conditions)
        place: dict[Size, int] = {}
        given = list(products)
        rows = [[place.setdefault(size, len(place)) for size in row.sizes] for row in given]
        self._constants = np.array([row.constant for row in given], dtype=np.float64)
        terms = [(at, *term) for size, at in place.items() for term in size]
        self._variables = _padded([variables for _, _, variables in terms], -1)
        self._sizes = np.zeros((len(terms), len(place) + 1))
        for row, (at, coefficient, _) in enumerate(terms):
            self._sizes[row, at] = coefficient
        self._rows = _padded(rows, len(place))

    def values(self, table: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n, k) for chosen values (n, genes); whole numbers below 2**53 are exact."""
        wide = variables(table, self._conditions).astype(np.float64)
        wide = np.concatenate([wide, np.ones((len(wide), 1))], axis=1)
        lengths = _multiplied(wide, self._variables) @ self._sizes
        lengths[:, -1] = 1
        return self._constants * _multiplied(lengths, self._rows)


def _padded(rows: Sequence[Sequence[int]], filler: int) -> NDArray[np.intp]:
    """(longest, rows): a column for each row, filled up; one entry at least."""
    longest = max([1, *map(len, rows)])
    filled = [[*row, *[filler] * (longest - len(row))] for row in rows]
    return np.array(filled, dtype=np.intp).reshape(len(rows), longest).T


def _multiplied(table: NDArray[np.float64], places: NDArray[np.intp]) -> NDArray[np.float64]:
    """(n, columns) the product of the entries at each column of places."""
    first, *others = places
    result = table[:, first]
    for place in others:
        result *= table[:, place]
    return result


def variables(table: NDArray[np.int64], conditions: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """(n, genes + conditions) what polynomials are in: the chosen values, and what holds."""
    if not conditions:
        return table
    genes, values = map(np.array, zip(*conditions, strict=True))
    return np.concatenate([table, table[:, genes] == values], axis=1)


def table_of(space: SearchSpace, candidates: Sequence[Candidate] | ArrayLike) -> NDArray[np.int64]:
    """Candidates as chosen values, shape (n, genes).

    Arrays of integers, which searches price by the thousand, are taken as they are; in lists every
    value is looked at.

    Raises:
        InputError: the rows do not have one whole number per gene, or one that no choice reaches.
    """
    genes = len(space.genes)
    listed = not isinstance(candidates, np.ndarray)
    table = _integers(candidates)
    if table.size == 0:
        return np.zeros((0, genes), dtype=np.int64)
    if table.ndim != 2 or table.shape[1] != genes:
        raise InputError(
            f"candidates of shape {table.shape} do not fit a space of {genes} genes; give a"
            " list of candidates or an array of shape (n, genes)"
        )
    if listed:
        _require_reached(space, table)
    return table


def _integers(candidates: Sequence[Candidate] | ArrayLike) -> NDArray[np.int64]:
    try:
        table = np.asarray(candidates)
    except (ValueError, OverflowError):
        raise InputError("candidates have one value per gene, and these differ in length") from None
    if table.size and table.dtype.kind not in "iu":
        first = next((each for each in table.flat if not isinstance(each, int)), table.flat[0])
        raise InputError(f"candidates hold whole numbers, and {first!r} is none of 64 bits")
    return table.astype(np.int64, copy=False)


def _require_reached(space: SearchSpace, table: NDArray[np.int64]) -> None:
    least = np.array([gene.choices[0] for gene in space.genes])
    most = np.array([gene.choices[-1] for gene in space.genes])
    rows, genes = np.nonzero((table < least) | (table > most))
    if len(rows) > 0:
        gene = space.genes[genes[0]]
        raise InputError(
            f"{table[rows[0], genes[0]]} is not a choice of gene {gene.name!r}; choose one of"
            f" {gene.choices}"
        )
