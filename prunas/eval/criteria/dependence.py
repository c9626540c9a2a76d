"""Criteria that ask how much the labels, or the next layer, depend on a channel."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Literal, TypeAlias

import numpy as np
import torch
from torch import nn

from prunas.eval.batches import Loader
from prunas.eval.criteria.discriminant import (
    RIDGE_SHARE,
    Array,
    Elimination,
    Groups,
    Scatter,
    differential,
    doubly_centered,
    drops_of,
    dual_differential,
    dual_leave_out,
    dual_stand_alone,
    eliminate_jointly,
    fit,
    is_scarce,
    relative_ridge,
    stand_alone,
)
from prunas.eval.criteria.features import Aim, Observed, channel_features, columns_of
from prunas.eval.criteria.observe import UNSEEN, by_gene, judging, observe, over_positions
from prunas.eval.criteria.slices import writers
from prunas.eval.criteria.verdict import Verdict, judge, width_genes
from prunas.supernet.space import SearchSpace, Tap

Selector: TypeAlias = Literal["sequential", "single", "leave_out", "differential"]

_BANDWIDTHS: Final = 5


def discriminant(
    network: nn.Module,
    space: SearchSpace,
    batches: Loader,
    *,
    device: torch.device | str,
    selector: Selector = "sequential",
    pool: int = 1,
    before: bool = False,
    balanced: bool = True,
    aim: Aim = "labels",
    ridge_share: float = RIDGE_SHARE,
) -> Verdict:
    """Discriminant information: remove the channel that the labels are told from least.

    For every gene over all layers that are given its channels: the cost of a removal is the sum
    over these layers of drop / TSS, with every other gene at full width. Layers that are given the
    same tensor count once; depthwise layers, which hand each channel on by itself, count only
    where no other layer sees the gene. Hou & Kung (2020), sequential as described in
    `prunas.eval.criteria.discriminant`.

    Args:
        selector: "sequential" elimination; or one shot by the DI of a channel alone ("single"),
            by what DI loses without it ("leave_out"), or by its derivative ("differential").
        pool: features are means over pool x pool parts of a channel's map.
        before: look at what the layers compute (before normalisation and activation) instead of
            what the next ones are given.
        balanced: divide one-hot labels and probabilities by the square root of their class's count
            (`Scatter.balanced`); other targets are taken as they are.
        aim: "output" asks for the network's own answers instead of labels.
        ridge_share: the ridge, see `relative_ridge`.
    """
    taps = judging_taps(network, space, before=before)
    layers = channel_features(
        network, space, batches, device=device, taps=taps, outputs=before, pool=pool, aim=aim
    )
    return discriminant_of(
        space, taps, layers, selector=selector, balanced=balanced, ridge_share=ridge_share
    )


def judging_taps(network: nn.Module, space: SearchSpace, *, before: bool = False) -> list[Tap]:
    """The layers that genes are judged by: what is given to them, or `before`, what they give.

    Depthwise ones only if no other layer has a gene's channels.
    """
    return judging(space, writers(network, space) if before else space.taps)


def discriminant_of(
    space: SearchSpace,
    taps: Sequence[Tap],
    layers: Mapping[str, Observed],
    *,
    selector: Selector = "sequential",
    balanced: bool = True,
    ridge_share: float = RIDGE_SHARE,
) -> Verdict:
    """`discriminant` from what layers saw: of one process, or of several (`merged`).

    Args:
        space: the search space.
        taps: the layers, as from `judging_taps`.
        layers: what they saw, as from `channel_features`.
        selector: as in `discriminant`, and so are the others.
    """
    select = _SELECTORS[selector]

    def judged(gene: int, seen: Sequence[Observed]) -> Elimination | Array:
        scatters = [o.scatter.balanced() if balanced else o.scatter for o in seen]
        return select(scatters, features_of(space, gene, seen), ridge_share)

    return over_layers(space, taps, {name: (seen,) for name, seen in layers.items()}, judged)


def flat_discriminant(
    network: nn.Module,
    space: SearchSpace,
    batches: Loader,
    *,
    device: torch.device | str,
    selector: Literal["single", "leave_out", "differential"] = "differential",
    before: bool = True,
    aim: Aim = "labels",
    ridge: float = 0.1,
) -> Verdict:
    """Discriminant information of whole maps, every position a feature; means over batches.

    In dual form, batch by batch, with centered targets as they are. By default as in the code of
    Hou & Kung for iterative pruning: the outputs of convolutions, the derivative by a factor on a
    channel, rho = 0.1, batches of 128 (they sum over 10 of them). Drops are shares of TSS, summed
    over layers.

    Args:
        selector: as in `discriminant`; there is no elimination.
        before: look at what the layers compute instead of what they are given.
        aim: as in `discriminant`.
        ridge: rho.
    """
    taps = writers(network, space) if before else space.taps
    score = _FLAT[selector]
    readers = by_gene(space, taps)
    totals: dict[int, Array] = {}
    passes = 0
    for found in observe(
        network, taps, batches, lambda _, maps: maps.flatten(1), device=device, outputs=before
    ):
        passes += 1
        Y = columns_of(found, aim).flatten(1).cpu().numpy()
        total = float(((Y - Y.mean(0)) ** 2).sum()) or 1.0
        for gene, seeing in enumerate(readers):
            for tap in (t for t in seeing if t.module in found.calls):
                X = torch.cat([*found.calls[tap.module]]).double().cpu().numpy()
                Ys = np.tile(Y, (len(X) // len(Y), 1))
                groups = _flat_groups(space, gene, tap, X.shape[1])
                value = score(X, Ys, groups, ridge=ridge) / total
                totals[gene] = totals.get(gene, 0) + value
    return judge(space, [totals[g] / passes if g in totals else UNSEEN for g in width_genes(space)])


def hsic(
    network: nn.Module,
    space: SearchSpace,
    batches: Loader,
    *,
    device: torch.device | str,
    aim: Aim = "output",
    images: int = 256,
) -> Verdict:
    """trace(H K_i H L) / N^2: how far a channel and the network's answer depend on each other.

    K_i is the mean of Gaussian kernels of widths 1, 2, 4, 8, 16 on the channel's mean activation,
    standardised over images; L = Y Y^T. The dependency of the pruning of vision transformers by
    Hou & Kung (CVPRW 2022), without the other terms of their score. The mean over the layers
    that read a channel.

    Args:
        aim: what Y is: the network's own answers (softmax), or the labels.
        images: at most so many of the first ones; the cost grows with their square.
    """
    rows: dict[str, list[Array]] = {}
    answers: list[Array] = []
    for found in observe(
        network, space.taps, batches, lambda _, maps: over_positions(maps), device=device
    ):
        answers.append(columns_of(found, aim).cpu().numpy())
        for name, calls in found.calls.items():
            mean = torch.stack([*calls]).mean(0).cpu().numpy()
            rows.setdefault(name, []).append(mean)
        if sum(map(len, answers)) >= images:
            break
    Y = np.concatenate(answers)[:images]
    HLH = doubly_centered(Y @ Y.T)
    layers = {name: np.concatenate(parts)[:images] for name, parts in rows.items()}

    judgements: list[Array | str] = []
    for gene, taps in enumerate(by_gene(space, space.taps)):
        seen = [(t, layers[t.module]) for t in taps if t.module in layers]
        scores = [_hsic_of_channels(space, gene, t, rows_of_tap, HLH) for t, rows_of_tap in seen]
        judgements.append(np.mean(scores, axis=0) if scores else UNSEEN)
    return judge(space, judgements)


# -- selectors of discriminant information ---------------------------------------------------------


def sequential(
    scatters: Sequence[Scatter],
    groups: Sequence[Groups],
    ridge_share: float,
    *,
    scales: Sequence[float] | None = None,
) -> Elimination:
    """`eliminate_jointly` of layers by their scatters, each with a ridge of its own."""
    fits = [fit(s, ridge=relative_ridge(s, ridge_share)) for s in scatters]
    return eliminate_jointly(fits, groups, scales=scales)


def _one_shot(score: Callable[..., Array]) -> Callable[..., Array]:
    """Scores as shares of TSS, summed over layers."""

    def summed(scatters: Sequence[Scatter], groups: Sequence[Groups], ridge_share: float) -> Array:
        parts = [
            score(s, g, ridge=relative_ridge(s, ridge_share)) / (s.target_total or 1.0)
            for s, g in zip(scatters, groups, strict=True)
        ]
        return np.asarray(np.sum(parts, axis=0))

    return summed


_SELECTORS: Final[dict[str, Callable[..., Elimination | Array]]] = {
    "sequential": sequential,
    "single": _one_shot(stand_alone),
    "leave_out": _one_shot(lambda s, groups, ridge: drops_of(fit(s, ridge=ridge), groups)),
    "differential": _one_shot(differential),
}
_FLAT: Final[dict[str, Callable[..., Array]]] = {
    "single": dual_stand_alone,
    "leave_out": dual_leave_out,
    "differential": dual_differential,
}


def over_layers(
    space: SearchSpace,
    taps: Sequence[Tap],
    layers: Mapping[str, Sequence[Observed]],
    judged: Callable[[int, Sequence[Observed]], Elimination | Array],
    missing: str = UNSEEN,
) -> Verdict:
    """Every gene by all parts of the layers that see it; what several layers share counts once."""
    judgements: list[Elimination | Array | str] = []
    for gene, seeing in enumerate(by_gene(space, taps)):
        seen = {id(part): part for tap in seeing for part in layers.get(tap.module, ())}
        judgements.append(judged(gene, list(seen.values())) if seen else missing)
    return judge(space, judgements, *_scarcity(layers))


def features_of(space: SearchSpace, gene: int, seen: Sequence[Observed]) -> list[Groups]:
    """For every layer the features that leave with each channel, in any factor."""
    atoms = space.offsets[gene] + np.arange(space.widths[gene])
    return [[np.flatnonzero((o.atoms == atom).any(0)) for atom in atoms] for o in seen]


def _flat_groups(space: SearchSpace, gene: int, tap: Tap, features: int) -> Groups:
    layout = np.stack(tap.atoms).repeat(features // len(tap.atoms[0]), axis=1)
    atoms = space.offsets[gene] + np.arange(space.widths[gene])
    return [np.flatnonzero((layout == atom).any(0)) for atom in atoms]


def _scarcity(layers: Mapping[str, Sequence[Observed]]) -> Iterator[str]:
    scarce = {
        name: parts[0].scatter for name, parts in layers.items() if is_scarce(parts[0].scatter)
    }
    if scarce:
        widest = max(scarce, key=lambda name: len(scarce[name].total))
        yield (
            f"{scarce[widest].count} samples are fewer than 5 a channel in {len(scarce)} of"
            f" {len(layers)} layers (the widest, {widest}, has {len(scarce[widest].total)}):"
            " their channels are told apart less surely than with more images"
        )


# -- kernels ---------------------------------------------------------------------------------------


def _hsic_of_channels(space: SearchSpace, gene: int, tap: Tap, rows: Array, HLH: Array) -> Array:
    spread = rows.std(0)
    rows = (rows - rows.mean(0)) / np.where(spread > 0, spread, 1.0)
    groups = _flat_groups(space, gene, tap, rows.shape[1])
    return np.array([float((_gaussian(rows[:, g]) * HLH).sum()) for g in groups]) / len(rows) ** 2


def _gaussian(rows: Array) -> Array:
    """Mean of exp(-d^2 / 2 s^2) for s = 16, 8, 4, 2, 1: each the fourth power of the one before."""
    squares = (rows**2).sum(1)
    distances = np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0)
    kernel = np.exp(-distances / 512)
    total = kernel
    for _ in range(_BANDWIDTHS - 1):
        kernel = kernel**2
        kernel = kernel**2
        total = total + kernel
    return np.asarray(total / _BANDWIDTHS)
