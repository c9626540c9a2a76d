"""A full or read-only disk at a write: a sentence, nothing half-written, and the run goes on."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from prunas.errors import InputError, RunError
from prunas.pipeline import alone
from prunas.pipeline.cli import main
from prunas.pipeline.finals import train_finals
from prunas.pipeline.found import run_search_stages
from prunas.pipeline.lock import claimed
from prunas.pipeline.progress import Progress
from prunas.pipeline.report import write_report
from prunas.pipeline.request import Request
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.stages import Job
from tests.faults.disk import Disk, finished, install
from tests.faults.kills import outcome, recorded, same_weights, whole
from tests.pipeline.made_up_run import a_run, evaluations
from tests.pipeline.pictures import bright_pictures


@pytest.mark.parametrize(
    "share", [0.08, pytest.param(1.0, marks=pytest.mark.slow)], ids=["some", "every"]
)
def test_a_run_goes_on_after_every_write_that_the_disk_refused(
    share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alone, "_cores", lambda: 1)
    request = small_request(tmp_path)
    _all_stages(tmp_path / "undisturbed", request)
    expected = outcome(tmp_path / "undisturbed")
    disk, folder = Disk(share), tmp_path / "run"
    with monkeypatch.context() as patch:
        install(disk, patch)
        met = 0
        for _ in _until_done(folder, request, disk):
            _, *others = disk.refused[met:]
            on_the_way_out = ["run.json, number" in each for each in others]
            assert all(on_the_way_out), f"one of {disk.refused[met:]} was not noticed"
            met = len(disk.refused)
            known = whole(folder)
            assert known.items() <= dict(_rows(expected)).items()
        assert len(disk.refused) == met, f"{disk.refused[met:]} was not noticed"
    assert len(disk.refused) >= 3
    assert outcome(folder) == expected
    assert same_weights(folder / "model", tmp_path / "undisturbed" / "model")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs that can be merged, and a third with a damaged archive."""
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        a_run(tmp_path / f"run-{seed}", evaluations(4), evaluations=20 + seed)
    damaged = a_run(tmp_path / "damaged", evaluations(4)) / "archive.sqlite"
    with closing(sqlite3.connect(damaged)) as connection, connection:
        connection.execute("UPDATE evaluations SET macs = 7 WHERE id = 3")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "least"),
    [
        (["export", "run-0", "--out", "tables/table.csv"], 4),
        (["merge", "run-0", "run-1", "--out", "places/merged"], 8),
        (["recover", "damaged"], 8),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_command_is_repeated_after_every_write_that_the_disk_refused(
    words: list[str],
    least: int,
    runs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    disk, before = Disk(1.0), _contents(runs)
    with monkeypatch.context() as patch:
        install(disk, patch)
        code = 1
        while code:
            disk.start("")
            met = len(disk.refused)
            code = main(["runs", *words])
            _, said = capsys.readouterr()
            if not code:
                break
            assert code == 1, said
            assert len(disk.refused) == met + 1, disk.refused[met:]
            assert (said.count("\n"), said.count("[(")) == (1, 0), said
            assert any(reason in said for reason in _REASONS), said
            whole_copies = {before["damaged/archive.sqlite"]}
            new = {name: file for name, file in _contents(runs).items() if name not in before}
            assert set(new.values()) <= whole_copies, f"{sorted(new)} is there after {said}"
            assert before.items() <= _contents(runs).items()
    assert len(disk.refused) >= least
    assert _outcome(runs, words[0])


def _contents(place: Path) -> dict[str, bytes]:
    found = (file for file in place.rglob("*") if file.is_file())
    return {file.relative_to(place).as_posix(): file.read_bytes() for file in found}


def _outcome(place: Path, command: str) -> bool:
    """Whether a command has come to what it is for."""
    if command == "export":
        return (place / "tables" / "table.csv").read_text().count("\n") == 5
    folder, number = ("places/merged", 4) if command == "merge" else ("damaged", 3)
    return len(recorded(place / folder)) == number


def _until_done(folder: Path, request: Request, disk: Disk) -> Iterator[None]:
    """Start again after every failure; yields after each."""
    while True:
        disk.start(finished(folder))
        try:
            _all_stages(folder, request)
        except (RunError, InputError) as error:
            said = str(error)
            assert any(reason in said for reason in _REASONS), said
            yield
        else:
            return


_REASONS = ("No space left", "Read-only file", "disk is full", "readonly database")


def _rows(found: dict[str, object]) -> Iterator[tuple[object, object]]:
    rows = found["rows"]
    assert isinstance(rows, list)
    return ((candidate, score) for candidate, score, *_ in rows)


def _all_stages(folder: Path, request: Request) -> None:
    with claimed(RunFolder.prepared(folder)):
        job = Job(RunFolder.create(folder, request, resume=True), torch.device("cpu"), Progress())
        run_search_stages(job)
        train_finals(job)
        write_report(folder)


def small_request(place: Path) -> Request:
    request = Request(model="test_resnet", data=str(bright_pictures(place)), budget="macs=50%")
    return replace(
        request,
        evaluations=5,
        seeds=1,
        epochs=1,
        supernet_epochs=2,
        finalists=2,
        finalist_epochs=1,
        final_epochs=1,
        batch_size=24,
        calibration=48,
    )
