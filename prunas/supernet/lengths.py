"""Integers that know what they are the length of.

During a trace the integers that modules keep, and those that `tensor.shape` gives, are of these
types. Arithmetic that networks do with sizes (a width divided by a number of heads, a batch times
it) keeps the connection; what other arithmetic gives is plain, and follows by itself.
"""

import operator
import sys
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Self

from torch import Tensor

from prunas.supernet.labels import Nodes
from prunas.supernet.scoped import Place

Compared = Callable[[float, "Order", float, str], None]
"""Told of one number, how it is compared, the other, and the Python module that asks."""
Order = Callable[[float, float], bool]
"""How two integers are compared, as the module `operator` has it."""
Arithmetic = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Told:
    """Who is told what becomes of integers with an owner.

    Attributes:
        enters: one of them enters the result as a number.
        compared: the code asks how one of them compares with another number.
    """

    enters: Callable[[int], None]
    compared: Compared


class _Watched(int):
    """An integer with an owner, which tells what becomes of it.

    Other widths may turn a comparison round; and what is divided by a number of channels differs
    from what is divided by the number of those that are not zero.
    """

    told: Told

    def __deepcopy__(self, memo: dict[int, Any]) -> int:
        return int(self)

    def __eq__(self, other: object) -> bool:
        return self._answer(operator.eq, other)

    def __ne__(self, other: object) -> bool:
        return self._answer(operator.ne, other)

    def __lt__(self, other: object) -> bool:
        return self._answer(operator.lt, other)

    def __le__(self, other: object) -> bool:
        return self._answer(operator.le, other)

    def __gt__(self, other: object) -> bool:
        return self._answer(operator.gt, other)

    def __ge__(self, other: object) -> bool:
        return self._answer(operator.ge, other)

    def __bool__(self) -> bool:
        return self._answer(operator.ne, 0)

    __hash__ = int.__hash__

    def __mod__(self, other: Any) -> Any:
        return _derived(operator.mod, self, other)

    def __float__(self) -> float:
        self.told.enters(self)
        return float(int(self))

    def __truediv__(self, other: Any) -> Any:
        return NotImplemented if isinstance(other, Tensor) else float(self) / other

    def __rtruediv__(self, other: Any) -> Any:
        return other / float(self)

    def __pow__(self, other: Any, modulus: Any = None) -> Any:
        self.told.enters(self)
        return int(self) ** other

    def __array_ufunc__(self, function: Any, method: str, *inputs: Any, **options: Any) -> Any:
        self.told.enters(self)  # numpy's functions look at the number alone
        numbers = (int(n) if isinstance(n, _Watched) else n for n in inputs)
        return getattr(function, method)(*numbers, **options)

    def _answer(self, order: Order, other: Any) -> bool:
        if not isinstance(other, int | float):
            return order(int(self), other)
        asking = sys._getframe(2).f_globals.get("__name__", "")
        self.told.compared(self, order, other, asking)
        return order(int(self), plain(other))


def plain(number: float) -> float:
    """A number whose comparisons nobody is told of."""
    return int(number) if isinstance(number, int) else number


class Derived(_Watched):
    """What a division of an integer with an owner gave, its quotient or its remainder."""

    how: Arithmetic
    whole: int
    divisor: int

    def __new__(cls, how: Arithmetic, whole: _Watched, divisor: int) -> Self:
        self = super().__new__(cls, how(int(whole), int(divisor)))
        self.how, self.whole, self.divisor, self.told = how, whole, divisor, whole.told
        return self


def _derived(how: Arithmetic, whole: _Watched, divisor: Any) -> Any:
    return Derived(how, whole, divisor) if isinstance(divisor, int) else how(int(whole), divisor)


class OwnedInt(_Watched):
    """An integer that knows which module keeps it."""

    place: Place

    def __new__(cls, value: int, place: Place, told: Told) -> Self:
        self = super().__new__(cls, value)
        self.place, self.told = place, told
        return self

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, Tensor):
            return NotImplemented  # which sees that a number enters
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
        if isinstance(other, Tensor):
            return NotImplemented
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


class Length(_Watched):
    """The length of a tracked dimension, as `tensor.shape` gave it."""

    nodes: Nodes

    def __new__(cls, nodes: Nodes, told: Told) -> Self:
        self = super().__new__(cls, len(nodes))
        self.nodes, self.told = nodes, told
        return self

    def __floordiv__(self, other: Any) -> Any:
        if isinstance(other, OwnedInt):
            return Share(int(self) // int(other), self, other)
        return _derived(operator.floordiv, self, other)

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, Tensor):
            return NotImplemented
        product = int(self) * other
        return Multiple(product, self, other) if isinstance(other, OwnedInt) else product


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
