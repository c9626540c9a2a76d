"""The convolutions of a network that something cheaper may stand in for, and what each costs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from prunas.errors import InputError
from prunas.supernet.blocks import lies_in
from prunas.supernet.imagined import Imagining, name_of
from prunas.supernet.skeleton import FORWARD_ERRORS, META, skeleton
from prunas.supernet.tensors import aliases_of
from prunas.transformer_nat.operator_cost import OperatorCost
from prunas.transformer_nat.operators import (
    NULL,
    OTHER_CONVOLUTION,
    OTHER_DEPTHWISE,
    SKIP,
    operator,
)
from prunas.transformer_nat.substitutes import Substitute, carried, substitute
from prunas.transformer_nat.transitions import Rule


@dataclass(frozen=True)
class _Seen:
    """A convolution that ran once, on one tensor."""

    layer: nn.Conv2d
    given: torch.Size
    made: torch.Size


_Shapes = tuple[torch.Size, torch.Size]
_Operators = list[tuple[str, list[Any]]]
"""The operators of a run, each with the shapes and numbers that it was given."""


def layer_prices(
    network: nn.Module, input_size: Sequence[int], rule: Rule
) -> dict[str, Mapping[str, OperatorCost]]:
    """{path of a layer: what it is, and then all that may take its place, with their costs}.

    Layers for which there is nothing, or nothing but what costs more, are left out.

    Args:
        network: stays as it is; no weights are read.
        input_size: (channels, height, width) of one image.
        rule: what is offered for an operator.

    Raises:
        InputError: the network does not run on such images.
    """
    result: dict[str, Mapping[str, OperatorCost]] = {}
    for path, seen in _convolutions(network, input_size).items():
        name = carried(seen.layer)
        prices = {name: _price(seen.layer, seen)}
        for other in rule(name):
            if other == NULL or (other == SKIP and seen.given != seen.made):
                continue
            if _grows(seen.layer, name, other):
                continue
            new = substitute(seen.layer, other)
            if new is not None and not (cost := _price(new, seen)).exceeds(prices[name]):
                prices[other] = cost
        if len(prices) > 1:
            result[path] = prices
    return result


def _grows(layer: nn.Conv2d, name: str, other: str) -> bool:
    """Whether the kernel would be larger, where the operator's name does not say how large it is.

    Rules take such a kernel for larger than any; an oblong one is as small as its shorter side.
    `substitute` builds such a pool all the same: earlier runs may have chosen one.
    """
    unnamed = name in (OTHER_CONVOLUTION, OTHER_DEPTHWISE)
    return unnamed and operator(other).kernel > min(layer.kernel_size)


def _price(module: nn.Module, seen: _Seen) -> OperatorCost:
    """All convolutions of a substitute make as many positions as the layer did."""
    positions = seen.made[-2] * seen.made[-1]
    weights = sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Conv2d))
    params = sum(parameter.numel() for parameter in module.parameters())
    return OperatorCost(macs=weights * positions, weights=params)


def _convolutions(network: nn.Module, input_size: Sequence[int]) -> dict[str, _Seen]:
    """The convolutions, on the meta device, that ran once and share no weight.

    Those in a substitute are none: what was replaced once stays.
    """
    bare = skeleton(network).eval()
    tied = {name.rpartition(".")[0] for pair in aliases_of(network).items() for name in pair}
    done = {path for path, module in bare.named_modules() if isinstance(module, Substitute)}
    layers = {
        path: module
        for path, module in bare.named_modules()
        if path and isinstance(module, nn.Conv2d) and path not in tied and not lies_in(path, done)
    }
    try:
        _operators(bare, input_size)  # what the network keeps of a first run is there in the next
        runs, usual = _watched(bare, layers, input_size)
    except FORWARD_ERRORS as error:
        raise InputError(
            f"{type(network).__name__} does not run on images of shape {tuple(input_size)}: {error}"
        ) from error
    once = {path: shapes[0] for path, shapes in runs.items() if len(shapes) == 1}
    seen = {path: _Seen(layers[path], *shapes) for path, shapes in once.items() if shapes}
    if _works(bare, seen, input_size, usual):
        return seen
    return {path: each for path, each in seen.items() if _works(bare, [path], input_size, usual)}


def _watched(
    bare: nn.Module, layers: Mapping[str, nn.Module], input_size: Sequence[int]
) -> tuple[dict[str, list[_Shapes | None]], _Operators]:
    """What each layer was given and made, each time that it ran, and all operators."""
    runs: dict[str, list[_Shapes | None]] = {path: [] for path in layers}

    def note(path: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        plain = len(args) == 1 and not kwargs and args[0].dim() == out.dim() == 4
        runs[path].append((args[0].shape, out.shape) if plain else None)

    handles = [
        layer.register_forward_hook(
            lambda _, args, kwargs, out, path=path: note(path, args, kwargs, out), with_kwargs=True
        )
        for path, layer in layers.items()
    ]
    try:
        return runs, _operators(bare, input_size)
    finally:
        for handle in handles:
            handle.remove()


def _works(
    bare: nn.Module, paths: Iterable[str], input_size: Sequence[int], usual: _Operators
) -> bool:
    """Whether the network does as usual with something else than a convolution in these places.

    One that asks the layer for its weight does not run, and one that asks what the layer is may do
    other things.
    """
    layers = {path: bare.get_submodule(path) for path in paths}
    try:
        for path, layer in layers.items():
            bare.set_submodule(path, nn.Sequential(layer))
        return _operators(bare, input_size) == usual
    except FORWARD_ERRORS:
        return False
    finally:
        for path, layer in layers.items():
            bare.set_submodule(path, layer)


def _operators(bare: nn.Module, input_size: Sequence[int]) -> _Operators:
    noting = _Noting()
    with torch.no_grad(), noting:
        bare(meta_images(bare, input_size))
    return noting.seen


class _Noting(Imagining):
    def __init__(self) -> None:
        super().__init__()
        self.seen: _Operators = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = tree_leaves((args, kwargs))
        shapes = [leaf.shape if isinstance(leaf, torch.Tensor) else leaf for leaf in given]
        self.seen.append((name_of(func), shapes))
        return super().__torch_dispatch__(func, types, args, kwargs)


def meta_images(bare: nn.Module, input_size: Sequence[int]) -> torch.Tensor:
    """Two images on the meta device."""
    floating = (p.dtype for p in bare.parameters() if p.is_floating_point())
    dtype = next(floating, torch.float32)
    return torch.empty((2, *map(int, input_size)), dtype=dtype, device=META)
