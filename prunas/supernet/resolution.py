"""The gene of resolution: how large the images are that a network sees.

All kinds of data are loaded at the largest side; a network that sees a smaller one gets its images
resized on the way in.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from prunas.errors import InputError
from prunas.supernet.imagined import Imagining
from prunas.supernet.skeleton import FORWARD_ERRORS, META, skeleton
from prunas.supernet.space import Contraction, Gene, SearchSpace, Size, present

NAME: Final = "input"
KIND: Final = "resolution"


def with_resolutions(spaces: Mapping[int, SearchSpace]) -> SearchSpace:
    """The space of the largest side, with a gene "resolution" for the side of the images.

    A contraction that does other work at other sides has one row for each of them, which counts
    where the gene takes that side, so that costs are exact at each.

    Args:
        spaces: side -> the space of the same network, traced on images of this side; two or more.

    Raises:
        InputError: the network is searched in another way at one of the sides.
    """
    largest = max(spaces)
    space = spaces[largest]
    for side, other in spaces.items():
        if other.genes != space.genes or _work(other) != _work(space):
            raise InputError(
                f"on images of side {side} other parts of the network can be searched than on"
                f" those of side {largest}; leave this side out"
            )
    sides = tuple(sorted(spaces))
    number = len(space.genes)
    conditions = tuple((number, side) for side in sides)
    first = number + 1 + len(space.conditions)  # the place of the first new variable
    moved = [_shifted(row, number) for row in space.contractions]
    contractions: list[Contraction] = []
    for index, row in enumerate(moved):
        work = [spaces[side].contractions[index].constant for side in sides]
        if len(set(work)) == 1:
            contractions.append(row)
            continue
        contractions += [
            replace(row, constant=constant, sizes=(*row.sizes, present(first + place)))
            for place, constant in enumerate(work)
        ]
    return replace(
        space,
        genes=(*space.genes, Gene(NAME, KIND, sides)),
        widths=(*space.widths, largest),
        conditions=(*space.conditions, *conditions),
        contractions=tuple(contractions),
        outputs_at={side: s.outputs for side, s in spaces.items() if s.outputs != space.outputs},
    )


def _work(space: SearchSpace) -> list[tuple[str, str, tuple[Size, ...]]]:
    return [(row.module, row.operator, row.sizes) for row in space.contractions]


def _shifted(row: Contraction, number: int) -> Contraction:
    """With variables of conditions one place further, as there is one gene more before them."""
    sizes = tuple(
        tuple((c, tuple(v + (v >= number) for v in variables)) for c, variables in size)
        for size in row.sizes
    )
    return replace(row, sizes=sizes)


def stride_of(network: nn.Module, shape: Sequence[int]) -> int:
    """How many pixels of an image, along a side, make one of the coarsest map; 1 if unknown.

    Read from two runs, on images of this shape and of twice its sides: a map of h and then of h'
    rows has the stride side / (h' - h); what has as many rows in both has been pooled over all.
    """
    bare = skeleton(network).eval()
    channels, height, width = shape
    try:
        once = _rows(bare, (channels, height, width))
        twice = _rows(bare, (channels, 2 * height, 2 * width))
    except FORWARD_ERRORS:  # a network of one size, which tracing at another will say
        return 1
    more = [two - one for one, two in zip(once, twice, strict=False) if two > one]
    return round(height / min(more)) if more else 1


def _rows(bare: nn.Module, shape: Sequence[int]) -> list[int]:
    """The height of every map that a module returns for an image of this shape."""
    found: list[int] = []

    def note(_: nn.Module, given: Any, out: Any) -> None:
        if isinstance(out, Tensor) and out.dim() == 4:
            found.append(out.shape[-2])

    handles = [module.register_forward_hook(note) for module in bare.modules()]
    floating = (p.dtype for p in bare.parameters() if p.is_floating_point())
    images = torch.empty((2, *shape), dtype=next(floating, torch.float32), device=META)
    try:
        with torch.no_grad(), Imagining():
            bare(images)
    finally:
        for handle in handles:
            handle.remove()
    return found


def side_of(space: SearchSpace, candidate: Sequence[int]) -> int | None:
    """The side of the images that a candidate sees; None if that is no gene."""
    for gene, value in zip(space.genes, candidate, strict=True):
        if gene.kind == KIND:
            return value
    return None


def rows_by_side(
    space: SearchSpace, table: NDArray[np.int64]
) -> Iterator[tuple[int | None, NDArray[np.int64]]]:
    """(side, the rows of candidates that see images of it), for every side of `sides_of`.

    Args:
        space: of the candidates.
        table: their chosen values, (n, genes).

    Raises:
        InputError: a side that the space does not offer.
    """
    sides = sides_of(space)
    if sides == (None,):
        yield None, np.arange(len(table))
        return
    column = table[:, [gene.kind for gene in space.genes].index(KIND)]
    other = np.setdiff1d(column, [side for side in sides if side is not None])
    if len(other):
        raise InputError(f"{other[0]} is not a side that images have here; choose one of {sides}")
    for side in sides:
        yield side, np.flatnonzero(column == side)


def sides_of(space: SearchSpace) -> tuple[int | None, ...]:
    """The sides that images may have, ascending; None alone where that is no gene."""
    return next((gene.choices for gene in space.genes if gene.kind == KIND), (None,))


def seen(shape: Sequence[int], side: int | None) -> tuple[int, ...]:
    """The shape (..., height, width) of images whose shorter side becomes `side`.

    >>> seen((3, 224, 320), 112)
    (3, 112, 160)
    """
    if side is None:
        return tuple(shape)
    *rest, height, width = shape
    shorter = min(height, width)
    return (*rest, round(height * side / shorter), round(width * side / shorter))


def resized(images: Tensor, side: int | None) -> Tensor:
    """Images (n, C, H, W) whose shorter side is `side`: bilinear, smoothed where they shrink."""
    size = seen(images.shape, side)[-2:]
    if size == images.shape[-2:]:
        return images
    layout = (
        torch.channels_last
        if images.is_contiguous(memory_format=torch.channels_last)
        else torch.contiguous_format
    )
    small = F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
    return small.contiguous(memory_format=layout)


@contextmanager
def seeing(network: nn.Module, side: int | None) -> Iterator[nn.Module]:
    """Inside the `with`, `network` resizes the images that it is given to this side."""
    if side is None:
        yield network
        return

    def smaller(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        images, *rest = given
        return (resized(images, side), *rest)

    handle = network.register_forward_pre_hook(smaller)
    try:
        yield network
    finally:
        handle.remove()
