"""Comparisons that would come out otherwise at other widths.

A forward that asks how long something is may do other things where it is shorter: leave a
projection out, add a shortcut. A cut network must compute what the full one does with fewer
channels, so the widths that such a question depends on stay as they are.
"""

import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from prunas.supernet.labels import Nodes
from prunas.supernet.layers import state_sizes
from prunas.supernet.lengths import Derived, Length, OwnedInt, plain
from prunas.supernet.recorder import Comparison
from prunas.supernet.scoped import Place, replaced
from prunas.supernet.skeleton import META
from prunas.supernet.space import Atoms, Attribute, Factors, SearchSpace, surviving

Kept = NDArray[np.bool_]

_SYMBOLS: Final[Mapping[Any, str]] = {
    operator.eq: "==",
    operator.ne: "!=",
    operator.lt: "<",
    operator.le: "<=",
    operator.gt: ">",
    operator.ge: ">=",
    operator.mod: "%",
    operator.floordiv: "//",
}
_SAMPLES: Final = 64  # a remainder that is not always the same is another in most candidates
_SEED: Final = 20190


def turned(
    comparisons: Iterable[Comparison],
    space: SearchSpace,
    bare: nn.Module,
    factors: Callable[[Nodes], Factors],
) -> tuple[int, str] | None:
    """A gene on which the answer to one of these depends, with the reason; None if there is none.

    Whether something is more than one, or there at all, does not count: code asks so to spare
    itself work that would change nothing.

    Args:
        comparisons: what the forward compared.
        space: the widths.
        bare: the network on the meta device.
        factors: atoms of a label array.
    """
    lengths = _Lengths(space, bare, factors)
    for comparison in comparisons:
        if _asks_for_presence(comparison):
            continue
        gene = lengths.decisive(comparison)
        if gene is not None:
            left, right = _written(comparison.left), _written(comparison.right)
            asked = f"{left} {_SYMBOLS[comparison.order]} {right}"
            return gene, f"the forward asks about its length ({asked}), and goes by the answer"
    return None


def _asks_for_presence(comparison: Comparison) -> bool:
    pairs = (comparison.left, comparison.right), (comparison.right, comparison.left)
    return any(
        not isinstance(one, Derived) and not _is_length(two) and two <= 1 for one, two in pairs
    )


def _is_length(number: float) -> bool:
    return isinstance(number, Length | OwnedInt | Derived)


def _written(number: float) -> str:
    if isinstance(number, Derived):
        return f"{plain(number.whole)} {_SYMBOLS[number.how]} {plain(number.divisor)}"
    return str(plain(number))


