"""Operators: their costs as published, and as what is built really has and does."""

from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from prunas.errors import InputError
from prunas.transformer_nat.layers import FactorisedReduce, operator_module
from prunas.transformer_nat.operator_cost import OperatorCost, Place, operator_cost
from prunas.transformer_nat.operators import (
    KNOWN,
    NAT_FULLY_CONCAT,
    NAT_LOOSE_END,
    NAT_PLUS,
    OF_NETWORKS,
    OPERATORS,
    operator,
)

STRIDE_1 = Place(128, 128, 32, 32)
STRIDE_2 = Place(128, 128, 32, 32, 2)

# C = 128, so C^2 = 16,384 and a map of 32 x 32 has 1,024 positions
WEIGHTS = {
    "conv_5x5": 16_384 * 25,
    "conv_3x3": 16_384 * 9,
    "sep_conv_5x5": 2 * (128 * 25 + 16_384),
    "sep_conv_3x3": 2 * (128 * 9 + 16_384),
    "dil_conv_5x5": 128 * 25 + 16_384,
    "dil_conv_3x3": 128 * 9 + 16_384,
    "conv_1x1": 16_384,
}
NORMS = dict.fromkeys(WEIGHTS, 1) | {"sep_conv_5x5": 2, "sep_conv_3x3": 2}


def test_vocabularies_have_the_published_sizes() -> None:
    assert [len(v) for v in (NAT_FULLY_CONCAT, NAT_LOOSE_END, NAT_PLUS)] == [9, 9, 13]
    assert {*NAT_FULLY_CONCAT, *NAT_LOOSE_END} == set(NAT_PLUS) - {"max_pool_5x5", "avg_pool_5x5"}
    assert set(NAT_PLUS) <= set(OPERATORS)


@pytest.mark.parametrize("name", WEIGHTS)
def test_convolutions_at_stride_1(name: str) -> None:
    cost = operator_cost(name, STRIDE_1)
    assert cost.weights == WEIGHTS[name]
    assert cost.macs == cost.published_macs == WEIGHTS[name] * 1024
    assert cost.params == WEIGHTS[name] + 256 * NORMS[name]


def test_the_figures_of_the_published_table() -> None:
    """The weights that are printed there in thousands, as integers."""
    assert [operator_cost(name, STRIDE_1).weights for name in WEIGHTS] == [
        409_600, 147_456, 39_168, 35_072, 19_584, 17_536, 16_384,
    ]  # fmt: skip
    free = [operator_cost(f"{kind}_{k}x{k}", STRIDE_1) for kind in ("max_pool", "avg_pool")
            for k in (5, 3)]  # fmt: skip
    assert [cost.published_macs for cost in free] == [3_276_800, 1_179_648] * 2
    assert operator_cost("skip_connect", STRIDE_1) == OperatorCost(touched=131_072)
    assert operator_cost("null", STRIDE_1) == OperatorCost()
    assert all(cost.params == cost.macs == 0 for cost in free)


def test_the_figures_at_stride_2() -> None:
    names = [*WEIGHTS, "max_pool_5x5", "avg_pool_3x3", "skip_connect", "null"]
    costs = [operator_cost(name, STRIDE_2) for name in names]
    assert [cost.params for cost in costs] == [
        409_856, 147_712, 39_680, 35_584, 19_840, 17_792, 16_640, 0, 0, 16_640, 0,
    ]  # fmt: skip
    assert [cost.published_macs for cost in costs[:7]] == [w * 256 for w in WEIGHTS.values()]
    assert [cost.published_macs for cost in costs[7:]] == [819_200, 294_912, 4_194_304, 0]


def places() -> st.SearchStrategy[Place]:
    sizes, widths = st.integers(1, 9), st.integers(1, 5)
    return st.builds(Place, widths, widths, sizes, sizes, st.integers(1, 3))


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(sorted(OPERATORS)), places())
def test_what_is_built_costs_what_is_counted(name: str, place: Place) -> None:
    cost = operator_cost(name, place)
    module = operator_module(name, place).eval()
    assert sum(p.numel() for p in module.parameters()) == cost.params
    assert sum(p.numel() for p in module.parameters() if p.dim() > 1) == cost.weights
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        made = module(torch.zeros(2, place.in_channels, place.height, place.width))
    assert made.shape == (2, place.out_channels, *place.out_size)
    assert counter.get_total_flops() == 2 * 2 * cost.macs  # two images, two operations a MAC


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(sorted(OPERATORS)), places())
def test_pools_and_identities_touch_what_the_papers_count(name: str, place: Place) -> None:
    found, positions = OPERATORS[name], place.in_channels * prod(place.out_size)
    window = found.kernel**2 if "pool" in name else int(name == "skip_connect")
    expected = 0 if name == "skip_connect" and not place.keeps_shape else window * positions
    assert operator_cost(name, place).touched == expected


