"""What layers are given, or give, channel by channel, while images pass through a network."""

import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from prunas.errors import InputError
from prunas.eval.accuracy import evaluating, running
from prunas.eval.batches import Loader, pairs
from prunas.eval.criteria.verdict import width_genes
from prunas.eval.device import require_on
from prunas.supernet.space import SearchSpace, Tap

Statistic: TypeAlias = Callable[[nn.Module, torch.Tensor], torch.Tensor | None]
"""Makes a tensor of a layer and its maps (images, channels, *positions); None: leave it out."""


UNSEEN: Final = "no layer that could be observed reads its channels"
"""Why a gene is not judged by what its readers are given."""


def _alike(layer: nn.Module) -> Hashable:
    return None


@dataclass(frozen=True, eq=False)
class Pass:
    """One batch that went through the network.

    Attributes:
        images: how many there were.
        targets: as the batch gave them; None if it had none.
        output: what the network returned.
        calls: module name -> the statistic of every call, in order. Layers that were given the
            same tensor with the same content share one.
    """

    images: int
    targets: torch.Tensor | None
    output: Any
    calls: Mapping[str, Sequence[torch.Tensor]]


def observe(
    network: nn.Module,
    taps: Sequence[Tap],
    batches: Loader,
    statistic: Statistic,
    *,
    device: torch.device | str,
    outputs: bool = False,
    kind: Callable[[nn.Module], Hashable] = _alike,
) -> Iterator[Pass]:
    """Run every batch once, in evaluation mode, and take the statistic of what each tap sees.

    Windows of one image count as its positions (Swin). A layer whose input has no rows of single
    images, or another width than its tap, is left out.

    Args:
        network: the network, on `device`; left as it was.
        taps: the layers, with the atoms of the channels that they are given (or give).
        batches: see `prunas.eval.batches.pairs`.
        statistic: of maps (images, channels, *positions); positions may be none.
        device: where images are sent.
        outputs: look at what the layers give instead.
        kind: layers of one kind have the same statistic of the same maps; all, by default.

    Raises:
        InputError: no image, a layer that the network does not have, or images that it does not run
            on.
    """
    require_on(network, device)
    with evaluating(network), _watching(network, taps, _Watch(statistic, kind), outputs) as watch:
        for images, targets in pairs(batches):
            watch.begin(len(images))
            with running(network, images):
                output = network(images.to(device))
            yield Pass(len(images), targets, output, watch.calls)


def maps_of(
    module: nn.Module, tensor: torch.Tensor, images: int, width: int
) -> torch.Tensor | None:
    """(images, channels, *positions) of a layer's input or output; None if it is none."""
    axis = 1 if isinstance(module, _ConvNd) else tensor.ndim - 1
    rows_fit = tensor.ndim > 1 and tensor.shape[axis] == width
    if not rows_fit or not images or tensor.shape[0] % images:
        return None
    maps = tensor.movedim(axis, 1)
    if len(maps) == images:
        return maps
    windows = maps.reshape(images, -1, width, maps[0, 0].numel())
    return windows.movedim(2, 1).flatten(2)


def over_positions(maps: torch.Tensor) -> torch.Tensor:
    """(images, channels) means of maps over their positions, in float64."""
    return maps.reshape(*maps.shape[:2], -1).mean(2, dtype=torch.float64)


class _Watch:
    """The statistics of the current batch, name -> one tensor a call."""

    def __init__(self, statistic: Statistic, kind: Callable[[nn.Module], Hashable]) -> None:
        self._statistic, self._kind = statistic, kind
        self.begin(0)

    def begin(self, images: int) -> None:
        self._images = images
        self.calls: dict[str, list[torch.Tensor]] = {}
        self._known: dict[Hashable, tuple[weakref.ref[torch.Tensor], int, torch.Tensor]] = {}

    def see(self, tap: Tap, module: nn.Module, tensor: Any) -> None:
        if not isinstance(tensor, torch.Tensor):
            return
        key = (id(tensor), self._kind(module))
        reference, version, found = self._known.get(key, (None, -1, None))
        if reference is None or reference() is not tensor or version != tensor._version:
            maps = maps_of(module, tensor, self._images, len(tap.atoms[0]))
            found = None if maps is None else self._statistic(module, maps)
            if found is not None:
                self._known[key] = (weakref.ref(tensor), tensor._version, found)
        if found is not None:
            self.calls.setdefault(tap.module, []).append(found)


@contextmanager
def _watching(
    network: nn.Module, taps: Sequence[Tap], watch: "_Watch", outputs: bool
) -> Iterator["_Watch"]:
    with ExitStack() as handles:
        for tap in taps:
            module = layer_of(network, tap)
            hook = _after(watch, tap) if outputs else _before(watch, tap)
            register = module.register_forward_hook if outputs else module.register_forward_pre_hook
            handles.callback(register(hook).remove)  # type: ignore[arg-type]
        yield watch


def _before(watch: _Watch, tap: Tap) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def look(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        watch.see(tap, module, arguments[0] if arguments else None)

    return look


def _after(watch: _Watch, tap: Tap) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
    def look(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        watch.see(tap, module, output)

    return look


def by_gene(space: SearchSpace, taps: Sequence[Tap]) -> tuple[tuple[Tap, ...], ...]:
    """For every gene of width the taps with its channels, depthwise ones if there are no others."""
    found: list[list[Tap]] = [[] for _ in width_genes(space)]
    for tap in taps:
        owners = np.unique(space.gene_of_atom[np.stack(tap.atoms)])
        for gene in owners[owners >= 0].tolist():
            if gene < len(found):
                found[gene].append(tap)
    return tuple(tuple([t for t in seen if not t.depthwise] or seen) for seen in found)


def judging(space: SearchSpace, taps: Sequence[Tap]) -> list[Tap]:
    """The taps that some gene is judged by."""
    named = {tap.module for seeing in by_gene(space, taps) for tap in seeing}
    return [tap for tap in taps if tap.module in named]


def layer_of(network: nn.Module, tap: Tap) -> nn.Module:
    """The layer of a tap.

    Raises:
        InputError: the network has none of that name.
    """
    try:
        return network.get_submodule(tap.module)
    except AttributeError:
        raise InputError(
            f"the network has no layer {tap.module!r}; the search space belongs to another network"
        ) from None
