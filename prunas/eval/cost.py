"""What candidates cost, in closed form.

Multiply-accumulates of a contraction are a constant times the lengths of its dimensions, and each
length is a polynomial in the genes (a block's gene, 0 or 1, is a factor of all that runs in it;
what is done at one resolution only has a factor that is 1 there and 0 elsewhere), so the cost of a
network is one polynomial

    cost(w) = x^T Q x,   x = (1, w_1, ..., w_G, conditions, products that occur together),

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
from prunas.eval.products import variables as variables
from prunas.supernet.space import Candidate, SearchSpace, Size, present, size_polynomial

Polynomial = dict[tuple[int, ...], int]
"""{variables multiplied, ascending, with repetition: coefficient}; see `Size`"""

_CHUNK = 16_384  # rows whose features stay in the cache
_EXACT = 2**53  # integers up to here are exact in float64


class Cost:
    """Multiply-accumulates and parameters of candidates, exact as integers.

    Args:
        space: the space whose candidates are priced.

    Raises:
        InputError: it is no space, or the network costs more than can be counted.
    """

    def __init__(self, space: SearchSpace) -> None:
        if not isinstance(space, SearchSpace):
            raise InputError(f"candidates of {space!r} have no cost; give what prunas.trace gives")
        self.space = space
        self._macs = _Compiled(macs_polynomial(space), space)
        self._params = _Compiled(params_polynomial(space), space)

    def macs(self, candidates: Sequence[Candidate] | ArrayLike) -> NDArray[np.int64]:
        """Multiply-accumulates of one image, shape (n,).

        Args:
            candidates: candidates of the space, or an integer array (n, genes) of chosen values.

        Raises:
            InputError: the rows do not have one value per gene.
        """
        return self._macs.values(table_of(self.space, candidates))

    def params(self, candidates: Sequence[Candidate] | ArrayLike) -> NDArray[np.int64]:
        """Number of parameters (tied ones once, buffers not), shape (n,).

        Raises:
            InputError: the rows do not have one value per gene.
        """
        return self._params.values(table_of(self.space, candidates))


def macs_polynomial(space: SearchSpace) -> Polynomial:
    """Multiply-accumulates of one image as a polynomial in the space's variables."""
    return _sum(_product(c.constant, c.sizes) for c in space.contractions)


def params_polynomial(space: SearchSpace) -> Polynomial:
    """Number of parameters as a polynomial in the genes."""
    return _sum(_product(*_tensor_sizes(space, name)) for name in space.parameters)


def _tensor_sizes(space: SearchSpace, name: str) -> tuple[int, list[Size]]:
    shape, slots = space.shapes[name], space.slots.get(name, {})
    constant = prod(length for dimension, length in enumerate(shape) if dimension not in slots)
    sizes = [size_polynomial(f, space.gene_of_atom, space.widths) for f in slots.values()]
    owners = [present(gene) for gene, block in space.blocks.items() if block.holds(name)]
    for gene, choice in space.alternatives.items():
        number = choice.holder(name)
        if number is not None:
            owners.append(present(len(space.genes) + space.conditions.index((gene, number))))
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

    def __init__(self, polynomial: Polynomial, space: SearchSpace) -> None:
        self._tests = [(gene, value) for gene, value in space.conditions]
        full = variables(np.array([space.full()], dtype=np.int64), self._tests)[0].tolist()
        if sum(c * prod(full[v] for v in term) for term, c in polynomial.items()) >= _EXACT:
            raise InputError("the network costs 2**53 or more; integers that large are not exact")
        columns: dict[tuple[int, ...], int] = {(): 0}
        for variable in range(len(full)):
            columns[(variable,)] = variable + 1
        pairs = {term: _halves(term) for term in polynomial}
        for left, right in pairs.values():
            columns.setdefault(left, len(columns))
            columns.setdefault(right, len(columns))
        self._products = [term for term in columns if len(term) > 1]
        self._matrix = np.zeros((len(columns), len(columns)))
        for term, coefficient in polynomial.items():
            left, right = pairs[term]
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

    def _features(self, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        rows = variables(chosen, self._tests)
        features = np.empty((len(rows), self._matrix.shape[0]))
        features[:, 0] = 1
        features[:, 1 : 1 + rows.shape[1]] = rows
        for offset, term in enumerate(self._products, start=1 + rows.shape[1]):
            features[:, offset] = rows[:, list(term)].prod(axis=1)
        return features


def _halves(term: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    middle = (len(term) + 1) // 2
    return term[:middle], term[middle:]
