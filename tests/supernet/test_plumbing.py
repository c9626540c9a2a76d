"""What hand-written forwards do between layers, each with the channels that can go."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from timm.layers.cond_conv2d import CondConv2d
from torch import Tensor, nn
from torch.nn import functional as F

import prunas
from prunas.supernet.grid import EVERY
from tests.supernet.counting import macs_counted, parameters_counted

SIZE = (3, 8, 8)
Middle = Callable[[Any, Tensor], Tensor]
Layers = Mapping[str, Any]


class Plumbed(nn.Module):
    """conv 3 -> 16, the middle, linear 16 -> 5 on the mean."""

    def __init__(self, layers: Layers, middle: Middle) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16, 5)
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.middle(self, self.stem(x).relu()).mean((2, 3)))
        return out


def conv(inputs: int, outputs: int) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 1)


def spectrum(net: Any, x: Tensor) -> Tensor:
    found = torch.fft.rfft2(x, norm="ortho") * torch.view_as_complex(net.filter)
    back: Tensor = torch.fft.irfft2(found, s=x.shape[-2:], norm="ortho")
    return x + back


def involution(net: Any, x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    kernel = net.kernel(x).view(batch, net.groups, 1, 9, height, width)
    patches = F.unfold(x, 3, padding=1)
    patches = patches.view(batch, net.groups, channels // net.groups, 9, height, width)
    out: Tensor = (kernel * patches).sum(3).view(batch, channels, height, width)
    return out


def folded(net: Any, x: Tensor) -> Tensor:
    return F.fold(net.mix(F.unfold(x, 2, stride=2).unsqueeze(-1)).squeeze(-1), (8, 8), 2, stride=2)


def transformer(net: Any, x: Tensor) -> Tensor:
    maps = net.places(x.mean((2, 3))).view(-1, 2, 3)
    grid = F.affine_grid(maps, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def bilinear(net: Any, x: Tensor) -> Tensor:
    pooled = x.mean((2, 3))
    gate: Tensor = net.both(net.one(pooled), net.two(pooled))
    return x * gate[:, :, None, None]


def strongest_places(net: Any, x: Tensor) -> Tensor:
    """Sixteen pixels by the score of each, as token pruning does."""
    pixels = x.flatten(2)
    score = net.score(x).flatten(1)
    places = score.topk(16, dim=1).indices.unsqueeze(1).expand(-1, x.shape[1], -1)
    return pixels.gather(2, places).unsqueeze(-1)


def sorted_pixels(net: Any, x: Tensor) -> Tensor:
    return x.flatten(2).sort(dim=2, descending=True).values.cumsum(2).unsqueeze(-1)


def sorted_channels(net: Any, x: Tensor) -> Tensor:
    return x.cumsum(1)


def summed_by_row(net: Any, x: Tensor) -> Tensor:
    rows = torch.arange(8, device=x.device).repeat_interleave(8)
    return x.new_zeros(*x.shape[:2], 8).index_add(2, rows, x.flatten(2)).unsqueeze(-1)


def distances(net: Any, x: Tensor) -> Tensor:
    """Each pixel's mean distance to sixteen learnt points is its gate."""
    found = torch.cdist(x.flatten(2).transpose(1, 2), net.points)
    gate: Tensor = found.mean(-1).view(x.shape[0], 1, *x.shape[2:])
    return x * gate


def causal(net: Any, x: Tensor) -> Tensor:
    q, k, v = net.qkv(x).flatten(2).transpose(1, 2).chunk(3, -1)
    mask = torch.ones(64, 64, device=x.device).tril() == 0
    scores = (q @ k.transpose(1, 2)).masked_fill(mask, -1e4).softmax(-1)
    out: Tensor = net.out((scores @ v).transpose(1, 2).reshape(x.shape[0], -1, 8, 8))
    return out


def gated(x: Tensor, y: Tensor) -> Tensor:
    return x * y.sigmoid() + x


