"""Means of removed channels, in the biases of what reads them."""

import pytest
import torch
from torch import nn

import prunas
from prunas.errors import InputError
from prunas.eval.criteria.absorb import absorbed
from prunas.supernet.space import SearchSpace
from tests.supernet.networks import IMAGE


def chain() -> nn.Sequential:
    """A convolution that reads 8 channels without padding, then a linear layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
        )  # fmt: skip
    return layers.double().eval()


def space_of(network: nn.Module) -> SearchSpace:
    return prunas.trace(network, IMAGE, grid="every")


def images() -> torch.Tensor:
    return torch.randn(40, *IMAGE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_constant_channels_can_go_exactly() -> None:
    network = chain()
    with torch.no_grad():
        network.get_parameter("1.weight")[5:] = 0
        network.get_parameter("1.bias")[5:] = torch.tensor([0.5, 1.0, 2.0])
    space = space_of(network)
    candidate = space.candidate([5, 12])
    better = absorbed(network, space, candidate, [images()], device="cpu")
    with torch.no_grad():
        expected = network(images())
        torch.testing.assert_close(prunas.cut(better, space, candidate)(images()), expected)
        plain = prunas.cut(network, space, candidate)(images())
    assert (plain - expected).abs().max() > 1e-2


def test_the_mean_of_a_linear_layers_output_stays() -> None:
    """Without its removed inputs, on average it gives what it gave."""
    network = chain()
    space = space_of(network)
    candidate = space.candidate([8, 4])
    better = absorbed(network, space, candidate, [images()], device="cpu")
    with torch.no_grad():
        found = prunas.cut(better, space, candidate)(images()).mean(0)
        torch.testing.assert_close(found, network(images()).mean(0))


def test_the_network_is_left_as_it_was_and_its_cut_is_as_large() -> None:
    network = chain()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    space = space_of(network)
    better = absorbed(network, space, space.smallest(), [images()], device="cpu")
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
    shapes = [p.shape for p in better.parameters()]
    assert shapes == [p.shape for p in network.parameters()]
    assert type(better.get_parameter("7.bias")) is nn.Parameter


def test_the_full_network_absorbs_nothing() -> None:
    network = chain()
    space = space_of(network)
    same = absorbed(network, space, space.full(), [images()], device="cpu")
    assert all(
        torch.equal(a, b) for a, b in zip(network.parameters(), same.parameters(), strict=True)
    )


def test_refuses_no_images() -> None:
    network = chain()
    space = space_of(network)
    with pytest.raises(InputError, match="no images"):
        absorbed(network, space, space.smallest(), [], device="cpu")
