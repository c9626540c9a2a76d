"""Integers that follow the genes: each function that takes a size, on a network that uses it."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunas.supernet.cut import cut
from prunas.supernet.grid import EVERY
from prunas.supernet.integers import owned_integers
from prunas.supernet.lengths import OwnedInt, Told
from prunas.supernet.scoped import Place
from prunas.supernet.space import SearchSpace
from prunas.supernet.trace import trace
from prunas.supernet.verify import verify

NOBODY = Told(lambda number: None, lambda left, order, right, asking: None)


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
    with owned_integers(network, NOBODY):
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
        with owned_integers(network, NOBODY):
            raise KeyError("inside")

    with pytest.raises(KeyError):
        fail()
    assert type(network.in_features) is int


class Twice(nn.Module):
    """linear 4 -> 12 and 12 -> 12, something that joins the two by their lengths, linear -> 3."""

    def __init__(self, use: Callable[["Twice", Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 12), nn.Linear(12, 12), nn.Linear(12, 3)
        self.heads = 3
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        out: Tensor = self.last(self.use(self, y, self.second(y)))
        return out


def _in_heads(net: Twice, y: Tensor, z: Tensor) -> Tensor:
    rows, width = y.shape
    heads = z.reshape(rows, net.heads, width // net.heads)
    return (heads * heads.sum(1, keepdim=True).sigmoid()).reshape(rows, width)


def _in_heads_by_size(net: Twice, y: Tensor, z: Tensor) -> Tensor:
    heads = z.view(y.size(0), net.heads, y.size(-1) // net.heads)
    return heads.transpose(1, 2).tanh().reshape(y.size(0), y.size(1))


LENGTHS: dict[str, tuple[Callable[[Twice, Tensor, Tensor], Tensor], list[int]]] = {
    # what can be chosen: the 12 of both, or the 3 heads and the 4 entries of each
    "heads": (_in_heads, [3, 4]),
    "heads, in another order": (_in_heads_by_size, [3, 4]),
    "zeros": (lambda net, y, z: z + z.new_zeros(*y.shape), [12]),
    "expand": (lambda net, y, z: z * z.sum(1, keepdim=True).expand(*y.shape), [12]),
    "slice": (lambda net, y, z: torch.cat([z, z], 1)[:, : y.shape[1]], [12]),
    "narrow": (lambda net, y, z: torch.cat([z, z], 1).narrow(1, 0, y.shape[1]), [12]),
    "split": (lambda net, y, z: sum(torch.cat([z, z], 1).split(y.shape[1], 1)), [12]),
    "the same in other words": (lambda net, y, z: z.reshape(*z.shape), [12, 12]),
}


@pytest.mark.parametrize("name", LENGTHS)
def test_dimensions_that_are_read_stay_as_long(name: str) -> None:
    use, widths = LENGTHS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Twice(use).eval()
    space = trace(network, example=torch.zeros(2, 4), grid=EVERY)
    assert sorted(gene.choices[-1] for gene in space.genes) == widths
    verify(network, space)
    small = cut(network, space, [2] * len(widths))
    assert small.get_parameter("first.weight").shape[0] == (4 if widths == [3, 4] else 2)
    assert vars(small)["heads"] == (2 if widths == [3, 4] else 3)


@pytest.mark.parametrize(
    "scale",
    [
        lambda width: 1 / math.sqrt(width),
        lambda width: width**-0.5,
        lambda width: 2 / width,
        lambda width: float(width),
    ],
)
def test_a_width_that_enters_the_result_is_recorded(scale: Callable[[int], float]) -> None:
    """Zeroing channels then differs from removing them, which `verify` must know."""
    network = Between(lambda net, y: y * scale(y.shape[1])).eval()
    space = trace(network, (4,), grid=EVERY)
    assert space.normalised == {0}
    verify(network, space)


def test_a_width_that_fills_a_tensor_is_recorded() -> None:
    network = Between(lambda net, y: y * y.new_full((1,), y.shape[1])).eval()
    space = trace(network, (4,), grid=EVERY)
    assert space.normalised == {0}
    verify(network, space)


class Caches(nn.Module):
    """Keeps a table as large as its last input was long."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 12), nn.Linear(12, 3)
        self.register_buffer("table", torch.zeros(1), persistent=False)
        self.table: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if len(self.table) != x.shape[1]:
            self.table = torch.arange(float(x.shape[1]), device=x.device)
        out: Tensor = self.last(self.first(x + self.table[None, :, None]).mean(1))
        return out


def test_a_network_that_keeps_tables_is_still_itself_after_a_run() -> None:
    network = Caches().eval()
    space = trace(network, (6, 4), grid=EVERY)
    assert space.renewed == {"table"}
    network(torch.zeros(2, 5, 4))
    verify(network, space)
    assert cut(network, space, [5])(torch.zeros(2, 7, 4)).shape == (2, 3)
    assert SearchSpace.from_json(space.to_json()) == space


def test_heads_that_are_normalised_each_by_itself_can_go() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.last = nn.Linear(4, 12), nn.LayerNorm(4), nn.Linear(12, 3)
            self.heads = 3

        def forward(self, x: Tensor) -> Tensor:
            heads = self.norm(self.first(x).reshape(len(x), self.heads, -1))
            out: Tensor = self.last(heads.flatten(1))
            return out

    network = Heads().eval()
    space = trace(network, (4,), grid=EVERY)
    assert sorted(gene.choices[-1] for gene in space.genes) == [3, 4]
    verify(network, space)
