"""Which schedule of training shared weights ranks networks as training them alone does?

For every setting and seed the networks are trained alone once, and every schedule trains shared
weights from the same full network, which then score them. "steps": all for equally many steps;
"passes": for equally many forward and backward passes, as far as whole epochs allow. Finished rows
are kept in a .jsonl file beside this script.

Run: OMP_NUM_THREADS=1 python benchmarks/schedules.py [widths|joint] [steps|passes] [seeds]
"""

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from pinned import pinned

from prunas.eval.ranking import kendall, regret
from prunas.eval.statistics import paired, spread
from prunas.pipeline.progress import Progress
from prunas.pipeline.rank import MACS, PRIOR, rank
from prunas.pipeline.request import Request
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.stages import Job
from prunas.supernet.schedules.table import DEFAULT, WARMED_UP, Setting, schedule_of
from prunas.supernet.space import SearchSpace

SOURCE: Final = "supernet"
NETWORKS: Final = 40
SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "widths": {"model": "mobilenetv2_050", "budget": "macs=30%", "genes": ("width",)},
    "joint": {
        "model": "lcnet_050",
        "budget": "macs=40%",
        "genes": ("width", "operator", "kernel"),
        "resolutions": (24,),
        "input_size": 32,
    },
}
COMMON: Final[dict[str, Any]] = {
    "data": "digits",
    "epochs": 20,
    "supernet_epochs": 20,
    "final_epochs": 8,
    "calibration": 256,
}
SCHEDULES: Final = (
    DEFAULT,
    "sandwich-published",
    "single-path",
    "single-path" + WARMED_UP,
    "bounded",
    "bounded" + WARMED_UP,
    "fair",
    "shrinking",
)
ROWS: Final = Path(__file__).with_suffix(".jsonl")

Values = NDArray[np.float64]
Measure = Callable[[Values, Values], float]


def main(name: str, equal: str, seeds: int) -> None:
    done = {(row["setting"], row["equal"], row["seed"]) for row in rows()}
    work = [(name, equal, seed) for seed in range(seeds) if (name, equal, seed) not in done]
    for found in pinned(one_seed, work):
        with ROWS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
    report([row for row in rows() if (row["setting"], row["equal"]) == (name, equal)])


def rows() -> list[dict[str, Any]]:
    if not ROWS.exists():
        return []
    return [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]


def one_seed(name: str, equal: str, seed: int) -> dict[str, Any]:
    """Scores of all schedules, and what the networks reach alone."""
    torch.set_num_threads(1)
    base = Request(seed=seed, **COMMON, **SETTINGS[name])
    row: dict[str, Any] = {"setting": name, "equal": equal, "seed": seed, "predicted": {}}
    row |= {"epochs": {}, "seconds": {}}
    with TemporaryDirectory() as place:
        first = Path(place) / DEFAULT
        space = _job(RunFolder.create(first, base, resume=False)).space
        for schedule in SCHEDULES:
            epochs = base.supernet_epochs
            if equal == "passes":
                epochs = _of_equal_passes(schedule, epochs, space)
            request = replace(base, schedule=schedule, supernet_epochs=epochs)
            again = schedule == DEFAULT
            folder = RunFolder.create(Path(place) / schedule, request, resume=again)
            if schedule != DEFAULT:
                _take_over(first, folder.path)
            found = rank(_job(folder), [SOURCE], candidates=NETWORKS, epochs=request.final_epochs)
            predicted = dict(found.predicted)
            row["predicted"] |= {schedule: predicted.pop(SOURCE), **predicted}
            row |= {"trained": found.trained, "in_window": found.in_window}
            stages = {each["name"]: each["seconds"] for each in folder.read()["stages"]}
            row["epochs"][schedule] = epochs
            row["seconds"][schedule] = stages["train the shared weights"]
    return row


def _job(folder: RunFolder) -> Job:
    return Job(folder, torch.device("cpu"), Progress())


def _take_over(first: Path, folder: Path) -> None:
    """What does not depend on the schedule: full network, order of channels, networks alone."""
    for pattern in ("full.safetensors", "prior.json", "ranking-*.json"):
        for file in (first / "checkpoints").glob(pattern):
            shutil.copy(file, folder / "checkpoints" / file.name)


def _of_equal_passes(schedule: str, epochs: int, space: SearchSpace) -> int:
    """Epochs with as many passes as the default has in `epochs`."""
    return max(1, round(epochs * _passes(DEFAULT, space) / _passes(schedule, space)))


def _passes(schedule: str, space: SearchSpace, steps: int = 1000) -> float:
    made = schedule_of(schedule, Setting(space, space.sample))
    rng = np.random.default_rng(0)
    return float(np.mean([len(made.step(at, steps, rng).candidates) for at in range(steps)]))


# -- what they say ---------------------------------------------------------------------------------


def report(found: list[dict[str, Any]]) -> None:
    if not found:
        return
    trained = spread(np.concatenate([row["trained"] for row in found]))
    print(
        f"{found[0]['setting']}, equal {found[0]['equal']}: {len(found)} seeds of {NETWORKS}"
        f" networks, trained alone to {trained.mean:.3f} ({trained.lowest:.3f} to"
        f" {trained.highest:.3f})"
    )
    print("| | epochs | seconds | score | tau | on the budget | less the default's | regret |")
    print("|---|---|---|---|---|---|---|---|")
    for name in (*SCHEDULES, PRIOR, MACS):
        print(f"| {name} | {_cost(found, name)} | {_agreement(found, name)} |")


def _cost(found: list[dict[str, Any]], name: str) -> str:
    if name not in SCHEDULES:
        return " | | "
    epochs, seconds = (np.mean([row[key][name] for row in found]) for key in ("epochs", "seconds"))
    score = np.mean([row["predicted"][name] for row in found])
    return f"{epochs:.0f} | {seconds:.0f} | {score:.3f}"


def _agreement(found: list[dict[str, Any]], name: str) -> str:
    """Means over seeds; the difference with its 95 % interval over paired seeds."""
    overall = spread([_measured(row, name, kendall) for row in found])
    tau = [_measured(row, name, kendall, on_budget=True) for row in found]
    usual = [_measured(row, DEFAULT, kendall, on_budget=True) for row in found]
    difference = paired(tau, usual)
    lost = spread([100 * _measured(row, name, regret, on_budget=True) for row in found])
    ends = (difference.low, difference.high)
    interval = "" if None in ends else " ({:+.2f} to {:+.2f})".format(*ends)
    return (
        f"{overall.mean:.2f} ± {overall.deviation:.2f} | {spread(tau).mean:.2f} ±"
        f" {spread(tau).deviation:.2f} | {difference.mean:+.2f}{interval} | {lost.mean:.1f}"
    )


def _measured(
    row: Mapping[str, Any], name: str, measure: Measure, *, on_budget: bool = False
) -> float:
    chosen = np.array(row["in_window"]) if on_budget else np.full(len(row["trained"]), True)
    predicted, trained = (np.array(row["predicted"][name]), np.array(row["trained"]))
    return measure(predicted[chosen], trained[chosen])


if __name__ == "__main__":
    arguments = dict(enumerate(sys.argv[1:]))
    main(arguments.get(0, "widths"), arguments.get(1, "steps"), int(arguments.get(2, "4")))
