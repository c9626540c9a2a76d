"""The search space of a network that is known by its name."""

from collections.abc import Collection, Sequence

from torch import nn

from prunas.pruningnet.published import PUBLISHED
from prunas.supernet import spos
from prunas.supernet.grid import DEFAULT, METAPRUNING, WidthGrid, as_grid
from prunas.supernet.space import SearchSpace
from prunas.supernet.trace import trace

_READY_MADE = {published.name: published for published in PUBLISHED.values()}


def space_of(
    name: str,
    network: nn.Module,
    size: Sequence[int],
    *,
    grid: WidthGrid | str = DEFAULT,
    keep: Sequence[str] = (),
    genes: Collection[str] = ("width", "depth"),
    resolutions: Collection[int] = (),
) -> SearchSpace:
    """As `trace`; networks of papers have the genes, and by default the widths, of there.

    These are those of MetaPruning, and the supernet of Single Path One-Shot.

    Args:
        name: of the network in timm's registry.
        network: the network.
        size: (channels, height, width) of an image.
        grid: as in `trace`, and so are the others.
    """
    published = _READY_MADE.get(name)
    if name == spos.NAME:
        widths = spos.SCALES if as_grid(grid) == DEFAULT else grid
        genes = {"width", "operator"}.union(genes)
        return spos.spos_narrowed(
            trace(network, size, grid=widths, keep=keep, genes=genes, resolutions=resolutions)
        )
    if published is None:
        return trace(network, size, grid=grid, keep=keep, genes=genes, resolutions=resolutions)
    widths = METAPRUNING if as_grid(grid) == DEFAULT else grid
    return published.narrowed(
        trace(network, size, grid=widths, keep=keep, genes=genes, resolutions=resolutions)
    )
