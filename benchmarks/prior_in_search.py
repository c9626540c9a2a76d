"""Evaluations that evolution needs to reach what random search finds in 500, with the prior of
discriminant information and without it.

For every seed a full network and shared weights are trained once on a split of its own; random
search scores 500 candidates on these weights, and evolution goes on until it has found one as good,
with the prior and without, by generations of 50 (the default) and of 10. The shared weights are
those that the prior ordered. Finished rows are kept in a .jsonl file beside this script.

Run: OMP_NUM_THREADS=1 python benchmarks/prior_in_search.py [setting] [seeds] [first seed]
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch

from prunas.eval.scoring import scorer
from prunas.pipeline.progress import Progress
from prunas.pipeline.request import Request
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.sources import train_source
from prunas.pipeline.stages import Job, sort_channels, train_full
from prunas.search.archive import Archive
from prunas.search.evolution import Evolution
from prunas.search.loop import run_search
from prunas.search.method import Search
from prunas.search.prior import Prior
from prunas.search.randomly import Randomly

EVALUATIONS: Final = 500
SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "resnet": {
        "model": "test_resnet",
        "data": "digits",
        "budget": "macs=15%",
        "epochs": 15,
        "supernet_epochs": 20,
        "calibration": 256,
    },
    "mobilenet": {
        "model": "mobilenetv2_050",
        "data": "digits",
        "budget": "macs=30%",
        "epochs": 20,
        "supernet_epochs": 24,
        "calibration": 256,
    },
}
SEARCHES: Final[dict[str, tuple[Search, bool, int]]] = {
    "prior": (Evolution(), True, 50),
    "plain": (Evolution(), False, 50),
    "prior, tens": (Evolution(population=20), True, 10),
    "plain, tens": (Evolution(population=20), False, 10),
}
"""Method, whether it is given the prior, and candidates a generation."""
ROWS: Final = Path(__file__).with_suffix(".jsonl")


def main(setting: str, seeds: int, first: int) -> None:
    done = {row["seed"] for row in rows(setting)}
    for seed in range(first, first + seeds):
        if seed not in done:
            with ROWS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(one_seed(setting, seed)) + "\n")
    report(setting)


def rows(setting: str) -> list[dict[str, Any]]:
    if not ROWS.exists():
        return []
    found = map(json.loads, ROWS.read_text(encoding="utf-8").splitlines())
    return [row for row in found if row["setting"] == setting]


def one_seed(setting: str, seed: int) -> dict[str, Any]:
    """The scores of all three searches in the order asked, on the same shared weights."""
    torch.set_num_threads(1)
    request = Request(seed=seed, **SETTINGS[setting])
    with TemporaryDirectory() as place:
        folder = RunFolder.create(Path(place) / "run", request, resume=False)
        job = Job(folder, torch.device("cpu"), Progress())
        network, prior = sort_channels(job, train_full(job))
        supernet = train_source(job, network, prior)
        evaluate = scorer(
            supernet,
            job.fixed(job.data.train, request.calibration),
            job.fixed(job.data.held_out, request.scoring),
        )

        def searched(name: str, method: Search, given: Prior | None, batch: int) -> list[float]:
            """The scores in the order asked, until random search's best is reached."""
            scores: list[float] = []
            with Archive(Path(place) / f"{name}.sqlite", fingerprint=name) as archive:
                while len(scores) < EVALUATIONS and max(scores, default=0) < goal:
                    found = run_search(
                        method,
                        job.space,
                        job.budget,
                        given,
                        evaluate,
                        archive,
                        job.cost,
                        evaluations=len(scores) + 50,
                        batch=batch,
                        rng=np.random.default_rng([seed, 7]),
                    )
                    scores = [each.score for each in found]
            return scores

        goal = float("inf")
        row: dict[str, Any] = {"setting": setting, "seed": seed}
        row["random"] = searched("random", Randomly(), None, 50)
        goal = max(row["random"])
        for name, (method, informed, batch) in SEARCHES.items():
            row[name] = searched(name, method, prior if informed else None, batch)
    return row


def reached(scores: Sequence[float], goal: float) -> float:
    """How many evaluations it took to score at least `goal`; infinity if none did."""
    return next((i for i, score in enumerate(scores, 1) if score >= goal), float("inf"))


def report(setting: str) -> None:
    found = rows(setting)
    print(f"{setting}: {SETTINGS[setting]}")
    needed: dict[str, list[float]] = {name: [] for name in SEARCHES}
    for row in found:
        goal = max(row["random"])
        for name, counts in needed.items():
            counts.append(reached(row[name], goal))
        took = {name: counts[-1] for name, counts in needed.items()}
        print(f"  seed {row['seed']}: random finds {goal:.3f}; evaluations to reach it {took}")
    for name, counts in needed.items():
        print(f"  {name}: median {median(counts)} of {EVALUATIONS} ({len(counts)} seeds)")


if __name__ == "__main__":
    main(
        sys.argv[1] if len(sys.argv) > 1 else "resnet",
        int(sys.argv[2]) if len(sys.argv) > 2 else 10,
        int(sys.argv[3]) if len(sys.argv) > 3 else 0,
    )
