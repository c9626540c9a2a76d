"""Genes of depth, and of gates: the blocks of a run that the network really works without."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import nn

from prunas.supernet.blocks import Block, Seen, outermost, without
from prunas.supernet.imagined import Imagining
from prunas.supernet.recorder import Record
from prunas.supernet.skeleton import (
    FORWARD_ERRORS,
    called,
    describe,
    shapes,
)
from prunas.supernet.space import Contraction, Gene, Pinned, SearchSpace, present

SameChannels = Callable[[Seen], bool]
"""Whether input and output of a block are the same channels."""

_CHOICES: Final = (0, 1)


def with_blocks(
    space: SearchSpace,
    found: Record,
    kinds: Collection[str],
    same: SameChannels,
    bare: nn.Module,
    inputs: Any,
    fixed: Collection[str],
) -> SearchSpace:
    """`space` with a gene for each block of these kinds, or the reason why it has none.

    A block's gene comes after all widths. What runs in the block costs nothing without it.

    Args:
        space: the widths.
        found: the run.
        kinds: "depth" for residual blocks, "operator" for gates.
        same: whether a block hands on the channels that it was given.
        bare: the network on the meta device, in eval mode; left as found.
        inputs: meta tensors that it takes.
        fixed: names of tensors that the user wants left alone.
    """
    offered, pinned = [], []
    for seen in found.blocks:
        if _kind(seen) not in kinds or (seen.gate and not _contracts(seen.block, found)):
            continue  # a scaling by a statistic, say, which nobody would call a choice
        reason = _obstacle(seen, space, same, fixed, found)
        if reason is None:
            offered.append(seen)
        else:
            pinned.append(Pinned(seen.block.path, reason))
    trial = _Trial(bare, inputs, shapes(describe(found.outputs)))
    stuck = trial.stuck([seen.block for seen in offered])
    pinned += [Pinned(block.path, reason) for block, reason in stuck.items()]
    return _extended(space, found, [seen for seen in offered if seen.block not in stuck], pinned)


def _kind(seen: Seen) -> str:
    return "operator" if seen.gate else "depth"


def _contracts(block: Block, found: Record) -> bool:
    return any(block.path in product.inside for product in found.products)


def _obstacle(
    seen: Seen, space: SearchSpace, same: SameChannels, fixed: Collection[str], found: Record
) -> str | None:
    block = seen.block
    if any(block.holds(name) for name in fixed):
        return "the block was asked to be left alone"
    if not _contracts(block, found):
        return "the block contracts nothing, so that leaving it out saves nothing"
    for alias, name in space.aliases.items():
        if block.holds(alias) != block.holds(name):
            return f"the block shares {name} with {alias}, which stays"
    if not same(seen):
        return "the block's input and output are not the same channels"
    return None


@dataclass(frozen=True)
class _Trial:
    """Runs the skeleton, at full width, without some blocks."""

    bare: nn.Module
    inputs: Any
    expected: Any

    def stuck(self, blocks: Sequence[Block]) -> Mapping[Block, str]:
        """The blocks that the network does not work without, with the reason."""
        if not blocks or self._failure(blocks) is None:
            return {}
        alone = {block: self._failure([block]) for block in blocks}
        stuck = {block: why for block, why in alone.items() if why is not None}
        rest = [block for block in blocks if block not in stuck]
        together = self._failure(rest) if rest else None
        return stuck if together is None else stuck | dict.fromkeys(rest, together)

    def _failure(self, blocks: Sequence[Block]) -> str | None:
        with without(self.bare, outermost(blocks)), torch.no_grad(), Imagining():
            try:
                out = called(self.bare, self.inputs)
            except FORWARD_ERRORS as error:
                first = (str(error).strip() or type(error).__name__).splitlines()[0]
                return f"the network does not run without this block: {first}"
        given = shapes(describe(out))
        if given != self.expected:
            return f"without this block the network returns shapes {given}, not {self.expected}"
        return None


def _extended(
    space: SearchSpace, found: Record, offered: Sequence[Seen], pinned: Sequence[Pinned]
) -> SearchSpace:
    names = {gene.name for gene in space.genes}
    blocks = [seen.block for seen in offered]
    genes = tuple(
        Gene(
            f"{path}[{_kind(seen)}]" if (path := seen.block.path) in names else path,
            _kind(seen),
            _CHOICES,
        )
        for seen in offered
    )
    gene_of = {block.path: len(space.genes) + index for index, block in enumerate(blocks)}
    contractions = []
    for product, row in zip(found.products, space.contractions, strict=True):
        inside = [present(gene_of[path]) for path in product.inside if path in gene_of]
        contractions.append(
            Contraction(row.module, row.operator, row.constant, (*row.sizes, *inside))
        )
    return replace(
        space,
        genes=(*space.genes, *genes),
        widths=(*space.widths, *(1 for _ in blocks)),
        pinned=(*space.pinned, *pinned),
        contractions=tuple(contractions),
        blocks=dict(zip(gene_of.values(), blocks, strict=True)),
    )
