"""The protocol: everything that is found out about one model."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

import timm
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from prunas.errors import InputError, RunError
from prunas.eval.cost import Cost
from prunas.pipeline.artifact import load, save
from prunas.pipeline.coverage.row import Row
from prunas.search.budget import as_values
from prunas.supernet.cut import cut
from prunas.supernet.skeleton import FORWARD_ERRORS
from prunas.supernet.space import SearchSpace
from prunas.supernet.trace import trace
from prunas.supernet.verify import verify

_ERRORS: Final = (InputError, RunError, *FORWARD_ERRORS, OSError)
_SIDES: Final = (32, 64, 96, 128, 160, 192, 224, 256)
_BYTES_PER_PARAMETER: Final = 44
"""The oracles hold four float64 copies, the network itself, and one for luck."""

Report = Callable[[Row], None]
"""Gets the row after each stage, so that what was known is not lost with the process."""


def examine(model: str, *, memory: int, report: Report | None = None) -> Row:
    """Trace a timm model, cut it at half width, prove it on numbers, save it and load it again.

    Trace, costs and cut are those at the model's own input size, on the meta device. Numbers are
    computed at the smallest input that it takes, in float64, if weights and copies fit.

    Args:
        model: a name of `timm.list_models()`.
        memory: bytes that may be used.
        report: called with the row after every stage.
    """
    began = perf_counter()
    row = Row(model, _family(model))
    stages = (("trace", _trace), ("numbers", _numbers))
    for stage, function in stages:
        row = replace(row, stage=stage)
        try:
            row = function(row, memory)
        except _ERRORS as error:
            first = str(error).strip().partition("\n")[0]
            row = replace(row, error=f"{type(error).__name__}: {first}")
            break
        finally:
            row = replace(row, seconds=perf_counter() - began)
            if report is not None:
                report(row)
    else:
        row = replace(row, stage="done")
    return row


def _family(model: str) -> str:
    return timm.models.model_entrypoint(model).__module__.rpartition(".")[2]


def _on_meta(model: str) -> nn.Module:
    """The model without weights; some cannot be made so, and are made and then stripped."""
    try:
        with torch.device("meta"):
            made: nn.Module = timm.create_model(model)
    except (NotImplementedError, RuntimeError):
        made = timm.create_model(model).to("meta")
    return made.eval()


# -- shapes ----------------------------------------------------------------------------------------


def _trace(row: Row, memory: int) -> Row:
    network = _on_meta(row.model)
    size = _own_size(network)
    began = perf_counter()
    space = trace(network, size)
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
        side=size[1],
        genes=len(space.genes),
        pinned=len(space.pinned),
        why=_why(space),
        macs_can_go=1 - macs[2] / macs[0],
        params_can_go=1 - params[2] / params[0],
        macs_left=macs[1] / macs[0],
        params_left=params[1] / params[0],
        trace_s=traced - began,
        cut_s=cut_at - traced,
    )


def _own_size(network: nn.Module) -> tuple[int, int, int]:
    config: Any = network.pretrained_cfg
    channels, height, width = config["input_size"]
    return channels, height, width


def _why(space: SearchSpace) -> str:
    """Reasons with their number, the most frequent first; places in brackets are left out."""
    reasons = Counter(entry.reason.partition(" (with ")[0] for entry in space.pinned)
    return "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common())


# -- numbers ---------------------------------------------------------------------------------------


def _numbers(row: Row, memory: int) -> Row:
    assert row.params is not None, "traced before"
    needed = row.params * _BYTES_PER_PARAMETER
    if needed > memory:
        gib = f"{needed / 2**30:.0f} GiB of {memory / 2**30:.0f}"
        return replace(row, error=f"numbers left out: copies of the weights need {gib}")
    torch.manual_seed(0)
    network = timm.create_model(row.model).eval()
    size = _smallest_size(row.model)
    space = trace(network, size)
    found = verify(network, space)
    row = replace(row, oracle_side=size[1], permutation=found.permutation, masked=found.masked)
    small = cut(network, space, space.uniform(0.5)).eval()
    image = torch.randn(1, *size, generator=torch.Generator().manual_seed(0))
    expected = _outputs(network, image)
    given = _outputs(small, image)
    same_shapes = [out.shape for out in given] == [out.shape for out in expected]
    with TemporaryDirectory() as place:
        folder = save(small, Path(place) / "model")
        again = _outputs(load(folder), image)
    reloads = all(torch.equal(a, b) for a, b in zip(given, again, strict=True))
    return replace(row, runs=same_shapes, reloads=reloads)


@torch.no_grad()
def _outputs(network: nn.Module, image: Tensor) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(network(image)) if isinstance(leaf, Tensor)]


def _smallest_size(model: str) -> tuple[int, int, int]:
    """The smallest of a few usual sizes that the model takes; its own if it is made for one."""
    network = _on_meta(model)
    channels, height, width = _own_size(network)
    config: Any = network.pretrained_cfg
    if config.get("fixed_input_size"):
        return channels, height, width
    for side in (side for side in _SIDES if side < min(height, width)):
        try:
            with torch.no_grad():
                network(torch.empty(1, channels, side, side, device="meta"))
        except FORWARD_ERRORS:
            continue
        return channels, side, side
    return channels, height, width
