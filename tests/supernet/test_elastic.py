"""A candidate on shared weights is the cut network, and leaves nothing behind."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import prunas
from prunas.supernet.elastic import Supernet
from prunas.supernet.grid import EVERY


class Branches(nn.Module):
    """Depthwise, grouped and concatenated channels: prefixes, groups and runs of indices."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.wide = nn.Conv2d(8, 6, 1)
        self.mixed = nn.Conv2d(14, 12, 1)
        self.grouped = nn.Conv2d(12, 12, 3, padding=1, groups=3)
        self.head = nn.Linear(12, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(image)))
        x = torch.cat([self.deep(x), self.wide(x)], 1)
        x = torch.relu(self.grouped(self.mixed(x)))
        result: torch.Tensor = self.head(x.mean((2, 3)))
        return result


@pytest.fixture(scope="module")
def supernet() -> Supernet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Branches().eval()
    return Supernet(network, prunas.trace(network, (3, 6, 6), grid=EVERY))


@pytest.mark.parametrize("seed", range(6))
def test_running_equals_cut(supernet: Supernet, seed: int) -> None:
    candidate = supernet.space.sample(np.random.default_rng(seed), 1)[0]
    image = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    expected = prunas.cut(supernet.network, supernet.space, candidate)(image)
    with supernet.running(candidate) as network:
        shared = network(image)
    with supernet.frozen(candidate) as network:
        frozen = network(image)
    torch.testing.assert_close(shared, expected)
    torch.testing.assert_close(frozen, expected)
    assert not frozen.requires_grad


def test_gradients_flow_into_the_kept_entries_only(supernet: Supernet) -> None:
    twin = Supernet(copy.deepcopy(supernet.network), supernet.space)
    candidate = supernet.space.uniform(0.5)
    with twin.running(candidate) as network:
        loss = network(torch.ones(2, 3, 6, 6)).square().sum()
    loss.backward()
    small = prunas.cut(supernet.network, supernet.space, candidate)
    small(torch.ones(2, 3, 6, 6)).square().sum().backward()
    cut_gradients = {name: parameter.grad for name, parameter in small.named_parameters()}
    removed = supernet.space.removed(candidate)
    for name, parameter in twin.network.named_parameters():
        gradient = parameter.grad
        assert gradient is not None
        for dimension, indices in removed.get(name, {}).items():
            assert not gradient.index_select(dimension, indices).any()
            kept = np.setdiff1d(np.arange(parameter.shape[dimension]), indices.numpy())
            gradient = gradient.index_select(dimension, torch.from_numpy(kept))
        torch.testing.assert_close(gradient, cut_gradients[name])


def test_weights_are_views_where_channels_are_a_prefix(supernet: Supernet) -> None:
    weights = supernet.weights(supernet.space.uniform(0.5))
    held = dict(supernet.network.named_parameters())
    assert weights["stem.weight"].data_ptr() == held["stem.weight"].data_ptr()
    assert weights["stem.weight"].shape == (4, 3, 3, 3)
    # a concatenation keeps two runs, of the first and of the second tensor
    assert weights["mixed.weight"].shape[1] == 4 + 3


def test_the_network_is_left_as_found_also_after_a_failure(supernet: Supernet) -> None:
    before = {name: id(tensor) for name, tensor in supernet.network.named_parameters()}
    values = {name: tensor.clone() for name, tensor in supernet.network.state_dict().items()}
    groups = [m.groups for m in supernet.network.modules() if isinstance(m, nn.Conv2d)]
    with (
        pytest.raises(RuntimeError, match="channels"),
        supernet.running(supernet.space.smallest()) as network,
    ):
        network(torch.ones(2, 4, 6, 6))
    assert {name: id(tensor) for name, tensor in supernet.network.named_parameters()} == before
    assert [m.groups for m in supernet.network.modules() if isinstance(m, nn.Conv2d)] == groups
    for name, tensor in supernet.network.state_dict().items():
        assert torch.equal(tensor, values[name])


def test_another_network_is_refused(supernet: Supernet) -> None:
    with pytest.raises(prunas.InputError, match="not the one this space was traced from"):
        Supernet(nn.Linear(3, 3), supernet.space)


class Biased(nn.Module):
    """As LeViT: in eval mode what is computed from the weights is kept for each device."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 12), nn.Linear(12, 3)
        self.bias = nn.Parameter(torch.randn(12))
        self.cache: dict[str, torch.Tensor] = {}
        self.settings = {"a": 1}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        key = str(x.device)
        if key not in self.cache:
            self.cache[key] = self.bias * 2
        out: torch.Tensor = self.last(self.first(x) + self.cache[key])
        return out


@torch.no_grad()
def test_what_is_kept_for_a_device_is_not_kept_for_another_width() -> None:
    network, rows = Biased().eval(), torch.randn(5, 4)
    full = network(rows)
    space = prunas.trace(network, (4,), grid=EVERY)
    prunas.verify(network, space)
    supernet = Supernet(network, space)
    for width in (7, 3):
        expected = prunas.cut(network, space, [width])(rows)
        with supernet.running([width]) as path:
            assert torch.allclose(path(rows), expected)
    assert torch.allclose(network(rows), full)
    assert network.settings == {"a": 1}


class Scaled(nn.Module):
    """A forward that computes with the size a layer states."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.first(x).relu()
        out: torch.Tensor = self.last(inner * self.first.out_channels**-0.5)
        return out


@torch.no_grad()
def test_a_size_that_the_forward_computes_with_is_the_candidates() -> None:
    network, image = Scaled().eval(), torch.randn(2, 3, 4, 4)
    space = prunas.trace(network, (3, 4, 4), grid=EVERY)
    supernet = Supernet(network, space)
    with supernet.running([4]) as path:
        shared = path(image)
    assert torch.allclose(shared, prunas.cut(network, space, [4])(image), atol=1e-6)
    assert (network.first.out_channels, network.last.in_channels) == (16, 16)
