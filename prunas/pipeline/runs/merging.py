"""Several runs of one search made one: more seeds side by side, or a run that went on twice."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, Final, final

from prunas.errors import InputError
from prunas.pipeline.files import aside_of, linked, replace_folder, require_elsewhere, writing
from prunas.pipeline.request import FREE_OF_SCORES
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.runs.source import MERGED, SCHEMA, Source, is_merged, read_sources
from prunas.pipeline.sealed import write_sealed
from prunas.search.evaluation import Evaluation
from prunas.search.record import write_archive
from prunas.supernet.space import Candidate

_FREE: Final = FREE_OF_SCORES | {"seed", "search"}
"""What may differ between runs of which a candidate means the same and is scored alike."""


@final
@dataclass(frozen=True)
class Merged:
    """What was merged.

    Attributes:
        folder: where it is.
        runs: how many different ones it holds; a single one can be resumed.
        evaluations: of all.
        twice: evaluations that were there more than once.
    """

    folder: Path
    runs: int
    evaluations: int
    twice: int


def merge_runs(folders: Sequence[Path], out: Path) -> Merged:
    """Put the evaluations of several runs into one archive.

    Runs whose scores depend on the same things (a run that was copied and went on in two places)
    become one, which `prunas runs resume` goes on with; it has the checkpoints of the first.
    Others, such as those of other seeds, stay apart in the archive, each with its scores. They are
    in the order given, whatever clocks say.

    Args:
        folders: runs, or what was merged before.
        out: a new folder.

    Raises:
        InputError: a folder holds no run, runs search other spaces, score otherwise or on other
            data, or equal ones have other scores, or `out` holds something or is where this
            process works.
        RunError: the disk is full.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists; merge into a new folder")
    require_elsewhere(out)
    sources = [source for folder in folders for source in read_sources(folder)]
    if len(sources) < 2:
        raise InputError("merge two runs or more")
    for one, other in pairwise(sources):
        _require_alike(one, other)
    for one, other in pairwise(each for each in sources if each.data):
        _require_same_data(one, other)
    groups = _grouped(sources)
    rows = [_united(group) for group in groups]
    place = linked(out)
    aside = aside_of(place)
    try:
        with writing(out):
            aside.mkdir(parents=True)
        names = [group[0].request.fingerprint() for group in groups]
        write_archive(aside / "archive.sqlite", dict(zip(names, rows, strict=True)))
        _describe(aside, groups)
        replace_folder(aside, place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    kept = sum(map(len, rows))
    return Merged(out, len(groups), kept, sum(len(each.rows) for each in sources) - kept)


def _require_alike(one: Source, other: Source) -> None:
    before, after = one.request.to_json(), other.request.to_json()
    for name, value in before.items():
        if name not in _FREE and value != after[name]:
            raise InputError(
                f"{one.folder} and {other.folder} cannot be merged: {name} is {value!r} in"
                f" one and {after[name]!r} in the other, so that their scores do not compare"
            )
    if one.genes and other.genes and one.genes != other.genes:
        raise InputError(f"{one.folder} and {other.folder} cannot be merged: their genes differ")
    lengths = {len(row.candidate) for each in (one, other) for row in each.rows}
    if len(lengths) > 1:
        raise InputError(f"{one.folder} and {other.folder} cannot be merged: their genes differ")


def _require_same_data(one: Source, other: Source) -> None:
    """Data of one name may be others: a file of another folder, or one that has changed."""
    if one.data == other.data:
        return
    before, after = one.data["pictures"], other.data["pictures"]
    what = f"{before} pictures in one and {after} in the other"
    if before == after:
        what = "other pictures or labels in one than in the other"
    raise InputError(
        f"{one.folder} and {other.folder} cannot be merged: {one.request.data} held {what}, so that"
        " their scores do not compare"
    )


def _grouped(sources: Sequence[Source]) -> list[list[Source]]:
    """Runs of one fingerprint together; groups in the order of their first."""
    order = list(dict.fromkeys(each.request.fingerprint() for each in sources))
    placed = sorted(sources, key=lambda each: order.index(each.request.fingerprint()))
    return [list(group) for _, group in groupby(placed, lambda each: each.request.fingerprint())]


def _united(group: Sequence[Source]) -> tuple[Evaluation, ...]:
    """Every candidate once, in the order first met."""
    known: dict[Candidate, Evaluation] = {}
    for source in group:
        for row in source.rows:
            first = known.setdefault(row.candidate, row)
            if not row.same_score(first.score):
                raise InputError(
                    f"{source.folder} cannot be merged: it gave {list(row.candidate)} the score"
                    f" {row.score}, and a run of the same request {first.score}; they were not"
                    " scored on the same weights"
                )
    return tuple(known.values())


def _describe(aside: Path, groups: Sequence[Sequence[Source]]) -> None:
    if len(groups) == 1 and not is_merged(groups[0][0].folder):
        _continue(aside, groups[0])
        return
    first = [group[0] for group in groups]
    genes = next((each.genes for each in first if each.genes), ())
    runs = [
        {"name": each.name, "request": each.request.to_json(), "data": _data_of(group)}
        for each, group in zip(first, groups, strict=True)
    ]
    write_sealed(aside / MERGED, {"schema": SCHEMA, "genes": list(genes), "runs": runs})


def _data_of(group: Sequence[Source]) -> Mapping[str, Any]:
    """What the data of a run held, as far as any copy of it knows."""
    return next((each.data for each in group if each.data), {})


def _continue(aside: Path, group: Sequence[Source]) -> None:
    """A run that can be resumed: the first one's, without a result, which more may change."""
    run = RunFolder(group[0].folder)
    entries: dict[str, Any] = {k: v for k, v in run.read().items() if k != "result"}
    most = max(group, key=lambda each: each.request.evaluations).request
    if (run.path / "checkpoints").exists():  # a kill may have come before it
        with writing(aside / "checkpoints"):
            shutil.copytree(run.path / "checkpoints", aside / "checkpoints", dirs_exist_ok=True)
    if data := _data_of(group):
        entries["data"] = data
    write_sealed(aside / "run.json", {**entries, "request": most.to_json()})
