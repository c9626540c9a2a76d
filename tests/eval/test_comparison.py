"""Criteria beside each other, and what Gaussian filters predict of them."""

import numpy as np
import pytest
import torch
from torch import nn

import prunas
from prunas.eval.criteria import weights
from prunas.eval.criteria.comparison import (
    GAUSSIAN_SPEARMAN,
    compared,
    findings,
    normality,
)
from prunas.eval.criteria.discriminant import Elimination
from prunas.eval.criteria.verdict import Verdict, judge
from prunas.supernet.space import SearchSpace
from tests.eval.spaces import space_of

CHANNELS = 20_000


def scored(*columns: list[float]) -> Verdict:
    return judge(space_of([len(column) for column in columns], []), columns)


def gaussian_layer(
    width: int, channels: int, *, scales: bool = False
) -> tuple[nn.Module, SearchSpace]:
    rng = np.random.default_rng(0)
    first = nn.Linear(width, channels, bias=False)
    layers = nn.Sequential(first, nn.ReLU(), nn.Linear(channels, 2))
    filters = rng.standard_normal((channels, width))
    if scales:
        filters *= np.exp(0.3 * rng.standard_normal((channels, 1)))
    first.weight.data = torch.from_numpy(filters).float()
    return layers.eval(), prunas.trace(layers, example=torch.zeros(1, width), grid="every")


def test_the_constant_of_gaussian_filters() -> None:
    assert pytest.approx(0.93008, abs=1e-5) == GAUSSIAN_SPEARMAN


@pytest.mark.parametrize("width", [144, 576])
def test_gaussian_filters_are_ranked_alike_by_l1_and_l2(width: int) -> None:
    """20,000 filters: the standard error of Spearman's correlation is below 0.001."""
    network, space = gaussian_layer(width, CHANNELS)
    verdicts = {
        name: weights.magnitude(network, space, [], device="cpu", power=power, scope="own")
        for name, power in (("l1", 1), ("l2", 2))
    }
    found = compared(space, verdicts)
    assert found.similarity[0, 1] == pytest.approx(GAUSSIAN_SPEARMAN, abs=0.005)
    assert found.variation[0, 0] == pytest.approx(0.7555 / np.sqrt(width), rel=0.02)
    assert found.variation[1, 0] == pytest.approx(0.7071 / np.sqrt(width), rel=0.02)


def test_filters_of_many_scales_are_ranked_alike_by_any_norm() -> None:
    network, space = gaussian_layer(576, 5000, scales=True)
    verdicts = {
        name: weights.magnitude(network, space, [], device="cpu", power=power, scope="own")
        for name, power in (("l1", 1), ("l2", 2))
    }
    found = compared(space, verdicts)
    assert found.similarity[0, 1] > 0.998
    assert "pointless" in findings(found)[0]


def test_gaussian_filters_pass_every_test_of_normality() -> None:
    (found,) = normality(*gaussian_layer(64, 256))
    assert found is not None
    assert found.weights == 64
    assert found.quantiles > 0.999
    assert found.shift < 0.05
    assert found.scales < 0.02
    assert found.correlation == pytest.approx(1, abs=0.05)


def test_other_filters_fail_the_test_that_concerns_them() -> None:
    network, space = gaussian_layer(64, 256)
    (gaussian,) = normality(network, space)
    assert gaussian is not None
    weight = network.get_parameter("0.weight")
    plain = weight.detach().clone()

    def changed(filters: torch.Tensor) -> "tuple[float, float, float, float]":
        weight.data = filters
        (found,) = normality(network, space)
        assert found is not None
        return found.quantiles, found.shift, found.scales, found.correlation

    assert changed(plain.sign() * plain.abs() ** 3)[0] < 0.8  # heavy tails
    assert changed(plain + 1)[1] > 0.5
    assert changed(plain * torch.linspace(0.2, 2, 256)[:, None])[2] > 0.3
    assert changed(plain.cumsum(1))[3] > 3


