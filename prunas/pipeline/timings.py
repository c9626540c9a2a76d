"""What `prunas latency` measures: narrower networks beside the full one; a table of the space."""

from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import numpy as np
from torch import nn

from prunas.errors import InputError
from prunas.eval.cost import Cost
from prunas.eval.latency.backends import Backend
from prunas.eval.latency.table import built
from prunas.eval.latency.timing import Timed, Told
from prunas.eval.latency.whole import measured
from prunas.eval.latency.worth import Worth
from prunas.pipeline.files import require_writable
from prunas.pipeline.latency_file import save_table
from prunas.supernet.space import SearchSpace

WIDTHS: Final = (0.75, 0.5, 0.25)
"""Shares of all widths that are measured between the full and the smallest network."""


@dataclass(frozen=True)
class Row:
    """One network: multiply-accumulates of one image, parameters, and time of a batch."""

    name: str
    macs: int
    params: int
    time: Timed


@dataclass(frozen=True)
class Timings:
    """Networks from full to smallest, measured side by side.

    Attributes:
        device: where and with what.
        batch: images at a time.
        rows: the full network first.
    """

    device: str
    batch: int
    rows: tuple[Row, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """Of each smaller network, what its savings are."""
        full = self.rows[0]
        return tuple(
            f"{row.name}: {Worth(full.time, row.time, row.macs / full.macs).sentence}"
            for row in self.rows[1:]
        )

    def to_json(self) -> dict[str, Any]:
        rows = [{**asdict(row), "time": asdict(row.time)} for row in self.rows]
        return {
            "device": self.device,
            "batch": self.batch,
            "networks": rows,
            "findings": list(self.sentences),
        }


def timings(
    network: nn.Module, space: SearchSpace, backend: Backend, batch: int, *, told: Told
) -> Timings:
    """The full network, all widths at three shares, and the smallest candidate.

    Args:
        network: the traced network, on the CPU, with weights; it is not changed.
        space: its search space.
        backend: what runs the networks.
        batch: images at a time.
        told: hears when the device is busy.

    Raises:
        InputError: the networks cannot be measured.
        RunError: the device is too busy.
    """
    named = {space.full(): "full network"}
    for share in WIDTHS:
        named.setdefault(space.uniform(share), f"all widths at {share:.0%}")
    named.setdefault(space.smallest(), "smallest candidate")
    candidates = list(named)
    rng = np.random.default_rng(0)
    times = measured(network, space, candidates, backend, rng, batch=batch, told=told)
    cost = Cost(space)
    macs, params = cost.macs(candidates).tolist(), cost.params(candidates).tolist()
    rows = zip(named.values(), macs, params, times, strict=True)
    return Timings(backend.device.sentence, batch, tuple(Row(*row) for row in rows))


@dataclass(frozen=True)
class Built:
    """A table that was built.

    Attributes:
        file: where it is.
        networks: how many were measured.
        seconds: how long that took.
        error: median relative error to expect of predictions.
    """

    file: Path
    networks: int
    seconds: float
    error: float

    @property
    def sentence(self) -> str:
        return (
            f"table of {self.networks} networks, built in {self.seconds:.0f} s: {self.file}"
            f" (predictions differ from measurements by {self.error:.1%} in the median)"
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "file": str(self.file)}


def require_new_table(file: Path) -> None:
    """Refuse a file that a table cannot be built in, before anything is measured for it.

    Raises:
        InputError: there is something there already, or it cannot be written.
    """
    if file.exists():
        raise InputError(f"{file} exists; name another file, or delete it")
    require_writable(file)


def build_table(
    file: Path,
    network: nn.Module,
    space: SearchSpace,
    backend: Backend,
    batch: int,
    networks: int,
    *,
    told: Told,
) -> Built:
    """Build a table in `file`.

    Raises:
        InputError: there is something there already, or the networks cannot be measured.
        RunError: the device is too busy, or the disk full.
    """
    require_new_table(file)
    start = perf_counter()
    rng = np.random.default_rng(0)
    table = built(network, space, backend, rng, networks=networks, batch=batch, told=told)
    save_table(table, file)
    error = table.predictor(network, space).error
    return Built(file, networks, perf_counter() - start, error)
