"""Indicators that are learnt: what they multiply, what they cost, what they find."""

from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import prunas
from prunas.eval.cost import Cost
from prunas.eval.criteria.indicators import _away, _Gates, _SoftCost, dais
from prunas.eval.criteria.verdict import scores_of
from prunas.supernet.grid import EVERY
from prunas.supernet.space import SearchSpace
from tests.supernet.networks import IMAGE, Network

CPU = "cpu"


def traced(*names: str) -> tuple[nn.Module, SearchSpace]:
    network = Network(list(names)).eval()
    return network, prunas.trace(network, IMAGE, grid=EVERY, genes=("width",))


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("name", ["Residual", "Depthwise", "Grouped", "Concatenated"])
def test_whole_indicators_cost_what_the_candidate_costs(name: str, seed: int) -> None:
    _, space = traced(name)
    candidate = space.sample(np.random.default_rng(seed), 1)[0]
    kept = torch.from_numpy(space.kept(candidate)).float()
    assert float(_SoftCost(space).of(kept)) == Cost(space).macs([candidate])[0]
    assert _SoftCost(space).full == Cost(space).macs([space.full()])[0]


def test_halves_of_a_gene_cost_as_half_of_it() -> None:
    _, space = traced("Residual")
    half = torch.full((sum(space.widths) + 1,), 0.5)
    widths = [width / 2 for width in space.widths]
    total = 0.0
    for contraction in space.contractions:
        lengths = [
            sum(factor * prod(widths[gene] for gene in genes) for factor, genes in size)
            for size in contraction.sizes
        ]
        total += contraction.constant * prod(lengths)
    assert float(_SoftCost(space).of(half)) == pytest.approx(total)


@pytest.mark.parametrize("name", ["Residual", "Concatenated"])
def test_gates_of_zero_and_one_are_masks(name: str) -> None:
    """Zero gates give what the network gives when the readers' weights for them are zero."""
    network, space = traced(name)
    images = torch.randn(4, *IMAGE, generator=torch.Generator().manual_seed(0))
    gates = _Gates(space, CPU)
    candidate = space.uniform(0.5)
    kept = torch.from_numpy(space.kept(candidate))
    gates.alphas = torch.where(kept, 1000.0, -1000.0)
    with torch.no_grad(), gates.acting(network):
        found = network(images)
    assert gates.seen == set(range(len(space.genes)))
    masked = dict(network.state_dict())
    for tap in (tap for tap in space.taps if not tap.depthwise):
        weight = f"{tap.module}.weight"
        open_ = kept[torch.from_numpy(np.stack(tap.atoms))].all(0)
        shape = [1, len(open_)] + [1] * (masked[weight].ndim - 2)
        masked[weight] = masked[weight] * open_.view(shape)
    with torch.no_grad():
        wanted = torch.func.functional_call(network, masked, (images,))
        plain = network(images)
    torch.testing.assert_close(found, wanted)
    assert not torch.allclose(found, plain)


def test_indicators_become_zeros_and_ones() -> None:
    """|I - round(I)| <= sigmoid(-|alpha| / T); at T = 1/50 within 0.01 for |alpha| > 0.092."""
    _, space = traced("Residual")
    gates = _Gates(space, CPU)
    gates.alphas = torch.linspace(-1, 1, len(gates.alphas))
    assert gates.indicators()[0] == 1
    gates.temperature = 1 / 50
    cold = gates.indicators()[1:]
    alphas = gates.alphas[1:]
    slack = (cold - cold.round()).abs()
    assert (slack <= torch.sigmoid(-alphas.abs() * 50) + 1e-6).all()
    assert (slack[alphas.abs() > 0.092] < 0.01).all()


def test_the_pull_on_the_cost_points_to_the_budget() -> None:
    for ratio, sign in ((2.0, 1), (0.5, -1), (0.995, 0)):
        value = torch.tensor(ratio, requires_grad=True)
        _away(value).backward()
        assert value.grad is not None
        assert float(value.grad) == pytest.approx(sign / ratio)


class Chain(nn.Module):
    """Half of the middle channels repeat the input; the other half is noise of no use."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 1)
        self.second = nn.Conv2d(12, 3, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.second(self.first(images).relu())
        return answers.mean((2, 3))


def task(count: int = 256) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The brightest colour is the class."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(count, 3, 4, 4, generator=generator)
    labels = torch.randint(3, (count,), generator=generator)
    images += F.one_hot(labels, 3).float()[:, :, None, None]
    return list(zip(images.split(64), labels.split(64), strict=True))


def chain() -> tuple[nn.Module, SearchSpace]:
    torch.manual_seed(0)
    network = Chain()
    with torch.no_grad():
        nn.init.zeros_(network.first.weight)
        network.first.bias = nn.Parameter(torch.zeros(12))
        for channel in range(6):
            network.first.weight[channel, channel % 3] = 1
        network.second.weight.zero_()
        for channel in range(12):
            network.second.weight[channel % 3, channel] = 2
        network.first.weight[6:] = torch.rand(6, 3, 1, 1)
        network.second.weight[:, 6:] = 0.05 * torch.randn(3, 6, 1, 1)
    return network, prunas.trace(network, (3, 4, 4), grid=EVERY)


def test_what_carries_the_answer_is_kept() -> None:
    network, space = chain()
    verdict = dais(network, space, task(), device=CPU, passes=40)
    (elimination,) = verdict.eliminations
    assert elimination is not None
    scores = scores_of(elimination)
    assert scores[:6].mean() > scores[6:].mean() + 0.05
    assert set(elimination.order[:4]) <= set(range(6, 12))


@pytest.mark.parametrize("share", [0.25, 0.75])
def test_about_as_many_are_kept_as_the_budget_allows(share: float) -> None:
    """sigmoid(alpha) > 1/2 is I = 1; one gene of 12 channels, MACs in proportion to its width."""
    network, space = chain()
    verdict = dais(network, space, task(), device=CPU, share=share, passes=60)
    (elimination,) = verdict.eliminations
    assert elimination is not None
    kept = int((scores_of(elimination) > 0.5).sum())
    assert abs(kept / 12 - share) <= 0.17


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.BatchNorm2d])
def test_a_short_last_batch_will_do_for_batch_norms(
    norm: type[nn.BatchNorm1d | nn.BatchNorm2d], count: int
) -> None:
    """One of its halves is a single image, of one value a channel."""
    pooled = nn.AdaptiveAvgPool2d(1)
    torch.manual_seed(0)
    network = nn.Sequential(
        pooled, nn.Conv2d(3, 12, 1),
        *([nn.Flatten(), norm(12)] if norm is nn.BatchNorm1d else [norm(12), nn.Flatten()]),
        nn.ReLU(), nn.Linear(12, 3),
    ).eval()  # fmt: skip
    space = prunas.trace(network, (3, 4, 4), grid=EVERY)
    images, labels = task(64)[0]
    rows = [(images, labels), (images[:count], labels[:count])]
    (elimination,) = dais(network, space, rows, device=CPU, passes=2).eliminations
    assert elimination is not None
    assert np.isfinite(elimination.drops).all()
    assert np.ptp(elimination.drops) > 0


def test_a_single_image_and_a_single_batch_will_do() -> None:
    network, space = chain()
    images, labels = task()[0]
    verdict = dais(network, space, [(images[:1], labels[:1])], device=CPU, passes=2)
    (elimination,) = verdict.eliminations
    assert elimination is not None
    start = 1 / (1 + np.exp(-0.5))  # of every indicator
    assert (np.abs(scores_of(elimination) - start) > 1e-4).all()
