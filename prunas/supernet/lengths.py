"""Integers that know what they are the length of.

During a trace the integers that modules keep, and those that `tensor.shape` gives, are of these
types. Arithmetic that networks do with sizes (a width divided by a number of heads, a batch times
it) keeps the connection; what other arithmetic gives is plain, and follows by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Self

from prunas.supernet.labels import Nodes
from prunas.supernet.scoped import Place


class OwnedInt(int):
    """An integer that knows which module keeps it."""

    place: Place

    def __new__(cls, value: int, place: Place) -> Self:
        self = super().__new__(cls, value)
        self.place = place
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> int:
        return int(self)

    def __eq__(self, other: object) -> bool:
        return other == int(self) if not isinstance(other, Length) else other == self

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = int.__hash__

    def __mul__(self, other: Any) -> Any:
        product = int(self) * other
        if isinstance(other, Length):
            return Multiple(product, other, self)
        return _scaled(product, self, other)

    def __rmul__(self, other: Any) -> Any:
        return _scaled(other * int(self), self, other)

    def __floordiv__(self, other: Any) -> Any:
        share = int(self) // other
        if isinstance(other, OwnedInt):
            return Ratio(share, self, other)
        return _scaled(share, self, other)

    def __sub__(self, other: Any) -> Any:
        rest = int(self) - other
        return Rest(rest, self) if isinstance(other, OwnedInt) else rest


class Scaled(int):
    """An integer of a module times a number, or divided by one."""

    owned: OwnedInt

    def __new__(cls, value: int, owned: OwnedInt) -> Self:
        self = super().__new__(cls, value)
        self.owned = owned
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> int:
        return int(self)


class Ratio(Scaled):
    """An integer of a module divided by another one, such as its groups."""

    divisor: OwnedInt

    def __new__(cls, value: int, owned: OwnedInt, divisor: OwnedInt) -> Self:
        self = super().__new__(cls, value, owned)
        self.divisor = divisor
        return self


class Rest(Scaled):
    """What is left of an integer of a module when another one is taken away (a split)."""


def _scaled(value: Any, owned: OwnedInt, other: Any) -> Any:
    return Scaled(value, owned) if type(other) is int and type(value) is int else value


@dataclass(frozen=True)
class Told:
    """Who is told what becomes of a length.

    Attributes:
        same: the integer of a module was found to be the length of a dimension.
        enters: the length enters the result as a number.
    """

    same: Callable[[OwnedInt, Nodes], None]
    enters: Callable[[Nodes], None]


class Length(int):
    """The length of a tracked dimension, as `tensor.shape` gave it."""

    nodes: Nodes
    told: Told

    def __new__(cls, nodes: Nodes, told: Told) -> Self:
        self = super().__new__(cls, len(nodes))
        self.nodes, self.told = nodes, told
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> int:
        return int(self)

    def __eq__(self, other: object) -> bool:
        equal = int(self) == other if not isinstance(other, OwnedInt) else int(self) == int(other)
        if equal and isinstance(other, OwnedInt):
            self.told.same(other, self.nodes)
        return equal

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = int.__hash__

    def __floordiv__(self, other: Any) -> int:
        whole: int = int(self) // other
        return Share(whole, self, other) if isinstance(other, OwnedInt) else whole

    def __mul__(self, other: Any) -> Any:
        product = int(self) * other
        return Multiple(product, self, other) if isinstance(other, OwnedInt) else product

    def __float__(self) -> float:
        self.told.enters(self.nodes)
        return float(int(self))

    def __truediv__(self, other: Any) -> Any:
        return float(self) / other

    def __rtruediv__(self, other: Any) -> Any:
        return other / float(self)

    def __pow__(self, other: Any, modulus: Any = None) -> Any:
        self.told.enters(self.nodes)
        return int(self) ** other


class _Computed(int):
    """What a length and an integer of a module gave."""

    length: Length
    owned: OwnedInt

    def __new__(cls, value: int, length: Length, owned: OwnedInt) -> Self:
        self = super().__new__(cls, value)
        self.length, self.owned = length, owned
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> int:
        return int(self)


class Share(_Computed):
    """A length divided by an integer of a module (a width by heads or groups)."""


class Multiple(_Computed):
    """A length times an integer of a module (a batch times heads)."""


class Shape(tuple[int, ...]):
    """In the place of a `torch.Size`, which makes plain integers of all that it is given."""

    __slots__ = ()

    def numel(self) -> int:
        return prod(self)
