"""Networks built without memory for their weights, for weights that come from elsewhere."""

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

_lock = threading.RLock()


@contextmanager
def weightless() -> Iterator[None]:
    """Modules built inside get hollow parameters: one zero, seen at every position.

    Initialising them does nothing. They are of the usual device, so that modules compute for
    themselves what they always do (buffers, tables, positions), which under
    `torch.device("meta")` they cannot. Tied parameters stay tied. What other threads build is as
    ever; those that want hollow parameters too wait.
    """
    with _lock, _Untouched():  # type: ignore[no-untyped-call]
        register = nn.Module.register_parameter
        ours = threading.get_ident()
        held: Any = WeakTensorKeyDictionary()  # the originals go as soon as nobody else has them

        def hollowed(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
            here = threading.get_ident() == ours
            if here and type(param) is nn.Parameter and not _is_hollow(param):
                param = held.setdefault(param, _hollow(param))
            register(module, name, param)

        nn.Module.register_parameter = hollowed  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            nn.Module.register_parameter = register  # type: ignore[method-assign]


class _Untouched(TorchDispatchMode):
    """Leaves hollow tensors what they are: they could not be written to."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        changes = func._schema.is_mutable and args and isinstance(args[0], Tensor)
        return args[0] if changes and _is_hollow(args[0]) else func(*args, **(kwargs or {}))


def _hollow(parameter: nn.Parameter) -> nn.Parameter:
    zero = torch.zeros((), dtype=parameter.dtype, device=parameter.device)
    return nn.Parameter(zero.expand(parameter.shape), requires_grad=parameter.requires_grad)


def _is_hollow(tensor: Tensor) -> bool:
    return tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()


def give_weights(network: nn.Module, generator: torch.Generator) -> None:
    """Put random weights in the place of all parameters, tied ones once.

    Matrices and kernels are normal with variance 1 / fan-in, vectors are normal around 1 with
    deviation 0.1: activations keep a scale, and nothing is zero.
    """
    drawn: dict[int, nn.Parameter] = {}
    for module in network.modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
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
