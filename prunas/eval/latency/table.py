"""A latency table: networks of one space, measured on one device, with all that it depends on."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any, Final, final

import numpy as np
from torch import nn

from prunas.errors import InputError
from prunas.eval.latency.backends import Backend, Device
from prunas.eval.latency.design import designed
from prunas.eval.latency.features import Features
from prunas.eval.latency.predictor import FEWEST, Predictor, fitted
from prunas.eval.latency.timing import Clock, Plan, Timed, Told, quiet
from prunas.eval.latency.whole import measured
from prunas.json_text import parsed
from prunas.supernet.space import Candidate, SearchSpace

FORMAT: Final = 1
NETWORKS: Final = 64
"""Networks that are measured: more take longer and predict a little better."""

_DTYPE: Final = "float32"
_COLUMNS: Final = ("candidate", "milliseconds", "low", "high", "rounds")
_LEAST: Final = 1e-6  # milliseconds: clocks do not tick more often
_MOST: Final = 1e9


@final
@dataclass(frozen=True)
class LatencyTable:
    """Measured networks.

    Attributes:
        device: where and with what.
        space: fingerprint of the space; the order of its channels does not enter.
        batch: images at a time.
        dtype: of weights and images.
        candidates: the networks, the full one first.
        times: how long each takes.
    """

    device: Device
    space: str
    batch: int
    dtype: str
    candidates: tuple[Candidate, ...]
    times: tuple[Timed, ...]

    @property
    def full(self) -> Timed:
        """The full network's time."""
        return self.times[0]

    def require(self, space: SearchSpace, device: Device, batch: int = 1) -> None:
        """Refuse to be used for something else than was measured.

        Raises:
            InputError: the table is of another space, device, version or batch, holds what is no
            candidate of it, or does not begin with the full network.
        """
        if self.space != fingerprint(space):
            raise InputError(
                f"the latency table is of another search space than this one of {space.network}"
                " (other network, genes, choices or image size); build a table for it"
            )
        if self.device != device:
            raise InputError(
                f"the latency table was measured with {self.device.sentence}, and this is"
                f" {device.sentence}; build a table here"
            )
        if self.batch != batch:
            raise InputError(
                f"the latency table is of batches of {self.batch} and not of {batch}; build one"
                " for these"
            )
        for candidate in self.candidates:
            space.candidate(candidate)
        if self.candidates[:1] != (space.full(),):
            raise InputError(
                "the latency table does not begin with the full network, whose time shares of"
                " latency are of; build the table again"
            )

    def predictor(self, network: nn.Module, space: SearchSpace) -> Predictor:
        """Predicts the other candidates of the space.

        Args:
            network: the traced network; it is not changed, and its weights are not read.
            space: the space that was measured.

        Raises:
            InputError: the table is of another space, or holds too few networks.
        """
        self.require(space, self.device, self.batch)
        times = [entry.milliseconds for entry in self.times]
        return fitted(Features(network, space), self.candidates, times)

    def to_json(self) -> str:
        """The table as text; `from_json` reads it back."""
        rows = [
            [list(candidate), time.milliseconds, time.low, time.high, time.rounds]
            for candidate, time in zip(self.candidates, self.times, strict=True)
        ]
        data = {
            "format": FORMAT,
            "device": {**asdict(self.device), "versions": dict(self.device.versions)},
            "space": self.space,
            "batch": self.batch,
            "dtype": self.dtype,
            "columns": list(_COLUMNS),
            "rows": rows,
        }
        return json.dumps(data, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "LatencyTable":
        """Read what `to_json` wrote.

        Raises:
            InputError: the text is not a latency table, or of another format.
        """
        try:
            data = parsed(text)
            if type(data["format"]) is not int or data["format"] != FORMAT:
                raise InputError(
                    f"the latency table has format {data['format']}, this prunas reads {FORMAT};"
                    " build the table again"
                )
            return _from_data(data)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"the text is not a latency table ({error})") from None


