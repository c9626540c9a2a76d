"""What a network is made of, by name: in one plain walk, since every question asks again."""

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from prunas.errors import InputError


def modules_of(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """(path, module) of every path to a module, in the order of `network.named_modules()`."""
    found: list[tuple[str, nn.Module]] = []
    waiting = [("", network)]
    while waiting:
        path, module = waiting.pop()
        found.append((path, module))
        if module._modules:
            start = f"{path}." if path else ""
            for name, child in reversed(module._modules.items()):
                if child is not None:
                    waiting.append((start + name, child))
    return found


def parameters_of(network: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters by name, a tied one under each of its names."""
    return _named(network)[0]


def buffers_of(network: nn.Module) -> dict[str, torch.Tensor]:
    """Buffers by name, a tied one under each of its names."""
    return _named(network)[1]


def all_tensors_of(network: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and then buffers by name, a tied one under each of its names."""
    parameters, buffers = _named(network)
    return parameters | buffers


def require_values(network: nn.Module) -> None:
    """Refuse a network without weights.

    Raises:
        InputError: a tensor is on the meta device, or its shape is not known yet.
    """
    for name, tensor in all_tensors_of(network).items():
        if is_lazy(tensor):
            raise InputError(f"{name} has no values yet (lazy); run the network once")
        if tensor.is_meta:
            raise InputError(f"{name} has no values yet (device meta); load weights first")


def tensors_of(network: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and then buffers by name, tied ones under their first name."""
    named = all_tensors_of(network)
    first = _first_names(named)
    return {name: tensor for name, tensor in named.items() if first[id(tensor)] == name}


def aliases_of(network: nn.Module) -> dict[str, str]:
    """Further names of tied parameters and buffers -> the first name."""
    named = all_tensors_of(network)
    first = _first_names(named)
    return {name: first[id(t)] for name, t in named.items() if first[id(t)] != name}


def taken(source: torch.Tensor, dimension: int, where: torch.Tensor) -> torch.Tensor:
    """Those entries of a dimension, channels last if the source has them last."""
    result = source.index_select(dimension, where)
    if source.is_contiguous() or source.dim() != 4:
        return result
    last = source.is_contiguous(memory_format=torch.channels_last)
    return result.contiguous(memory_format=torch.channels_last) if last else result


def _first_names(named: dict[str, torch.Tensor]) -> dict[int, str]:
    return {id(tensor): name for name, tensor in reversed(named.items())}


def _named(network: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    parameters, buffers = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
    for path, module in modules_of(network):
        start = f"{path}." if path else ""
        for held, found in ((module._parameters, parameters), (module._buffers, buffers)):
            for name, tensor in held.items():
                if tensor is not None:
                    found[start + name] = tensor
    return parameters, buffers
