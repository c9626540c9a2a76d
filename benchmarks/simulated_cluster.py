"""A cluster that is only imagined: what batches cost there, and what candidates in flight save.

The search, the loop, the supervisor and the archive are the real ones; workers are imagined, under
a virtual clock that also counts the driver's own processor time. What is assumed of workers:

- evaluations take the seconds that evaluations of mobilenetv2_100 took (`--measure` writes them to
  evaluation_seconds.json), scaled to a mean of 20 s; every worker is slower or faster by a factor
  of its own (lognormal, sigma 0.15), and one evaluation in a hundred takes three times as long;
- one in 200 ends its worker (lack of memory, say), one in 1,000 hangs for ever, one in 2,000 gives
  NaN; a worker takes 30 s to be built;
- a tenth of the machines leaves after a third of the run and is back after another.

Nobody tells the driver any of that: it finds out by the default patience. "busy" is the share of
workers' time that went into evaluations that count, between a fifth and four fifths of a run, which
leaves out that workers are built and that the last ones are waited for; "busy_in_all" has both.

Run: python benchmarks/simulated_cluster.py [--measure | --plot]
"""

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any, Final

import numpy as np
import torch

import prunas
from prunas.eval.scoring import scorer
from prunas.pipeline.networks import create_network
from prunas.search import SEARCHES, Archive, Budget, Feasible, Progress, Search, run_search
from prunas.search.executors import Supervisor
from prunas.search.executors.simulated import FAR, Fate, Simulated
from prunas.search.executors.supervisor import scored
from prunas.supernet.elastic import Supernet

PLACE: Final = Path(__file__).parent
SECONDS: Final = PLACE / "evaluation_seconds.json"
RESULTS: Final = PLACE / "simulated_cluster.jsonl"
PICTURE: Final = PLACE.parent / "docs" / "scale.svg"

NAME: Final = "evolution"
MEAN: Final = 20.0
BUILDING: Final = 30.0
EACH: Final = 24  # evaluations for every worker
FEWEST: Final = 400
WORKERS: Final = (1, 4, 16, 64, 250, 1000)
SIDE: Final = 32


def main(arguments: Sequence[str]) -> None:
    if "--measure" in arguments:
        SECONDS.write_text(json.dumps(list(measured())) + "\n")
    elif "--plot" not in arguments:
        with RESULTS.open("w") as file:
            for row in simulated():
                print(row, flush=True)
                file.write(json.dumps(row) + "\n")
    PICTURE.write_text(drawn([json.loads(line) for line in RESULTS.read_text().splitlines()]))


def measured() -> Iterator[float]:
    """Processor seconds of evaluations: 64 images to calibrate on, 128 to score on."""
    torch.set_num_threads(1)
    space, feasible = problem()
    network = create_network("mobilenetv2_100", classes=10, input_size=(3, SIDE, SIDE), seed=0)
    images, labels = torch.randn(64, 3, SIDE, SIDE), torch.zeros(64, dtype=torch.long)
    score = scorer(Supernet(network, space), [(images, labels)], [(images, labels)] * 2)
    for candidate in feasible.sample(np.random.default_rng(0), 33):
        began = process_time()
        list(score([candidate]))
        yield round(process_time() - began, 5)


def problem() -> tuple[prunas.SearchSpace, Feasible]:
    network = create_network("mobilenetv2_100", classes=10, input_size=(3, SIDE, SIDE), seed=0)
    space = prunas.trace(network, (3, SIDE, SIDE), genes=("width",))
    return space, Feasible(space, Budget.parse("macs=40%"), prunas.Cost(space))


