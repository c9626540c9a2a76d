"""What convolutions and linears multiply their weights with, at a few positions of their outputs.

Grouped convolutions, depthwise ones among them, are as many layers side by side. A linear has one
tap.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Final, TypeAlias, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from prunas.errors import InputError
from prunas.eval.criteria.discriminant import Array
from prunas.eval.criteria.observe import judging, observe
from prunas.eval.criteria.slices import checked_parameters
from prunas.supernet.space import Atoms, SearchSpace, Tap

Pair: TypeAlias = tuple[int, int]

_SIDE: Final = 2  # positions along a side of the output


def readers(network: nn.Module, space: SearchSpace) -> list[Tap]:
    """The linears and 2-d convolutions that judge genes.

    Grouped ones are marked as depthwise, which judge where no other layer sees a gene: both hand
    channels on, and what is lost with these is seen behind them.

    Raises:
        InputError: the network is not the one the space was traced from.
    """
    checked_parameters(network, space)
    layers = ((tap, network.get_submodule(tap.module)) for tap in space.taps)
    fitting = (
        replace(tap, depthwise=groups_of(layer) > 1) for tap, layer in layers if _fits(layer)
    )
    return judging(space, list(fitting))


def patches(
    network: nn.Module, taps: Sequence[Tap], images: torch.Tensor, device: torch.device | str
) -> Iterator[tuple[str, Array]]:
    """(layer, (samples, groups, inputs of a group, taps) patches) of a batch of images.

    At 2 x 2 positions of what a convolution gives, at 4 of the tokens of a linear.

    Raises:
        InputError: as `observe`, or values that are NaN or infinite.
    """
    for found in observe(network, taps, [images], _patches, device=device, kind=_geometry):
        for name, calls in found.calls.items():
            rows = torch.cat([*calls]).double().cpu().numpy()
            if not np.isfinite(rows).all():
                raise InputError(
                    f"layer {name!r} is given NaN or infinite values; check the weights and the"
                    " images"
                )
            layer = network.get_submodule(name)
            inputs = cast(torch.Tensor, layer.weight).shape[1]
            yield name, rows.reshape(len(rows), groups_of(layer), inputs, -1)


def filters_of(network: nn.Module, tap: Tap) -> Array:
    """(groups, outputs of a group, inputs of a group, taps) the weights of a layer."""
    layer = network.get_submodule(tap.module)
    weight = cast(torch.Tensor, layer.weight).detach().double().cpu().numpy()
    groups = groups_of(layer)
    return weight.reshape(groups, len(weight) // groups, weight.shape[1], weight[0, 0].size)


def atoms_of(network: nn.Module, tap: Tap) -> list[Atoms]:
    """For each group the (factors, inputs of a group) atoms of its inputs."""
    groups = groups_of(network.get_submodule(tap.module))
    return np.split(np.stack(tap.atoms), groups, axis=1)


def groups_of(layer: nn.Module) -> int:
    return layer.groups if isinstance(layer, nn.Conv2d) else 1


def _fits(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return isinstance(layer, nn.Linear)


def _geometry(layer: nn.Module) -> Hashable:
    if not isinstance(layer, nn.Conv2d):
        return None
    return layer.kernel_size, layer.stride, layer.padding, layer.dilation


def _patches(layer: nn.Module, maps: torch.Tensor) -> torch.Tensor | None:
    """(samples, weights of a filter) inputs of a layer at a few positions of its output.

    The windows of an image come as one row of positions, of which filters of one tap take any,
    and of which wider filters can take none: they are left out.
    """
    in_windows = maps.ndim != 4
    if in_windows and isinstance(layer, nn.Conv2d) and layer.weight[0, 0].numel() > 1:
        return None
    if in_windows or not isinstance(layer, nn.Conv2d):
        tokens = maps.reshape(*maps.shape[:2], -1)
        chosen = torch.linspace(0, tokens.shape[2] - 1, min(tokens.shape[2], _SIDE**2))
        return tokens[:, :, chosen.long()].movedim(1, 2).flatten(0, 1)
    kernel, padding = cast(Pair, layer.kernel_size), cast(Pair, layer.padding)
    fitting = _at_least_one_patch(layer, maps)
    steps = tuple(_step(layer, fitting.shape[2 + axis], axis) for axis in (0, 1))
    columns = F.unfold(fitting, kernel, cast(Pair, layer.dilation), padding, cast(Pair, steps))
    return columns.movedim(1, 2).flatten(0, 1)


def _at_least_one_patch(layer: nn.Conv2d, maps: torch.Tensor) -> torch.Tensor:
    """Maps with zeros around them where they are smaller than a filter.

    So are those of layers that pad by themselves before they convolve (timm's `Conv2dSame`).
    """
    missing = [
        max(0, _reach(layer, axis) - maps.shape[2 + axis] - 2 * cast(Pair, layer.padding)[axis])
        for axis in (1, 0)
    ]
    return F.pad(maps, [side for total in missing for side in (total // 2, total - total // 2)])


def _reach(layer: nn.Conv2d, axis: int) -> int:
    return layer.dilation[axis] * (layer.kernel_size[axis] - 1) + 1


def _step(layer: nn.Conv2d, side: int, axis: int) -> int:
    """A multiple of the stride at which about `_SIDE` positions of the output are left."""
    room = side + 2 * cast(Pair, layer.padding)[axis] - _reach(layer, axis)
    positions = room // layer.stride[axis] + 1
    return layer.stride[axis] * max(1, positions // _SIDE)
