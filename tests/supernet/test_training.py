"""Training of shared weights: what is trained, by whom it is taught, and when it stops."""

import copy
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import prunas
from prunas.supernet.elastic import Supernet
from prunas.supernet.grid import EVERY
from prunas.supernet.schedules.sandwich import Sandwich
from prunas.supernet.schedules.schedule import Schedule
from prunas.supernet.schedules.single_path import SinglePath
from prunas.supernet.space import Candidate
from prunas.supernet.training import PlainDescent, stratified, train_supernet
from tests.search.toys import space_with_blocks


def _supernet() -> Supernet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3))
    return Supernet(network, prunas.trace(network, (6,), grid=EVERY))


_SUPERNET = _supernet()
_ROUNDING = 1e-9  # of powers, where a width lies on the border of its part


def _batches(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(8, 6, generator=generator), torch.randint(0, 3, (8,), generator=generator))
        for _ in range(count)
    ]


def _train(
    supernet: Supernet,
    paths: list[Candidate],
    *,
    taught: bool,
    rate: float,
    largest_gradient: float = math.inf,
) -> None:
    remaining = iter(paths)

    def draw(_: np.random.Generator, n: int) -> Sequence[Candidate]:
        return [next(remaining) for _ in range(n)]

    schedule: Schedule = Sandwich(supernet.space.full(), draw) if taught else SinglePath(draw)
    train_supernet(
        supernet,
        _batches(len(paths)),
        schedule,
        steps=len(paths),
        descent=PlainDescent(
            torch.optim.SGD(supernet.network.parameters(), 1.0), lambda step: rate, largest_gradient
        ),
        label_smoothing=0.0,
        rng=np.random.default_rng(0),
    )


def test_a_step_with_sandwich_is_the_written_loss() -> None:
    supernet, oracle = _supernet(), _supernet()
    path = Candidate([4])
    _train(supernet, [path], taught=True, rate=0.1)
    ((images, labels),) = _batches(1)
    logits = oracle.network(images)
    small = F.linear(images, *(t[:4] for t in oracle.network[0].parameters()))  # type: ignore[index]
    narrow = F.linear(
        small.relu(),
        oracle.network[2].weight[:, :4],  # type: ignore[index]
        oracle.network[2].bias,  # type: ignore[index]
    )
    loss = F.cross_entropy(logits, labels) + F.cross_entropy(narrow, logits.detach().softmax(1))
    loss.backward()
    for ours, theirs in zip(
        supernet.network.parameters(), oracle.network.parameters(), strict=True
    ):
        assert theirs.grad is not None
        torch.testing.assert_close(ours.detach(), theirs.detach() - 0.1 * theirs.grad)


def test_gradients_are_scaled_down_to_the_largest_norm() -> None:
    """A step of rate 1 moves all parameters together by the norm, or by less."""

    def moved(largest: float) -> torch.Tensor:
        supernet = _supernet()
        before = nn.utils.parameters_to_vector(supernet.network.parameters()).detach()
        _train(supernet, [Candidate([4])], taught=False, rate=1.0, largest_gradient=largest)
        return nn.utils.parameters_to_vector(supernet.network.parameters()).detach() - before

    whole = moved(math.inf)
    assert float(whole.norm()) > 0.1
    torch.testing.assert_close(moved(0.1), whole * 0.1 / whole.norm(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(moved(1e6), whole)


def test_single_paths_leave_the_other_channels_alone() -> None:
    supernet = _supernet()
    before = copy.deepcopy(supernet.network)
    _train(supernet, [Candidate([4])] * 3, taught=False, rate=0.1)
    weight, old = supernet.network[0].weight, before[0].weight  # type: ignore[index]
    assert torch.equal(weight[4:], old[4:])
    assert not torch.equal(weight[:4], old[:4])


def test_a_loss_that_is_not_finite_stops_with_a_sentence() -> None:
    with pytest.raises(prunas.RunError, match=r"not finite at step \d+ with learning rate 1e\+30"):
        _train(_supernet(), [Candidate([4])] * 4, taught=True, rate=1e30)


@given(n=st.integers(1, 12), seed=st.integers(0, 99), spread=st.floats(1, 8))
def test_stratified_draws_cover_the_widths_evenly(n: int, seed: int, spread: float) -> None:
    gene = _SUPERNET.space.genes[0]
    drawn = stratified(_SUPERNET.space, np.random.default_rng(seed), n, spread=spread)
    widths = sorted(candidate[0] for candidate in drawn)
    full = gene.choices[-1]
    for index, width in enumerate(widths):  # the index-th draw lies in the index-th part
        low, high = (full * spread ** (part / n - 1) for part in (index, index + 1))
        assert max(1, int(low - _ROUNDING)) <= width <= high + _ROUNDING


@given(n=st.integers(1, 12), seed=st.integers(0, 99), shape=st.floats(0.1, 1))
def test_stratified_draws_lie_around_the_shapes_given(n: int, seed: int, shape: float) -> None:
    full = _SUPERNET.space.full()[0]
    shapes = np.full((n, 1), shape)
    rng = np.random.default_rng(seed)
    for (width,) in stratified(_SUPERNET.space, rng, n, spread=2.0, shapes=shapes):
        assert max(1, int(full * shape / 2 - _ROUNDING)) <= width
        assert width <= max(1, full * shape + _ROUNDING)


def test_paths_keep_about_two_of_three_blocks() -> None:
    """3^(u - 1) >= 1/2 for u >= 1 - log_3(2) = 0.37."""
    space = space_with_blocks()
    drawn = np.array(stratified(space, np.random.default_rng(0), 100))
    assert drawn[:, list(space.blocks)].mean(axis=0).tolist() == pytest.approx([0.63] * 3, abs=0.02)