def simulated() -> Iterator[dict[str, Any]]:
    """A row for each number of workers and each way to hand out work."""
    space, _ = problem()
    for workers in WORKERS:
        ways = {
            "batches of one for each worker": (workers, None),
            "batches of four for each worker": (4 * workers, None),
            "in flight": (max(1, workers // 10), workers + max(1, workers // 5)),
        }
        for way, (batch, in_flight) in ways.items():
            row = {"search": NAME, "workers": workers, "way": way}
            yield row | one(space, SEARCHES[NAME], workers, batch, in_flight)


def one(
    space: prunas.SearchSpace, method: Search, workers: int, batch: int, in_flight: int | None
) -> dict[str, Any]:
    evaluations = max(FEWEST, EACH * workers)
    ideal = evaluations * MEAN / workers
    there = [(0.0, workers)]
    if workers >= 10:
        there += [(ideal / 3, workers - workers // 10), (2 * ideal / 3, workers)]
    fates = Fates(space, np.random.default_rng(workers))
    crew = Simulated(fates, there, building=BUILDING, stopwatch=process_time)
    began = process_time()
    spent: list[tuple[float, float]] = []  # useful and available seconds, at two points

    def note(at: Progress) -> None:
        if at.done in (evaluations // 5, 4 * evaluations // 5):
            spent.append((crew.useful, crew.available))

    with (
        TemporaryDirectory() as folder,
        Archive(Path(folder) / "archive", fingerprint="") as archive,
        Supervisor(crew, refused=scored) as executor,
    ):
        done = run_search(
            method,
            space,
            Budget.parse("macs=40%"),
            None,
            executor,
            archive,
            prunas.Cost(space),
            evaluations=evaluations,
            batch=batch,
            in_flight=in_flight,
            rng=np.random.default_rng(0),
            on_progress=note,
        )
    useful, available = np.subtract(spent[1], spent[0])
    return {
        "evaluations": len(done),
        "failed": sum(math.isnan(each.score) for each in done),
        "hours": crew.now() / 3600,
        "per_hour": 3600 * len(done) / crew.now(),
        "busy": float(useful / available),
        "busy_in_all": crew.useful / crew.available,
        "wasted": fates.wasted / crew.available,
        "driver_seconds": process_time() - began,
        "best": max(each.score for each in done if not math.isnan(each.score)),
    }


class Fates:
    """What becomes of evaluations; scores are made up."""

    def __init__(self, space: prunas.SearchSpace, rng: np.random.Generator) -> None:
        seconds = np.array(json.loads(SECONDS.read_text())[1:])  # the first one warms up
        self._seconds = seconds * MEAN / seconds.mean()
        self._full = np.array(space.full())
        self._weights = rng.dirichlet(np.ones(len(self._full)))
        self._rng = rng
        self._pace: dict[int, float] = {}
        self.wasted = 0.0

    def __call__(self, candidate: prunas.Candidate, worker: int) -> Fate[float]:
        rng = self._rng
        pace = self._pace.setdefault(worker, float(rng.lognormal(0, 0.15)))
        seconds = pace * float(rng.choice(self._seconds)) * (3 if rng.random() < 0.01 else 1)
        luck = rng.random()
        if luck < 0.005:
            self.wasted += seconds
            return Fate(seconds, None)
        if luck < 0.006:
            return Fate(FAR, 0.0)
        if luck < 0.0065:
            self.wasted += seconds
            return Fate(seconds, math.nan)
        return Fate(seconds, float(self._weights @ np.log(np.array(candidate) / self._full)))


# -- picture ---------------------------------------------------------------------------------------

_WAYS: Final = {
    "in flight": "#1b7f5c",
    "batches of four for each worker": "#b7791f",
    "batches of one for each worker": "#b23a48",
}
_LEFT, _TOP, _WIDE, _HIGH = 64, 34, 560, 260


def drawn(rows: Sequence[Mapping[str, Any]]) -> str:
    """Busy share over the number of workers, a line for each way, as SVG."""
    parts = [_text(_LEFT, 18, "Share of workers' time spent on evaluations that count", "start")]
    for share in (0, 25, 50, 75, 90, 100):
        y = _y(share / 100)
        parts.append(f'<path d="M{_LEFT} {y:.1f}h{_WIDE}" stroke="#8884" fill="none"/>')
        parts.append(_text(_LEFT - 8, y + 4, f"{share} %", "end"))
    for workers in WORKERS:
        parts.append(_text(_x(workers), _TOP + _HIGH + 20, f"{workers:,}", "middle"))
    parts.append(_text(_LEFT + _WIDE / 2, _TOP + _HIGH + 40, "workers", "middle"))
    for way, colour in _WAYS.items():
        line = [(_x(row["workers"]), _y(row["busy"])) for row in rows if row["way"] == way]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
        stroke = f'fill="none" stroke="{colour}" stroke-width="2"'
        parts.append(f'<polyline points="{points}" {stroke}/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in line]
        x, y = line[-1]
        parts.append(_text(x + 10, y + 4, way, "start", colour))
    size = f'viewBox="0 0 {_LEFT + _WIDE + 220} {_TOP + _HIGH + 52}"'
    style = 'font-family="sans-serif" font-size="13" fill="#555"'
    background = '<rect width="100%" height="100%" fill="#fff"/>'
    inside = background + "".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{inside}</svg>\n'


def _x(workers: int) -> float:
    return _LEFT + 10 + (_WIDE - 20) * math.log(workers) / math.log(WORKERS[-1])


def _y(share: float) -> float:
    return _TOP + _HIGH * (1 - share)


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#555") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{text}</text>'


if __name__ == "__main__":
    main(sys.argv[1:])
