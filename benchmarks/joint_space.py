"""Widths, depth, operators, kernels and image sizes searched together, against each alone.

For every budget and seed the main job runs whole in three spaces: widths alone, depth alone (where
the budget is in its reach), and all kinds of genes together. All score the same number of
candidates and train what they find equally, from the same full network. The joint run also trains
the other simple answer: the full network on smaller images. A seed changes everything: splits,
weights, search. Finished rows are kept in a .jsonl file beside this script, or in the file named,
so that an interrupted study goes on where it was.

Run: OMP_NUM_THREADS=1 python benchmarks/joint_space.py [--seeds 8] [--jobs 2] [--rows FILE]
"""

import argparse
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch

from prunas.errors import InputError
from prunas.eval.statistics import paired, spread
from prunas.pipeline.finals import train_finals
from prunas.pipeline.found import run_search_stages
from prunas.pipeline.progress import Progress
from prunas.pipeline.request import Request
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.stages import Job, train_full

BUDGETS: Final = ("macs=60%", "macs=45%", "macs=25%")
SPACES: Final[dict[str, dict[str, Any]]] = {
    "joint": {"genes": ("width", "depth", "operator", "kernel"), "resolutions": (16, 20, 24, 28)},
    "width": {"genes": ("width",)},
    "depth": {"genes": ("depth",)},
}
SETTINGS: Final[dict[str, Any]] = {
    "data": "photos",
    "model": "mobilenetv3_small_050",
    "learning_rate": 0.1,
    "epochs": 12,
    "supernet_epochs": 12,
    "finalists": 6,
    "finalist_epochs": 2,
    "final_epochs": 8,
    "evaluations": 80,
    "calibration": 256,
}
ROWS: Final = Path(__file__).with_suffix(".jsonl")

Row = dict[str, Any]


def main() -> None:
    given = arguments()
    done = {row["seed"] for row in rows(given.rows)}
    seeds = [seed for seed in range(given.first, given.first + given.seeds) if seed not in done]
    with ProcessPoolExecutor(given.jobs, get_context("spawn")) as pool:
        for work in as_completed([pool.submit(one_seed, seed) for seed in seeds]):
            with given.rows.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in work.result())
    for budget in BUDGETS:
        report(rows(given.rows), budget)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rows", type=Path, default=ROWS)
    return parser.parse_args()


def rows(file: Path) -> list[Row]:
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines()]


def one_seed(seed: int) -> list[Row]:
    """Rows of all budgets and spaces for one seed, on one thread."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as place:
        full = Path(place) / "full.safetensors"
        return [
            row
            for budget in BUDGETS
            for name in SPACES
            for row in one_run(Path(place) / f"{budget}-{name}", full, seed, budget, name)
        ]


def one_run(folder: Path, full: Path, seed: int, budget: str, name: str) -> Iterator[Row]:
    """The row of one space, unless the budget is out of its reach.

    Args:
        folder: of the run.
        full: where the seed's full network is, once one run has trained it.
        seed: of everything.
        budget: as in a request.
        name: of the space.
    """
    request = Request(budget=budget, seed=seed, seeds=1, **SETTINGS, **SPACES[name])
    kept = RunFolder.create(folder, request, resume=False)
    if full.exists():
        shutil.copy(full, kept.checkpoint("full"))
    job = Job(kept, torch.device("cpu"), Progress())
    try:
        job.feasible  # noqa: B018  (refuses a budget out of reach)
    except InputError:
        yield {"seed": seed, "budget": budget, "space": name, "found": None}
        return
    train_full(job)
    shutil.copy(kept.checkpoint("full"), full)
    run_search_stages(job)
    result = train_finals(job)
    keys = ("macs", "macs_uniform", "macs_full", "params", "input_size", "candidate", "seconds")
    extra = {"macs_smaller": result.get("macs_smaller")}
    about = {"seed": seed, "budget": budget, "space": name, "genes": len(job.space.genes)}
    yield {**about, **result["accuracy"], **{key: result[key] for key in keys}, **extra}


def report(found: list[Row], budget: str) -> None:
    """Accuracies of all arms at one budget, and the joint space minus each other one."""
    arms = {name: by_seed(found, budget, name, "found") for name in SPACES}
    arms["smaller images"] = by_seed(found, budget, "joint", "smaller")
    arms["uniform width"] = by_seed(found, budget, "width", "uniform")
    print(budget)
    for name, values in arms.items():
        if not values:
            print(f"  {name}: out of reach")
            continue
        print(f"  {name}: {spread([100 * value for value in values.values()])}")
        both = sorted(arms["joint"].keys() & values.keys())
        if name != "joint" and len(both) > 1:
            test = paired([arms["joint"][s] for s in both], [values[s] for s in both])
            print(f"    joint minus this: {test.sentence_in_points}")


def by_seed(found: list[Row], budget: str, space: str, key: str) -> dict[int, float]:
    chosen = [row for row in found if (row["budget"], row["space"]) == (budget, space)]
    return {row["seed"]: row[key] for row in chosen if row.get(key) is not None}


if __name__ == "__main__":
    main()
