"""All that a budget may limit, for one network."""

import numpy as np
import pytest
from torch import nn

from prunas.errors import InputError
from prunas.eval.cost import Cost
from prunas.eval.peak import PeakMemory
from prunas.eval.prices import Prices
from prunas.search.budget import Budget, Feasible, as_values
from prunas.supernet.grid import EVERY
from prunas.supernet.space import SearchSpace
from prunas.supernet.trace import trace
from tests.eval.joint import traced
from tests.supernet.networks import IMAGE, Network


def made() -> tuple[nn.Module, SearchSpace]:
    network = Network(["Residual", "LargeKernel"], seed=0).eval()
    return network, trace(network, IMAGE, grid=EVERY)


def test_prices_are_those_of_each_cost_alone() -> None:
    network, space = made()
    prices, drawn = Prices(network, space), space.sample(np.random.default_rng(0), 20)
    assert (prices.macs(drawn) == Cost(space).macs(drawn)).all()
    assert (prices.params(drawn) == Cost(space).params(drawn)).all()
    assert (prices.memory(drawn) == PeakMemory(network, space).bytes(drawn)).all()


def test_candidates_keep_several_limits_at_once() -> None:
    network, space = made()
    prices = Prices(network, space)
    feasible = Feasible(space, Budget.parse("memory=60%,macs=50%"), prices)
    drawn = as_values(feasible.sample(np.random.default_rng(0), 50))
    full = [space.full()]
    assert (prices.memory(drawn) <= int(0.6 * prices.memory(full)[0])).all()
    assert (prices.macs(drawn) <= int(0.5 * prices.macs(full)[0])).all()
    assert feasible.in_window(drawn).all()


def test_memory_out_of_reach() -> None:
    network, space = made()
    prices = Prices(network, space)
    least = int(prices.memory([space.smallest()])[0])
    with pytest.raises(InputError, match=f"at most {least - 1:,} memory: .*has {least:,}"):
        Feasible(space, Budget((("memory", least - 1),)), prices)
    with pytest.raises(InputError, match=r"memory=1\.5 is not a whole number of bytes; round it"):
        Budget.parse("memory=1.5")


def test_memory_where_there_is_no_network() -> None:
    _, space = made()
    with pytest.raises(InputError, match="the memory of candidates is not known here; limit it"):
        Feasible(space, Budget.parse("memory=50%"), Cost(space))


def test_memory_of_all_kinds_of_genes() -> None:
    network, space = traced("all", (7, 10))
    prices = Prices(network, space)
    for share in (0.3, 0.7):
        feasible = Feasible(space, Budget((("memory", share),)), prices)
        values = as_values(feasible.sample(np.random.default_rng(0), 10))
        assert feasible.in_window(values).all()
        assert (prices.memory(values) <= int(share * prices.memory([space.full()])[0])).all()