def built(
    network: nn.Module,
    space: SearchSpace,
    backend: Backend,
    rng: np.random.Generator,
    *,
    networks: int = NETWORKS,
    batch: int = 1,
    plan: Plan | None = None,
    clock: Clock = perf_counter,
    told: Told = quiet,
) -> LatencyTable:
    """Measure the networks of a design (`prunas.eval.latency.design`), whole.

    Args:
        network: the traced network, on the CPU, with weights; it is not changed.
        space: its search space.
        backend: what runs the networks.
        rng: which networks, the images, and the order within each round.
        networks: how many.
        batch: images at a time.
        plan: how carefully to time.
        clock: seconds.
        told: hears when the device is busy.

    Raises:
        InputError: too few networks for a predictor, or networks that cannot be measured.
        RunError: the device is too busy.
    """
    if networks < FEWEST:
        raise InputError(
            f"a latency table of {networks} networks predicts nothing; measure {FEWEST} or more"
        )
    candidates = designed(space, networks, rng)
    times = measured(
        network, space, candidates, backend, rng, batch=batch, plan=plan, clock=clock, told=told
    )
    return LatencyTable(
        device=backend.device,
        space=fingerprint(space),
        batch=batch,
        dtype=_DTYPE,
        candidates=tuple(candidates),
        times=times,
    )


def fingerprint(space: SearchSpace) -> str:
    """Equal for spaces whose candidates take equally long: a hash of genes, shapes and inputs.

    With choices and resolutions, also of what they decide.
    """
    genes = [[gene.name, gene.kind, gene.choices] for gene in space.genes]
    products = [[c.operator, c.constant, c.sizes] for c in space.contractions]
    shapes = sorted(space.shapes.items())
    parts = [space.network, space.inputs, genes, shapes, products]
    if space.conditions:  # spaces without them keep the tables that they have
        choices = sorted((gene, c.path, c.names) for gene, c in space.alternatives.items())
        parts += [space.conditions, choices]
    text = json.dumps(parts)
    return hashlib.sha256(text.encode()).hexdigest()


def _from_data(data: Any) -> LatencyTable:
    device = dict(data["device"])
    device["versions"] = tuple(device["versions"].items())
    texts = (device["processor"], device["backend"], *sum(device["versions"], ()))
    if not all(isinstance(text, str) for text in texts) or type(device["threads"]) is not int:
        raise ValueError("its device is none")
    _require_facts(data)
    return LatencyTable(
        device=Device(**device),
        space=data["space"],
        batch=data["batch"],
        dtype=data["dtype"],
        candidates=tuple(_candidate(row[0]) for row in data["rows"]),
        times=tuple(_time(row[1:]) for row in data["rows"]),
    )


def _candidate(row: Any) -> Candidate:
    if not isinstance(row, list) or not all(type(value) is int for value in row):
        raise ValueError("a network in it is no list of whole numbers")
    return Candidate(row)


def _require_facts(data: Any) -> None:
    """Refuse what no table of ours says."""
    if type(data["batch"]) is not int or data["batch"] < 1:
        raise ValueError(f"batches of {data['batch']!r} are none")
    if data["dtype"] != _DTYPE:
        raise ValueError(f"it is of {data['dtype']!r} and not of {_DTYPE}")
    if data["columns"] != list(_COLUMNS):
        raise ValueError(f"its columns are not {', '.join(_COLUMNS)}")
    if not data["rows"]:
        raise ValueError("it holds no networks")


def _time(row: Sequence[Any]) -> Timed:
    milliseconds, low, high, rounds = row
    if not all(type(time) in (int, float) for time in (milliseconds, low, high)):
        raise ValueError(f"one of {milliseconds!r}, {low!r} and {high!r} is no number")
    if not _LEAST < milliseconds < _MOST:
        raise ValueError(f"{milliseconds} is no time that a network takes")
    if not (0 < low <= milliseconds <= high and math.isfinite(high)):
        raise ValueError(f"{milliseconds} is no median of times between {low} and {high}")
    if type(rounds) is not int or rounds < 1:
        raise ValueError(f"{rounds!r} is no number of rounds")
    return Timed(float(milliseconds), float(low), float(high), rounds)
