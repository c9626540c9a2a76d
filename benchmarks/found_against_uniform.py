"""The found network against uniform width at equal MACs and equal training.

For every study, budget and seed the main job runs whole: full network, channel order, weights of
candidates, search, then final training of the found and of the uniform network from the same
weights (from random ones in the study of the PruningNet), with the same teacher, images and order.
A seed changes everything: splits, weights, search. The full network of a seed serves all budgets.
Finished rows are kept in a .jsonl file beside this script, so that an interrupted study goes on
where it was.

Run: OMP_NUM_THREADS=1 python benchmarks/found_against_uniform.py [STUDY] [seeds]
"""

import json
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
from pinned import pinned

from prunas.eval.statistics import paired, spread
from prunas.pipeline.finals import train_finals
from prunas.pipeline.found import run_search_stages
from prunas.pipeline.progress import Progress
from prunas.pipeline.request import Request
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.stages import Job

BUDGETS: Final = {
    "digits": ("macs=40%", "macs=15%"),
    "photos": ("macs=40%", "macs=15%"),
    "pruningnet": ("macs=55%", "macs=25%", "macs=8%"),
}
SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "digits": {
        "search": "evolution",
        "data": "digits",
        "model": "mobilenetv2_050",
        "epochs": 20,
        "supernet_epochs": 24,
        "finalists": 8,
        "finalist_epochs": 4,
        "final_epochs": 12,
        "evaluations": 100,
        "calibration": 256,
    },
    "photos": {
        "search": "evolution",
        "data": "photos",
        "model": "test_efficientnet",
        "learning_rate": 0.1,
        "epochs": 10,
        "supernet_epochs": 10,
        "finalists": 6,
        "finalist_epochs": 3,
        "final_epochs": 10,
        "evaluations": 80,
        "calibration": 256,
    },
    "pruningnet": {
        "search": "evolution",
        "data": "digits",
        "model": "mobilenetv2_050",
        "source": "pruningnet",
        "from_scratch": True,
        "epochs": 20,
        "supernet_epochs": 12,
        "finalists": 6,
        "finalist_epochs": 8,
        "final_epochs": 30,
        "evaluations": 60,
        "calibration": 256,
    },
}
ROWS: Final = Path(__file__).with_suffix(".jsonl")


def main(names: list[str], seeds: int) -> None:
    done = {(row["study"], row["seed"]) for row in rows()}
    work = [(name, seed) for seed in range(seeds) for name in names if (name, seed) not in done]
    for found in pinned(one_seed, work):
        with ROWS.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in found)
    for name in names:
        for budget in BUDGETS[name]:
            report(name, budget)


def rows() -> list[dict[str, Any]]:
    if not ROWS.exists():
        return []
    return [json.loads(line) for line in ROWS.read_text().splitlines()]


def one_seed(name: str, seed: int) -> list[dict[str, Any]]:
    """Rows of all budgets for one seed."""
    torch.set_num_threads(1)
    found = []
    with TemporaryDirectory() as place:
        for number, budget in enumerate(BUDGETS[name]):
            request = Request(budget=budget, seed=seed, seeds=1, **SETTINGS[name])
            folder = RunFolder.create(Path(place) / str(number), request, resume=False)
            if number:  # the full network and its channel order do not depend on the budget
                for file in ("full.safetensors", "prior.json"):
                    source = Path(place) / "0" / "checkpoints" / file
                    shutil.copy(source, folder.path / "checkpoints" / file)
            job = Job(folder, torch.device("cpu"), Progress())
            run_search_stages(job)
            result = train_finals(job)
            keys = ("macs", "macs_uniform", "macs_full", "params", "params_uniform", "seconds")
            about = {"study": name, "model": request.model, "data": request.data}
            row = {**about, "seed": seed, "budget": budget}
            found.append({**row, **result["accuracy"], **{key: result[key] for key in keys}})
    return found


def report(name: str, budget: str) -> None:
    chosen = [row for row in rows() if (row["study"], row["budget"]) == (name, budget)]
    if len(chosen) < 2:
        return
    ours, theirs = ([row[kind] for row in chosen] for kind in ("found", "uniform"))
    share = sum(row["macs"] / row["macs_full"] for row in chosen) / len(chosen)
    other = sum(row["macs_uniform"] / row["macs_full"] for row in chosen) / len(chosen)
    print(f"{name}, {budget}: found {spread(ours)} at {share:.3f} of the MACs,")
    print(f"  uniform {spread(theirs)} at {other:.3f}; full {spread([r['full'] for r in chosen])}")
    print(f"  {paired(ours, theirs).sentence_in_points}")


if __name__ == "__main__":
    chosen_names = [sys.argv[1]] if len(sys.argv) > 1 else list(SETTINGS)
    main(chosen_names, int(sys.argv[2]) if len(sys.argv) > 2 else 8)
