"""What the next layers could no longer compute without a channel, even with new weights."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from torch import nn

from prunas.eval.batches import Loader, pairs
from prunas.eval.criteria.dependence import features_of, over_layers, sequential
from prunas.eval.criteria.discriminant import Array, Elimination, Scatter
from prunas.eval.criteria.features import Observed
from prunas.eval.criteria.patches import atoms_of, filters_of, patches, readers
from prunas.eval.criteria.verdict import Verdict
from prunas.supernet.space import Atoms, SearchSpace

_WIDEST: Final = 5120  # weights of a filter: the inverse of their scatter takes seconds
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
    Stork 1993) for layers, sequentially: discriminant information with a layer's own output
    Y = X W as the target (so not halved, and as a share of ||Yc||^2, summed over layers). X are
    the inputs of a layer at 2 x 2 positions of its output, all weights of a filter side by side.
    Grouped convolutions are several layers side by side, and count where no other layer sees a
    gene; layers of filters of over 5,120 weights are left out.

    Args:
        ridge_share: the ridge, see `relative_ridge`.
    """
    taps = [t for t in readers(network, space) if filters_of(network, t)[0, 0].size <= _WIDEST]
    sums: dict[str, list[Scatter]] = {}
    for images, _ in pairs(batches):
        for name, rows in patches(network, taps, images, device):
            new = [Scatter.of(part, np.zeros((len(rows), 1))) for part in _by_group(rows)]
            sums[name] = list(map(Scatter.merge, sums[name], new)) if name in sums else new
    layers = {
        tap.module: list(
            map(_own_output, sums[tap.module], filters_of(network, tap), atoms_of(network, tap))
        )
        for tap in taps
        if tap.module in sums
    }

    def judged(gene: int, seen: Sequence[Observed]) -> Elimination:
        return sequential([o.scatter for o in seen], features_of(space, gene, seen), ridge_share)

    return over_layers(space, taps, layers, judged, _MISSING)


def _by_group(rows: Array) -> Array:
    """(groups, samples, weights of a filter)."""
    return np.asarray(rows.swapaxes(0, 1).reshape(rows.shape[1], len(rows), -1))


def _own_output(inputs: Scatter, filters: Array, atoms: Atoms) -> Observed:
    """The inputs X of a layer as features and its own output as targets, Y = X W."""
    weight = filters.reshape(len(filters), -1)
    cross = inputs.total @ weight.T
    scatter = replace(
        inputs,
        target_mean=weight @ inputs.feature_mean,
        cross=cross,
        target_squares=(weight.T * cross).sum(0),
    )
    return Observed(scatter, atoms.repeat(filters.shape[2], axis=1))
