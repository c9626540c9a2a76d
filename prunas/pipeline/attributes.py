"""What modules keep besides tensors, and whether two networks are alike apart from it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np
from torch import Tensor, nn

from prunas.supernet.tensors import tensors_of

Attribute = tuple[str, str, Any]
"""The path of a module, a name, and a value that JSON can hold; tuples are lists there."""

_PLAIN: Final = (bool, int, float, str, type(None))
_EVERY_MODULE: Final = frozenset(nn.Module().__dict__)


def plain_attributes(network: nn.Module) -> Iterator[Attribute]:
    """All numbers, texts, flags and None that the modules keep, and tuples and lists of them.

    Numbers of numpy become plain ones.
    """
    for path, name, value in _held(network):
        if _is_plain(_listed(value)):
            yield path, name, _listed(value)


def loose_tensors(network: nn.Module) -> dict[tuple[str, str], Tensor]:
    """{(path, name): tensor} that the modules keep beside parameters and buffers."""
    return {(path, name): v for path, name, v in _held(network) if isinstance(v, Tensor)}


def made_of(network: nn.Module) -> dict[str, str]:
    """{path: name} of the classes of all modules, and of the functions that these keep."""
    classes = {path: type(module).__qualname__ for path, module in network.named_modules()}
    functions = {
        f"{path}.{name}".lstrip("."): value.__qualname__
        for path, name, value in _held(network)
        if _name(value)
    }
    return functions | classes


def require_made_of(network: nn.Module, known: Mapping[str, str]) -> None:
    """Refuse a network of other modules or functions than these.

    Raises:
        ValueError: there is one.
    """
    found = made_of(network)
    for path in sorted(found.keys() | known.keys()):
        if found.get(path) != known.get(path):
            was, now = known.get(path, "nothing"), found.get(path, "nothing")
            raise ValueError(f"{path or 'the network'} was saved as {was} and is {now}")


def differing(parent: nn.Module, network: nn.Module) -> Iterator[Attribute]:
    """Those of `network` that `parent` has with other values, where both have the module."""
    before = dict(parent.named_modules())
    for path, name, value in plain_attributes(network):
        held = before[path].__dict__ if path in before else {name: value}
        # by their texts 1 is not True, and NaN is NaN
        if name not in held or repr(value) != repr(_listed(held[name])):
            yield path, name, value


def restore(network: nn.Module, attributes: Iterable[Attribute]) -> None:
    """Give the modules these values.

    Raises:
        AttributeError: a module is missing, or the name is that of something else.
    """
    for path, name, value in attributes:
        module = network.get_submodule(path)
        if name in _EVERY_MODULE or callable(getattr(type(module), name, None)):
            raise AttributeError(f"{path}.{name} is no plain attribute")
        if not (_is_plain(value) or isinstance(value, Tensor)):
            raise TypeError(f"{path}.{name} cannot be {repr(value)[:40]}")
        held = module.__dict__
        as_tuple = isinstance(value, list) and not isinstance(held.get(name), list)
        held[name] = tuple(value) if as_tuple else value


def unlike(parent: nn.Module, network: nn.Module) -> str | None:
    """What of `network` could not be made from `parent` with other plain values and tensors.

    None if they have the same modules of the same classes, which hold tensors of the same names
    and the same functions; else a phrase that says what the first difference is.
    """
    before, after = dict(parent.named_modules()), dict(network.named_modules())
    for path in before.keys() ^ after.keys():
        return f"module {path} is in one of them only"
    for name in tensors_of(parent).keys() ^ tensors_of(network).keys():
        return f"tensor {name} is in one of them only"
    for path, module in after.items():
        kinds = type(before[path]).__name__, type(module).__name__
        if type(before[path]) is not type(module):
            return f"{path} is a {kinds[1]}, not a {kinds[0]}"
        held = before[path].__dict__
        for name, value in module.__dict__.items():
            if name not in _EVERY_MODULE and _name(held.get(name)) != _name(value):
                return f"{path}.{name} is another function"
    return None


def _held(network: nn.Module) -> Iterator[Attribute]:
    """What the modules keep beside parameters, buffers and modules."""
    for path, module in network.named_modules():
        for name, value in module.__dict__.items():
            if name not in _EVERY_MODULE:
                yield path, name, value


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return bool(value) and all(type(entry) in _PLAIN for entry in value)
    return type(value) in _PLAIN


def _listed(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_listed(entry) for entry in value]
    return value.item() if isinstance(value, np.generic) else value


def _name(value: Any) -> Any:
    """What tells functions and classes apart; equal for everything else."""
    return (value.__module__, value.__qualname__) if hasattr(value, "__qualname__") else None
