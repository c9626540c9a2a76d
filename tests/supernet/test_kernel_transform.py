"""Smaller kernels as learnt maps of larger ones."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunas.errors import InputError
from prunas.supernet.cut import cut
from prunas.supernet.elastic import Supernet
from prunas.supernet.grid import EVERY
from prunas.supernet.kernel_transform import KernelTransform
from prunas.supernet.space import Candidate, SearchSpace
from prunas.supernet.trace import KINDS, trace
from tests.supernet.networks import SqueezeExcite

IMAGE = (3, 12, 12)


class Mobile(nn.Module):
    """A residual block around a depthwise kernel of side 7."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(8, 10, 1),
            nn.Conv2d(10, 10, 7, padding=3, groups=10),
            nn.BatchNorm2d(10),
            nn.ReLU(),
            nn.Conv2d(10, 8, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


def a_network() -> tuple[nn.Module, SearchSpace]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 1),
            nn.Conv2d(8, 8, 5, padding=2, groups=8, bias=False),
            Mobile(),
            SqueezeExcite(8),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 5),
        ).eval()
    return network, trace(network, IMAGE, grid=EVERY, genes=KINDS)


def supernet(scale: float = 0.0) -> Supernet:
    """With maps that are `scale` away from those they begin with."""
    network, space = a_network()
    kernels = KernelTransform(network, space)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in kernels.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return Supernet(network, space, kernels)


def candidates(space: SearchSpace, count: int = 8) -> list[Candidate]:
    return [space.full(), space.smallest(), *space.sample(np.random.default_rng(2), count)]


def images() -> Tensor:
    return torch.randn(4, *IMAGE, generator=torch.Generator().manual_seed(3))


def test_each_layer_has_a_map_for_each_step_down() -> None:
    maps = {key: tuple(p.shape) for key, p in supernet().learnt.named_parameters() if "maps" in key}
    assert maps == {
        "kernels.maps.1/3": (9, 9),
        "kernels.maps.2/body/1/5": (25, 25),
        "kernels.maps.2/body/1/3": (9, 9),
    }


def test_untrained_it_is_the_middle_exactly() -> None:
    with_maps = supernet()
    without = Supernet(with_maps.network, with_maps.space)
    for candidate in candidates(without.space):
        wanted, found = without.weights(candidate), with_maps.weights(candidate)
        assert wanted.keys() == found.keys()
        for name, tensor in wanted.items():
            assert torch.equal(found[name], tensor), name


def by_hand(source: Supernet, candidate: Candidate) -> dict[str, Tensor]:
    """Element by element: w_small[c, i] = sum_j (1 + D)[i, j] middle(w)[c, j], one side after
    another; then the first channels."""
    chosen = dict(zip((gene.name for gene in source.space.genes), candidate, strict=True))
    maps = dict(source.learnt.named_parameters())
    result = {}
    for path, full in (("1", 5), ("2.body.1", 7)):
        weight = source.network.get_submodule(path).get_parameter("weight").detach().numpy()
        for side in range(full - 2, chosen[f"{path}[kernel]"] - 1, -2):
            learnt = maps[f"kernels.maps.{path.replace('.', '/')}/{side}"].detach().numpy()
            inner = weight[:, :, 1:-1, 1:-1]
            small = np.zeros_like(inner)
            for c in range(inner.shape[0]):
                for i in range(side**2):
                    total = inner[c, 0].flat[i]
                    for j in range(side**2):
                        total += learnt[i, j] * inner[c, 0].flat[j]
                    small[c, 0].flat[i] = total
            weight = small
        result[f"{path}.weight"] = torch.from_numpy(weight)
    return result


def test_weights_are_those_of_the_equation() -> None:
    source = supernet(0.3)
    for candidate in candidates(source.space, 4):
        weights = source.weights(candidate)
        for name, whole in by_hand(source, candidate).items():
            if any(block.holds(name) for block in source.space.left_out(candidate)):
                continue
            held = source.network.get_parameter(name)
            found = weights.get(name, held)
            torch.testing.assert_close(found, whole[: len(found)], rtol=1e-4, atol=1e-5)


def test_a_candidate_alone_has_the_transformed_weights() -> None:
    source = supernet(0.3)
    plain = 0
    for candidate in candidates(source.space):
        alone = source.alone(candidate)(images())
        with source.running(candidate) as path:
            torch.testing.assert_close(path(images()), alone)
        with source.frozen(candidate) as path:
            torch.testing.assert_close(path(images()), alone)
        middle = cut(source.network, source.space, candidate)(images())
        plain += torch.allclose(alone, middle, atol=1e-5)
    assert 1 <= plain < 8  # the full network's weights are as they were


def test_maps_learn_where_a_smaller_kernel_runs_and_there_alone() -> None:
    source = supernet()
    kernels = {
        gene: 5 if gene == "2.body.1[kernel]" else None
        for gene in (each.name for each in source.space.genes)
    }
    candidate = Candidate(
        kernels[gene.name] or full
        for gene, full in zip(source.space.genes, source.space.full(), strict=True)
    )
    with source.running(candidate) as path:
        path(images()).square().sum().backward()
    learnt = {k for k, p in source.learnt.named_parameters() if "maps" in k and p.grad is not None}
    assert learnt == {"kernels.maps.2/body/1/5"}
    assert dict(source.learnt.named_parameters())["kernels.maps.2/body/1/5"].grad.any()  # type: ignore[union-attr]
    weight = source.network.get_submodule("2.body.1").get_parameter("weight")
    assert weight.grad is not None
    assert not weight.grad[..., 0, :].any()  # the outermost rows are not used


def test_a_kernel_of_one_dimension() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv1d(4, 6, 1), nn.Conv1d(6, 6, 5, padding=2, groups=6), nn.Conv1d(6, 2, 1)
    ).eval()
    space = trace(network, (4, 20), genes=("kernel",))
    kernels = KernelTransform(network, space)
    (learnt,) = kernels.parameters()
    assert learnt.shape == (3, 3)
    with torch.no_grad():
        learnt.add_(torch.eye(3))
    weight = network.get_submodule("1").get_parameter("weight")
    small = Supernet(network, space, kernels).weights(space.smallest())["1.weight"]
    torch.testing.assert_close(small, 2 * weight[..., 1:-1])


def test_what_is_learnt_is_saved_with_the_network() -> None:
    one, two = supernet(0.3), supernet()
    two.learnt.load_state_dict(one.learnt.state_dict())
    for candidate in candidates(one.space):
        for name, tensor in one.weights(candidate).items():
            assert torch.equal(two.weights(candidate)[name], tensor)


def test_a_copy_has_maps_of_its_own() -> None:
    source = supernet(0.3)
    twin = copy.deepcopy(source)
    with torch.no_grad():
        for parameter in twin.learnt.parameters():
            parameter.zero_()
    assert source.weights(source.space.smallest())["1.weight"].any()


@pytest.mark.parametrize("genes", [("width",), ("width", "depth")])
def test_without_kernels_there_is_nothing_to_transform(genes: Any) -> None:
    network, _ = a_network()
    with pytest.raises(InputError, match="no kernels here that could be smaller"):
        KernelTransform(network, trace(network, IMAGE, genes=genes))
