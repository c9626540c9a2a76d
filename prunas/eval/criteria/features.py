"""What every layer is given, as one number per channel and image, gathered in a single pass."""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from prunas.errors import InputError
from prunas.eval.accuracy import Batches, evaluating
from prunas.eval.criteria.discriminant import Array, Scatter
from prunas.supernet.space import Atoms, SearchSpace, Tap

_WIDEST: Final = 4096  # features of one layer told apart: a scatter of 4096^2 is 128 MiB


@dataclass(frozen=True, eq=False)
class Observed:
    """The input of one layer: its scatter against the targets, and whose channels its columns are.

    Attributes:
        scatter: of the pooled input channels (d features) and the targets.
        atoms: (factors, d) atoms of each feature, as in `Tap.atoms`; 0 is always kept.
    """

    scatter: Scatter
    atoms: Atoms


def channel_features(
    network: nn.Module, space: SearchSpace, batches: Batches, *, device: torch.device | str
) -> dict[str, Observed]:
    """Pool the input of every tap of `space` over positions, and gather its scatter.

    One forward pass over `batches` serves all taps. A feature is the mean of an input channel over
    all positions or tokens of an image, in float64: what the layer is given, that is after the
    activation. Where a layer has more than 4096 input features (a flattened map), those with the
    same atoms are averaged. A layer that runs k times in a forward has k rows an image.

    Args:
        network: the full network, on `device`; evaluated, and left as it was.
        space: its search space.
        batches: pairs (images, targets): integer labels (n,), which become one-hot with as many
            columns as the network has logits, or soft targets (n, q), taken as they are.
        device: where the images are sent.

    Returns:
        {module name: what it saw}. Layers that were always given the same tensors share one
        `Observed`. Left out are taps that never ran, or whose input has no rows of single images.

    Raises:
        InputError: no image, a layer that the network does not have, targets that fit neither
            form, or activations that are NaN or infinite.
    """
    scatters: dict[str, Scatter] = {}
    layouts = {tap.module: _Layout.of(tap) for tap in space.taps}
    images_seen = 0
    with evaluating(network), _watching(network, space.taps) as watch:
        for images, targets in batches:
            watch.begin(len(images))
            output = network(images.to(device))
            _merge(scatters, watch.calls, layouts, _columns(targets, output))
            images_seen += len(images)
    if not images_seen:
        raise InputError("channels were to be judged on no images; give at least one batch")
    shared: dict[int, Observed] = {}
    return {
        name: shared.setdefault(id(scatter), Observed(scatter, layouts[name].atoms))
        for name, scatter in scatters.items()
    }


