"""Where a network has to be for what is about to be computed."""

import inspect

import torch
from torch import nn

from prunas.errors import InputError
from prunas.supernet.tensors import all_tensors_of, require_values


def require_on(network: nn.Module, device: torch.device | str) -> None:
    """Refuse a network that cannot be run on images that are sent to a device.

    Raises:
        InputError: there is no such device, or a tensor of the network is on another, or has no
            values; or the network takes more than one input.
    """
    _require_one_input(network)
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise InputError(f"there is no device {str(device)!r}; write cpu, cuda or cuda:1") from None
    require_values(network)
    for name, tensor in all_tensors_of(network).items():
        found = tensor.device
        elsewhere = None not in (found.index, wanted.index) and found.index != wanted.index
        if found.type != wanted.type or elsewhere:
            raise InputError(
                f"the images are sent to {wanted}, but {name} of the network is on {found}; move"
                f" the network there, or give device={str(found)!r}"
            )


def _require_one_input(network: nn.Module) -> None:
    try:
        signature = inspect.signature(network.forward)
    except (TypeError, ValueError):  # compiled code that does not tell
        return
    try:
        signature.bind("images")
    except TypeError:
        others = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        needed = [
            name
            for name, parameter in signature.parameters.items()
            if parameter.default is parameter.empty and parameter.kind not in others
        ]
        raise InputError(
            f"{type(network).__name__} takes {len(needed)} inputs ({', '.join(needed)}), and only"
            " images are given; choose a criterion of weights, such as l1, without batches, or"
            " wrap the network in a module that takes one tensor"
        ) from None