def test_factorised_reduce_sees_every_pixel() -> None:
    """Odd maps too: a gradient reaches each pixel that an output may depend on."""
    for size in (4, 5):
        reduce = FactorisedReduce(1, 2)
        with torch.no_grad():
            reduce.even.weight.fill_(1)
            reduce.odd.weight.fill_(1)
        maps = torch.ones(1, 1, size, size, requires_grad=True)
        made = reduce.eval()(maps)
        assert made.shape[-2:] == (-(-size // 2),) * 2
        made.sum().backward()
        assert maps.grad is not None
        seen = maps.grad[0, 0] > 0
        rows = torch.arange(size)
        same = (rows[:, None] - rows) % 2 == 0
        # the pixels of the two grids: both coordinates even, or both odd
        assert torch.equal(seen, same)


def test_dilated_convolutions_look_two_pixels_apart() -> None:
    module = operator_module("dil_conv_3x3", Place(1, 1, 9, 9)).eval()
    maps = torch.ones(1, 1, 9, 9, requires_grad=True)
    module(maps)[0, 0, 4, 4].backward()
    assert maps.grad is not None
    rows, columns = maps.grad[0, 0].nonzero(as_tuple=True)
    assert set(rows.tolist()) == set(columns.tolist()) == {2, 4, 6}


def test_averages_do_not_count_the_padding() -> None:
    made = operator_module("avg_pool_3x3", Place(2, 2, 5, 5))(torch.ones(1, 2, 5, 5))
    assert torch.equal(made, torch.ones(1, 2, 5, 5))


def test_costs_add_up() -> None:
    a, b = OperatorCost(1, 2, 3, 4), OperatorCost(10, 20, 30, 40)
    assert a + b == OperatorCost(11, 22, 33, 44)
    assert (a + b).params == 55
    assert (a + b).published_macs == 55
    assert b.exceeds(a)
    assert not a.exceeds(a)
    assert OperatorCost(macs=2).exceeds(OperatorCost(macs=1, touched=5))
    assert OperatorCost(touched=2).exceeds(OperatorCost(macs=1))
    assert OperatorCost(norms=1).exceeds(OperatorCost(macs=5))


def test_unknown_operators_are_refused() -> None:
    with pytest.raises(InputError, match="no operator 'conv_4x4'; those that are known are max"):
        operator("conv_4x4")
    with pytest.raises(InputError, match="conv_4x4"):
        operator_cost("conv_4x4", STRIDE_1)
    with pytest.raises(InputError, match="conv_4x4"):
        operator_module("conv_4x4", STRIDE_1)


def test_operators_of_networks_are_no_cells() -> None:
    with pytest.raises(InputError, match="what branch costs depends on the network"):
        operator_cost("branch", STRIDE_1)
    with pytest.raises(InputError, match="ds_conv_3x3 is built from a layer of a traced network"):
        operator_module("ds_conv_3x3", STRIDE_1)
    assert not set(OF_NETWORKS) - set(KNOWN)
    assert set(OPERATORS) < set(KNOWN)


@pytest.mark.parametrize("sizes", [(0, 1, 1, 1), (1, 0, 1, 1), (1, 1, 1, 0), (1, 1, 1, 1, 0)])
def test_places_have_sizes(sizes: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="has a size below 1"):
        Place(*sizes)


@pytest.mark.parametrize("size", ["1", 1.5, None, True])
def test_places_are_counted_in_whole_numbers(size: Any) -> None:
    with pytest.raises(InputError, match=rf"height={size!r}, .* that is no whole number"):
        Place(1, 1, size, 1)
    assert Place(np.int64(1), 1, 1, 1) == Place(1, 1, 1, 1)  # type: ignore[arg-type]
