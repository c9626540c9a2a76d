"""The protocol: everything that is found out about one model."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from prunas.errors import InputError, RunError
from prunas.eval.cost import Cost
from prunas.pipeline.artifact import load, save
from prunas.pipeline.coverage.row import Row
from prunas.pipeline.coverage.zoo import Entry, entry
from prunas.pipeline.seeding import seeded
from prunas.pipeline.weightless import give_weights, weightless
from prunas.search.budget import as_values
from prunas.supernet.cut import cut
from prunas.supernet.skeleton import FORWARD_ERRORS, META, skeleton
from prunas.supernet.space import SearchSpace
from prunas.supernet.trace import trace
from prunas.supernet.verify import verify

_ERRORS: Final = (InputError, RunError, *FORWARD_ERRORS, OSError)
_SIDES: Final = (64, 96, 128, 160, 192, 224, 256)
"""Not 32: maps of one position say little, and rounding grows in deep networks on them."""
_NARROWER: Final = (0.5, 0.25, 0.125, 0.0625)
_BYTES_PER_PARAMETER: Final = 44
"""The oracles hold four float64 copies, the network itself, and one for luck."""

Report = Callable[[Row], None]
"""Gets the row after each stage, so that what was known is not lost with the process."""


def examine(model: str, *, memory: int, report: Report | None = None) -> Row:
    """Trace a network, cut it at half width, prove it on numbers, save it and load it again.

    Trace, costs and cut are those at the network's own input size, without weights. Numbers are
    computed in float64 at the smallest of a few inputs, from 64 pixels, that it takes or timm can
    build it for. If weights and copies do not fit into the memory, they are computed on the
    network cut to a half of every width, a quarter, an eighth or a sixteenth: the same layers in
    the same order.

    Args:
        model: a name of `zoo.names`.
        memory: bytes that may be used.
        report: called with the row after every stage.

    Raises:
        InputError: there is no such network.
    """
    began = perf_counter()
    chosen = entry(model)
    row = Row(model, chosen.family, classifier_added="num_classes" in chosen.arguments)
    try:
        for found in _stages(row, chosen, memory):
            row = replace(found, seconds=perf_counter() - began)
            if report is not None:
                report(row)
    except _ERRORS as error:
        first = str(error).strip().partition("\n")[0]
        row = replace(row, error=f"{type(error).__name__}: {first}")
    return replace(row, seconds=perf_counter() - began)


def _stages(row: Row, chosen: Entry, memory: int) -> Iterator[Row]:
    """The row with the name of each stage before it begins, and with what it found after it."""
    yield (row := replace(row, stage="trace"))
    yield (row := _traced(row, chosen))
    yield (row := replace(row, stage="oracles"))
    chosen = _smallest(chosen)
    network, width = _with_weights(chosen, most=memory // _BYTES_PER_PARAMETER)
    space = trace(network, chosen.input_size)
    found = verify(network, space)
    row = replace(
        row,
        oracle_side=chosen.input_size[1],
        oracle_width=width,
        permutation=found.permutation,
        masked=found.masked,
    )
    yield row
    yield (row := replace(row, stage="cut"))
    small = cut(network, space, space.uniform(0.5)).eval()
    image = torch.randn(1, *chosen.input_size, generator=torch.Generator().manual_seed(0))
    expected, given = _outputs(network, image), _outputs(small, image)
    same_shapes = [out.shape for out in given] == [out.shape for out in expected]
    yield (row := replace(row, runs=same_shapes, stage="reload"))
    with TemporaryDirectory() as place:
        again = _outputs(_loaded(save(small, Path(place) / "model"), chosen), image)
    reloads = all(torch.equal(a, b) for a, b in zip(given, again, strict=True))
    yield replace(row, reloads=reloads, stage="done")


# -- shapes ----------------------------------------------------------------------------------------


def _traced(row: Row, chosen: Entry) -> Row:
    with weightless():
        network = chosen.create()
    began = perf_counter()
    space = trace(network, chosen.input_size)
    traced = perf_counter()
    half = space.uniform(0.5)
    cut(network, space, half)
    cut_at = perf_counter()
    cost = Cost(space)
    table = as_values([space.full(), half, space.smallest()])
    macs, params = cost.macs(table).tolist(), cost.params(table).tolist()
    return replace(
        row,
        params=params[0],
        macs=macs[0],
        side=chosen.input_size[1],
        genes=len(space.genes) - len(space.blocks),
        blocks=len(space.blocks),
        pinned=len(space.pinned),
        why=_why(space),
        macs_can_go=1 - macs[2] / macs[0],
        params_can_go=1 - params[2] / params[0],
        macs_left=macs[1] / macs[0],
        params_left=params[1] / params[0],
        trace_s=traced - began,
        cut_s=cut_at - traced,
    )


def _why(space: SearchSpace) -> str:
    """Reasons with their number, the most frequent first; places in brackets are left out."""
    reasons = Counter(entry.reason.partition(" (with ")[0] for entry in space.pinned)
    return "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common())


# -- numbers ---------------------------------------------------------------------------------------


def _with_weights(chosen: Entry, most: int) -> tuple[nn.Module, float]:
    """The network, if it has at most that many parameters, or a narrower one, and its width."""
    with weightless():
        network = chosen.create()
    if sum(parameter.numel() for parameter in network.parameters()) <= most:
        with seeded(0):
            return chosen.create(), 1.0
    space = trace(network, chosen.input_size, genes=("width",))
    cost = Cost(space)
    for width in _NARROWER:
        candidate = space.uniform(width)
        if cost.params([candidate])[0] <= most:
            narrow = cut(network, space, candidate)
            give_weights(narrow, torch.Generator().manual_seed(0))
            return narrow.eval(), width
    raise RunError(f"numbers left out: copies of its weights do not fit at {width} of its widths")


def _loaded(folder: Path, chosen: Entry) -> nn.Module:
    """As a user would: timm's networks are built by `load`, others are given."""
    return load(folder) if chosen.from_timm else load(folder, chosen.create())


@torch.no_grad()
def _outputs(network: nn.Module, image: Tensor) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(network(image)) if isinstance(leaf, Tensor)]


def _smallest(chosen: Entry) -> Entry:
    """The network for the smallest of a few usual sizes that it takes, or can be built for."""
    channels, height, width = chosen.input_size
    for side in (side for side in _SIDES if side < min(height, width)):
        smaller = chosen.at((channels, side, side))
        try:
            with weightless():
                network = skeleton(smaller.create())
            with torch.no_grad():
                network(torch.empty(1, channels, side, side, device=META))
        except _ERRORS:
            continue
        return smaller
    return chosen
