"""The operators as modules: what `operator_cost` counts, built.

As in the code of DARTS: convolutions have no bias, a ReLU before and a batch norm behind. Pools
have no norm (they have one in the search network of DARTS alone).
"""

from collections.abc import Callable, Mapping
from typing import Final, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunas.errors import InputError
from prunas.transformer_nat.operator_cost import Place
from prunas.transformer_nat.operators import OPERATORS, Kind, operator


def operator_module(name: str, place: Place) -> nn.Module:
    """The operator of that name for a place; its weights come from torch's global generator.

    Raises:
        InputError: there is no such operator, or it is one of traced networks.
    """
    found = operator(name)
    if name not in OPERATORS:
        raise InputError(f"{name} is built from a layer of a traced network: see substitutes")
    return _BUILT[found.kind](found.kernel, place)


def pointwise(in_channels: int, out_channels: int, stride: int = 1) -> nn.Module:
    """ReLU, 1 x 1 convolution, norm."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def adapted(place: Place) -> nn.Module:
    """What brings a map to another shape by one 1 x 1 convolution's worth of weights."""
    if place.stride == 2 and place.out_channels > 1:
        return FactorisedReduce(place.in_channels, place.out_channels)
    return pointwise(place.in_channels, place.out_channels, place.stride)


@final
class FactorisedReduce(nn.Module):
    """Half the map by two 1 x 1 convolutions, one of them a pixel further, then a norm.

    Maps with an odd number of rows or columns get zeros before the first one, as in NAT.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.even = nn.Conv2d(in_channels, half, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(in_channels, out_channels - half, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, maps: Tensor) -> Tensor:
        rows, columns = maps.shape[-2:]
        maps = F.pad(F.relu(maps), (columns % 2, 0, rows % 2, 0))
        halves = [self.even(maps), self.odd(maps[:, :, 1:, 1:])]
        joined: Tensor = self.norm(torch.cat(halves, dim=1))
        return joined


@final
class Zero(nn.Module):
    """Zeros of the shape that the place asks for."""

    def __init__(self, out_channels: int, stride: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.stride = stride

    def forward(self, maps: Tensor) -> Tensor:
        rows, columns = (-(-size // self.stride) for size in maps.shape[-2:])
        return maps.new_zeros(len(maps), self.out_channels, rows, columns)


@final
class DropPath(nn.Module):
    """For each image, zeros with probability p, else its map divided by 1 - p.

    Larsson et al., "FractalNet", ICLR 2017, as in DARTS: p grows over the training. Does nothing
    until `CellNetwork.dropping` says what p is, and nothing in evaluation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.probability = 0.0
        self.generator: torch.Generator | None = None

    def forward(self, maps: Tensor) -> Tensor:
        if not self.training or not self.probability:
            return maps
        kept = maps.new_full((len(maps), 1, 1, 1), 1 - self.probability)
        return maps * torch.bernoulli(kept, generator=self.generator) / kept


def _convolution(k: int, place: Place) -> nn.Module:
    C, D, stride = place.in_channels, place.out_channels, place.stride
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(C, D, k, stride=stride, padding=k // 2, bias=False),
        nn.BatchNorm2d(D),
    )


def _pair(k: int, place: Place) -> nn.Module:
    C, D, stride, padding = place.in_channels, place.out_channels, place.stride, k // 2
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(C, D, (1, k), stride=(1, stride), padding=(0, padding), bias=False),
        nn.Conv2d(D, D, (k, 1), stride=(stride, 1), padding=(padding, 0), bias=False),
        nn.BatchNorm2d(D),
    )


def _depthwise(k: int, place: Place, dilation: int = 1) -> nn.Sequential:
    """ReLU, depthwise k x k, 1 x 1, norm."""
    C, D, padding = place.in_channels, place.out_channels, dilation * (k // 2)
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(C, C, k, place.stride, padding, dilation, groups=C, bias=False),
        nn.Conv2d(C, D, 1, bias=False),
        nn.BatchNorm2d(D),
    )


def _separable(k: int, place: Place) -> nn.Module:
    C = place.in_channels
    first = Place(C, C, place.height, place.width, place.stride)
    second = Place(C, place.out_channels, *place.out_size)
    return nn.Sequential(*_depthwise(k, first), *_depthwise(k, second))


def _dilated(k: int, place: Place) -> nn.Module:
    return _depthwise(k, place, dilation=2)


def _max_pool(k: int, place: Place) -> nn.Module:
    pool = nn.MaxPool2d(k, stride=place.stride, padding=(k - 1) // 2, ceil_mode=k % 2 == 0)
    return _fitted(pool, k, place)


def _average_pool(k: int, place: Place) -> nn.Module:
    pool = nn.AvgPool2d(k, place.stride, (k - 1) // 2, k % 2 == 0, count_include_pad=False)
    return _fitted(pool, k, place)


def _fitted(pool: nn.Module, k: int, place: Place) -> nn.Module:
    if k % 2 == 0 and place.stride == 1:  # else the map would lose a row and a column
        pool = nn.Sequential(nn.ReplicationPad2d((0, k - 1, 0, k - 1)), pool)
    if place.in_channels == place.out_channels:
        return pool
    return nn.Sequential(pool, pointwise(place.in_channels, place.out_channels))


def _skip(k: int, place: Place) -> nn.Module:
    return nn.Identity() if place.keeps_shape else adapted(place)


def _null(k: int, place: Place) -> nn.Module:
    return Zero(place.out_channels, place.stride)


_BUILT: Final[Mapping[Kind, Callable[[int, Place], nn.Module]]] = {
    Kind.CONVOLUTION: _convolution,
    Kind.PAIR: _pair,
    Kind.SEPARABLE: _separable,
    Kind.DILATED: _dilated,
    Kind.MAX_POOL: _max_pool,
    Kind.AVERAGE_POOL: _average_pool,
    Kind.SKIP: _skip,
    Kind.NULL: _null,
}
