"""What a run folder says, read into values that the page can trust."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Final, cast

from prunas.errors import InputError
from prunas.pipeline.sealed import read_sealed
from prunas.search.record import read_archive

SCHEMA: Final = 1


@dataclass(frozen=True)
class Evaluation:
    """One candidate that the search had evaluated; score None where it came out as not a number."""

    candidate: tuple[int, ...]
    score: float | None
    macs: int
    params: int
    seconds: float


@dataclass(frozen=True)
class Gene:
    """One free choice and what it could be, ascending."""

    name: str
    kind: str
    choices: tuple[int, ...]


@dataclass(frozen=True)
class Compared:
    """One of the networks the result compares, with its test accuracies in 0..1, one per seed."""

    macs: int | None
    params: int | None
    accuracies: tuple[float, ...]

    @property
    def accuracy(self) -> float | None:
        """Mean over the seeds."""
        return fmean(self.accuracies) if self.accuracies else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds (n - 1); None for fewer than two."""
        return stdev(self.accuracies) if len(self.accuracies) > 1 else None


@dataclass(frozen=True)
class Paired:
    """Found minus uniform accuracy over the seeds: mean, 95 % interval, and in words."""

    mean: float | None
    low: float | None
    high: float | None
    sentence: str


@dataclass(frozen=True)
class Finalist:
    """A candidate trained for a while: score before and held-out accuracy after it, in 0..1."""

    candidate: tuple[int, ...]
    score: float | None
    held_out: float | None


@dataclass(frozen=True)
class Latency:
    """Milliseconds of whole networks, measured side by side, and what to make of them."""

    full: float | None
    uniform: float | None
    found: float
    device: str
    batch: int | None
    worth: str


@dataclass(frozen=True)
class Operation:
    """An edge of the graph of operators: what it carried, and what it carries now.

    Attributes:
        path: of its module; empty where nothing could be replaced.
        source: the node that it reads.
        target: the node that it is added to.
        before: its operator.
        after: its operator now.
        live: whether it still matters.
        channels: in and out.
        size: rows and columns that come out.
        macs: before and after.
        params: before and after.
    """

    path: str
    source: str
    target: str
    before: str
    after: str
    live: bool
    channels: tuple[int, int]
    size: tuple[int, int]
    macs: tuple[int, int]
    params: tuple[int, int]


@dataclass(frozen=True)
class Transformation:
    """What became of the found network's operators; pairs are before and after."""

    method: str
    evaluations: int | None
    size: str
    macs: tuple[int, int]
    params: tuple[int, int]
    scores: tuple[float | None, float | None]
    held_out: tuple[float | None, float | None]
    operations: tuple[Operation, ...]


@dataclass(frozen=True)
class Result:
    """How the run ended. `candidate` and `uniform_candidate` follow the order of the genes.

    `smaller` is the full network on smaller images, where these are searched; `transformed` the
    found one with other operators, if some were replaced.
    """

    full: Compared
    uniform: Compared
    smaller: Compared | None
    found: Compared
    transformed: Compared | None
    seeds: tuple[int, ...]
    candidate: tuple[int, ...]
    uniform_candidate: tuple[int, ...]
    paired: Paired | None
    paired_transformed: Paired | None
    finalists: tuple[Finalist, ...]
    latency: Latency | None
    evaluations: int | None
    seconds: float | None

    @property
    def networks(self) -> Mapping[str, Compared]:
        """All that are compared, in the order in which they are shown."""
        named = {
            "full": self.full,
            "uniform": self.uniform,
            "smaller": self.smaller,
            "found": self.found,
            "transformed": self.transformed,
        }
        return {name: network for name, network in named.items() if network is not None}

    @property
    def final(self) -> Compared:
        """The network that the run ends with: the transformed one, as soon as it is trained."""
        return self.trained.get("transformed", self.found)

    @property
    def trained(self) -> Mapping[str, Compared]:
        """Those of them whose test accuracy is known."""
        return {name: network for name, network in self.networks.items() if network.accuracies}


