"""Networks built without memory for their weights: parameters on the meta device, buffers real."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_lock = threading.Lock()


@contextmanager
def weightless() -> Iterator[None]:
    """Modules built inside get their parameters on the meta device.

    What they compute for themselves (buffers, tables, positions) stays real, unlike under
    `torch.device("meta")`, so that weights loaded afterwards make a working network. Tied
    parameters stay tied. Other threads wait that want to do the same.
    """
    with _lock:
        register = nn.Module.register_parameter
        held: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}  # both are kept: ids stay theirs

        def on_meta(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
            if type(param) is nn.Parameter and not param.is_meta:
                _, param = held.setdefault(id(param), (param, _emptied(param)))
            register(module, name, param)

        nn.Module.register_parameter = on_meta  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            nn.Module.register_parameter = register  # type: ignore[method-assign]


def _emptied(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)


def give_weights(network: nn.Module, generator: torch.Generator) -> None:
    """Put random weights in the place of all parameters on the meta device, tied ones once.

    Matrices and kernels are normal with variance 1 / fan-in, vectors are normal around 1 with
    deviation 0.1: activations keep a scale, and nothing is zero.
    """
    drawn: dict[int, nn.Parameter] = {}
    for module in network.modules():
        for name, parameter in module._parameters.items():
            if parameter is None or not parameter.is_meta:
                continue
            if id(parameter) not in drawn:
                value = _drawn(parameter, generator)
                drawn[id(parameter)] = nn.Parameter(value, parameter.requires_grad)
            module._parameters[name] = drawn[id(parameter)]


def _drawn(parameter: Tensor, generator: torch.Generator) -> Tensor:
    value = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    if value.dim() < 2:
        return value.mul_(0.1).add_(1)
    return value.div_(math.sqrt(max(1, value.shape[1:].numel())))
