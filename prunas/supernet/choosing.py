"""Genes of operators: the choice blocks that the user has put into a network."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from torch import nn

from prunas.supernet.blocks import Alternatives
from prunas.supernet.choice import choices_of
from prunas.supernet.recorder import Record
from prunas.supernet.space import Contraction, Gene, Pinned, SearchSpace, Size, present


def with_choices(
    space: SearchSpace, found: Record, bare: nn.Module, fixed: Collection[str]
) -> SearchSpace:
    """`space` with a gene for each choice block, whose value is the number of an alternative.

    What runs in an alternative costs something where it is chosen. Genes inside alternatives stay:
    in a candidate they say something where their alternative is chosen.

    Args:
        space: the other genes; those of choices come after them.
        found: a run in which all alternatives ran.
        bare: the network.
        fixed: names of tensors that the user wants left alone.
    """
    offered, pinned = [], []
    for path, block in choices_of(bare):
        choice = Alternatives(path, block.names)
        reason = _obstacle(choice, space, fixed)
        if reason is None:
            offered.append(choice)
        else:
            pinned.append(Pinned(path, reason))
    return replace(_extended(space, found, offered), pinned=(*space.pinned, *pinned))


def without_unchosen(space: SearchSpace, found: Record, bare: nn.Module) -> SearchSpace:
    """`space` where alternatives that no gene can choose and that do not run cost no work.

    Args:
        space: with the genes of choices, if they are searched.
        found: a run in which all alternatives ran.
        bare: the network; of a choice without a gene its chosen alternative runs.
    """
    offered = {choice.path for choice in space.alternatives.values()}
    silent = {
        block.path
        for path, choice in choices_of(bare)
        if path not in offered
        for number, block in enumerate(Alternatives(path, choice.names).blocks)
        if number != choice.chosen
    }
    if not silent:
        return space
    contractions = [
        row if silent.isdisjoint(product.inside) else replace(row, constant=0)
        for product, row in zip(found.products, space.contractions, strict=True)
    ]
    return replace(space, contractions=tuple(contractions))


def _obstacle(choice: Alternatives, space: SearchSpace, fixed: Collection[str]) -> str | None:
    if not choice.path:
        return "the network is nothing but this choice"
    if any(choice.holder(name) is not None for name in fixed):
        return "the choice was asked to be left alone"
    for alias, name in space.aliases.items():
        if choice.holder(alias) != choice.holder(name):
            return f"its alternatives share {name} with {alias}"
    return None


def _extended(space: SearchSpace, found: Record, offered: list[Alternatives]) -> SearchSpace:
    first = len(space.genes)
    names = {gene.name for gene in space.genes}
    genes = tuple(
        Gene(
            f"{choice.path}[operator]" if choice.path in names else choice.path,
            "operator",
            tuple(range(len(choice.names))),
        )
        for choice in offered
    )
    conditions = tuple(
        (first + place, number)
        for place, choice in enumerate(offered)
        for number in range(len(choice.names))
    )
    every = len(space.genes) + len(genes)
    known = len(space.conditions)
    assert not known, "conditions come last: they are numbered after all genes"
    factor = {
        choice.blocks[number].path: present(every + place)
        for place, (choice, number) in enumerate(_pairs(offered))
    }
    contractions = [
        _inside(row, product.inside, factor)
        for product, row in zip(found.products, space.contractions, strict=True)
    ]
    return replace(
        space,
        genes=(*space.genes, *genes),
        widths=(*space.widths, *(len(choice.names) - 1 for choice in offered)),
        conditions=conditions,
        contractions=tuple(contractions),
        alternatives={first + place: choice for place, choice in enumerate(offered)},
    )


def _pairs(offered: list[Alternatives]) -> Iterator[tuple[Alternatives, int]]:
    """The alternatives in the order of their conditions."""
    for choice in offered:
        for number in range(len(choice.names)):
            yield choice, number


def _inside(row: Contraction, paths: Collection[str], factor: Mapping[str, Size]) -> Contraction:
    return replace(row, sizes=(*row.sizes, *(factor[path] for path in paths if path in factor)))