class _Watch:
    """The pooled tap inputs of one forward pass, name -> one (images, width) tensor a call."""

    def __init__(self) -> None:
        self.begin(0)

    def begin(self, images: int) -> None:
        self._images = images
        self.calls: dict[str, list[torch.Tensor]] = {}
        self._known: dict[int, tuple[weakref.ref[torch.Tensor], int, torch.Tensor]] = {}

    def hook(self, tap: Tap) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def observe(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            if arguments and isinstance(arguments[0], torch.Tensor):
                pooled = self._pooled(module, arguments[0], len(tap.atoms[0]))
                if pooled is not None:
                    self.calls.setdefault(tap.module, []).append(pooled)

        return observe

    def _pooled(self, module: nn.Module, tensor: torch.Tensor, width: int) -> torch.Tensor | None:
        """Pooled once for all branches that are given this tensor with this content."""
        reference, version, pooled = self._known.get(id(tensor), (None, -1, None))
        if reference is not None and reference() is tensor and version == tensor._version:
            return pooled
        axis = 1 if isinstance(module, _ConvNd) else tensor.ndim - 1
        rows_fit = tensor.ndim > 1 and tensor.shape[axis] == width
        if not rows_fit or not self._images or tensor.shape[0] % self._images:
            return None
        pooled = _mean_over_positions(tensor, axis, self._images)
        self._known[id(tensor)] = (weakref.ref(tensor), tensor._version, pooled)
        return pooled


def _mean_over_positions(tensor: torch.Tensor, axis: int, images: int) -> torch.Tensor:
    """(images, channels) in float64. Windows of an image count as its positions (Swin)."""
    positions = [d for d in range(1, tensor.ndim) if d != axis]
    rows = tensor.mean(positions, dtype=torch.float64) if positions else tensor.double()
    return rows.reshape(images, -1, rows.shape[1]).mean(1)


@contextmanager
def _watching(network: nn.Module, taps: Sequence[Tap]) -> Iterator[_Watch]:
    watch = _Watch()
    with ExitStack() as handles:
        for tap in taps:
            module = _layer(network, tap.module)
            handles.callback(module.register_forward_pre_hook(watch.hook(tap)).remove)
        yield watch


def _layer(network: nn.Module, name: str) -> nn.Module:
    try:
        return network.get_submodule(name)
    except AttributeError:
        raise InputError(
            f"the network has no layer {name!r}; the search space belongs to another network"
        ) from None


def _columns(targets: torch.Tensor, output: Any) -> Array:
    """Targets as (n, q) in float64, integer labels as one-hot."""
    if targets.ndim == 2 and targets.is_floating_point():
        return np.asarray(targets.double().cpu().numpy())
    if not isinstance(output, torch.Tensor) or output.ndim != 2:
        raise InputError(
            "the network does not give one row of logits an image, so labels have no columns;"
            " give soft targets (n, q) instead"
        )
    labels, classes = targets.cpu(), output.shape[1]
    if labels.ndim != 1 or labels.is_floating_point():
        raise InputError(
            f"targets of shape {tuple(labels.shape)} and type {labels.dtype} are neither integer"
            " labels (n,) nor soft targets (n, q)"
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise InputError(
            f"labels run from {int(labels.min())} to {int(labels.max())} but the network has"
            f" {classes} classes; labels must lie in 0..{classes - 1}"
        )
    return np.asarray(F.one_hot(labels.long(), classes).double().numpy())


def _merge(
    scatters: dict[str, Scatter],
    calls: dict[str, list[torch.Tensor]],
    layouts: dict[str, "_Layout"],
    targets: Array,
) -> None:
    """Add one forward pass, computing once what several layers were given alike."""
    fresh: dict[tuple[int, ...], Scatter] = {}
    joined: dict[tuple[int, int], Scatter] = {}
    for name, pooled in calls.items():
        alike = tuple(map(id, pooled))
        if alike not in fresh:
            features = layouts[name].features(torch.cat(pooled).cpu().numpy())
            fresh[alike] = Scatter.of(features, np.tile(targets, (len(pooled), 1)))
        new, old = fresh[alike], scatters.get(name)
        pair = (id(old), id(new))
        if pair not in joined:
            joined[pair] = new if old is None else old.merge(new)
        scatters[name] = joined[pair]


@dataclass(frozen=True, eq=False)
class _Layout:
    """Which input channels make one feature.

    Attributes:
        order: input channels, those of one feature side by side; None where each is a feature.
        starts: where each feature begins in `order`.
        atoms: (factors, features) atoms of each feature.
    """

    order: Atoms | None
    starts: Atoms
    atoms: Atoms

    @classmethod
    def of(cls, tap: Tap) -> "_Layout":
        atoms = np.stack(tap.atoms)
        width = atoms.shape[1]
        if width <= _WIDEST:
            return cls(None, np.arange(width), atoms)
        # a channel without atoms is no other's twin: its own number keeps it apart
        own = np.where(atoms.any(0), 0, np.arange(1, width + 1))
        _, first, member = np.unique(
            np.vstack([atoms, own]), axis=1, return_index=True, return_inverse=True
        )
        sizes = np.bincount(member)
        return cls(np.argsort(member, kind="stable"), np.cumsum(sizes) - sizes, atoms[:, first])

    def features(self, channels: Array) -> Array:
        """(n, features) means of the channels (n, width) that belong together."""
        if self.order is None:
            return channels
        sums = np.add.reduceat(channels[:, self.order], self.starts, axis=1)
        return np.asarray(sums / np.diff(np.append(self.starts, channels.shape[1])))
