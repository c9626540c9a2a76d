"""What an operator costs at one place of a network, in closed form, as exact integers.

    operator        weights                   multiply-accumulates
    conv k          C D k^2                   C D k^2 P
    conv pair k     C D k + D^2 k             C D k Q + D^2 k P
    sep k           C k^2 + C^2 + C k^2 + C D the same times P
    dil k           C k^2 + C D               the same times P
    pool k          0, or C D                 the same times P
    skip            0, or C D                 the same times P
    null            0                         0

with C channels in, D channels out, P positions of the output, and Q positions between the two
convolutions of a pair (the first one halves the columns alone). Pools cost C D where widths differ,
skips where widths differ or the stride is above 1: both then hold a 1 x 1 convolution.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from prunas.errors import InputError
from prunas.given_numbers import is_whole
from prunas.transformer_nat.operators import OPERATORS, POOLS, Kind, operator


@dataclass(frozen=True)
class Place:
    """Where an operator is: what comes in, and what has to come out.

    Attributes:
        in_channels: channels of the input.
        out_channels: channels of the output.
        height: rows of the input.
        width: columns of the input.
        stride: by how much both shrink.
    """

    in_channels: int
    out_channels: int
    height: int
    width: int
    stride: int = 1

    def __post_init__(self) -> None:
        sizes = (self.in_channels, self.out_channels, self.height, self.width, self.stride)
        if not all(map(is_whole, sizes)):
            raise InputError(f"{self} has a size that is no whole number; give whole numbers")
        if min(sizes) < 1:
            raise InputError(f"{self} has a size below 1; channels, sizes and strides are counts")

    @property
    def out_size(self) -> tuple[int, int]:
        """Rows and columns of the output, rounded up."""
        return -(-self.height // self.stride), -(-self.width // self.stride)

    @property
    def keeps_shape(self) -> bool:
        """Whether the input itself could be the output."""
        return self.stride == 1 and self.in_channels == self.out_channels


@dataclass(frozen=True)
class OperatorCost:
    """Counts that add up over edges.

    Attributes:
        macs: multiply-accumulates of convolutions (and linear layers), as everywhere in prunas.
        weights: their weights.
        norms: scales and shifts of the norms behind them.
        touched: what NAT counts besides: k^2 values for each value that a k x k pool makes, one
            for each value that an identity passes on.
    """

    macs: int = 0
    weights: int = 0
    norms: int = 0
    touched: int = 0

    @property
    def params(self) -> int:
        """Parameters: weights and norms."""
        return self.weights + self.norms

    @property
    def published_macs(self) -> int:
        """What the papers of NAT call multiply-adds: pools and identities count too."""
        return self.macs + self.touched

    def __add__(self, other: "OperatorCost") -> "OperatorCost":
        return OperatorCost(
            self.macs + other.macs,
            self.weights + other.weights,
            self.norms + other.norms,
            self.touched + other.touched,
        )

    def exceeds(self, other: "OperatorCost") -> bool:
        """Whether any count, published multiply-adds included, is above the other's."""
        return (
            self.params > other.params
            or self.macs > other.macs
            or self.published_macs > other.published_macs
        )


FREE: Final = OperatorCost()


def operator_cost(name: str, place: Place) -> OperatorCost:
    """The cost of the operator of that name at a place, for one image.

    Raises:
        InputError: there is no such operator, or it is one of traced networks, whose costs are
            those of the layers in it: see `Edge.prices`.
    """
    found = operator(name)
    if name not in OPERATORS:
        raise InputError(
            f"what {name} costs depends on the network that it was traced in; ask its edge"
        )
    rule = _RULES[found.kind]
    return rule(found.kernel, place)


def convolution_cost(weights: int, positions: int, norms: int) -> OperatorCost:
    """One convolution (or several of as many positions), and so many scales and shifts behind."""
    return OperatorCost(macs=weights * positions, weights=weights, norms=norms)


def _positions(place: Place) -> int:
    height, width = place.out_size
    return height * width


def _convolution(k: int, place: Place) -> OperatorCost:
    C, D = place.in_channels, place.out_channels
    return convolution_cost(C * D * k * k, _positions(place), 2 * D)


def _pair(k: int, place: Place) -> OperatorCost:
    C, D = place.in_channels, place.out_channels
    between = place.height * place.out_size[1]
    first = convolution_cost(C * D * k, between, 0)
    return first + convolution_cost(D * D * k, _positions(place), 2 * D)


def _separable(k: int, place: Place) -> OperatorCost:
    C, D = place.in_channels, place.out_channels
    weights = C * k * k + C * C + C * k * k + C * D
    return convolution_cost(weights, _positions(place), 2 * C + 2 * D)


def _dilated(k: int, place: Place) -> OperatorCost:
    C, D = place.in_channels, place.out_channels
    return convolution_cost(C * k * k + C * D, _positions(place), 2 * D)


def _pool(k: int, place: Place) -> OperatorCost:
    pooled = OperatorCost(touched=k * k * place.in_channels * _positions(place))
    same_width = place.in_channels == place.out_channels
    return pooled if same_width else pooled + _convolution(1, place)


def _skip(k: int, place: Place) -> OperatorCost:
    if place.keeps_shape:
        return OperatorCost(touched=place.in_channels * _positions(place))
    return _convolution(1, place)


def _null(k: int, place: Place) -> OperatorCost:
    return FREE


_RULES: Final[Mapping[Kind, Callable[[int, Place], OperatorCost]]] = {
    Kind.CONVOLUTION: _convolution,
    Kind.PAIR: _pair,
    Kind.SEPARABLE: _separable,
    Kind.DILATED: _dilated,
    **dict.fromkeys(POOLS, _pool),
    Kind.SKIP: _skip,
    Kind.NULL: _null,
}
