"""Do shared and generated weights rank networks as training them does? `prunas rank`, repeated.

For every data set and seed a run of its own: full network, channel order, all three sources of
weights with equal epochs, then networks trained alone, which every source has scored. Finished
runs are kept as rows in a .jsonl file beside this script.

Run: OMP_NUM_THREADS=1 python benchmarks/rank_agreement.py [digits|photos] [seeds]
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch
from forest import Mark, Panel, forest
from numpy.typing import NDArray
from pinned import pinned

from prunas.eval.ranking import Estimate, kendall, precision_at, regret, spearman
from prunas.eval.statistics import spread
from prunas.pipeline.progress import Progress
from prunas.pipeline.rank import MACS, PRIOR, rank
from prunas.pipeline.request import SOURCES, Request
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.stages import Job

CANDIDATES: Final = 50
SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "digits": {
        "model": "mobilenetv2_050",
        "budget": "macs=30%",
        "epochs": 20,
        "supernet_epochs": 20,
        "final_epochs": 8,
        "calibration": 256,
    },
    "photos": {
        "model": "test_resnet",
        "budget": "macs=25%",
        "input_size": 16,
        "learning_rate": 0.1,
        "epochs": 8,
        "supernet_epochs": 10,
        "final_epochs": 4,
        "calibration": 256,
    },
}
SCOPES: Final = ("all networks", "where the budget is used")
RESAMPLES: Final = 2000
ROWS: Final = Path(__file__).with_suffix(".jsonl")
PICTURE: Final = Path(__file__).parents[1] / "docs" / "rank.svg"

Values = NDArray[np.float64]
Run = Mapping[str, Values]
"""Trained accuracies under "trained", scores under the names of what predicted them."""
Measure = Callable[[Values, Values], float]


def main(names: Sequence[str], seeds: int) -> None:
    done = {(row["data"], row["seed"]) for row in rows()}
    work = [(name, seed) for seed in range(seeds) for name in names if (name, seed) not in done]
    for found in pinned(one_seed, work):
        with ROWS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
    for name in names:
        for scope in SCOPES:
            report(name, scope)
    if {row["data"] for row in rows()} == set(SETTINGS):
        PICTURE.write_text(picture(), encoding="utf-8")


def rows() -> list[dict[str, Any]]:
    if not ROWS.exists():
        return []
    return [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]


def one_seed(name: str, seed: int) -> dict[str, Any]:
    """One run, whose networks are scored by every source and trained alone."""
    torch.set_num_threads(1)
    settings = SETTINGS[name]
    with TemporaryDirectory() as place:
        request = Request(data=name, seed=seed, **settings)
        folder = RunFolder.create(Path(place) / "run", request, resume=False)
        job = Job(folder, torch.device("cpu"), Progress())
        found = rank(job, SOURCES, candidates=CANDIDATES, epochs=request.final_epochs)
        row = {"data": name, "model": request.model, "budget": request.budget, "seed": seed}
        stages = {each["name"]: each["seconds"] for each in folder.read()["stages"]}
        return {**row, **found.to_json(), "seconds": stages}


# -- what they say ---------------------------------------------------------------------------------


def runs(name: str, scope: str) -> list[Run]:
    """The networks of every seed."""
    found = []
    for row in rows():
        networks = [each for each in row["networks"] if scope == SCOPES[0] or each["in_window"]]
        if row["data"] == name:
            predicted = {
                key: np.array([each["predicted"][key] for each in networks])
                for key in networks[0]["predicted"]
            }
            found.append({"trained": np.array([each["trained"] for each in networks]), **predicted})
    return found


def mean_over(seeds: Sequence[Run], value: Callable[[Run], float]) -> Estimate:
    """Its mean over seeds, with the interval of resampling networks within each seed.

    The interval speaks of other networks under the same weights; of other weights there are only
    as many as seeds.
    """
    rng = np.random.default_rng(0)
    means = [np.mean([value(_resampled(run, rng)) for run in seeds]) for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(np.mean([value(run) for run in seeds])), float(low), float(high))


def _resampled(run: Run, rng: np.random.Generator) -> Run:
    count = len(run["trained"])
    drawn = rng.integers(count, size=count)
    return {name: values[drawn] for name, values in run.items()}


def agreement(seeds: Sequence[Run], name: str, measure: Measure) -> Estimate:
    return mean_over(seeds, lambda run: measure(run[name], run["trained"]))


def _top(predicted: Values, true: Values) -> float:
    return precision_at(predicted, true, max(1, round(0.2 * len(true))))


def report(name: str, scope: str) -> None:
    seeds = runs(name, scope)
    if not seeds:
        return
    trained = spread(np.concatenate([run["trained"] for run in seeds]))
    count = ", ".join(str(len(run["trained"])) for run in seeds)
    print(
        f"\n{name}, {scope}: {count} networks, trained to {trained.mean:.3f} in the mean"
        f" ({trained.lowest:.3f} to {trained.highest:.3f})"
    )
    for source in (*SOURCES, PRIOR, MACS):
        each = [kendall(run[source], run["trained"]) for run in seeds]
        print(
            f"  {source:22} tau {agreement(seeds, source, kendall)}"
            f" (by seed {', '.join(f'{tau:.2f}' for tau in each)})"
            f", Spearman {agreement(seeds, source, spearman)}"
            f", best fifth {agreement(seeds, source, _top)}"
            f", regret {agreement(seeds, source, regret)}"
        )
    for one, other in combinations((*SOURCES, PRIOR, MACS), 2):
        print(f"  {one} - {other}: tau {difference(seeds, one, other)}")


def difference(seeds: Sequence[Run], one: str, other: str) -> Estimate:
    return mean_over(
        seeds,
        lambda run: kendall(run[one], run["trained"]) - kendall(run[other], run["trained"]),
    )


def picture() -> str:
    """Kendall's tau of every prediction, for each data set and scope."""
    names = (*SOURCES, PRIOR, MACS)
    panels = []
    for data, settings in SETTINGS.items():
        for scope in SCOPES:
            seeds = runs(data, scope)
            estimates = [agreement(seeds, name, kendall) for name in names]
            marks = [[Mark(each.value, each.low, each.high)] for each in estimates]
            panels.append(Panel(f"{data}, {settings['model']}", scope, marks))
    return forest(names, panels, unit="Kendall's tau-b", zero=True)


if __name__ == "__main__":
    chosen = [sys.argv[1]] if len(sys.argv) > 1 else list(SETTINGS)
    main(chosen, int(sys.argv[2]) if len(sys.argv) > 2 else 3)