@dataclass(frozen=True)
class Run:
    """All of a run folder that its report shows; result None while the run is unfinished."""

    folder: Path
    model: str
    data: str
    request: Mapping[str, Any]
    seed: int | None
    versions: Mapping[str, Any]
    device: str
    budget: Mapping[str, Any]
    input_size: tuple[int, ...]
    classes: int
    small_images: str
    size: str
    genes: tuple[Gene, ...]
    pinned: tuple[tuple[str, str], ...]
    stages: tuple[tuple[str, float], ...]
    evaluations: tuple[Evaluation, ...]
    result: Result | None
    transformation: Transformation | None

    @property
    def best(self) -> Evaluation | None:
        """The evaluation with the highest score so far, the earliest of equals."""
        scored = [row for row in self.evaluations if row.score is not None]
        return max(scored, key=lambda row: cast(float, row.score), default=None)

    @property
    def chosen(self) -> tuple[int, ...]:
        """The found candidate; of an unfinished run the best so far; empty before the first."""
        if self.result and self.result.candidate:
            return self.result.candidate
        return self.best.candidate if self.best else ()

    def evaluation_of(self, candidate: tuple[int, ...]) -> Evaluation | None:
        """The candidate's row in the archive, if the search evaluated it."""
        return next((row for row in self.evaluations if row.candidate == candidate), None)


def read_run(folder: Path) -> Run:
    """Reads run.json and, where it exists, archive.sqlite.

    Raises InputError, in a sentence, if either cannot be read, run.json is of another schema or one
    of its fields is not of the type it should be.
    """
    top = _Fields(_read_json(folder / "run.json"), str(folder / "run.json"))
    if top.record.get("schema") != SCHEMA:
        raise InputError(
            f"{top.where} is of schema {top.record.get('schema')!r} and this prunas reads schema"
            f" {SCHEMA}; make the report with the prunas that made the run."
        )
    request, network, space = top.section("request"), top.section("network"), top.section("space")
    result = top.section("result")
    return Run(
        folder=folder,
        model=network.text("name") or request.text("model") or "the network",
        data=request.text("data"),
        request=request.record,
        seed=top.integer("seed"),
        versions=top.section("versions").record,
        device=top.text("device"),
        budget=top.section("budget").record,
        input_size=result.integers("input_size") or network.integers("input_size"),
        classes=len(network.items("classes")),
        small_images=network.text("small_images"),
        size=space.text("size"),
        genes=tuple(
            Gene(gene.text("name"), gene.text("kind"), gene.integers("choices"))
            for gene in space.sections("genes")
        ),
        pinned=tuple((pin.text("name"), pin.text("reason")) for pin in space.sections("pinned")),
        stages=tuple(
            (stage.text("name"), stage.number("seconds") or 0.0) for stage in top.sections("stages")
        ),
        evaluations=tuple(_read_archive(folder / "archive.sqlite")),
        result=_result(result) if top.record.get("result") else None,
        transformation=_transformation(top.section("transformation"), result),
    )


def _result(result: "_Fields") -> Result:
    accuracy, seeds = result.section("accuracy"), tuple(result.sections("seeds"))

    def compared(which: str, suffix: str) -> Compared:
        over_seeds = [seed.number(which) for seed in seeds] or [accuracy.number(which)]
        known = tuple(value for value in over_seeds if value is not None)
        return Compared(result.integer(f"macs{suffix}"), result.integer(f"params{suffix}"), known)

    paired = result.section("paired")
    paired_transformed = result.section("paired_transformed")
    changed = "macs_transformed" in result.record
    return Result(
        full=compared("full", "_full"),
        uniform=compared("uniform", "_uniform"),
        smaller=compared("smaller", "_smaller") if "smaller_candidate" in result.record else None,
        found=compared("found", ""),
        transformed=compared("transformed", "_transformed") if changed else None,
        seeds=tuple(seed.integer("seed") or 0 for seed in seeds),
        candidate=result.integers("candidate"),
        uniform_candidate=result.integers("uniform_candidate"),
        paired=_paired(paired) if paired.record else None,
        paired_transformed=_paired(paired_transformed) if paired_transformed.record else None,
        finalists=tuple(
            Finalist(row.integers("candidate"), row.number("score"), row.number("held_out"))
            for row in result.sections("finalists")
        ),
        latency=_latency(result),
        evaluations=result.integer("evaluations"),
        seconds=result.number("seconds"),
    )


