"""Costs in closed form against counting on the cut network."""

import copy
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunas.errors import InputError
from prunas.eval.cost import Cost
from prunas.supernet.cut import cut
from prunas.supernet.grid import EVERY
from prunas.supernet.space import Candidate, SearchSpace
from prunas.supernet.trace import trace
from prunas.supernet.verify import verify
from tests.supernet.counting import macs_counted, parameters_counted
from tests.supernet.networks import (
    APART,
    IMAGE,
    Apart,
    Conv1dNet,
    Conv3dNet,
    Network,
    Way,
    plain_chain,
)
from tests.supernet.random_networks import networks


def macs_of_thop(network: nn.Module, size: tuple[int, ...]) -> int:
    """thop's entries of convolutions and linears."""
    network = copy.deepcopy(network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of old version classes, when it is imported
        import thop

        image = torch.zeros(1, *size)
        *_, layers = thop.profile(network, (image,), verbose=False, ret_layer_info=True)
    return round(_entries(network, layers))


def _entries(module: nn.Module, layers: dict[str, Any]) -> float:
    total = 0.0
    for name, child in module.named_children():
        macs, _, below = layers[name]
        counted = isinstance(child, nn.Conv2d | nn.Linear)
        total += macs if counted else _entries(child, below)
    return total


def test_golden_numbers() -> None:
    space = trace(plain_chain(), IMAGE, grid=EVERY)
    cost = Cost(space)
    # 3x3 over 8x8 positions, then over 4x4, then a linear: in * out * kernel * positions
    full = 3 * 8 * 9 * 64 + 8 * 16 * 9 * 16 + 16 * 5
    cut_down = 3 * 4 * 9 * 64 + 4 * 10 * 9 * 16 + 10 * 5
    assert cost.macs([(8, 16), (4, 10)]).tolist() == [full, cut_down]
    # weights, batch norm (2 per channel), biases
    assert cost.params([(8, 16), (4, 10)]).tolist() == [
        3 * 8 * 9 + 2 * 8 + 8 * 16 * 9 + 16 + 16 * 5 + 5,
        3 * 4 * 9 + 2 * 4 + 4 * 10 * 9 + 10 + 10 * 5 + 5,
    ]


@settings(max_examples=40, deadline=None)
@given(network=networks(), seed=st.integers(0, 99))
def test_costs_are_those_of_the_cut_network(network: Network, seed: int) -> None:
    space = trace(network, IMAGE, grid=EVERY)
    drawn = space.sample(np.random.default_rng(seed), 2)
    # a product over one channel may run as a multiplication, which torch does not count
    least = [2 if gene.kind == "width" else 0 for gene in space.genes]
    candidates = [space.full(), *map(Candidate, np.maximum(drawn, least).tolist())]
    cost = Cost(space)
    smalls = [cut(network, space, candidate) for candidate in candidates]
    assert cost.macs(candidates).tolist() == [macs_counted(small, IMAGE) for small in smalls]
    assert cost.params(candidates).tolist() == [parameters_counted(small) for small in smalls]


NOT_OF_THOP = frozenset(("Attention", "Bare", "Transposed"))  # no layers of their own, or others


@settings(max_examples=15, deadline=None)
@given(network=networks(without=NOT_OF_THOP), seed=st.integers(0, 99))
def test_thop_counts_the_same_layers(network: Network, seed: int) -> None:
    space = trace(network, IMAGE, grid=EVERY)
    candidate = space.sample(np.random.default_rng(seed), 1)[0]
    small = cut(network, space, candidate)
    assert Cost(space).macs([candidate])[0] == macs_of_thop(small, IMAGE)


@pytest.mark.parametrize(
    ("network", "size"), [(Conv1dNet(), (2, 10)), (Conv3dNet(), (2, 6, 6, 6))], ids=["1d", "3d"]
)
def test_other_dimensions(network: nn.Module, size: tuple[int, ...]) -> None:
    network.eval()
    space = trace(network, size, grid=EVERY)
    small = cut(network, space, [5, 3])
    assert Cost(space).macs([(5, 3)])[0] == macs_counted(small, size)
    assert Cost(space).params([(5, 3)])[0] == parameters_counted(small)


@pytest.mark.parametrize("way", APART.values(), ids=APART)
def test_images_that_the_forward_takes_apart_count_once(way: Way) -> None:
    network = Apart(way)
    space = trace(network, IMAGE, grid=EVERY)
    candidates = [space.full(), Candidate((5, 7))]
    expected = [macs_counted(cut(network, space, each), IMAGE) for each in candidates]
    assert Cost(space).macs(candidates).tolist() == expected
    verify(network, space)


class Bag(nn.Module):
    """The operator of its first layer has no rule, so nothing says which dimension the batch is."""

    def __init__(self, squeezed: bool = False) -> None:
        super().__init__()
        self.bag, self.squeezed = nn.EmbeddingBag(9, 6), squeezed
        self.body, self.head = nn.Parameter(torch.randn(6, 8)), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bag(x)
        out: Tensor = self.head(((x.squeeze() if self.squeezed else x) @ self.body).relu())
        return out


def costs_of_bag(network: Bag, width: int) -> int:
    space = trace(network, example=torch.zeros(4, 3, dtype=torch.long), grid=EVERY)
    return int(Cost(space).macs([(width,)])[0])


def test_a_batch_that_an_operator_without_a_rule_hides_counts_once() -> None:
    assert costs_of_bag(Bag(), 8) == 6 * 8 + 8 * 5
    assert costs_of_bag(Bag(), 3) == 6 * 3 + 3 * 5


def test_a_vector_in_place_of_a_batch_of_one_is_not_less_work() -> None:
    # products with vectors are not counted, so one image would seem to cost less than half of two
    assert costs_of_bag(Bag(squeezed=True), 8) == 2 * (6 * 8 + 8 * 5)


class Conditioned(nn.Module):
    """Weights that are computed from other weights, once for all images."""

    def __init__(self) -> None:
        super().__init__()
        self.code, self.maker = nn.Parameter(torch.randn(8, 3)), nn.Linear(3, 4)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(x.mean((2, 3)) @ self.maker(self.code).t()[: x.shape[1]])
        return out


def test_what_is_done_once_for_all_images_counts_once() -> None:
    network = Conditioned()
    space = trace(network, (4, 6, 6), grid=EVERY)
    assert Cost(space).macs([space.full()])[0] == macs_counted(network, (4, 6, 6))


@settings(max_examples=20, deadline=None)
@given(network=networks(), seed=st.integers(0, 99))
def test_costs_grow_with_every_gene(network: Network, seed: int) -> None:
    space = trace(network, IMAGE, grid=EVERY)
    candidate = space.sample(np.random.default_rng(seed), 1)[0]
    wider = [
        [gene.choices[-1] if index == chosen else value for index, value in enumerate(candidate)]
        for chosen, gene in enumerate(space.genes)
    ]
    cost = Cost(space)
    assert (cost.macs(wider) >= cost.macs([candidate])).all()
    assert (cost.params(wider) >= cost.params([candidate])).all()


def test_a_saved_space_costs_the_same() -> None:
    space = trace(Network(["Attention", "Grouped"]), IMAGE)
    again = SearchSpace.from_json(space.to_json())
    drawn = space.sample(np.random.default_rng(0), 20)
    assert Cost(again).macs(drawn).tolist() == Cost(space).macs(drawn).tolist()
    assert Cost(again).params(np.array(drawn)).tolist() == Cost(space).params(drawn).tolist()


def test_many_candidates_are_priced_in_pieces() -> None:
    space = trace(plain_chain(), IMAGE)
    cost = Cost(space)
    table = np.array(space.sample(np.random.default_rng(0), 40_000))
    macs = cost.macs(table)
    assert macs.dtype == np.int64
    for row in (0, 16_383, 16_384, 39_999):
        assert macs[row] == cost.macs(table[row : row + 1])[0]
    assert cost.macs([]).shape == (0,)


def test_rows_of_another_length_are_refused() -> None:
    cost = Cost(trace(plain_chain(), IMAGE))
    with pytest.raises(InputError, match=r"shape \(1, 3\) do not fit a space of 2 genes"):
        cost.macs([(1, 2, 3)])
    with pytest.raises(InputError, match=r"shape \(2,\) do not fit"):
        cost.params([8, 16])


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([[1, 2], [1]], "differ in length"),
        ([["x", "y"]], "'x'.* is none"),
        ([[None, 1]], "None is none"),
        ([[10**30, 1]], "none of 64 bits"),
        ([[1.9, 2.0]], r"1\.9.* is none"),
        (np.array([[1.0, 2.0]]), r"1\.0.* is none"),
        ([[-3, 1]], "-3 is not a choice of gene '0'"),
        ([[0, 1]], "0 is not a choice of gene '0'"),
        ([[1, 99]], "99 is not a choice of gene '3'"),
    ],
)
def test_what_is_no_candidate_is_refused(rows: Any, sentence: str) -> None:
    cost = Cost(trace(plain_chain(), IMAGE))
    with pytest.raises(InputError, match=sentence):
        cost.macs(rows)


def test_what_is_no_space_has_no_cost() -> None:
    with pytest.raises(
        InputError, match=r"candidates of None have no cost; give what prunas\.trace"
    ):
        Cost(None)  # type: ignore[arg-type]


def test_costs_that_float64_cannot_hold_are_refused() -> None:
    space = trace(plain_chain(), IMAGE)
    huge = [replace(contraction, constant=2**50) for contraction in space.contractions]
    with pytest.raises(InputError, match=r"costs 2\*\*53 or more"):
        Cost(replace(space, contractions=tuple(huge)))