class _Lengths:
    """What the numbers of a forward are in the candidates of a space."""

    def __init__(
        self, space: SearchSpace, bare: nn.Module, factors: Callable[[Nodes], Factors]
    ) -> None:
        self.space = space
        self.bare = bare
        self.factors = factors
        self.full = space.full()
        self.attributes: dict[str, list[Attribute]] = defaultdict(list)
        for attribute in space.attributes:
            self.attributes[attribute.module].append(attribute)

    def decisive(self, comparison: Comparison) -> int | None:
        """A gene that the answer depends on: the widest one of the longer side."""
        left, right = comparison.left, comparison.right
        if self._made_of_the_same(left, right):
            return None
        genes = [self._genes(left), self._genes(right)]
        if not any(genes) or self._settled(comparison, sorted(genes[0] | genes[1])):
            return None
        longer = genes[0] if plain(left) >= plain(right) else genes[1]
        return max(longer or genes[0] | genes[1], key=lambda gene: self.space.widths[gene])

    def _made_of_the_same(self, left: float, right: float) -> bool:
        if not isinstance(left, Length) or not isinstance(right, Length):
            return False
        one, two = (np.stack(f) if (f := self.factors(n.nodes)) else None for n in (left, right))
        if one is None or two is None or one.shape != two.shape:
            return False
        return np.array_equal(_in_order(one), _in_order(two))

    def _settled(self, comparison: Comparison, genes: Sequence[int]) -> bool:
        """Whether the answer is the same whatever these genes are."""
        if len(genes) == 1:
            choices = self.space.genes[genes[0]].choices
            return len({self._answer(comparison, {genes[0]: value}) for value in choices}) == 1
        if isinstance(comparison.left, Derived) or isinstance(comparison.right, Derived):
            rng = np.random.default_rng(_SEED)
            drawn = self.space.sample(rng, _SAMPLES)
            answers = {self._answer(comparison, {g: row[g] for g in genes}) for row in drawn}
            return answers == {self._answer(comparison, {})}
        shortest = {gene: self.space.genes[gene].choices[0] for gene in genes}
        (low, high), (least, most) = (
            (self._value(number, shortest), self._value(number, {}))
            for number in (comparison.left, comparison.right)
        )
        if high < least or most < low:
            return True
        unequal = comparison.order not in (operator.eq, operator.ne)
        return unequal and comparison.order(low, most) == comparison.order(high, least)

    def _answer(self, comparison: Comparison, values: Mapping[int, int]) -> bool:
        left, right = (self._value(n, values) for n in (comparison.left, comparison.right))
        return comparison.order(left, right)

    def _genes(self, number: float) -> set[int]:
        """The genes that a number depends on."""
        if isinstance(number, Derived):
            return self._genes(number.whole) | self._genes(number.divisor)
        owner = self.space.gene_of_atom
        genes = {int(g) for f in self._atoms(number) for g in np.unique(owner[f]) if g >= 0}
        return {
            gene
            for gene in genes
            if self._value(number, {gene: self.space.genes[gene].choices[0]}) != plain(number)
        }

    def _atoms(self, number: float) -> Iterator[Atoms]:
        if isinstance(number, Length):
            yield from self.factors(number.nodes)
        elif isinstance(number, OwnedInt):
            for attribute in self.attributes[number.place.module]:
                yield from attribute.factors
            for _, dimensions in self._slots(number.place.module):
                for factors in dimensions.values():
                    yield from factors

    def _value(self, number: float, values: Mapping[int, int]) -> float:
        """A number where these genes have these values, and all others their full ones."""
        if isinstance(number, Derived):
            divisor = self._value(number.divisor, values)
            return number.how(self._value(number.whole, values), divisor) if divisor else 0
        kept = self.space.kept([values.get(gene, full) for gene, full in enumerate(self.full)])
        if isinstance(number, Length):
            return _length(len(number.nodes), self.factors(number.nodes), kept)
        if isinstance(number, OwnedInt):
            return self._stated(number.place, kept)
        return number

    def _stated(self, place: Place, kept: Kept) -> int:
        """What a layer says of itself once it is cut."""
        module = self.bare.get_submodule(place.module)
        layer = type(module).__new__(type(module))
        layer.__dict__.update(module.__dict__)
        for held in ("_parameters", "_buffers"):
            layer.__dict__[held] = dict(module.__dict__[held])
        for key, dimensions in self._slots(place.module):
            store: Any = layer._parameters if key in layer._parameters else layer._buffers
            whole = enumerate(store[key].shape)
            shape = [_length(size, dimensions.get(d, ()), kept) for d, size in whole]
            store[key] = torch.empty(shape, device=META)
        for a in self.attributes[place.module]:
            value = a.full * _length(0, a.factors, kept) // len(a.factors[0])
            layer.__dict__[a.name] = replaced(layer.__dict__[a.name], a.position, value)
        state_sizes([layer])
        found = layer.__dict__[place.name]
        return int(found if place.position is None else found[place.position])

    def _slots(self, path: str) -> Iterator[tuple[str, Mapping[int, Factors]]]:
        """(name in its module, what genes decide of it) of a module's own tensors."""
        module = self.bare.get_submodule(path)
        for key in (*module._parameters, *module._buffers):
            name = f"{path}.{key}" if path else key
            dimensions = self.space.slots.get(self.space.aliases.get(name, name))
            if dimensions is not None:
                yield key, dimensions


def _length(whole: int, factors: Factors, kept: Kept) -> int:
    return int(surviving(factors, kept).sum()) if factors else whole


def _in_order(table: Atoms) -> Atoms:
    """Columns as sets, in an order of their own."""
    table = np.sort(table, axis=0)
    return table[:, np.lexsort(table)]
