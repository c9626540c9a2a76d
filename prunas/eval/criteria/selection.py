"""Which channels of every gene to keep longest, and what each width is worth."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import torch
from torch import nn

from prunas.eval.batches import Loader
from prunas.eval.criteria.dependence import discriminant
from prunas.eval.criteria.sides import answers_left
from prunas.eval.criteria.verdict import Criterion, Verdict, names_of, width_genes
from prunas.eval.criteria.weights import magnitude
from prunas.supernet.blocks import Block
from prunas.supernet.scoped import buffers_kept
from prunas.supernet.space import SearchSpace
from prunas.supernet.tensors import tensors_of


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


def di_prior(
    network: nn.Module,
    space: SearchSpace,
    batches: Loader | None,
    *,
    device: torch.device | str,
    criterion: Criterion = discriminant,
) -> Ranking:
    """Order the channels of every gene and value every width, by a criterion.

    A gene that the criterion cannot judge is ordered by `magnitude`; its values then add up to
    the median worth of the judged genes (1 if there is none), which a note says. Two guesses: a
    block is worth what all the channels inside it are, since they go with it; the middle of a
    kernel is worth its share of the squared weights, and the whole kernel that median. A side of
    images is worth the share of the network's answers that is left with it (`answers_left`) of
    all that the other genes are worth, since all of it passes through the images; its length, with
    a note, where there are no images to ask, or no answers to compare.

    Args:
        network: the full network, on `device`; left as it was.
        space: its search space.
        batches: images and labels that the network was trained on, at least 5 images a channel
            of the widest layer (fewer are noted); see `channel_features`. None for a criterion
            that looks at weights alone.
        device: where to compute.
        criterion: judges the channels.

    Raises:
        InputError: as the criterion; for the default one see `channel_features`.
    """
    seen: Loader = () if batches is None else batches  # what has no length cannot be asked for it
    with buffers_kept(network):
        found = ranking(network, space, criterion(network, space, seen, device=device))
    places = [place for place, gene in enumerate(space.genes) if gene.kind == "resolution"]
    if not places:
        return found
    (place,) = places
    sides = space.genes[place].choices
    with buffers_kept(network):
        shares = None if batches is None else answers_left(network, sides, batches, device=device)
    if shares is None:
        why = "there are no images"
        if batches is not None:
            why = "the answers are not one tensor a batch, or are all alike"
        note = f"sides of images are valued by their length: {why}"
        return replace(found, notes=(*found.notes, note))
    others = sum(worth[-1] for gene, worth in enumerate(found.values) if gene != place)
    worth = np.interp(np.arange(sides[-1] + 1), (0, *sides), (0.0, *shares * others))
    values = (*found.values[:place], tuple(worth.tolist()), *found.values[place + 1 :])
    return replace(found, values=values)


def ranking(network: nn.Module, space: SearchSpace, verdict: Verdict) -> Ranking:
    """`di_prior` from a verdict that is there already; a side is worth its length here."""
    widths = width_genes(space)
    spare = magnitude(network, space, (), device="cpu").eliminations
    typical = median([sum(e.drops) for e in verdict.eliminations if e is not None] or [1.0])
    orders, values = [], []
    for gene in widths:
        judged, fallback = verdict.eliminations[gene], spare[gene]
        assert fallback is not None, "magnitude judges every gene"
        path, unit = (fallback, typical) if judged is None else (judged, 1.0)
        orders.append(path.order[::-1])
        worth = np.cumsum(np.maximum(path.drops[::-1], 0)) * unit
        values.append((0.0, *worth.tolist()))
    for gene in range(len(widths), len(space.genes)):
        orders.append(tuple(range(space.widths[gene])))
        if gene in space.blocks:
            inner = [values[g][-1] for g in widths if _inside(g, space.blocks[gene], space)]
            values.append((0.0, sum(inner) if inner else typical))
        elif space.genes[gene].kind == "kernel":
            shares = _energy_in_the_middle(network, space, gene)
            values.append(tuple(typical * share for share in shares))
        else:
            values.append(tuple(np.linspace(0, typical, space.widths[gene] + 1).tolist()))
    notes = (*verdict.notes, *_indifferent(verdict), *_unjudged(space, verdict))
    return Ranking(tuple(orders), tuple(values), notes)


def _energy_in_the_middle(network: nn.Module, space: SearchSpace, gene: int) -> list[float]:
    """The share of the squared weights in the first k rows and columns of a kernel, k = 0..side."""
    side = space.widths[gene]
    atoms = space.offsets[gene] + np.arange(side)
    (name,) = (
        name
        for name, dimensions in space.slots.items()
        if any(np.isin(factor, atoms).all() for f in dimensions.values() for factor in f)
    )
    squares = tensors_of(network)[name].detach().double().square()
    total = float(squares.sum()) or 1.0
    ranks = [space.slots[name][d][0] - atoms[0] for d in range(2, squares.dim())]
    energy = squares.sum((0, 1)).cpu().numpy()
    return [
        float(energy[np.ix_(*(rank < k for rank in ranks))].sum()) / total for k in range(side + 1)
    ]


def _inside(gene: int, block: Block, space: SearchSpace) -> bool:
    """Whether all channels of a gene leave with the block."""
    atoms = space.offsets[gene]
    holders = [
        name
        for name, dimensions in space.slots.items()
        if any((factor == atoms).any() for factors in dimensions.values() for factor in factors)
    ]
    return all(map(block.holds, holders))


def _indifferent(verdict: Verdict) -> Iterator[str]:
    """A sentence if the criterion judged, and found no channel worth anything."""
    judged = [elimination for elimination in verdict.eliminations if elimination is not None]
    if judged and not any(drop > 0 for elimination in judged for drop in elimination.drops):
        yield (
            "all channels are worth 0 to the criterion, so it neither orders them nor says where"
            " to cut: labels of a single class, or answers that are all alike, tell nothing apart"
        )


def _unjudged(space: SearchSpace, verdict: Verdict) -> Iterator[str]:
    """A sentence for each reason why genes are not judged."""
    genes = [gene for gene in width_genes(space) if verdict.eliminations[gene] is None]
    reasons = {gene: verdict.reasons.get(gene, "the criterion gives no reason") for gene in genes}
    for reason in dict.fromkeys(reasons.values()):
        alike = [gene for gene in genes if reasons[gene] == reason]
        yield (
            f"{len(alike)} of {len(space.genes)} genes are ordered by the L1 norm of their weights"
            f" ({reason}): {names_of(space, alike)}"
        )
