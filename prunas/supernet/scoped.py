"""Run a network for a while with other tensors and other integers in its modules."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from prunas.supernet.space import SearchSpace, surviving
from prunas.supernet.tensors import modules_of


@dataclass(frozen=True)
class Place:
    """An integer attribute of a module; `position` is its place in a tuple or list."""

    module: str
    name: str
    position: int | None


@contextmanager
def swapped(
    network: nn.Module,
    tensors: Mapping[str, torch.Tensor],
    integers: Mapping[Place, int],
) -> Iterator[nn.Module]:
    """`network` with these parameters, buffers and integers in place; left as found afterwards.

    Swapping costs a dictionary entry per tensor, nothing per forward. Gradients flow into whatever
    the given tensors are views of.
    """
    modules = dict(modules_of(network))
    homes = [_home(modules, name, tensor) for name, tensor in tensors.items()]
    before = [(store, key, store[key]) for store, key, _ in homes]
    owners = [modules[place.module] for place in integers]
    kept = [getattr(owner, place.name) for owner, place in zip(owners, integers, strict=True)]
    try:
        for store, key, tensor in homes:
            store[key] = tensor
        set_integers(network, integers)
        yield network
    finally:
        for store, key, value in before:
            store[key] = value
        for owner, place, value in reversed(list(zip(owners, integers, kept, strict=True))):
            owner.__dict__[place.name] = value


@contextmanager
def evaluating(network: nn.Module) -> Iterator[nn.Module]:
    """Every module in eval mode; each one's own flag is put back."""
    training = [module for module in network.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield network
    finally:
        for module in training:
            module.training = True


@contextmanager
def buffers_kept(network: nn.Module) -> Iterator[None]:
    """Inside the block the network has copies of its buffers: forwards may change them."""
    stores = [module._buffers for module in network.modules()]
    before = [dict(store) for store in stores]
    held = [buffer for store in before for buffer in store.values() if buffer is not None]
    copies = {id(buffer): buffer.detach().clone() for buffer in held}
    try:
        for store in stores:
            for name, buffer in store.items():
                store[name] = copies.get(id(buffer))
        yield
    finally:
        for store, buffers in zip(stores, before, strict=True):
            store.update(buffers)


def set_integers(network: nn.Module, integers: Mapping[Place, int]) -> None:
    """Write new sizes into the modules that keep them."""
    for place, value in integers.items():
        owner = network.get_submodule(place.module)
        owner.__dict__[place.name] = replaced(owner.__dict__[place.name], place.position, value)


def sizes_of(space: SearchSpace, kept: NDArray[np.bool_]) -> dict[Place, int]:
    """New values of the integers that follow the genes."""
    return {
        Place(a.module, a.name, a.position): (
            a.full * int(surviving(a.factors, kept).sum()) // len(a.factors[0])
        )
        for a in space.attributes
    }


def replaced(old: Any, position: int | None, value: int) -> Any:
    """`old` itself, or the tuple or list `old`, with the integer at `position` exchanged."""
    if position is None:
        return value
    entries = [value if index == position else entry for index, entry in enumerate(old)]
    return entries if isinstance(old, list) else tuple(entries)


def _home(
    modules: Mapping[str, nn.Module], name: str, tensor: torch.Tensor
) -> tuple[dict[str, Any], str, torch.Tensor]:
    """The dictionary that holds the tensor of that name, its key there, and what to put there."""
    path, _, key = name.rpartition(".")
    module = modules[path]
    return (module._parameters if key in module._parameters else module._buffers), key, tensor
