"""A network without weights: the same modules, every tensor on the meta device."""

import copy
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import nn
from torch.distributions import Distribution
from torch.utils._pytree import tree_map

from prunas.errors import InputError

META = torch.device("meta")

FORWARD_ERRORS = (Exception,)
"""What a forward raises on inputs, or with layers, that it was not written for: what it likes."""


def skeleton(network: nn.Module) -> nn.Module:
    """A copy of `network` on the meta device; costs no memory for weights.

    Raises:
        InputError: the network holds parameters that do not exist yet, or cannot be copied.
    """
    return copied(network, imagined_like)


def imagined_like(tensor: torch.Tensor) -> torch.Tensor:
    """A meta tensor of the same shape, type and memory layout."""
    return torch.empty_like(tensor.detach(), device=META)


def copied(network: nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    """A deep copy of `network` in which each tensor t is `change(t)`; tied tensors stay tied.

    `change` gets the tensor itself and must return a detached one.
    """
    memo: dict[int, Any] = {}
    for tensor in held_tensors(network):
        if torch.nn.parameter.is_lazy(tensor):
            raise InputError(
                "the network has lazy parameters whose shapes are unknown; run it once on an image"
            )
        changed = change(tensor)
        if isinstance(tensor, nn.Parameter):
            changed = nn.Parameter(changed, requires_grad=tensor.requires_grad)
        memo[id(tensor)] = changed
    try:
        _copy_modules(network, memo)
        result: nn.Module = copy.deepcopy(network, memo)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise InputError(f"{type(network).__name__} cannot be copied: {error}") from error
    return result


def _copy_modules(network: nn.Module, memo: dict[int, Any]) -> None:
    """Put a copy of every module without a copying method of its own into `memo`.

    The same as `copy.deepcopy`, ten times faster: nearly all that modules hold are numbers, names,
    empty dictionaries of hooks, and what `memo` has already.
    """
    ordinary = [module for module in network.modules() if _copies_as_usual(type(module))]
    for module in ordinary:
        memo[id(module)] = type(module).__new__(type(module))
    for module in ordinary:
        memo[id(module)].__dict__.update(
            (name, value if type(value) in _ATOMIC else _copied_value(value, memo))
            for name, value in module.__dict__.items()
        )
    memo[id(memo)] = ordinary  # an id means nothing after its object is gone


def _copies_as_usual(kind: type[nn.Module]) -> bool:
    """A module's attributes are all there is to it; torch's own only add defaults of old files."""
    own = getattr(kind.__setstate__, "__module__", "").startswith("torch.nn.modules.")
    return own and all(
        getattr(kind, name, None) is getattr(nn.Module, name, None)
        for name in ("__deepcopy__", "__getstate__", "__reduce_ex__", "__reduce__", "__slots__")
    )


_ATOMIC = frozenset((int, float, bool, str, type(None), complex, bytes, torch.dtype, torch.device))
_STORES = frozenset((dict, OrderedDict, set))


def _copied_value(value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _ATOMIC:
        return value
    if id(value) in memo:
        return memo[id(value)]
    if kind is tuple and all(type(entry) in _ATOMIC for entry in value):
        return value
    if kind is dict or kind is OrderedDict:
        return _copied_dictionary(value, kind(), memo)
    if kind is set and not value:
        return memo.setdefault(id(value), set())
    return copy.deepcopy(value, memo)


def _copied_dictionary(
    value: Mapping[Any, Any], empty: dict[Any, Any], memo: dict[int, Any]
) -> dict[Any, Any]:
    memo[id(value)] = empty
    if not value or all(map(_is_device, value)):  # computed from weights that will be others
        return empty
    for key, entry in value.items():
        empty[_copied_value(key, memo)] = _copied_value(entry, memo)
    return empty


def dictionaries(network: nn.Module) -> list[dict[Any, Any]]:
    """The plain dictionaries that modules keep for themselves."""
    return [
        value
        for module in network.modules()
        for name, value in module.__dict__.items()
        if type(value) is dict and not name.startswith("_")
    ]


def forget(kept: Iterable[dict[Any, Any]]) -> None:
    """Empty those dictionaries in which a module keeps a tensor for each device (LeViT's biases).

    They are computed from weights when they are missed, and are wrong once the weights change.
    """
    for value in kept:
        if value and all(map(_is_device, value)):
            value.clear()


def _is_device(key: Any) -> bool:
    return isinstance(key, torch.device) or (
        isinstance(key, str) and key.partition(":")[0] in _DEVICES
    )


_DEVICES = frozenset(("cpu", "cuda", "meta", "mps", "xpu", "hpu", "npu"))


def held_tensors(network: nn.Module) -> Iterator[torch.Tensor]:
    """Every tensor that modules hold: parameters, buffers and plain attributes."""
    for module in network.modules():
        yield from (p for p in module._parameters.values() if p is not None)
        yield from (b for b in module._buffers.values() if b is not None)
        for value in module.__dict__.values():
            if type(value) in _ATOMIC or type(value) in _STORES:
                continue  # nearly all; asking whether each is a tensor is slow
            if isinstance(value, torch.Tensor):
                yield value
            elif isinstance(value, list | tuple):
                yield from (entry for entry in value if isinstance(entry, torch.Tensor))


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor of nested containers and objects, in the order of their parts."""
    return (leaf for leaf in leaves_of(value) if isinstance(leaf, torch.Tensor))


def leaves_of(value: Any, above: frozenset[int] = frozenset()) -> Iterator[Any]:
    """What nested containers and objects are made of in the end; nothing inside itself."""
    parts = _parts(value)
    if parts is None:
        yield value
    elif id(value) not in above:
        for part in parts.values():
            yield from leaves_of(part, above | {id(value)})


def _parts(value: Any) -> Mapping[str, Any] | None:
    """The parts of a container or an object by name or number; None if it has none."""
    if isinstance(value, Mapping):
        return {str(key): entry for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset | deque):
        return {str(number): entry for number, entry in enumerate(value)}
    if isinstance(value, torch.Tensor | nn.Module | type) or callable(value):
        return None
    if is_dataclass(value):
        return {part.name: getattr(value, part.name, None) for part in fields(value)}
    return dict(sorted(vars(value).items())) if hasattr(value, "__dict__") else None


def describe(value: Any, above: frozenset[int] = frozenset()) -> Any:
    """Shapes and types of nested tensors, as JSON: {"shape": [...], "dtype": "float32"}.

    What is neither a tensor nor made of parts is described by its value, or by its text.
    """
    if isinstance(value, torch.Tensor):
        return {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, int) and not isinstance(value, bool):
        return {"value": int(value)}
    if value is None or isinstance(value, bool | float | str):
        return {"value": value}
    parts = _parts(value)
    if parts is None or id(value) in above:
        return {"value": str(value) if parts is None else type(value).__name__}
    found = {name: describe(part, above | {id(value)}) for name, part in parts.items()}
    if isinstance(value, set | frozenset):
        return {"list": sorted(found.values(), key=str)}
    return {"list": list(found.values())} if isinstance(value, list | tuple) else {"dict": found}


def imagined(description: Any, floating: torch.dtype | None = None) -> Any:
    """Meta tensors of the described shapes and types, floating ones of type `floating` if given."""
    if "shape" in description:
        dtype: torch.dtype = getattr(torch, description["dtype"])
        if floating is not None and dtype.is_floating_point:
            dtype = floating
        return torch.empty(description["shape"], dtype=dtype, device=META)
    if "dict" in description:
        return {key: imagined(entry, floating) for key, entry in description["dict"].items()}
    if "list" in description:
        return [imagined(entry, floating) for entry in description["list"]]
    return description["value"]


def shapes(description: Any) -> Any:
    """The shapes alone, for comparison."""
    if "shape" in description:
        return tuple(description["shape"])
    if "dict" in description:
        return {key: shapes(entry) for key, entry in description["dict"].items()}
    return [shapes(entry) for entry in description.get("list", ())]


def called(network: nn.Module, inputs: Any) -> Any:
    """The network's output: a dict is passed as keywords, a list as positional arguments."""
    with _unvalidated():
        if isinstance(inputs, dict):
            return network(**inputs)
        if isinstance(inputs, list | tuple):
            return network(*inputs)
        return network(inputs)


@contextmanager
def _unvalidated() -> Iterator[None]:
    """Let distributions that a network answers with take parameters that have no values."""
    usual = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(usual)


def with_batch(example: Any, batch: int) -> Any:
    """Meta tensors like `example`, with `batch` entries in the first dimension of each."""

    def resized(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.dim() == 0:
            return value
        return torch.empty((batch, *value.shape[1:]), dtype=value.dtype, device=META)

    return tree_map(resized, example)
