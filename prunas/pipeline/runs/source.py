"""What a folder holds: the evaluations of a run, or of several that were merged."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from prunas.errors import InputError
from prunas.pipeline.request import Request
from prunas.pipeline.run_folder import RunFolder, are_contents
from prunas.pipeline.sealed import read_sealed
from prunas.search.evaluation import Evaluation
from prunas.search.record import read_archive

SCHEMA: Final = 1
MERGED: Final = "merged.json"

_Member = tuple[str, Request, Mapping[str, Any]]
"""One of those merged: its name, its request, and what its data held, empty if unknown."""


@final
@dataclass(frozen=True)
class Source:
    """The evaluations of one run.

    Attributes:
        name: of its folder.
        folder: where they are.
        request: what was asked of the run.
        genes: their names, in the order of a candidate's values; empty where no search has ended.
        rows: the evaluations in the order recorded.
        data: what its data held; empty where that was never written down.
    """

    name: str
    folder: Path
    request: Request
    genes: tuple[str, ...]
    rows: tuple[Evaluation, ...]
    data: Mapping[str, Any]


def is_merged(folder: Path) -> bool:
    return (folder / MERGED).exists() and not (folder / "run.json").exists()


def read_sources(folder: Path) -> list[Source]:
    """The run in a folder, or all that were merged in it.

    Raises:
        InputError: it holds neither, or is damaged.
    """
    if is_merged(folder):
        return _merged(folder)
    run = RunFolder.open(folder)
    request = run.request()
    rows = read_archive(run.archive).get(request.fingerprint(), ())
    genes = tuple(gene["name"] for gene in run.read().get("space", {}).get("genes", []))
    return [Source(_name(folder), folder, request, genes, rows, run.contents() or {})]


def fingerprints_of(folder: Path) -> list[str]:
    """Of the run in a folder, or of all that were merged in it, in the order of their archive.

    Raises:
        InputError: it holds neither.
    """
    if is_merged(folder):
        return [request.fingerprint() for _, request, _ in _members(folder)[1]]
    return [RunFolder.open(folder).request().fingerprint()]


def _merged(folder: Path) -> list[Source]:
    genes, known = _members(folder)
    record = read_archive(folder / "archive.sqlite")
    return [
        Source(name, folder, request, genes, record.get(request.fingerprint(), ()), data)
        for name, request, data in known
    ]


def _members(folder: Path) -> tuple[tuple[str, ...], list[_Member]]:
    """The names of the genes, and the runs."""
    file = folder / MERGED
    try:
        entries = read_sealed(file, ("schema", SCHEMA))
        genes = tuple(str(name) for name in entries["genes"])
        known = [_member(run) for run in entries["runs"]]
        if not known:
            raise ValueError("it names no run")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} cannot be read: {error}") from None
    return genes, known


def _member(run: Mapping[str, Any]) -> _Member:
    data = run.get("data", {})
    if data != {} and not are_contents(data):
        raise ValueError(f"the 'data' of a run is {data!r}"[:80])
    return str(run["name"]), Request.from_json(run["request"]), data


def _name(folder: Path) -> str:
    return folder.resolve().name
