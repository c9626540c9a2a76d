"""Worth of widths as the network itself shows it."""

import numpy as np
import pytest
import torch
from torch import nn

import prunas
from prunas.errors import InputError
from prunas.eval.criteria.measured import measured_values
from prunas.supernet.space import Candidate, SearchSpace
from tests.supernet.networks import IMAGE, Network


def chain() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Sequential(
            nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5)
        )
    return layers.double().eval()


def batches() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(24, *IMAGE, generator=generator, dtype=torch.float64)
    return list(images.split(16))


def values_of(
    network: nn.Module, space: SearchSpace, **options: tuple[float, ...]
) -> tuple[tuple[float, ...], ...]:
    def cutting(ordered: nn.Module, candidate: Candidate) -> nn.Module:
        return prunas.cut(ordered, space, candidate).eval()

    orders = [list(range(width)) for width in space.widths]
    return measured_values(network, space, orders, batches(), cutting, device="cpu", **options)


def test_worth_is_the_divergence_that_channels_prevent() -> None:
    """Every width of the first layer, with the cut done by hand."""
    network = chain()
    space = prunas.trace(network, IMAGE, grid="every")
    first, _ = values_of(network, space, shares=tuple(k / 8 for k in range(1, 8)))
    images = torch.cat(batches())
    with torch.no_grad():
        full = network(images).softmax(1)
        hidden = network[:3](images)
        losses = []
        for kept in range(1, 9):
            left = hidden.clone()
            left[:, kept:] = 0
            small = network[3:](left).softmax(1)
            losses.append(float((full * (full / small).log()).sum(1).mean()))
    expected = np.maximum.accumulate(losses[0] - np.array(losses))
    np.testing.assert_allclose(first, [0, *expected], rtol=1e-9, atol=1e-12)


def test_between_measurements_worth_is_linear_and_never_falls() -> None:
    network = Network(["Residual", "Depthwise"]).double().eval()
    space = prunas.trace(network, IMAGE)
    for gene, worth in zip(space.genes, values_of(network, space), strict=True):
        assert len(worth) == gene.choices[-1] + 1
        assert worth[0] == worth[gene.choices[0]] == 0
        assert (np.diff(worth) >= 0).all()


def test_channels_that_nothing_listens_to_are_worth_nothing() -> None:
    network = chain()
    with torch.no_grad():
        network.get_parameter("3.weight").zero_()
    first, second = values_of(network, prunas.trace(network, IMAGE, grid="every"))
    assert max(first) == pytest.approx(0, abs=1e-12)
    assert second[-1] > 1e-4


def test_blocks_are_measured_too() -> None:
    network = Network(["Residual", "Residual"]).double().eval()
    space = prunas.trace(network, IMAGE)
    values = values_of(network, space)
    depths = [values[index] for index, gene in enumerate(space.genes) if gene.kind == "depth"]
    assert depths
    for nothing, worth in depths:
        assert nothing == 0
        assert worth > 0


def test_refuses_no_images_other_answers_and_nan() -> None:
    network = chain()
    space = prunas.trace(network, IMAGE, grid="every")
    orders = [list(range(width)) for width in space.widths]

    def measured(model: nn.Module, images: list[torch.Tensor]) -> None:
        measured_values(
            model, space, orders, images, lambda n, c: prunas.cut(n, space, c), device="cpu"
        )

    with pytest.raises(InputError, match="no images"):
        measured(network, [])
    with pytest.raises(InputError, match="answers with NaN"):
        measured(network, [batches()[0] * torch.nan])
    lone = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 1)).double()
    space = prunas.trace(lone, IMAGE, grid="every")
    orders = [list(range(width)) for width in space.widths]
    with pytest.raises(InputError, match="logits of two or more classes"):
        measured(lone, batches())
