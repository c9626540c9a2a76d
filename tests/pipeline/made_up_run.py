"""A run folder with made-up figures, shaped as a real one, for the tests of the report."""

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from prunas.pipeline.request import Request
from prunas.pipeline.sealed import write_sealed
from prunas.search.archive import Archive, Evaluation
from prunas.supernet.space import Candidate

WIDTHS = (16, 8, 48, 16, 96, 16, 96, 32, 192, 32, 192, 48, 288, 80, 480, 160, 960, 1280)
GENES = [
    {
        "name": f"blocks.{index // 3}.{index % 3}.{('conv_pw', 'conv_pwl')[index % 2]}",
        "kind": "width",
        "choices": [max(1, width * eighth // 8) for eighth in range(2, 9)],
    }
    for index, width in enumerate(WIDTHS)
]
SEEDS = [
    {"seed": 0, "full": 0.983, "uniform": 0.944, "found": 0.969},
    {"seed": 1, "full": 0.981, "uniform": 0.958, "found": 0.972},
    {"seed": 2, "full": 0.986, "uniform": 0.950, "found": 0.961},
]


def macs(candidate: tuple[int, ...]) -> int:
    return 140 * sum(a * b for a, b in pairwise(candidate))


LIMIT = int(0.4 * macs(WIDTHS))


def params(candidate: tuple[int, ...]) -> int:
    return macs(candidate) // 90


def evaluations(count: int, seed: int = 0) -> list[Evaluation]:
    """Candidates under the limit that score better as the search goes on; one has no score."""
    rng = np.random.default_rng(seed)
    rows: dict[Candidate, Evaluation] = {}
    while len(rows) < count:
        shares = np.clip(rng.normal(3.2, 1.4, len(GENES)).round().astype(int), 0, 6)
        candidate = Candidate(
            gene["choices"][share] for gene, share in zip(GENES, shares, strict=True)
        )
        if macs(candidate) > LIMIT:
            continue
        size = macs(candidate) / macs(WIDTHS)
        score = 0.97 - 0.4 * math.exp(-7 * size) - abs(rng.normal(0, 0.2 / (1 + len(rows) / 60)))
        known = math.nan if len(rows) == 7 else max(0.1, score)
        cost = (macs(candidate), params(candidate))
        seconds = 0.4 + 0.1 * rng.random()
        rows[candidate] = Evaluation(candidate, known, *cost, seconds, len(rows) // 50)
    return list(rows.values())


def record(**changed: Any) -> dict[str, Any]:
    """run.json of a finished run; a keyword replaces a field, None removes it."""
    rows = evaluations(300)
    found = max((row for row in rows if not math.isnan(row.score)), key=lambda row: row.score)
    uniform = tuple(width * 5 // 8 for width in WIDTHS)
    fields = {
        "schema": 1,
        "request": {
            "model": "mobilenetv2_050", "data": "digits", "budget": "macs=0.4",
            "search": "evolution", "evaluations": 300,
        },
        "seed": 0,
        "versions": {"prunas": "0.1.0", "torch": "2.13.0", "timm": "1.0.31", "python": "3.11.7"},
        "device": "cpu, 2 threads",
        "budget": {"macs": LIMIT},
        "network": {
            "name": "mobilenetv2_050", "input_size": [1, 8, 8],
            "classes": [str(digit) for digit in range(10)],
            "small_images": "The first 3 of 5 strides are 1, so that 8 x 8 images end in 2 x 2.",
        },
        "space": {
            "size": str(7 ** len(GENES)), "genes": GENES,
            "pinned": [
                {"name": "classifier.weight", "reason": "The network's outputs are fixed."},
                {"name": "classifier.bias", "reason": "The network's outputs are fixed."},
                {"name": "conv_stem.weight", "reason": "The network's inputs are fixed."},
            ],
        },
        "result": {
            "macs": found.macs, "macs_full": macs(WIDTHS), "macs_uniform": macs(uniform),
            "params": found.params, "params_full": params(WIDTHS),
            "params_uniform": params(uniform),
            "accuracy": {"full": 0.983, "uniform": 0.944, "found": 0.969},
            "evaluations": 300, "seconds": 312.4,
            "candidate": list(found.candidate), "uniform_candidate": list(uniform),
            "finalists": [
                {"candidate": list(found.candidate), "score": found.score, "held_out": 0.962},
                {"candidate": list(uniform), "score": None, "held_out": 0.948},
                {"candidate": list(rows[0].candidate), "score": rows[0].score, "held_out": 0.931},
            ],
            "seeds": SEEDS,
            "paired": {
                "mean": 0.0167, "low": -0.0004, "high": 0.0337, "p_value": 0.25, "n": 3,
                "sentence": "Found beats uniform by 1.7 points on 3 seeds, too few to be sure.",
            },
        },
        "stages": [
            {"name": "train the full network", "seconds": 64.1},
            {"name": "order the channels", "seconds": 8.7},
            {"name": "train the supernet", "seconds": 96.0},
            {"name": "search", "seconds": 118.3},
            {"name": "final training", "seconds": 25.3},
        ],
    }  # fmt: skip
    fields |= changed
    return {name: value for name, value in fields.items() if value is not None}


def write_run(folder: Path, fields: dict[str, Any], rows: list[Evaluation] | None = None) -> Path:
    """The folder, with run.json and an archive of the rows (300 evaluations if None)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(fields), encoding="utf-8")
    with Archive(folder / "archive.sqlite", fingerprint="made up") as archive:
        for row in evaluations(300) if rows is None else rows:
            archive.record(row)
    return folder


def a_run(
    folder: Path, rows: Sequence[Evaluation], *, finished: bool = True, **request: Any
) -> Path:
    """A run of these evaluations; `request` replaces fields of what was asked."""
    fields = record()
    asked = Request.from_json({**fields["request"], **request})
    if not finished:
        fields = {name: fields[name] for name in ("schema", "versions", "stages", "seed")}
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "full.safetensors").write_text(f"weights of {folder.name}")
    write_sealed(folder / "run.json", {**fields, "request": asked.to_json()})
    with (
        Archive(folder / "archive.sqlite", fingerprint=asked.fingerprint()) as archive,
        archive.together(),
    ):
        for row in rows:
            archive.record(row)
    return folder