def test_similarity_is_the_mean_of_spearman_over_genes() -> None:
    space = space_of([4, 3], [])
    one, two = scored([1, 2, 3, 4], [1, 2, 3]), scored([10, 20, 40, 30], [3, 2, 1])
    found = compared(space, {"one": one, "two": two})
    assert found.similarity[0, 1] == pytest.approx((0.8 - 1) / 2)
    assert found.similarity[0, 0] == pytest.approx(1)


def test_overlap_of_what_would_go_at_half_width() -> None:
    space = space_of([4], [])
    found = compared(space, {"one": scored([1, 2, 3, 4]), "two": scored([1, 9, 2, 8])})
    assert found.overlap[0, 1] == pytest.approx(1 / 3)


def test_paths_are_compared_by_the_order_of_removal() -> None:
    """What removals cost need not rise along a path, as costs are looked at anew."""
    space = space_of([6], [])
    path = judge(space, [Elimination((3, 0, 5, 1, 2, 4), (0.0, 5.0, 1.0, 0.5, 4.0, 2.0))])
    same = judge(space, [Elimination((3, 0, 5, 1, 2, 4), (1.0, 2.0, 3.0, 4.0, 5.0, 6.0))])
    back = judge(space, [Elimination((4, 2, 1, 5, 0, 3), (1.0, 2.0, 3.0, 4.0, 5.0, 6.0))])
    found = compared(space, {"path": path, "same": same, "back": back})
    np.testing.assert_allclose(found.similarity[0], [1, 1, -1])
    np.testing.assert_allclose(found.overlap[0], [1, 1, 0])
    drops = np.array([0.0, 5.0, 1.0, 0.5, 4.0, 2.0])
    assert found.variation[0, 0] == pytest.approx(drops.std() / drops.mean())


def test_channels_that_cost_the_same_in_a_row_share_a_rank() -> None:
    space = space_of([4], [])
    one = judge(space, [Elimination((2, 0, 1, 3), (0.0, 0.0, 3.0, 2.0))])
    two = judge(space, [Elimination((0, 2, 1, 3), (0.0, 0.0, 2.0, 3.0))])
    found = compared(space, {"one": one, "two": two})
    assert found.similarity[0, 1] == pytest.approx(1)
    assert found.overlap[0, 1] == 1


def test_genes_that_one_cannot_judge_are_left_out() -> None:
    space = space_of([3, 3], [])
    half = judge(space, [[1.0, 2.0, 3.0], "no reason"])
    found = compared(space, {"half": half, "whole": scored([1, 2, 3], [3, 1, 2])})
    assert found.similarity[0, 1] == pytest.approx(1)
    assert np.isnan(found.variation[0, 1])


def test_equal_scores_have_no_correlation() -> None:
    space = space_of([3], [])
    found = compared(space, {"flat": scored([1, 1, 1]), "other": scored([1, 2, 3])})
    assert np.isnan(found.similarity[0, 1])


def test_findings_name_what_is_pointless_blind_and_opposed() -> None:
    space = space_of([4], [])
    verdicts = {
        "up": scored([1, 2, 3, 4]),
        "same": scored([2, 4, 6, 9]),
        "close": scored([100, 101, 103, 102]),
        "down": scored([4, 3, 2, 1]),
    }
    text = " ".join(findings(compared(space, verdicts)))
    assert "up and same (1.00)" in text
    assert "close in 1 of 1 groups" in text
    assert "up and down contradict each other" in text


def test_different_criteria_are_said_to_matter() -> None:
    space = space_of([4], [])
    found = compared(space, {"one": scored([1, 2, 3, 4]), "two": scored([2, 4, 1, 3])})
    assert findings(found) == [
        "No two of these criteria order the channels alike: the choice matters here."
    ]


def test_one_criterion_alone_is_not_compared() -> None:
    assert findings(compared(space_of([4], []), {"one": scored([1, 2, 3, 4])})) == []
