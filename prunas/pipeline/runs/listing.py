"""Which runs there are, and how far each has come."""

import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, final

from prunas.errors import InputError, RunError
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.runs.source import MERGED, is_merged, read_sources

_INSIDE: Final = frozenset(("checkpoints", "model", "export", "logs"))
"""Folders of a run, in which there are no others."""


@final
@dataclass(frozen=True)
class Listed:
    """A run in a few words.

    Attributes:
        folder: where it is.
        state: "begun", "searched" or "trained"; "merged" for several; "damaged".
        model: the network.
        data: what it is trained on.
        budget: as it was asked.
        seeds: of the run, or of all that were merged.
        evaluations: how many candidates have a score.
        asked: how many are to have one; None where runs were merged.
        best: the best score, if there is one.
        accuracy: of the found network on the test images, where it is trained.
        trouble: why it cannot be read; empty where it can.
    """

    folder: str
    state: str
    model: str = ""
    data: str = ""
    budget: str = ""
    seeds: tuple[int, ...] = ()
    evaluations: int = 0
    asked: int | None = None
    best: float | None = None
    accuracy: float | None = None
    trouble: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def list_runs(folder: Path) -> list[Listed]:
    """All runs in and below a folder, by name; links to folders are not followed.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give one that holds runs")
    return [_listed(each) for each in _runs(folder)]


def _runs(folder: Path) -> Iterator[Path]:
    for place, inside, files in os.walk(folder):
        found = {"run.json", MERGED} & set(files)
        inside[:] = sorted(n for n in inside if n[0] != "." and not (found and n in _INSIDE))
        if found:
            yield Path(place)


def _listed(folder: Path) -> Listed:
    try:
        return _read(folder)
    except (InputError, RunError) as error:
        return Listed(str(folder), "damaged", trouble=str(error))


def _read(folder: Path) -> Listed:
    sources = read_sources(folder)
    request = sources[0].request
    scores = [row.score for each in sources for row in each.rows if math.isfinite(row.score)]
    merged = is_merged(folder)
    result = {} if merged else RunFolder.open(folder).read().get("result", {})
    accuracy = result.get("accuracy")
    found = accuracy.get("found") if isinstance(accuracy, dict) else None
    state = "trained" if accuracy else "searched" if "candidate" in result else "begun"
    return Listed(
        str(folder),
        "merged" if merged else state,
        request.model,
        request.data,
        request.budget,
        tuple(sorted({each.request.seed for each in sources})),
        sum(len(each.rows) for each in sources),
        None if merged else request.evaluations,
        max(scores, default=None),
        found if isinstance(found, float) else None,
    )
