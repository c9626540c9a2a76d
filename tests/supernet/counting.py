"""What a network costs, counted on the network itself: the oracle of costs in closed form."""

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def macs_counted(network: nn.Module, size: tuple[int, ...]) -> int:
    """Half of torch's count of one image on the meta device."""
    network = copy.deepcopy(network).to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, *size, device="meta"))
    total: int = counter.get_total_flops()
    return total // 2


def parameters_counted(network: nn.Module) -> int:
    """Every parameter once."""
    return sum(parameter.numel() for parameter in network.parameters())
