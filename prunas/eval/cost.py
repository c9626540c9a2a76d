"""What candidates cost, in closed form.

Multiply-accumulates of a contraction are a constant times the lengths of its dimensions, and each
length is a polynomial in the genes (a block's gene, 0 or 1, is a factor of all that runs in it), so
the cost of a network is one polynomial

    cost(w) = x^T Q x,   x = (1, w_1, ..., w_G, products of genes that occur together),

compiled once and evaluated for a whole population as one matrix product. Counted are contractions
only: convolutions, linears, attention products; one multiply-accumulate is one MAC (half of what
`torch.utils.flop_counter` counts). Normalisation, activation, pooling and bias are not counted.
"""

from collections.abc import Iterable, Sequence
from math import prod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prunas.errors import InputError
from prunas.eval.products import table_of
from prunas.supernet.space import Candidate, SearchSpace, Size, present, size_polynomial

Polynomial = dict[tuple[int, ...], int]
"""{genes multiplied, ascending, with repetition: coefficient}"""

_CHUNK = 16_384  # rows whose features stay in the cache
_EXACT = 2**53  # integers up to here are exact in float64


class Cost:
    """Multiply-accumulates and parameters of candidates, exact as integers.

    Args:
        space: the space whose candidates are priced.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self._macs = _Compiled(macs_polynomial(space), space.full())
        self._params = _Compiled(params_polynomial(space), space.full())

    def macs(self, candidates: Sequence[Candidate] | ArrayLike) -> NDArray[np.int64]:
        """Multiply-accumulates of one image, shape (n,).

        Args:
            candidates: candidates of the space, or an integer array (n, genes) of chosen values.

        Raises:
            InputError: the rows do not have one value per gene.
        """
        return self._macs.values(table_of(self.space, candidates))

    def params(self, candidates: Sequence[Candidate] | ArrayLike) -> NDArray[np.int64]:
        """Number of parameters (tied ones once, buffers not), shape (n,)."""
        return self._params.values(table_of(self.space, candidates))


def macs_polynomial(space: SearchSpace) -> Polynomial:
    """Multiply-accumulates of one image as a polynomial in the genes."""
    return _sum(_product(c.constant, c.sizes) for c in space.contractions)


def params_polynomial(space: SearchSpace) -> Polynomial:
    """Number of parameters as a polynomial in the genes."""
    return _sum(_product(*_tensor_sizes(space, name)) for name in space.parameters)


def _tensor_sizes(space: SearchSpace, name: str) -> tuple[int, list[Size]]:
    shape, slots = space.shapes[name], space.slots.get(name, {})
    constant = prod(length for dimension, length in enumerate(shape) if dimension not in slots)
    sizes = [size_polynomial(f, space.gene_of_atom, space.widths) for f in slots.values()]
    owners = [present(gene) for gene, block in space.blocks.items() if block.holds(name)]
    return constant, sizes + owners


def _product(constant: int, sizes: Iterable[Size]) -> Polynomial:
    result: Polynomial = {(): constant}
    for size in sizes:
        expanded: Polynomial = {}
        for genes, coefficient in result.items():
            for factor, more in size:
                key = tuple(sorted(genes + more))
                expanded[key] = expanded.get(key, 0) + coefficient * factor
        result = expanded
    return result


def _sum(polynomials: Iterable[Polynomial]) -> Polynomial:
    total: Polynomial = {}
    for polynomial in polynomials:
        for genes, coefficient in polynomial.items():
            total[genes] = total.get(genes, 0) + coefficient
    return total


class _Compiled:
    """A polynomial as x^T Q x over features x: 1, the genes, and the products that occur."""

    def __init__(self, polynomial: Polynomial, full: Candidate) -> None:
        if sum(c * prod(full[g] for g in genes) for genes, c in polynomial.items()) >= _EXACT:
            raise InputError("the network costs 2**53 or more; integers that large are not exact")
        columns: dict[tuple[int, ...], int] = {(): 0}
        for gene in range(len(full)):
            columns[(gene,)] = gene + 1
        pairs = {genes: _halves(genes) for genes in polynomial}
        for left, right in pairs.values():
            columns.setdefault(left, len(columns))
            columns.setdefault(right, len(columns))
        self._products = [genes for genes in columns if len(genes) > 1]
        self._matrix = np.zeros((len(columns), len(columns)))
        for genes, coefficient in polynomial.items():
            left, right = pairs[genes]
            self._matrix[columns[left], columns[right]] += coefficient

    def values(self, table: NDArray[np.int64]) -> NDArray[np.int64]:
        result = np.empty(len(table), dtype=np.int64)
        for start in range(0, len(table), _CHUNK):
            features = self._features(table[start : start + _CHUNK])
            partial = features @ self._matrix
            partial *= features
            # sums of integers below 2**53: exact, so rounding only undoes the representation
            result[start : start + _CHUNK] = np.rint(partial.sum(axis=1))
        return result

    def _features(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        features = np.empty((len(rows), self._matrix.shape[0]))
        features[:, 0] = 1
        features[:, 1 : 1 + rows.shape[1]] = rows
        for offset, genes in enumerate(self._products, start=1 + rows.shape[1]):
            features[:, offset] = rows[:, list(genes)].prod(axis=1)
        return features


def _halves(genes: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    middle = (len(genes) + 1) // 2
    return genes[:middle], genes[middle:]
