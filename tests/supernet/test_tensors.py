"""The walk by name against torch's own."""

import timm
from hypothesis import given
from torch import nn

from prunas.supernet.tensors import (
    aliases_of,
    all_tensors_of,
    buffers_of,
    modules_of,
    parameters_of,
    tensors_of,
)
from tests.supernet.networks import Network
from tests.supernet.random_networks import networks


def agrees_with_torch(network: nn.Module) -> None:
    every = dict(network.named_parameters(remove_duplicate=False))
    kept = dict(network.named_buffers(remove_duplicate=False))
    assert modules_of(network) == list(network.named_modules(remove_duplicate=False))
    assert list(parameters_of(network)) == list(every)
    assert list(buffers_of(network)) == list(kept)
    found = all_tensors_of(network)
    assert list(found) == [*every, *kept]
    assert all(found[name] is tensor for name, tensor in (every | kept).items())
    once = [*network.named_parameters(), *network.named_buffers()]
    assert list(tensors_of(network)) == [name for name, _ in once]
    first = {id(tensor): name for name, tensor in once}
    others = (every | kept).items()
    assert aliases_of(network) == {n: first[id(t)] for n, t in others if first[id(t)] != n}


@given(networks())
def test_random_networks(network: Network) -> None:
    agrees_with_torch(network)


def test_tied_tensors_shared_modules_and_missing_ones() -> None:
    shared = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    network = nn.Sequential(shared, nn.Linear(4, 4, bias=False), shared, nn.Linear(4, 4))
    network[1].weight = shared[0].weight
    network[3].register_buffer("statistics", shared.get_buffer("1.running_mean"))
    network.register_module("nothing", None)
    network.register_parameter("none", None)
    agrees_with_torch(network)
    assert aliases_of(network)["1.weight"] == "0.0.weight"
    assert aliases_of(network)["2.1.running_var"] == "0.1.running_var"
    assert aliases_of(network)["3.statistics"] == "0.1.running_mean"


def test_a_network_of_timm() -> None:
    agrees_with_torch(timm.create_model("repvit_m1_0"))