def scripted(net: Any, x: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still in use
        function: Any = torch.jit.script(gated)
    out: Tensor = function(x, net.one(x))
    return out


def conditional(net: Any, x: Tensor) -> Tensor:
    """Kernels mixed from experts for every image, kept flat; the second one is depthwise."""
    routing = net.routing(x.mean((2, 3))).sigmoid()
    return net.last(net.second(net.first(x, routing).relu(), routing))  # type: ignore[no-any-return]


def noisy(net: Any, x: Tensor) -> Tensor:
    return x + 0 * torch.normal(0.0, 1.0, tuple(x.shape), device=x.device)


def scaled_by_numbers(net: Any, x: Tensor) -> Tensor:
    """Sorting and summing a number is allowed."""
    return x * x.sum().cumsum(0) * x.sum().sort().values


def padded_shortcut(net: Any, x: Tensor) -> Tensor:
    """Option A of the first residual networks."""
    wide: Tensor = net.one(x) + F.pad(x, (0, 0, 0, 0, 4, 4))
    out: Tensor = net.two(wide)
    return out


CASES: dict[str, tuple[Callable[[], Layers], Middle, list[int]]] = {
    "fourier": (lambda: {"filter": nn.Parameter(torch.randn(16, 8, 5, 2))}, spectrum, [16]),
    "involution": (lambda: {"kernel": conv(16, 36), "groups": 4}, involution, [4, 4]),
    "fold": (lambda: {"mix": conv(64, 64)}, folded, [16, 16]),
    "spatial transformer": (lambda: {"places": nn.Linear(16, 6)}, transformer, [16]),
    "bilinear": (
        lambda: {"one": nn.Linear(16, 6), "two": nn.Linear(16, 7), "both": nn.Bilinear(6, 7, 16)},
        bilinear,
        [16, 6, 7],
    ),
    "pixels by score": (lambda: {"score": conv(16, 1)}, strongest_places, [16]),
    "sorted pixels": (dict, sorted_pixels, [16]),
    "summed by row": (dict, summed_by_row, [16]),
    "distances": (lambda: {"points": nn.Parameter(torch.randn(16, 16))}, distances, [16, 16]),
    "causal": (lambda: {"qkv": conv(16, 36), "out": conv(12, 16)}, causal, [16, 12, 16]),
    "scripted": (lambda: {"one": conv(16, 16)}, scripted, [16]),
    "conditional": (
        lambda: {
            "routing": nn.Linear(16, 4),
            "first": CondConv2d(16, 24, 1, num_experts=4),
            "second": CondConv2d(24, 24, 3, padding=1, groups=24, num_experts=4),
            "last": conv(24, 16),
        },
        conditional,
        [16, 4, 16, 24],
    ),
    "noise": (dict, noisy, [16]),
    "numbers": (dict, scaled_by_numbers, [16]),
    "padded": (lambda: {"one": conv(16, 24), "two": conv(24, 16)}, padded_shortcut, [16, 16]),
}


def made(name: str) -> nn.Module:
    layers, middle, _ = CASES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Plumbed(layers(), middle).eval()


@pytest.mark.parametrize("name", CASES)
def test_plumbing_is_understood(name: str) -> None:
    network = made(name)
    space = prunas.trace(network, SIZE, grid=EVERY)
    assert not space.notes  # every operator has a rule
    assert [gene.choices[-1] for gene in space.genes if gene.kind == "width"] == CASES[name][2]
    prunas.verify(network, space)
    half = space.uniform(0.5)
    small = prunas.cut(network, space, half)
    cost = prunas.Cost(space)
    assert cost.params([half])[0] == parameters_counted(small)
    assert cost.macs([half])[0] == macs_counted(small, SIZE)
    again = prunas.trace(small, SIZE, grid=EVERY)
    prunas.verify(small, again)


@pytest.mark.parametrize("middle", [sorted_channels, lambda _, x: x.tril().roll(1, 1)])
def test_what_depends_on_the_order_of_channels_stays(middle: Middle) -> None:
    with pytest.raises(prunas.errors.InputError, match="nothing in Plumbed can be pruned"):
        prunas.trace(Plumbed({}, middle).eval(), SIZE)
