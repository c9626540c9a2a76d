"""Laws of every weights source, on networks of every kind."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import prunas
from prunas.supernet.elastic import Elastic
from prunas.supernet.grid import EVERY
from prunas.supernet.space import Candidate, SearchSpace
from prunas.supernet.tensors import tensors_of
from prunas.supernet.trace import KINDS as KINDS_OF_GENES
from tests.pruningnet.sources import SOURCES
from tests.supernet.networks import BLOCKS, IMAGE, Network, Residual, choice_block

KINDS = ["blocks that can go", "alternatives", *sorted(BLOCKS)]


def network_of(kind: str) -> nn.Module:
    if kind in BLOCKS:
        return Network([kind], seed=1).eval()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        stem = nn.Conv2d(3, 8, 3, padding=1)
        head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        if kind == "alternatives":
            return nn.Sequential(stem, choice_block(), choice_block(), *head).eval()
        return nn.Sequential(stem, Residual(8), Residual(8), *head).eval()


TRACED: dict[str, SearchSpace] = {}


def made(source: str, kind: str) -> Elastic:
    network = network_of(kind)
    if kind not in TRACED:
        TRACED[kind] = prunas.trace(network, IMAGE, grid=EVERY, genes=KINDS_OF_GENES)
    return SOURCES[source](network, TRACED[kind])


def candidates(space: SearchSpace) -> list[Candidate]:
    drawn = space.sample(np.random.default_rng(0), 3)
    return [space.full(), space.smallest(), *drawn]


def images(count: int = 4) -> Tensor:
    return torch.randn(count, *IMAGE, generator=torch.Generator().manual_seed(0))


every = pytest.mark.parametrize("source", SOURCES)
each = pytest.mark.parametrize("kind", KINDS)


@every
@each
def test_running_is_the_cut_network_with_these_weights(source: str, kind: str) -> None:
    weights = made(source, kind)
    for candidate in candidates(weights.space):
        wanted = weights.alone(candidate).eval()(images())
        with weights.running(candidate) as network:
            torch.testing.assert_close(network(images()), wanted, rtol=1e-4, atol=1e-5)
        with weights.frozen(candidate) as network:
            found = network(images())
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        assert not found.requires_grad


@every
@each
def test_weights_have_the_shapes_of_the_cut_network(source: str, kind: str) -> None:
    weights = made(source, kind)
    for candidate in candidates(weights.space):
        shapes = {n: t.shape for n, t in weights.network.state_dict(keep_vars=True).items()}
        shapes |= {n: t.shape for n, t in weights.weights(candidate).items()}
        small = prunas.cut(weights.network, weights.space, candidate).state_dict(keep_vars=True)
        assert {n: shapes[n] for n in small} == {n: t.shape for n, t in small.items()}


@every
@each
def test_the_network_is_left_as_found(source: str, kind: str) -> None:
    weights = made(source, kind)
    network = weights.network
    held = {name: id(tensor) for name, tensor in tensors_of(network).items()}
    values = copy.deepcopy(network.state_dict())
    forwards = [module.__dict__.get("forward") for module in network.modules()]
    for candidate in candidates(weights.space):
        with weights.running(candidate) as path:
            path(images())
        with pytest.raises(ZeroDivisionError), weights.frozen(candidate):
            1 / 0  # noqa: B018
    assert {name: id(tensor) for name, tensor in tensors_of(network).items()} == held
    assert [module.__dict__.get("forward") for module in network.modules()] == forwards
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, values[name])


@every
@each
def test_gradients_reach_what_the_candidate_uses_and_nothing_else(source: str, kind: str) -> None:
    """By finite differences: a parameter with a gradient matters, one without does not."""
    weights = made(source, kind)
    candidate = candidates(weights.space)[2]
    with weights.running(candidate) as network:
        network(images()).square().sum().backward()
    with torch.no_grad(), weights.running(candidate) as network:
        before = network(images())
    unused = [p for p in weights.learnt.parameters() if p.grad is None]
    for parameter in unused:
        with torch.no_grad():
            parameter.mul_(2).add_(1)
    with torch.no_grad(), weights.running(candidate) as network:
        torch.testing.assert_close(network(images()), before)
    assert any(p.grad is not None and p.grad.any() for p in weights.learnt.parameters())


@every
def test_a_source_is_made_alike_from_the_same_seed(source: str) -> None:
    one, two = made(source, "Residual"), made(source, "Residual")
    for name, tensor in one.learnt.state_dict().items():
        assert torch.equal(tensor, two.learnt.state_dict()[name])


@every
def test_making_a_source_leaves_the_global_generator_alone(source: str) -> None:
    network, space = network_of("Residual"), prunas.trace(network_of("Residual"), IMAGE)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    SOURCES[source](network, space)
    assert torch.equal(torch.get_rng_state(), before)


@every
def test_a_candidate_of_another_space_is_refused(source: str) -> None:
    weights = made(source, "Residual")
    short, outside = weights.space.full()[1:], [10**6] * len(weights.space.genes)
    for wrong, sentence in ((short, "belongs to another space"), (outside, "is not a choice of")):
        with pytest.raises(prunas.InputError, match=sentence):
            weights.weights(wrong)
        with pytest.raises(prunas.InputError, match=sentence), weights.running(wrong):
            pass
        with pytest.raises(prunas.InputError, match=sentence), weights.frozen(wrong):
            pass


@every
def test_another_network_is_refused(source: str) -> None:
    space = prunas.trace(network_of("Residual"), IMAGE)
    with pytest.raises(prunas.InputError, match="not the one this space was traced from"):
        SOURCES[source](nn.Sequential(nn.Linear(3, 3)), space)


@every
def test_it_learns(source: str) -> None:
    """Descent on one candidate lowers its loss on the images it is taught."""
    weights = made(source, "Residual")
    candidate = candidates(weights.space)[3]
    labels = torch.arange(4) % 2
    weights.network.train()
    optimizer = torch.optim.SGD(weights.learnt.parameters(), lr=0.1)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        with weights.running(candidate) as network:
            loss = nn.functional.cross_entropy(network(images()), labels)
            loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


@every
def test_networks_of_other_types_run(source: str) -> None:
    network = network_of("Residual").double()
    weights = SOURCES[source](network, prunas.trace(network, IMAGE, grid=EVERY))
    for candidate in candidates(weights.space):
        with weights.frozen(candidate) as path:
            assert path(images().double()).dtype == torch.float64
