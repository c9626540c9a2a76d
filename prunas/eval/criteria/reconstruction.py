"""Criteria that ask what the next layers could no longer compute, even with new weights.

They are discriminant information with what a layer computes as the target: Y = X W, where X are
the inputs of the layer at 2 x 2 positions of its output, all weights of a filter side by side.
Grouped convolutions, depthwise ones among them, are that many layers side by side, and count only
where no other layer sees a gene. Layers of other kinds than linears and 2-d convolutions, and of
filters of over 5,120 weights, are left out.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeAlias, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from prunas.eval.batches import Loader, pairs
from prunas.eval.criteria.curvature import answer_curvatures
from prunas.eval.criteria.dependence import features_of, over_layers
from prunas.eval.criteria.discriminant import (
    Array,
    Elimination,
    Scatter,
    eliminate_jointly,
    fit,
    relative_ridge,
)
from prunas.eval.criteria.features import Observed
from prunas.eval.criteria.observe import judging, observe
from prunas.eval.criteria.slices import checked_parameters
from prunas.eval.criteria.verdict import Verdict
from prunas.supernet.space import Atoms, SearchSpace, Tap

Pair: TypeAlias = tuple[int, int]

_WIDEST: Final = 5120  # weights of a filter: the inverse of their scatter takes seconds
_PATCHES: Final = 2  # positions along a side at which a layer's output is reconstructed
_MISSING: Final = (
    "no 2-d convolution or linear of at most 5,120 weights a filter reads its channels"
)


def reconstruction(
    network: nn.Module,
    space: SearchSpace,
    batches: Loader,
    *,
    device: torch.device | str,
    ridge_share: float = 1e-6,
) -> Verdict:
    """What the next layers' outputs lose without a channel when their weights are refitted.

    1/2 trace(W_G^T ((H^-1)_GG)^-1 W_G), H = X^T X + rho I, of Optimal Brain Surgeon (Hassibi &
    Stork 1993) for layers, sequentially: discriminant information with Y = X W as the target (so
    not halved, and as a share of ||Yc||^2, summed over the layers that read a channel).

    Args:
        ridge_share: the ridge, see `relative_ridge`.
    """
    taps = _readers(network, space)
    inputs: dict[str, list[Scatter]] = {}
    for images, _ in pairs(batches):
        _add(inputs, network, taps, images, device)
    filters = _filters(network, space, taps)
    layers = _observed(taps, inputs, {n: [w.T for w in parts] for n, parts in filters.items()})

    def judged(gene: int, seen: Sequence[Observed]) -> Elimination:
        fits = [fit(o.scatter, ridge=relative_ridge(o.scatter, ridge_share)) for o in seen]
        return eliminate_jointly(fits, features_of(space, gene, seen))

    return over_layers(space, taps, layers, judged, _MISSING)


def curved_discriminant(
    network: nn.Module,
    space: SearchSpace,
    batches: Loader,
    *,
    device: torch.device | str,
    ridge_share: float = 1e-3,
    seed: int = 0,
) -> Verdict:
    """What the network's answers lose without a channel when the next layers are refitted, in nats.

    Discriminant information with the target Y = X W R, where R R^T = G is the curvature of the
    answers by what a layer gives (`answer_curvatures`, summed over the positions of an image): of
    n rows of X,

        DI / 2n = 1/2 trace(G W^T Xc^T Xc (Xc^T Xc + rho I)^-1 Xc^T Xc W) / n

    is the divergence of the answers, to second order, that the layer's inputs save them from, so
    that values add up over layers and compare between genes. Plain discriminant information asks
    what a layer could tell; this asks how much of it is listened to. Sequential elimination; no
    labels are needed. For a fully connected layer and one removal this is the error of Kronecker-
    factored Optimal Brain Surgeon (EigenDamage, Wang et al. 2019) for the columns of its weight;
    they remove rows, in one shot.

    Args:
        ridge_share: the ridge, see `relative_ridge`.
        seed: of the directions in which answers are differentiated.

    Raises:
        InputError: as `answer_curvatures`.
    """
    taps = _readers(network, space)
    generator = torch.Generator().manual_seed(seed)
    inputs: dict[str, list[Scatter]] = {}
    curvatures: dict[str, Array] = {}
    seen_images = 0
    for images, _ in pairs(batches):
        _add(inputs, network, taps, images, device)
        found = answer_curvatures(network, list(inputs), images, device=device, generator=generator)
        curvatures = {name: found[name] + curvatures.get(name, 0) for name in found}
        seen_images += len(images)
    filters = _filters(network, space, taps)
    mixing = {
        name: [
            filters[name][group].T @ _root(block / seen_images)
            for group, block in enumerate(_blocks(total, len(filters[name])))
        ]
        for name, total in curvatures.items()
    }
    layers = _observed(taps, inputs, mixing)

    def judged(gene: int, seen: Sequence[Observed]) -> Elimination:
        fits = [fit(o.scatter, ridge=relative_ridge(o.scatter, ridge_share)) for o in seen]
        nats = [1 / (2 * o.scatter.count) for o in seen]
        return eliminate_jointly(fits, features_of(space, gene, seen), scales=nats)

    return over_layers(space, taps, layers, judged, _MISSING)


def _filters(network: nn.Module, space: SearchSpace, taps: Sequence[Tap]) -> dict[str, list[Array]]:
    """{layer: for each of its groups the weights (outputs, weights of a filter)}."""
    held = checked_parameters(network, space)
    found = {}
    for tap in taps:
        weight = held[f"{tap.module}.weight"].detach().double().flatten(1).cpu().numpy()
        found[tap.module] = np.split(weight, _groups_of(network.get_submodule(tap.module)))
    return found


def _observed(
    taps: Sequence[Tap],
    inputs: Mapping[str, Sequence[Scatter]],
    mixing: Mapping[str, Sequence[Array]],
) -> dict[str, list[Observed]]:
    """{layer: for each of its groups the inputs X as features and X M as targets}."""
    found = {}
    for tap in taps:
        if tap.module in inputs:
            scatters = inputs[tap.module]
            atoms = np.split(np.stack(tap.atoms), len(scatters), axis=1)
            parts = zip(scatters, mixing[tap.module], atoms, strict=True)
            found[tap.module] = [_with_targets(*part) for part in parts]
    return found


def _with_targets(scatter: Scatter, mixed: Array, atoms: Atoms) -> Observed:
    """The features X of a scatter with the targets X M."""
    cross = scatter.total @ mixed
    with_targets = replace(
        scatter,
        target_mean=scatter.feature_mean @ mixed,
        cross=cross,
        target_squares=(mixed * cross).sum(0),
    )
    return Observed(with_targets, atoms.repeat(len(scatter.total) // atoms.shape[1], axis=1))


def _blocks(matrix: Array, count: int) -> list[Array]:
    """So many equal blocks along the diagonal."""
    size = len(matrix) // count
    return [matrix[at : at + size, at : at + size] for at in range(0, len(matrix), size)]


def _root(symmetric: Array) -> Array:
    """R with R R^T = a positive semi-definite matrix."""
    values, vectors = np.linalg.eigh(symmetric)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0)))


# -- the inputs of layers, patch by patch ----------------------------------------------------------


def _readers(network: nn.Module, space: SearchSpace) -> list[Tap]:
    """The layers that judge; grouped ones like depthwise ones, since both hand channels on."""
    checked_parameters(network, space)
    layers = ((tap, network.get_submodule(tap.module)) for tap in space.taps)
    fitting = (
        replace(tap, depthwise=_groups_of(layer) > 1) for tap, layer in layers if _fits(layer)
    )
    return judging(space, list(fitting))


def _groups_of(layer: nn.Module) -> int:
    return layer.groups if isinstance(layer, nn.Conv2d) else 1


def _add(
    sums: dict[str, list[Scatter]],
    network: nn.Module,
    taps: Sequence[Tap],
    images: torch.Tensor,
    device: torch.device | str,
) -> None:
    """Add what a batch of images gives to the layers."""
    for found in observe(network, taps, [images], _patches, device=device, kind=_geometry):
        for name, calls in found.calls.items():
            rows = torch.cat([*calls]).double().cpu().numpy()
            none = np.zeros((len(rows), 1))
            groups = _groups_of(network.get_submodule(name))
            new = [Scatter.of(part, none) for part in np.split(rows, groups, axis=1)]
            old = sums.get(name)
            sums[name] = new if old is None else list(map(Scatter.merge, old, new))


def _fits(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        plain = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
        return plain and layer.weight[0].numel() <= _WIDEST
    return isinstance(layer, nn.Linear) and layer.in_features <= _WIDEST


def _geometry(layer: nn.Module) -> Hashable:
    if not isinstance(layer, nn.Conv2d):
        return None
    return layer.kernel_size, layer.stride, layer.padding, layer.dilation


def _patches(layer: nn.Module, maps: torch.Tensor) -> torch.Tensor:
    """(samples, weights of a filter) inputs of a layer at a few positions of its output."""
    if not isinstance(layer, nn.Conv2d):
        tokens = maps.reshape(*maps.shape[:2], -1)
        chosen = torch.linspace(0, tokens.shape[2] - 1, min(tokens.shape[2], _PATCHES**2))
        return tokens[:, :, chosen.long()].movedim(1, 2).flatten(0, 1)
    kernel, padding = cast(Pair, layer.kernel_size), cast(Pair, layer.padding)
    steps = tuple(_step(layer, maps.shape[2 + axis], axis) for axis in (0, 1))
    columns = F.unfold(maps, kernel, cast(Pair, layer.dilation), padding, cast(Pair, steps))
    return columns.movedim(1, 2).flatten(0, 1)


def _step(layer: nn.Conv2d, side: int, axis: int) -> int:
    """A multiple of the stride at which about `_PATCHES` positions of the output are left."""
    reach = layer.dilation[axis] * (layer.kernel_size[axis] - 1) + 1
    positions = (side + 2 * cast(Pair, layer.padding)[axis] - reach) // layer.stride[axis] + 1
    return layer.stride[axis] * max(1, positions // _PATCHES)
