"""What every layer is given against what it should tell, gathered in a single pass."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from prunas.errors import InputError
from prunas.eval.batches import Loader, pairs
from prunas.eval.criteria.discriminant import Array, Scatter
from prunas.eval.criteria.observe import Pass, Statistic, observe
from prunas.supernet.space import Atoms, SearchSpace, Tap

Aim = Literal["labels", "output"]
"""What features should tell: the targets of the batches, or what the network makes of them."""

_WIDEST: Final = 4096  # features of one layer told apart: a scatter of 4096^2 is 128 MiB
_HELD: Final = 2**23  # numbers kept before they are summed: larger products are faster
_FINEST: Final = 8  # locations along a side; layers of finer maps are averaged to it


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
    network: nn.Module,
    space: SearchSpace,
    batches: Loader,
    *,
    device: torch.device | str,
    taps: Sequence[Tap] | None = None,
    outputs: bool = False,
    pool: int = 1,
    aim: Aim = "labels",
) -> dict[str, Observed]:
    """Pool what every tap sees over positions, and gather its scatter against the targets.

    One forward pass over `batches` serves all taps. Features are the means of a channel over a
    grid of `pool` x `pool` parts of the map (tokens: `pool`^2 stretches) of an image, by default
    one; scatters are summed in float64. Where a layer has more than 4096 features (a flattened
    map), those with the same atoms are averaged. A layer that runs k times in a forward has k
    rows an image.

    If targets have positions themselves (labels of pixels, images), samples are locations instead
    of images: features are a layer's channels at each location, and the targets are averaged to
    its resolution, at most 8 x 8.

    Args:
        network: the full network, on `device`; evaluated, and left as it was.
        space: its search space.
        batches: pairs (images, targets): integer labels (n,) or (n, height, width), which become
            one-hot with as many columns as the network has logits; soft or real targets (n, q) or
            (n, q, height, width), taken as they are.
        device: where the images are sent.
        taps: which layers; all of `space.taps` by default.
        outputs: observe what the layers give instead of what they are given.
        pool: parts of a map along a side.
        aim: "output" takes the network's own answers (softmax of logits) as targets: no labels.

    Returns:
        {module name: what it saw}. Layers that were always given the same tensors share one
        `Observed`. Left out are taps that never ran, or whose input has no rows of single images.

    Raises:
        InputError: no image, a layer that the network does not have, targets that fit neither
            form, answers of one class to aim at, or activations that are NaN or infinite.
    """
    chosen = {tap.module: tap for tap in (space.taps if taps is None else taps)}
    stream = pairs(batches)
    first = next(stream)
    dense = aim == "labels" and first[1] is not None and _has_positions(first[1])
    statistic = _at_locations if dense else _in_parts(pool)
    passes = observe(
        network,
        list(chosen.values()),
        chain([first], stream),
        statistic,
        device=device,
        outputs=outputs,
    )
    layouts: dict[str, _Layout] = {}
    scatters: dict[str, Scatter] = {}
    waiting: list[_Seen] = []
    for found in passes:
        for name, calls in found.calls.items():
            if name not in layouts:
                layouts[name] = _Layout.of(chosen[name], 1 if dense else calls[0][0, 0].numel())
        waiting.append(_Seen(found.calls, columns_of(found, aim)))
        if sum(seen.numbers for seen in waiting) >= _HELD:
            _merge(scatters, waiting, layouts, dense)
            waiting = []
    _merge(scatters, waiting, layouts, dense)
    shared: dict[int, Observed] = {}
    return {
        name: shared.setdefault(id(scatter), Observed(scatter, layouts[name].atoms))
        for name, scatter in scatters.items()
    }


def merged(parts: Iterable[Mapping[str, Observed]]) -> dict[str, Observed]:
    """What layers saw in several processes, each with images of its own.

    Parts are plain arrays that processes can send each other. The result is that of one pass over
    all the images, but for rounding.

    Raises:
        InputError: layers with other features or targets: another network, or other data.
    """
    result: dict[str, Observed] = {}
    for part in parts:
        joined: dict[tuple[int, int], Observed] = {}
        for name, new in part.items():
            old = result.get(name)
            pair = (id(old), id(new))
            if pair not in joined:
                joined[pair] = new if old is None else _joined(name, old, new)
            result[name] = joined[pair]
    return result


def _joined(name: str, old: Observed, new: Observed) -> Observed:
    if not np.array_equal(old.atoms, new.atoms):
        raise InputError(
            f"layer {name!r} has {old.atoms.shape[1]} features in one part and"
            f" {new.atoms.shape[1]} in another, or those of other channels; merge parts of one"
            " network, pooled alike"
        )
    return Observed(old.scatter.merge(new.scatter), old.atoms)


def _has_positions(targets: torch.Tensor) -> bool:
    return targets.ndim > (2 if targets.is_floating_point() else 1)


def _averaged(maps: torch.Tensor, parts: Sequence[int]) -> torch.Tensor:
    """(images, channels, *parts) means over so many parts along each side."""
    pooling: Callable[..., torch.Tensor] = _POOLING[len(parts)]
    return pooling(maps, tuple(parts))


def _in_parts(pool: int) -> Statistic:
    """(images, channels, parts) means, as float64."""

    def pooled(layer: nn.Module, maps: torch.Tensor) -> torch.Tensor:
        positions = maps.ndim - 2
        if not positions:
            return maps.double()
        if pool == 1:
            # not in float64: torch sums pairwise, and is 30 x faster in the maps' own type
            return _at_least_single(maps).mean(list(range(2, maps.ndim))).double()
        parts = [pool**2] if positions == 1 else [pool] * positions
        return _averaged(_at_least_single(maps), parts).flatten(2).double()

    return pooled


def _at_least_single(maps: torch.Tensor) -> torch.Tensor:
    return maps if maps.dtype == torch.float64 else maps.float()


def _at_locations(layer: nn.Module, maps: torch.Tensor) -> torch.Tensor:
    """(images, channels, height, width), at most 8 x 8, as float64.

    Tokens in a row are averaged to one location: where each lies only the network knows.
    """
    if maps.ndim != 4:
        return maps.reshape(*maps.shape[:2], -1).double().mean(2)[..., None, None]
    grid = [min(side, _FINEST) for side in maps.shape[2:]]
    return _averaged(_at_least_single(maps), grid).double()


_POOLING: Final = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


@dataclass(frozen=True, eq=False)
class _Seen:
    """What the layers saw of one batch, and its targets (n, q, ...)."""

    calls: Mapping[str, Sequence[torch.Tensor]]
    columns: torch.Tensor

    @cached_property
    def numbers(self) -> int:
        return sum(call.numel() for calls in self.calls.values() for call in calls)

    def beside(self, call: torch.Tensor, *, dense: bool) -> Array:
        """(samples, q) targets, averaged to the resolution of a layer if samples are locations."""
        columns = self.columns
        if dense:
            columns = _averaged(columns, call.shape[2:]).movedim(1, -1).flatten(0, 2)
        return np.asarray(columns.cpu().numpy())


def columns_of(found: Pass, aim: Aim) -> torch.Tensor:
    """(n, q, ...) in float64, integer labels as one-hot."""
    if aim == "output":
        logits = _logits(found.output, 2, "there is no answer to aim at")
        if logits.shape[1] < 2:
            raise InputError(
                "the network answers with one number, whose softmax is 1 whatever it is; choose"
                " reconstruction, or di with real targets (n, 1)"
            )
        return logits.double().softmax(1)
    targets = found.targets
    if targets is None:
        raise InputError(
            "the batches have no targets; give labels, or aim at the output of the network"
        )
    if targets.is_floating_point() and targets.ndim in (2, 4):
        return targets.double()
    if targets.is_floating_point() or targets.ndim not in (1, 3):
        raise InputError(
            f"targets of shape {tuple(targets.shape)} and type {targets.dtype} are neither integer"
            " labels (n,) or (n, height, width) nor soft targets (n, q) or (n, q, height, width)"
        )
    classes = _logits(found.output, targets.ndim + 1, "labels have no columns").shape[1]
    labels = targets.cpu().long()
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise InputError(
            f"labels run from {int(labels.min())} to {int(labels.max())} but the network has"
            f" {classes} classes; labels must lie in 0..{classes - 1}"
        )
    return F.one_hot(labels, classes).movedim(-1, 1).double()


def _logits(output: Any, rank: int, so: str) -> torch.Tensor:
    if not isinstance(output, torch.Tensor) or output.ndim != rank:
        each = "an image" if rank == 2 else "a location"
        raise InputError(
            f"the network does not give one row of logits {each}, so {so}; give soft targets"
            " (n, q) instead"
        )
    return output


def _merge(
    scatters: dict[str, Scatter],
    batches: Sequence[_Seen],
    layouts: Mapping[str, "_Layout"],
    dense: bool,
) -> None:
    """Add some batches, computing once what several layers were given alike."""
    fresh: dict[tuple[int, ...], Scatter] = {}
    joined: dict[tuple[int, int], Scatter] = {}
    for name in dict.fromkeys(name for seen in batches for name in seen.calls):
        calls = [(seen, call) for seen in batches for call in seen.calls.get(name, ())]
        alike = tuple(id(call) for _, call in calls)
        if alike not in fresh:
            rows = torch.cat([_samples(call, dense) for _, call in calls]).cpu().numpy()
            beside = np.concatenate([seen.beside(call, dense=dense) for seen, call in calls])
            fresh[alike] = Scatter.of(layouts[name].features(rows), beside)
        new, old = fresh[alike], scatters.get(name)
        pair = (id(old), id(new))
        if pair not in joined:
            joined[pair] = new if old is None else old.merge(new)
        scatters[name] = joined[pair]


def _samples(call: torch.Tensor, dense: bool) -> torch.Tensor:
    """(samples, features): an image a row, or a location a row."""
    return call.movedim(1, -1).flatten(0, 2) if dense else call.flatten(1)


@dataclass(frozen=True, eq=False)
class _Layout:
    """Which numbers of an image make one feature.

    Attributes:
        order: the numbers, those of one feature side by side; None where each is a feature.
        starts: where each feature begins in `order`.
        atoms: (factors, features) atoms of each feature.
    """

    order: Atoms | None
    starts: Atoms
    atoms: Atoms

    @classmethod
    def of(cls, tap: Tap, parts: int) -> "_Layout":
        """The layout of a layer of so many numbers a channel."""
        atoms = np.stack(tap.atoms).repeat(parts, axis=1)
        width = atoms.shape[1]
        if width <= _WIDEST:
            return cls(None, np.arange(width), atoms)
        # a channel without atoms is no other's twin: its own number keeps it apart
        own = np.where(atoms.any(0), 0, np.arange(width) // parts + 1)
        part = np.arange(width) % parts
        _, first, member = np.unique(
            np.vstack([atoms, own, part]), axis=1, return_index=True, return_inverse=True
        )
        sizes = np.bincount(member)
        return cls(np.argsort(member, kind="stable"), np.cumsum(sizes) - sizes, atoms[:, first])

    def features(self, numbers: Array) -> Array:
        """(n, features) means of the numbers (n, width) that belong together."""
        if self.order is None:
            return numbers
        sums = np.add.reduceat(numbers[:, self.order], self.starts, axis=1)
        return np.asarray(sums / np.diff(np.append(self.starts, numbers.shape[1])))
