"""Networks with genes of every kind, for what is known in closed form of their candidates."""

from collections.abc import Collection

import timm
import torch
from torch import Tensor, nn

from prunas.supernet.choice import Choice
from prunas.supernet.grid import WidthGrid
from prunas.supernet.space import SearchSpace
from prunas.supernet.trace import KINDS, trace
from tests.supernet.networks import (
    ChannelsLast,
    LargeKernel,
    Plain,
    Residual,
    SqueezeExcite,
    choice_block,
)

IMAGE = (3, 12, 12)
WIDTHS = WidthGrid((0.25, 0.5, 0.75, 1.0))
"""Widths of two and more: a single channel lies in every order at once, and needs no copies."""
Traced = tuple[nn.Module, SearchSpace]


class Halves(nn.Module):
    """Every second channel of a wider map: what it returns lies in twice the memory."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(channels, 2 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.wide(x)[:, ::2]
        return out


class Turned(nn.Module):
    """What it returns lies in another order in memory."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x).contiguous(memory_format=torch.channels_last)
        return out


class Around(nn.Module):
    """A residual block around choices inside choices."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = Choice([Plain(channels), nn.Sequential(Plain(channels), choice_block())])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.inner(x)
        return out


class Trimmed(nn.Conv2d):
    """A depthwise convolution that takes its margins from the image by an operator of its own."""

    def __init__(self, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__(channels, channels, kernel, stride, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        more = self.weight.shape[-1] - self.stride[0]
        margins = [more // 2, more - more // 2] * 2
        out: Tensor = self._conv_forward(nn.functional.pad(x, margins), self.weight, self.bias)
        return out


def network_of(*blocks: nn.Module) -> nn.Module:
    """A stem to 8 channels, the blocks, and a head."""
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *blocks, *head).eval()


def handing_on() -> tuple[nn.Module, ...]:
    """Choices whose alternatives return what they are given, also after they wrote into it."""
    inner = Choice([Plain(8), nn.ReLU(inplace=True), nn.Identity()])
    outer = Choice([nn.Identity(), inner, nn.ReLU(inplace=True)])
    return outer, Choice([nn.Identity(), nn.ReLU(inplace=True)]), Residual(8), choice_block()


NETWORKS = {
    "choices": lambda: network_of(choice_block(), Residual(8), choice_block()),
    "choices in choices and blocks": lambda: network_of(Around(8), Around(8)),
    "choices that hand on": lambda: network_of(*handing_on()),
    "choices of other layouts": lambda: network_of(
        Choice([Halves(8), Turned(8), Residual(8), nn.Identity()]),
        *(ChannelsLast(8), nn.ReLU(), Plain(8)),
    ),
    "gates and kernels": lambda: network_of(SqueezeExcite(8), LargeKernel(8), Residual(8)),
    "margins": lambda: network_of(Trimmed(8, 5), Residual(8), Trimmed(8, 7, 2), Plain(8)),
    "all": lambda: network_of(
        choice_block(), Residual(8), SqueezeExcite(8), Trimmed(8, 5, 2), choice_block()
    ),
}
"""Name -> how to build it."""


def traced(name: str, resolutions: Collection[int] = ()) -> Traced:
    """One of the networks with all of its genes, and with images of these sides too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = NETWORKS[name]()
    return network, trace(network, IMAGE, grid=WIDTHS, genes=KINDS, resolutions=resolutions)


def of_timm(name: str, size: int, resolutions: Collection[int] = ()) -> Traced:
    """A network of timm with all of its genes."""
    network = timm.create_model(name, num_classes=10).eval()
    return network, trace(network, (3, size, size), genes=KINDS, resolutions=resolutions)
