"""Small pictures: keep the resolution of a network that was drawn for large ones.

A network that halves 224 pixels five times leaves one position of an 8 x 8 digit. Its small-image
form gives up strides from the front (where they cost least to a small picture) until the last map
is at least 4 x 4, or 2 x 2 for pictures of up to 8 pixels. No weight changes its shape.

Layers that take maps of the same resolution are changed together: the main path of a block and
its shortcut, or the branches of an inception. Which layers these are is not read from their names
but measured: one forward on the meta device, at a size large enough to tell resolutions apart.
"""

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from prunas.errors import InputError
from prunas.supernet.skeleton import FORWARD_ERRORS

Size = tuple[int, int, int]

_REFERENCE_SIDE = 256
_NAMED = 4  # how many layers the sentence names


@dataclass(frozen=True)
class _Strided:
    """One layer that lowers resolution: from 1 / `at` of the picture to 1 / (at * stride)."""

    name: str
    at: int
    stride: int


def small_image_form(network: nn.Module, input_size: Size) -> str | None:
    """Bring `network` into its small-image form, in place; return the sentence for the report.

    None where the picture is large enough, and nothing was changed.

    Raises:
        InputError: the network cannot take the picture in either form.
    """
    wanted = wanted_reduction(network, input_size)
    return None if wanted is None else keep_reduction(network, input_size, wanted)


def wanted_reduction(network: nn.Module, input_size: Size) -> int | None:
    """The reduction that a picture allows, or None where the network's own is small enough."""
    side = min(input_size[1:])
    smallest = smallest_map(input_size)
    reduction = math.prod(_levels(_survey(network, input_size)).values())
    allowed = max(1, 2 ** int(math.log2(max(1, side / smallest))))
    return None if math.ceil(side / reduction) >= smallest else allowed


def smallest_map(input_size: Size) -> int:
    """The side that the last map should have at least."""
    return 2 if min(input_size[1:]) <= 8 else 4


def keep_reduction(network: nn.Module, input_size: Size, reduction: int) -> str:
    """Give up strides from the front until the last map is 1 / `reduction` of the picture.

    Raises:
        InputError: the network does not run on the picture afterwards; it is then left unchanged.
    """
    strided = _survey(network, input_size)
    levels = _levels(strided)
    surplus = _surplus(levels, reduction)
    changed = _changed(network, strided, surplus)
    trial = _on_meta(network)
    _replace(trial, {name: _on_meta(layer) for name, layer in changed.items()})
    _check_runs(trial, input_size)
    _replace(network, changed)
    before = math.prod(levels.values())
    names = [*changed][:_NAMED] + [f"{len(changed) - _NAMED} more"] * (len(changed) > _NAMED)
    return (
        f"For pictures of {input_size[1]} x {input_size[2]}, strides were given up in"
        f" {len(changed)} layer{'s' * (len(changed) != 1)} ({', '.join(names)}): the network"
        f" lowers resolution {before // math.prod(surplus.values())} times instead of {before}."
    )


def check_runs(network: nn.Module, input_size: Size) -> None:
    """Raise InputError unless a forward on the meta device takes pictures of this size."""
    _check_runs(_on_meta(network), input_size)


def positions(network: nn.Module, input_size: Size) -> int:
    """Positions (pixels or tokens) of the last features of a timm network, by a forward."""
    trial = _on_meta(network)
    features: Tensor = trial.forward_features(torch.empty(1, *input_size, device="meta"))  # type: ignore[operator]
    return features.numel() // int(trial.num_features)  # type: ignore[arg-type]


def _check_runs(on_meta: nn.Module, input_size: Size) -> None:
    try:
        _forward(on_meta, input_size)
    except FORWARD_ERRORS as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(
            f"the network does not take pictures of size {input_size}: {reason};"
            " choose another input size or network"
        ) from None


# --- what the network does -------------------------------------------------------------------


def _survey(network: nn.Module, input_size: Size) -> list[_Strided]:
    """Every strided layer that runs, with the resolution of the maps it takes."""
    trial = _on_meta(network)
    channels, height, width = input_size
    scale = 2 ** max(0, math.ceil(math.log2(_REFERENCE_SIDE / min(height, width))))
    found: list[_Strided] = []

    def note(name: str, layer: nn.Module, taken: Tensor) -> None:
        stride = max(_stride(layer))
        at = 2 ** round(math.log2(height * scale / taken.shape[-2]))
        found.append(_Strided(name, at, stride))

    with _watched(trial, note):
        try:
            _forward(trial, (channels, height * scale, width * scale))
        except FORWARD_ERRORS:  # a network of one size only has no strides to give up
            found.clear()
    return found


