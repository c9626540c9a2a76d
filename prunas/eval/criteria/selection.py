"""Which channels of every gene to keep longest, and what each width is worth."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

import numpy as np
import torch
from torch import nn

from prunas.errors import InputError
from prunas.eval.accuracy import Batches
from prunas.eval.criteria.discriminant import Array, Elimination, eliminate_jointly, fit, is_scarce
from prunas.eval.criteria.features import Observed, channel_features
from prunas.supernet.blocks import Block
from prunas.supernet.space import Atoms, SearchSpace


@dataclass(frozen=True)
class Verdict:
    """What a criterion says of each gene.

    Attributes:
        eliminations: for every gene the channel positions in the order in which to remove them,
            least important first, each with what its removal costs (>= 0, in units that can be
            compared between genes); None where the criterion cannot judge a gene.
        notes: what the user should know about it, in sentences.
    """

    eliminations: tuple[Elimination | None, ...]
    notes: tuple[str, ...] = ()


class Criterion(Protocol):
    """A function that judges the channels of every gene; it leaves the network as it was.

    A score per channel becomes an `Elimination` by sorting; a criterion that looks again after
    every removal gives its path. Equal arguments must give equal verdicts.
    """

    def __call__(
        self,
        network: nn.Module,
        space: SearchSpace,
        batches: Batches,
        *,
        device: torch.device | str,
    ) -> Verdict: ...


@dataclass(frozen=True)
class Ranking:
    """What is known of the channels before the search.

    Attributes:
        orders: per gene the channel positions, most important first.
        values: per gene the worth of its best k channels, k = 0..width; starts at 0 and never
            falls. For discriminant information the unit is the share of the label variance that
            a layer explains, summed over the layers that see the gene.
        notes: what the user should know, in sentences.
    """

    orders: tuple[tuple[int, ...], ...]
    values: tuple[tuple[float, ...], ...]
    notes: tuple[str, ...]


def discriminant(
    network: nn.Module, space: SearchSpace, batches: Batches, *, device: torch.device | str
) -> Verdict:
    """Discriminant information: remove the channel that the labels are told from least.

    For every gene one sequential elimination over all layers that are given its channels: the
    cost of a removal is the sum over these layers of drop / TSS, with every other gene at full
    width. Layers that are given the same tensor count once; depthwise layers, which hand each
    channel on by itself, count only where no other layer sees the gene. Labels are balanced
    (`Scatter.balanced`), the ridge is the default one. Hou & Kung (2020), sequential as described
    in `prunas.eval.criteria.discriminant`.
    """
    layers = channel_features(network, space, batches, device=device)
    eliminations = (_eliminated(gene, space, layers) for gene in range(len(space.genes)))
    return Verdict(tuple(eliminations), tuple(_scarcity(layers)))


def magnitude(
    network: nn.Module, space: SearchSpace, batches: Batches, *, device: torch.device | str
) -> Verdict:
    """L1 norm of all parameters that leave with a channel, as a share of its gene's. No images."""
    norms = _norms(network, space)
    rows = zip(space.offsets, space.widths, strict=True)
    return Verdict(tuple(_one_shot(norms[start : start + width]) for start, width in rows))


def di_prior(
    network: nn.Module,
    space: SearchSpace,
    batches: Batches,
    *,
    device: torch.device | str,
    criterion: Criterion = discriminant,
) -> Ranking:
    """Order the channels of every gene and value every width, by a criterion.

    A gene that the criterion cannot judge is ordered by `magnitude`; its values then add up to
    the median worth of the judged genes (1 if there is none), which a note says. A block is worth
    what all the channels inside it are, since they go with it; that is a guess.

    Args:
        network: the full network, on `device`; left as it was.
        space: its search space.
        batches: images and labels that the network was trained on, at least 5 images a channel
            of the widest layer (fewer are noted); see `channel_features`.
        device: where to compute.
        criterion: judges the channels.

    Raises:
        InputError: as the criterion; for the default one see `channel_features`.
    """
    widths = range(len(space.genes) - len(space.blocks))
    verdict = criterion(network, space, batches, device=device)
    spare = magnitude(network, space, batches, device=device).eliminations
    typical = median([sum(e.drops) for e in verdict.eliminations if e is not None] or [1.0])
    orders, values = [], []
    for gene in widths:
        judged, fallback = verdict.eliminations[gene], spare[gene]
        assert fallback is not None, "magnitude judges every gene"
        path, unit = (fallback, typical) if judged is None else (judged, 1.0)
        orders.append(path.order[::-1])
        worth = np.cumsum(np.maximum(path.drops[::-1], 0)) * unit
        values.append((0.0, *worth.tolist()))
    for block in space.blocks.values():
        orders.append((0,))
        inner = [values[gene][-1] for gene in widths if _inside(gene, block, space)]
        values.append((0.0, sum(inner) if inner else typical))
    return Ranking(tuple(orders), tuple(values), (*verdict.notes, *_unjudged(space, verdict)))


