"""Depthwise kernels that can be smaller."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from prunas.errors import InputError
from prunas.eval.cost import Cost
from prunas.eval.criteria.selection import di_prior
from prunas.eval.criteria.weights import magnitude
from prunas.supernet.cut import cut
from prunas.supernet.elastic import Supernet
from prunas.supernet.grid import EVERY
from prunas.supernet.permute import permute
from prunas.supernet.space import Candidate, SearchSpace
from prunas.supernet.trace import KINDS, trace
from prunas.supernet.verify import verify
from tests.supernet.counting import macs_counted, parameters_counted

IMAGE = (3, 13, 11)


def network_of(kernel: Any = 5, **options: Any) -> nn.Sequential:
    """A depthwise convolution between two others."""
    torch.manual_seed(0)
    chosen: dict[str, Any] = {"padding": "same", "groups": 6} | options
    return nn.Sequential(
        nn.Conv2d(3, 6, 1),
        nn.Conv2d(6, 6, kernel, **chosen),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ).eval()


def spatial(network: nn.Module) -> nn.Conv2d:
    layer = network.get_submodule("1")
    assert isinstance(layer, nn.Conv2d)
    return layer


def kernels_of(space: SearchSpace) -> dict[str, tuple[int, ...]]:
    return {gene.name: gene.choices for gene in space.genes if gene.kind == "kernel"}


def with_side(space: SearchSpace, side: int) -> Candidate:
    return Candidate(
        side if gene.kind == "kernel" else value
        for gene, value in zip(space.genes, space.full(), strict=True)
    )


SAME_SIZE: dict[str, dict[str, Any]] = {
    "padding by number": {"padding": 2},
    "padding by name": {},
    "a margin is cut off": {"padding": 1},
    "side 7": {"kernel": 7, "padding": 3},
    "side 9": {"kernel": 9, "padding": 4},
    "stride": {"padding": 2, "stride": 2},
    "dilation": {"kernel": 7, "padding": 6, "dilation": 2},
    "dilation and stride": {"padding": 4, "dilation": 2, "stride": 2},
    "reflection": {"padding": 2, "padding_mode": "reflect"},
    "reflection by name": {"padding_mode": "reflect"},
    "no bias": {"padding": 2, "bias": False},
}


@pytest.mark.parametrize("options", SAME_SIZE.values(), ids=SAME_SIZE)
def test_a_smaller_kernel_is_the_middle_of_the_weight(options: dict[str, Any]) -> None:
    """Against a layer made by hand, which has the inner weight and the padding for it."""
    network = network_of(**options)
    space = trace(network, IMAGE, genes=("kernel",))
    weight, full = spatial(network).weight, spatial(network).kernel_size[0]
    assert kernels_of(space) == {"1[kernel]": tuple(range(3, full + 1, 2))}
    images = torch.randn(2, *IMAGE)
    for side in range(3, full + 1, 2):
        small = cut(network, space, with_side(space, side))
        drop = (full - side) // 2
        inner = weight[..., drop : full - drop, drop : full - drop]
        padding = options.get("padding", "same")
        if padding != "same":
            padding -= drop * options.get("dilation", 1)
        by_hand = network_of(**options | {"kernel": side, "padding": padding})
        by_hand.load_state_dict(network.state_dict() | {"1.weight": inner})
        assert spatial(small).kernel_size == (side, side)
        torch.testing.assert_close(small(images), by_hand(images))


OTHER: dict[str, tuple[dict[str, Any], str | None]] = {
    "side 3": ({"kernel": 3}, None),
    "even": ({"kernel": 6, "padding": 3}, None),
    "oblong": ({"kernel": (5, 7), "padding": (2, 3)}, None),
    "not depthwise": ({"groups": 2}, None),
    "no padding": ({"padding": 0}, "a smaller kernel returns shapes"),
    "little padding": ({"kernel": 7, "padding": 1}, "a smaller kernel returns shapes"),
}


@pytest.mark.parametrize(("options", "reason"), OTHER.values(), ids=OTHER)
def test_what_is_no_gene(options: dict[str, Any], reason: str | None) -> None:
    space = trace(network_of(**options), IMAGE, genes=("width", "kernel"))
    assert kernels_of(space) == {}
    reasons = {entry.name: entry.reason for entry in space.pinned}
    if reason is None:
        assert "1[kernel]" not in reasons
    else:
        assert reasons["1[kernel]"].startswith(reason)


def test_a_kernel_that_is_to_be_left_alone_stays() -> None:
    network = nn.Sequential(network_of()[:4], *list(network_of())[1:]).eval()
    space = trace(network, IMAGE, genes=("kernel",), keep=["0"])
    assert kernels_of(space) == {"1[kernel]": (3, 5)}
    assert ("0.1[kernel]", "the layer was asked to be left alone") in {
        (entry.name, entry.reason) for entry in space.pinned
    }


def test_a_computed_weight_stays() -> None:
    network = network_of()
    nn.utils.parametrizations.weight_norm(network[1])
    space = trace(network, IMAGE, genes=("width", "kernel"))
    assert kernels_of(space) == {}


def test_a_shared_weight_stays() -> None:
    one, two = (nn.Conv2d(6, 6, 5, padding=2, groups=6) for _ in range(2))
    two.weight = one.weight
    network = nn.Sequential(nn.Conv2d(3, 6, 1), one, two, nn.Conv2d(6, 2, 1)).eval()
    space = trace(network, IMAGE, genes=("width", "kernel"))
    assert kernels_of(space) == {}
    assert ("1[kernel]", "other layers share its weight") in {
        (entry.name, entry.reason) for entry in space.pinned
    }


def test_a_layer_of_one_dimension() -> None:
    network = nn.Sequential(
        nn.Conv1d(4, 6, 1), nn.Conv1d(6, 6, 5, padding=2, groups=6), nn.Conv1d(6, 2, 1)
    ).eval()
    space = trace(network, (4, 20), genes=KINDS)
    assert kernels_of(space) == {"1[kernel]": (3, 5)}
    verify(network, space)


class Mobile(nn.Module):
    """A residual block with a large kernel and a gate inside."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.up = nn.Conv2d(channels, 10, 1)
        self.spatial = nn.Conv2d(10, 10, kernel, padding=kernel // 2, groups=10)
        self.norm = nn.BatchNorm2d(10)
        self.gate = Gate(10)
        self.down = nn.Conv2d(10, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.down(self.gate(self.norm(self.spatial(self.up(x))).relu()))
        return out


class Gate(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.narrow, self.wide = nn.Conv2d(channels, 3, 1), nn.Conv2d(3, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x * self.wide(self.narrow(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return out


def mobile() -> tuple[nn.Module, SearchSpace]:
    torch.manual_seed(1)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    network = nn.Sequential(nn.Conv2d(3, 8, 1), Mobile(8, 5), Mobile(8, 7), *head).eval()
    return network, trace(network, IMAGE, grid=EVERY, genes=KINDS)


def test_all_kinds_of_genes_together() -> None:
    network, space = mobile()
    assert [(gene.name, gene.kind) for gene in space.genes if gene.kind != "width"] == [
        ("1.gate", "operator"), ("1", "depth"),
        ("2.gate", "operator"), ("2", "depth"),
        ("1.spatial[kernel]", "kernel"), ("2.spatial[kernel]", "kernel"),
    ]  # fmt: skip
    verify(network, space)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_costs_are_those_of_the_cut_network(seed: int) -> None:
    network, space = mobile()
    cost = Cost(space)
    for candidate in space.sample(np.random.default_rng(seed), 2):
        small = cut(network, space, candidate)
        assert cost.macs([candidate])[0] == macs_counted(small, IMAGE)
        assert cost.params([candidate])[0] == parameters_counted(small)


def test_running_one_is_running_it_cut() -> None:
    network, space = mobile()
    source = Supernet(network, space)
    images = torch.randn(2, *IMAGE)
    for candidate in [space.smallest(), *space.sample(np.random.default_rng(3), 6)]:
        with source.running(candidate) as running:
            out = running(images)
        torch.testing.assert_close(out, cut(network, space, candidate)(images))
        out.sum().backward()  # the middle of the weight learns
    assert network.get_submodule("1.spatial").weight.grad is not None


def test_rows_of_a_kernel_have_their_places() -> None:
    network, space = mobile()
    orders = [list(range(width)) for width in space.widths]
    permute(network, space, orders)
    orders[-1].reverse()
    with pytest.raises(InputError, match=r"2\.spatial\[kernel\]' is one of kernel, whose"):
        permute(network, space, orders)


def test_the_middle_is_worth_its_share_of_the_squared_weights() -> None:
    network, space = mobile()
    kernel = network.get_submodule("1.spatial")
    with torch.no_grad():  # ones, so that shares are areas
        nn.init.ones_(kernel.get_parameter("weight"))
    batches = [(torch.zeros(1, *IMAGE), torch.zeros(1, dtype=torch.long))]
    ranking = di_prior(network, space, batches, device="cpu", criterion=magnitude)
    gene = [gene.name for gene in space.genes].index("1.spatial[kernel]")
    worth = np.array(ranking.values[gene])
    assert ranking.orders[gene] == (0, 1, 2, 3, 4)
    np.testing.assert_allclose(worth / worth[-1], np.arange(6) ** 2 / 25)


def test_a_space_as_text_has_them_too() -> None:
    _, space = mobile()
    assert SearchSpace.from_json(space.to_json()) == space


def test_kinds_that_do_not_exist() -> None:
    with pytest.raises(InputError, match="no kind of gene is called 'widht'; choose from width"):
        trace(network_of(), IMAGE, genes=("widht",))
    with pytest.raises(InputError, match="no kind of gene was given"):
        trace(network_of(), IMAGE, genes=())
    with pytest.raises(
        InputError, match=r"nothing in Sequential can be pruned: .*widths are not searched"
    ):
        trace(network_of(3), IMAGE, genes=("depth",))


class Padding(nn.Module):
    """A depthwise convolution whose image is padded by the module around it."""

    def __init__(self, pad: Callable[[nn.Conv1d, Tensor], Tensor], **options: Any) -> None:
        super().__init__()
        self.layer = nn.Conv1d(6, 6, 5, groups=6, **options)
        self.pad = pad

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(self.pad(self.layer, x))
        return out


def padded(pad: Callable[[nn.Conv1d, Tensor], Tensor], **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(3, 6, 1), Padding(pad, **options), nn.Conv1d(6, 2, 1)).eval()


def causal(layer: nn.Conv1d, x: Tensor) -> Tensor:
    return F.pad(x, (layer.kernel_size[0] - 1, 0))


def both(layer: nn.Conv1d, x: Tensor) -> Tensor:
    return F.pad(x, [layer.kernel_size[0] // 2] * 2)


def reflected(layer: nn.Conv1d, x: Tensor) -> Tensor:
    return F.pad(x, [layer.kernel_size[0] // 2] * 2, mode="reflect")


def joined(layer: nn.Conv1d, x: Tensor) -> Tensor:
    margin = x.new_zeros(*x.shape[:2], layer.kernel_size[0] - 1)
    return torch.cat([margin, x], 2)


@pytest.mark.parametrize("pad", [causal, joined])
def test_a_kernel_that_would_be_shifted_stays(pad: Callable[[nn.Conv1d, Tensor], Tensor]) -> None:
    space = trace(padded(pad), (3, 20), genes=("width", "kernel"))
    assert kernels_of(space) == {}
    reasons = {entry.name: entry.reason for entry in space.pinned}
    assert reasons["1.layer[kernel]"].startswith("a smaller kernel looks at other pixels")


@pytest.mark.parametrize("pad", [both, reflected])
def test_padding_around_the_layer_may_follow(pad: Callable[[nn.Conv1d, Tensor], Tensor]) -> None:
    network = padded(pad)
    space = trace(network, (3, 20), genes=("kernel",))
    assert kernels_of(space) == {"1.layer[kernel]": (3, 5)}
    small = cut(network, space, space.smallest())
    with torch.no_grad():
        full: Any = network.get_submodule("1.layer")
        full.weight[..., [0, -1]] = 0
        x = torch.randn(2, 3, 20)
        if pad is both:
            torch.testing.assert_close(small(x), network(x))
        assert small(x).shape == network(x).shape


def test_a_stride_that_hides_a_shift_does_not_help() -> None:
    network = network_of(kernel=7, padding=1, stride=4)
    space = trace(network, (3, 30, 30), genes=("width", "kernel"))
    assert kernels_of(space) == {}


def test_a_circle_goes_on() -> None:
    network = network_of(padding=2, padding_mode="circular")
    assert kernels_of(trace(network, IMAGE, genes=("kernel",))) == {"1[kernel]": (3, 5)}


class Elsewhere(nn.Module):
    """The weight of a layer that never runs itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv1d(6, 6, 5, padding=4, groups=6)

    def forward(self, x: Tensor) -> Tensor:
        layer, weight = self.layer, self.layer.weight
        y = F.conv1d(x, weight, layer.bias, padding=layer.padding, groups=layer.groups)
        return y[..., : x.shape[-1]]


def test_a_weight_that_other_code_convolves_with_is_seen() -> None:
    network = nn.Sequential(nn.Conv1d(3, 6, 1), Elsewhere(), nn.Conv1d(6, 2, 1)).eval()
    space = trace(network, (3, 20), genes=("width", "kernel"))
    assert kernels_of(space) == {}
