"""Integers that follow the genes: each function that takes a size, on a network that uses it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunas.supernet.attributes import OwnedInt, owned_integers
from prunas.supernet.cut import cut
from prunas.supernet.grid import EVERY
from prunas.supernet.scoped import Place
from prunas.supernet.trace import trace
from prunas.supernet.verify import verify


class Between(nn.Module):
    """linear 4 -> 12, something that needs a size, linear -> 3."""

    def __init__(self, use: Callable[["Between", Tensor], Tensor], width: int = 12) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 12), nn.Linear(width, 3)
        self.total, self.part, self.parts, self.shape = 12, 6, [4, 8], (12,)
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.use(self, self.first(x)))
        return out


def _split(net: Between, y: Tensor) -> Tensor:
    left, right = y.split(net.parts, 1)
    return torch.cat([right, left], 1)


USES: dict[str, tuple[Callable[[Between, Tensor], Tensor], dict[str, object]]] = {
    # the 12 hidden channels are cut to 5 (or both groups to 2 + 3): what the integers become
    "view": (lambda net, y: y.view(-1, net.total), {"total": 5}),
    "view of a tuple": (lambda net, y: y.view((-1, net.total)), {"total": 5}),
    "reshape": (lambda net, y: y.reshape(y.shape[0], net.total), {"total": 5}),
    "reshape by name": (lambda net, y: y.reshape(shape=(-1, net.total)), {"total": 5}),
    "expand": (lambda net, y: y + y.new_zeros(1, 1).expand(2, net.total), {"total": 5}),
    "layer norm": (lambda net, y: F.layer_norm(y, net.shape), {"shape": (5,)}),
    "zeros": (lambda net, y: y + torch.zeros(1, net.total, device=y.device), {"total": 5}),
    "split": (_split, {"parts": [2, 3]}),
    "slices": (
        lambda net, y: torch.cat([y[:, net.parts[0] :], y[..., : net.parts[0]]], 1),
        {"parts": [2, 8]},
    ),
    "narrow": (
        lambda net, y: torch.cat(
            [y.narrow(1, net.parts[0], net.parts[1]), y.narrow(1, 0, net.parts[0])], 1
        ),
        {"parts": [2, 3]},
    ),
}


@pytest.mark.parametrize("name", USES)
def test_sizes_follow(name: str) -> None:
    use, expected = USES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Between(use).eval()
    space = trace(network, example=torch.zeros(2, 4), grid=EVERY)
    widths = [gene.choices[-1] for gene in space.genes]
    small = cut(network, space, [5] if widths == [12] else [2, 3])
    assert {key: getattr(small, key) for key in expected} == expected
    assert small(torch.randn(2, 4)).shape == (2, 3)
    assert {key: getattr(network, key) for key in ("total", "parts", "shape")} == {
        "total": 12, "parts": [4, 8], "shape": (12,),
    }  # fmt: skip


RECTANGLES: dict[str, Callable[[Between, Tensor], Tensor]] = {
    "unflatten": lambda net, y: y.unflatten(1, (2, net.part)).sum(1),
    "split in equal parts": lambda net, y: sum(y.split(net.part, 1), start=torch.zeros(())),
    "chunk": lambda net, y: y.chunk(2, 1)[0] * y.chunk(2, 1)[1],
    "glu": lambda net, y: F.glu(y),
}


@pytest.mark.parametrize("name", RECTANGLES)
def test_equal_parts_stay_equal(name: str) -> None:
    network = Between(RECTANGLES[name], width=6).eval()
    space = trace(network, (4,), grid=EVERY)
    assert [gene.choices[-1] for gene in space.genes] == [6]
    small = cut(network, space, [4])
    assert small.get_parameter("first.weight").shape == (8, 4)
    assert vars(small)["part"] == (6 if name in ("chunk", "glu") else 4)
    verify(network, space)


def test_integers_know_their_owner_and_are_put_back() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LayerNorm((4, 2)))
    before = [dict(module.__dict__) for module in network.modules()]
    with owned_integers(network):
        channels = network[0].out_channels
        assert isinstance(channels, OwnedInt)
        assert channels == 4
        assert channels.place == Place("0", "out_channels", None)
        sizes: Any = network[1].normalized_shape
        assert [size.place.position for size in sizes] == [0, 1]
        assert type(channels + 1) is int  # what is computed follows by itself
    for module, old in zip(network.modules(), before, strict=True):
        assert all(module.__dict__[name] is value for name, value in old.items())


def test_integers_are_put_back_after_an_error() -> None:
    network = nn.Linear(3, 4)

    def fail() -> None:
        with owned_integers(network):
            raise KeyError("inside")

    with pytest.raises(KeyError):
        fail()
    assert type(network.in_features) is int
