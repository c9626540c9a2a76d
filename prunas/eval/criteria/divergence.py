"""Discriminant information about what the network's answers make of the next layers' outputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import nn

from prunas.eval.batches import Loader, pairs
from prunas.eval.criteria.curvature import answer_curvatures
from prunas.eval.criteria.dependence import features_of, over_layers, sequential
from prunas.eval.criteria.discriminant import Array, Elimination, Scatter
from prunas.eval.criteria.features import Observed
from prunas.eval.criteria.patches import atoms_of, filters_of, patches, readers
from prunas.eval.criteria.verdict import Verdict
from prunas.supernet.space import Atoms, SearchSpace

_MISSING = "no 2-d convolution or linear reads its channels"


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

    If the weights W (outputs x inputs x taps) of a layer change by D, the answers diverge, to
    second order and with Kronecker-factored curvature (Grosse & Martens 2016), by

        1/2 sum over pairs of taps of B_tu trace(G D_t A D_u^T),

    A and B the covariances of the layer's inputs between channels and between taps of its filters
    (trace B = 1), G the curvature of the answers by its output, summed over positions
    (`answer_curvatures`). The best weights that leave channels out make this what discriminant
    information loses with them: features with scatter A, targets of all Y_t = X (B^1/2 W)_t^T R
    side by side, R R^T = G. So values are nats, add up over layers and compare between genes.
    Plain discriminant information asks what a layer could tell of the labels; this asks how much
    of it is listened to, and needs no labels. One removal from a linear is Kronecker-factored
    Optimal Brain Surgeon (EigenDamage, Wang et al. 2019) for columns of its weight; here removals
    are sequential. Patches and grouped convolutions as in `reconstruction`.

    Args:
        ridge_share: the ridge, see `relative_ridge`.
        seed: of the directions in which answers are differentiated.

    Raises:
        InputError: as `answer_curvatures`.
    """
    taps = readers(network, space)
    generator = torch.Generator().manual_seed(seed)
    inputs: dict[str, list[Moments]] = {}
    curvatures: dict[str, Array] = {}
    seen_images = 0
    for images, _ in pairs(batches):
        for name, rows in patches(network, taps, images, device):
            new = [Moments.of(part) for part in rows.swapaxes(0, 1)]
            inputs[name] = list(map(Moments.merge, inputs[name], new)) if name in inputs else new
        found = answer_curvatures(network, list(inputs), images, device=device, generator=generator)
        curvatures = {name: found[name] + curvatures.get(name, 0) for name in found}
        seen_images += len(images)
    layers = {}
    for tap in taps:
        if tap.module in inputs:
            filters = filters_of(network, tap)
            blocks = _blocks(curvatures[tap.module] / seen_images, len(filters))
            parts = zip(inputs[tap.module], filters, blocks, atoms_of(network, tap), strict=True)
            layers[tap.module] = [_observed(*part) for part in parts]

    def judged(gene: int, seen: Sequence[Observed]) -> Elimination:
        scatters = [o.scatter for o in seen]
        nats = [1 / (2 * scatter.count) for scatter in scatters]
        return sequential(scatters, features_of(space, gene, seen), ridge_share, scales=nats)

    return over_layers(space, taps, layers, judged, _MISSING)


@dataclass(frozen=True, eq=False)
class Moments:
    """Centered second moments of patches (samples, channels, taps), between each of the two.

    Attributes:
        count: number of samples.
        mean: (channels, taps).
        channels: (channels, channels) sum over samples and taps of products.
        taps: (taps, taps) sum over samples and channels of products.
    """

    count: int
    mean: Array
    channels: Array
    taps: Array

    @classmethod
    def of(cls, rows: Array) -> Self:
        """The moments of samples (n, channels, taps), in float64."""
        mean = rows.mean(0)
        centered = rows - mean
        by_channel = centered.swapaxes(1, 2).reshape(-1, rows.shape[1])
        by_tap = centered.reshape(-1, rows.shape[2])
        return cls(len(rows), mean, by_channel.T @ by_channel, by_tap.T @ by_tap)

    def merge(self, other: "Moments") -> Self:
        """The moments of the samples of both, joined as `Scatter.merge` does."""
        count = self.count + other.count
        weight = self.count * other.count / count
        shift = other.mean - self.mean
        return type(self)(
            count,
            self.mean + shift * (other.count / count),
            self.channels + other.channels + weight * shift @ shift.T,
            self.taps + other.taps + weight * shift.T @ shift,
        )


def _observed(inputs: Moments, filters: Array, curvature: Array, atoms: Atoms) -> Observed:
    """The channels of a layer as features, and what the answers hear of its output as targets."""
    outputs, channels, taps = filters.shape
    between_taps = inputs.taps / (np.trace(inputs.taps) or 1.0)
    spread = (filters @ _root(between_taps)).reshape(outputs, channels * taps)
    heard = (_root(curvature).T @ spread).reshape(outputs, channels, taps)
    mixed = heard.swapaxes(0, 1).reshape(channels, outputs * taps)
    cross = inputs.channels @ mixed
    scatter = Scatter(
        count=inputs.count,
        feature_mean=np.zeros(channels),
        target_mean=np.zeros(mixed.shape[1]),
        total=inputs.channels,
        cross=cross,
        target_squares=(mixed * cross).sum(0),
    )
    return Observed(scatter, atoms)


def _blocks(matrix: Array, count: int) -> list[Array]:
    """So many equal blocks along the diagonal."""
    size = len(matrix) // count
    return [matrix[at : at + size, at : at + size] for at in range(0, len(matrix), size)]


def _root(symmetric: Array) -> Array:
    """R with R R^T = a positive semi-definite matrix."""
    values, vectors = np.linalg.eigh(symmetric)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0)))