@contextmanager
def _watched(network: nn.Module, note: Callable[[str, nn.Module, Tensor], None]) -> Iterator[None]:
    """Call note(name, layer, its input) for every call of a strided layer."""

    def hook_of(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(layer: nn.Module, taken: tuple[Tensor, ...]) -> None:
            note(name, layer, taken[0])

        return hook

    hooks = [
        layer.register_forward_pre_hook(hook_of(name))
        for name, layer in network.named_modules()
        if max(_stride(layer)) > 1
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _stride(layer: nn.Module) -> tuple[int, int]:
    """A leaf layer's stride; (1, 1) for what has none."""
    stride = getattr(layer, "stride", None)
    if next(layer.children(), None) is not None or not isinstance(stride, int | tuple | list):
        return 1, 1
    pair: tuple[int, int] = tuple(_pair(stride))
    return pair


def _levels(strided: list[_Strided]) -> dict[int, int]:
    """Resolution -> the stride of the main path there: the smallest of the parallel ones."""
    levels: dict[int, int] = {}
    for each in strided:
        levels[each.at] = min(each.stride, levels.get(each.at, each.stride))
    return dict(sorted(levels.items()))


def _surplus(levels: Mapping[int, int], reduction: int) -> dict[int, int]:
    """Resolution -> by how much to divide the strides there, from the front."""
    excess = math.prod(levels.values()) / reduction
    surplus: dict[int, int] = {}
    for at, stride in levels.items():
        if excess <= 1:
            break
        surplus[at] = min(stride, 2 ** math.ceil(math.log2(excess)))
        excess /= surplus[at]
    return surplus


# --- changing it -----------------------------------------------------------------------------


def _changed(
    network: nn.Module, strided: list[_Strided], surplus: Mapping[int, int]
) -> dict[str, nn.Module]:
    """Name -> the layer to put there."""
    return {
        each.name: _relaxed(network.get_submodule(each.name), surplus[each.at])
        for each in strided
        if each.at in surplus
    }


def _relaxed(layer: nn.Module, divisor: int) -> nn.Module:
    """The layer with its stride divided; a pooling that is left with stride 1 does nothing."""
    strides = tuple(max(1, stride // divisor) for stride in _stride(layer))
    if max(strides) == 1 and not list(layer.parameters()):
        return nn.Identity()
    relaxed = copy.copy(layer)  # shares the weights
    relaxed.stride = strides if isinstance(layer.stride, tuple | list) else strides[0]  # type: ignore[assignment]
    if isinstance(relaxed, nn.Conv2d) and not _keeps_size(relaxed, strides):
        _pad(relaxed, strides)
    return relaxed


def _keeps_size(layer: nn.Conv2d, strides: tuple[int, ...]) -> bool:
    """Whether a map of n positions leaves as n / stride (also by padding of the layer's own)."""
    side = 64 * max(strides)
    trial = _on_meta(layer)
    left = trial(torch.empty(1, layer.in_channels, side, side, device="meta"))
    return all(left.shape[2 + i] == side // strides[i] for i in (0, 1))


def _pad(layer: nn.Conv2d, strides: tuple[int, ...]) -> None:
    reach = [d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    surplus = [k - s for k, s in zip(reach, strides, strict=True)]
    if max(strides) == 1 and any(each % 2 for each in surplus):
        layer.padding = "same"  # an even kernel at stride 1 needs one more on one side
    else:
        layer.padding = (math.ceil(surplus[0] / 2), math.ceil(surplus[1] / 2))


def _replace(network: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    for name, layer in layers.items():
        network.set_submodule(name, layer)


def _on_meta(network: nn.Module) -> nn.Module:
    """A copy without data, in eval mode; the weights themselves are never copied."""
    bare: dict[int, object] = {
        id(each): nn.Parameter(each.to("meta"), each.requires_grad) for each in network.parameters()
    }
    bare |= {id(each): each.to("meta") for each in network.buffers()}
    return copy.deepcopy(network, bare).eval()


@torch.no_grad()
def _forward(on_meta: nn.Module, input_size: Size) -> None:
    with warnings.catch_warnings():  # once a process; padding an even kernel by one is intended
        warnings.filterwarnings("ignore", message="Using padding='same' with even kernel")
        on_meta(torch.empty(2, *input_size, device="meta"))