def _latency(result: "_Fields") -> Latency | None:
    found = result.number("latency")
    if found is None:
        return None
    return Latency(
        full=result.number("latency_full"),
        uniform=result.number("latency_uniform"),
        found=found,
        device=result.text("latency_device"),
        batch=result.integer("latency_batch"),
        worth=result.text("latency_worth"),
    )


def _transformation(entry: "_Fields", result: "_Fields") -> Transformation | None:
    """That of the network that is found now; an earlier one says nothing of it."""
    if not entry.record or entry.section("key").integers("candidate") != result.integers(
        "candidate"
    ):
        return None
    return Transformation(
        method=entry.text("method"),
        evaluations=entry.integer("evaluations"),
        size=entry.text("size"),
        macs=(entry.integer("macs_before") or 0, entry.integer("macs") or 0),
        params=(entry.integer("params_before") or 0, entry.integer("params") or 0),
        scores=(entry.number("score_before"), entry.number("score")),
        held_out=(entry.number("held_out_before"), entry.number("held_out")),
        operations=tuple(map(_operation, entry.section("graph").sections("edges"))),
    )


def _operation(edge: "_Fields") -> Operation:
    return Operation(
        path=edge.text("path"),
        source=edge.text("source"),
        target=edge.text("target"),
        before=edge.text("before"),
        after=edge.text("after"),
        live=edge.flag("live"),
        channels=edge.pair("channels"),
        size=edge.pair("size"),
        macs=edge.pair("macs"),
        params=edge.pair("params"),
    )


def _paired(paired: "_Fields") -> Paired:
    return Paired(
        mean=paired.number("mean"),
        low=paired.number("low"),
        high=paired.number("high"),
        sentence=paired.text("sentence"),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_sealed(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; give the folder of a prunas run.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}.") from error


def _read_archive(path: Path) -> Iterator[Evaluation]:
    for rows in read_archive(path).values():
        for row in rows:
            known = row.score if math.isfinite(row.score) else None
            yield Evaluation(row.candidate, known, row.macs, row.params, row.seconds)


@dataclass(frozen=True)
class _Fields:
    """Typed access to a JSON object; a field that is absent or null reads as empty or None."""

    record: Mapping[str, Any]
    where: str

    def text(self, name: str) -> str:
        return cast(str, self._field(name, (str,), "text", ""))

    def number(self, name: str) -> float | None:
        value = self._field(name, (int, float), "a number", None)
        return float(value) if value is not None and math.isfinite(value) else None

    def integer(self, name: str) -> int | None:
        return cast(int | None, self._field(name, (int,), "a whole number", None))

    def items(self, name: str) -> list[Any]:
        return cast(list[Any], self._field(name, (list,), "a list", []))

    def integers(self, name: str) -> tuple[int, ...]:
        values = self.items(name)
        if not all(isinstance(value, int) for value in values):
            raise self._wrong(name, "a list of whole numbers", values)
        return tuple(values)

    def flag(self, name: str) -> bool:
        return cast(bool, self._field(name, (bool,), "true or false", False))

    def pair(self, name: str) -> tuple[int, int]:
        values = self.integers(name)
        if len(values) != 2:
            raise self._wrong(name, "two whole numbers", list(values))
        return values[0], values[1]

    def section(self, name: str) -> "_Fields":
        return _Fields(self._field(name, (dict,), "an object", {}), f"{self.where}, {name}")

    def sections(self, name: str) -> Iterator["_Fields"]:
        for index, value in enumerate(self.items(name)):
            if not isinstance(value, dict):
                raise self._wrong(name, "a list of objects", value)
            yield _Fields(value, f"{self.where}, {name}[{index}]")

    def _field(self, name: str, kinds: tuple[type, ...], kind: str, absent: Any) -> Any:
        value = self.record.get(name)
        if value is None:
            return absent
        if not isinstance(value, kinds):
            raise self._wrong(name, kind, value)
        return value

    def _wrong(self, name: str, kind: str, value: object) -> InputError:
        return InputError(f"{self.where}: {name!r} should be {kind} and is {value!r}.")
