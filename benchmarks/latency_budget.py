"""A budget of time against budgets of multiply-accumulates chosen to give that time.

For every seed the main job runs inside `--latency` of the full network's time, on a table that all
seeds share. Then it runs inside a budget of as many multiply-accumulates as the found network has;
while what that finds is too slow, with a smaller budget, and while it could be slower, with a
larger one, as somebody would who can only limit multiply-accumulates; `RUNS` runs at most. In the
end all found networks of the seed are measured side by side. The latency arm is compared with the
slowest network of the others that is inside the time, and, if none is, with the fastest of all.
Finished rows are kept in a .jsonl file beside this script. Seeds run one after another: two at once
disturb each other's measurements until they are refused.

Run: OMP_NUM_THREADS=1 python benchmarks/latency_budget.py [--seeds 8] [--latency 50]
"""

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch

from prunas.eval.latency.whole import measured
from prunas.eval.statistics import paired, spread
from prunas.pipeline.finals import train_finals
from prunas.pipeline.found import run_search_stages
from prunas.pipeline.progress import Progress
from prunas.pipeline.request import Request
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.stages import Job
from prunas.supernet.space import Candidate

RUNS: Final = 3
ABOVE: Final = 1.03  # measured times may lie so far above the budget
BELOW: Final = 0.94  # and are too fast from here on
SETTINGS: Final[dict[str, Any]] = {
    "data": "digits",
    "model": "mobilenetv3_small_050",
    "genes": ("width", "depth", "operator", "kernel"),
    "epochs": 12,
    "supernet_epochs": 12,
    "finalists": 4,
    "finalist_epochs": 2,
    "final_epochs": 10,
    "evaluations": 80,
    "calibration": 256,
    "latency_backend": "onnxruntime",
    "latency_batch": 256,
}
ROWS: Final = Path(__file__).with_suffix(".jsonl")

Row = dict[str, Any]


def main() -> None:
    given = arguments()
    torch.set_num_threads(1)
    done = {row["seed"] for row in rows() if row["budget"] == given.latency}
    missing = [seed for seed in range(given.seeds) if seed not in done]
    with TemporaryDirectory() as place:
        table = str(Path(place) / "table.json")
        for seed in missing:
            found = one_seed(seed, given.latency, table)
            with ROWS.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in found)
    report([row for row in rows() if row["budget"] == given.latency])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--latency", type=int, default=50, help="percent of the full network's")
    return parser.parse_args()


def rows() -> list[Row]:
    if not ROWS.exists():
        return []
    return [json.loads(line) for line in ROWS.read_text().splitlines()]


# -- one seed --------------------------------------------------------------------------------------


def one_seed(seed: int, latency: int, table: str) -> list[Row]:
    """The row of the latency arm, and those of the others in the order in which they ran."""
    with TemporaryDirectory() as place:
        job = job_of(Path(place) / "latency", seed, f"latency={latency}%", table)
        found = [arm(job, "latency")]
        share = found[0]["macs"] / found[0]["macs_full"]
        for number in range(RUNS):
            budget = f"macs={share:.1%}"
            entry = arm(job_of(Path(place) / f"macs{number}", seed, budget, table), budget)
            found.append(entry)
            taken = entry["latency"] / entry["latency_full"] / (latency / 100)
            if BELOW <= taken <= ABOVE:
                break
            share /= taken
        times = side_by_side(job, [tuple(entry["candidate"]) for entry in found], seed)
    about = {"seed": seed, "budget": latency}
    return [{**about, **entry, "share": time} for entry, time in zip(found, times, strict=True)]


def job_of(folder: Path, seed: int, budget: str, table: str) -> Job:
    request = Request(budget=budget, seed=seed, seeds=1, latency_table=table, **SETTINGS)
    made = RunFolder.create(folder, request, resume=False)
    return Job(made, torch.device("cpu"), Progress())


def arm(job: Job, name: str) -> Row:
    run_search_stages(job)
    result = train_finals(job)
    keys = ("macs", "macs_full", "params", "latency", "latency_full", "candidate", "seconds")
    return {"arm": name, **result["accuracy"], **{key: result[key] for key in keys}}


def side_by_side(job: Job, candidates: list[Candidate], seed: int) -> list[float]:
    """Times, as shares of the full network's, all measured together."""
    assert job.stopwatch is not None
    full, *times = measured(
        job.blank, job.space, [job.space.full(), *candidates], job.stopwatch.backend,
        np.random.default_rng(seed), batch=job.request.latency_batch, told=print,
    )  # fmt: skip
    return [time.milliseconds / full.milliseconds for time in times]


# -- what they say ---------------------------------------------------------------------------------


def report(found: list[Row]) -> None:
    pairs = [pair_of([row for row in found if row["seed"] == seed]) for seed in seeds_of(found)]
    if len(pairs) < 2:
        return
    print(f"{found[0]['budget']} % of the full network's time, {len(pairs)} seeds")
    for name, chosen in zip(("latency", "MACs"), zip(*pairs, strict=True), strict=True):
        accuracies = spread([100 * row["found"] for row in chosen])
        shares = spread([100 * row["share"] for row in chosen])
        macs = spread([100 * row["macs"] / row["macs_full"] for row in chosen])
        print(f"  {name}: accuracy {accuracies}; % of the time {shares}; % of the MACs {macs}")
    ours, theirs = ([row["found"] for row in chosen] for chosen in zip(*pairs, strict=True))
    print(f"  latency minus MACs: {paired(ours, theirs).sentence_in_points}")
    runs = [sum(row["seed"] == seed for row in found) - 1 for seed in seeds_of(found)]
    print(f"  runs that the MACs arm took: {runs}")


def seeds_of(found: list[Row]) -> list[int]:
    return sorted({row["seed"] for row in found})


def pair_of(found: list[Row]) -> tuple[Row, Row]:
    """The latency arm, and the one to compare it with; see the top of this file."""
    own, *others = found
    inside = [row for row in others if row["share"] <= ABOVE * row["budget"] / 100]
    if inside:
        return own, max(inside, key=lambda row: row["share"])
    return own, min(others, key=lambda row: row["share"])


if __name__ == "__main__":
    main()