def _eliminated(gene: int, space: SearchSpace, layers: dict[str, Observed]) -> Elimination | None:
    atoms = space.offsets[gene] + np.arange(space.widths[gene])
    seeing = [tap for tap in space.taps if tap.module in layers and np.isin(tap.atoms, atoms).any()]
    chosen = [tap for tap in seeing if not tap.depthwise] or seeing
    distinct = list({id(layers[tap.module]): layers[tap.module] for tap in chosen}.values())
    if not distinct:
        return None
    fits = [fit(layer.scatter.balanced()) for layer in distinct]
    return eliminate_jointly(fits, [_features_of(atoms, layer.atoms) for layer in distinct])


def _inside(gene: int, block: Block, space: SearchSpace) -> bool:
    """Whether all channels of a gene leave with the block."""
    atoms = space.offsets[gene]
    holders = [
        name
        for name, dimensions in space.slots.items()
        if any((factor == atoms).any() for factors in dimensions.values() for factor in factors)
    ]
    return all(map(block.holds, holders))


def _features_of(atoms: Atoms, layout: Atoms) -> list[Atoms]:
    """For each atom the features that leave with it: those that carry it in any factor."""
    return [np.flatnonzero((layout == atom).any(0)) for atom in atoms]


def _scarcity(layers: dict[str, Observed]) -> Iterator[str]:
    scarce = {name: o.scatter for name, o in layers.items() if is_scarce(o.scatter)}
    if scarce:
        widest = max(scarce, key=lambda name: len(scarce[name].total))
        yield (
            f"{scarce[widest].count} images are fewer than 5 a channel in {len(scarce)} of"
            f" {len(layers)} layers (the widest, {widest}, has {len(scarce[widest].total)}):"
            " their channels are told apart less surely than with more images"
        )


def _unjudged(space: SearchSpace, verdict: Verdict) -> Iterator[str]:
    rows = zip(space.genes, verdict.eliminations, strict=True)
    names = [gene.name for gene, found in rows if found is None and gene.kind == "width"]
    if names:
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        yield (
            f"{len(names)} of {len(space.genes)} genes are seen by no layer that could be observed"
            f" and are ordered by the L1 norm of their weights: {shown}"
        )


def _norms(network: nn.Module, space: SearchSpace) -> Array:
    """(atoms + 1,) sum of |w| over all parameter entries of each atom."""
    parameters = dict(network.named_parameters(remove_duplicate=False))
    result = np.zeros(sum(space.widths) + 1)
    for name in sorted(space.parameters & space.slots.keys()):
        if name not in parameters or tuple(parameters[name].shape) != space.shapes[name]:
            raise InputError(
                f"the network has no parameter {name!r} of shape {space.shapes[name]}; the search"
                " space belongs to another network"
            )
        weight = parameters[name].detach().double().abs()
        for dimension, factors in space.slots[name].items():
            others = [d for d in range(weight.ndim) if d != dimension]
            sums = (weight.sum(others) if others else weight).cpu().numpy()
            for atoms in factors:
                np.add.at(result, atoms, sums)
    return result


def _one_shot(scores: Array | Sequence[float]) -> Elimination:
    """Removal by ascending score; drops are shares of the sum of the scores."""
    shares = np.asarray(scores) / (np.sum(scores) or 1.0)
    order = np.argsort(shares, kind="stable")
    return Elimination(tuple(order.tolist()), tuple(shares[order].tolist()))
