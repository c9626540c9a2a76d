"""Widths, depth, operators, kernels and image sizes searched together, against each alone.

For every budget and seed the main job runs whole in three spaces: widths alone, depth alone (where
the budget is in its reach), and all kinds of genes together. All score the same number of
candidates and train what they find equally, from the same full network. The joint run also trains
the other simple answer: the full network on smaller images. A seed changes everything: splits,
weights, search. Finished rows are kept in a .jsonl file beside this script, or in the file named,
so that an interrupted study goes on where it was.

Run: OMP_NUM_THREADS=1 python benchmarks/joint_space.py [--seeds 8] [--rows FILE]
"""

import argparse
import json
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
from pinned import pinned

from prunas.errors import InputError
from prunas.eval.statistics import paired, spread
from prunas.pipeline.finals import train_finals
from prunas.pipeline.found import run_search_stages
from prunas.pipeline.progress import Progress
from prunas.pipeline.request import Request
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.stages import Job

BUDGETS: Final = ("macs=60%", "macs=45%", "macs=25%")
SPACES: Final[dict[str, dict[str, Any]]] = {
    "joint": {"genes": ("width", "depth", "operator", "kernel"), "resolutions": (4, 6)},
    "width": {"genes": ("width",)},
    "depth": {"genes": ("depth",)},
}
SETTINGS: Final[dict[str, Any]] = {
    "data": "digits",
    "model": "mobilenetv3_small_050",
    "epochs": 12,
    "supernet_epochs": 12,
    "finalists": 4,
    "finalist_epochs": 2,
    "final_epochs": 10,
    "evaluations": 80,
    "calibration": 256,
}
ROWS: Final = Path(__file__).with_suffix(".jsonl")

Row = dict[str, Any]


def main() -> None:
    given = arguments()
    done = {(row["seed"], row["budget"], row["space"]) for row in rows(given.rows)}
    work = [each for each in product(range(given.seeds), BUDGETS, SPACES) if each not in done]
    for row in pinned(one_run, work):
        with given.rows.open("a") as file:
            file.write(json.dumps(row) + "\n")
    for budget in BUDGETS:
        report(rows(given.rows), budget)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--rows", type=Path, default=ROWS)
    return parser.parse_args()


def rows(file: Path) -> list[Row]:
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines()]


def one_run(seed: int, budget: str, name: str) -> Row:
    """The row of one space; "found" is None where the budget is out of its reach."""
    torch.set_num_threads(1)
    about: Row = {"seed": seed, "budget": budget, "space": name}
    request = Request(budget=budget, seed=seed, seeds=1, **SETTINGS, **SPACES[name])
    with TemporaryDirectory() as place:
        folder = RunFolder.create(Path(place) / "run", request, resume=False)
        job = Job(folder, torch.device("cpu"), Progress())
        try:
            job.feasible  # noqa: B018  (refuses a budget out of reach)
        except InputError:
            return {**about, "found": None}
        run_search_stages(job)
        result = train_finals(job)
    keys = ("macs", "macs_uniform", "macs_full", "params", "input_size", "candidate", "seconds")
    extra = {"macs_smaller": result.get("macs_smaller"), "genes": len(job.space.genes)}
    return {**about, **result["accuracy"], **{key: result[key] for key in keys}, **extra}


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
