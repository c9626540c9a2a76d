"""Reordering channels: the function stays, and cutting keeps the first of the new order."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunas.errors import InputError
from prunas.supernet.cut import cut
from prunas.supernet.grid import EVERY
from prunas.supernet.permute import permute
from prunas.supernet.space import SearchSpace
from prunas.supernet.trace import trace
from tests.supernet.networks import IMAGE, Network, plain_chain
from tests.supernet.random_networks import networks


def random_orders(space: SearchSpace, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.permutation(width).tolist() for width in space.widths]


@settings(max_examples=20, deadline=None)
@given(network=networks(), seed=st.integers(0, 99))
def test_the_function_stays(network: Network, seed: int) -> None:
    network = network.double()
    space = trace(network, IMAGE, grid=EVERY)
    moved = permute(network, space, random_orders(space, seed))
    image = torch.randn(2, *IMAGE, dtype=torch.float64)
    assert torch.allclose(moved(image), network(image), rtol=1e-9, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(network=networks(), seed=st.integers(0, 99))
def test_cutting_a_permuted_network_is_cutting_by_the_reordered_space(
    network: Network, seed: int
) -> None:
    """Two ways to keep the same channels, which compute the same function."""
    network = network.double()
    space = trace(network, IMAGE, grid=EVERY)
    orders = random_orders(space, seed)
    candidate = space.sample(np.random.default_rng(seed), 1)[0]
    one = cut(permute(network, space, orders), space, candidate)
    two = cut(network, space.reordered(orders), candidate)
    image = torch.randn(2, *IMAGE, dtype=torch.float64)
    assert torch.allclose(one(image), two(image), rtol=1e-9, atol=1e-12)


def test_channels_move_to_their_place() -> None:
    network = plain_chain()
    space = trace(network, IMAGE)
    order = [7, 6, 5, 4, 3, 2, 1, 0]
    moved = permute(network, space, [order, list(range(16))])
    assert torch.equal(moved.state_dict()["0.weight"], network.state_dict()["0.weight"].flip(0))
    assert torch.equal(moved.state_dict()["3.weight"], network.state_dict()["3.weight"].flip(1))
    assert torch.equal(
        moved.state_dict()["1.running_var"], network.state_dict()["1.running_var"].flip(0)
    )


def test_the_reordered_space_keeps_the_first_of_each_order() -> None:
    network = plain_chain()
    space = trace(network, IMAGE, grid=EVERY).reordered([[4, 2, 0, 1, 3, 5, 6, 7], range(16)])
    removed = space.removed([2, 16])
    assert removed["0.weight"][0].tolist() == [0, 1, 3, 5, 6, 7]
    assert removed["3.weight"][1].tolist() == [0, 1, 3, 5, 6, 7]


def test_orders_must_be_permutations_of_every_gene() -> None:
    network = plain_chain()
    space = trace(network, IMAGE)
    with pytest.raises(InputError, match="1 orders were given for 2 genes"):
        permute(network, space, [range(8)])
    wrong: Any
    for wrong in (None, 3):
        with pytest.raises(InputError, match=f"each of 2 genes has an order, and not {wrong}"):
            permute(network, space, wrong)
    for wrong in (None, "a", [0.5 * i for i in range(8)]):
        with pytest.raises(InputError, match="order of gene '0' is not a permutation"):
            permute(network, space, [wrong, range(16)])
    with pytest.raises(InputError, match=r"order of gene '0' is not a permutation of 0\.\.7"):
        permute(network, space, [[0] * 8, range(16)])
    with pytest.raises(InputError, match="trace the network again"):
        permute(Network(["Plain"]), space, [range(8), range(16)])
