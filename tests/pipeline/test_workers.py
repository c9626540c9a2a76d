"""A run with workers: the same search, and what can be asked of them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from prunas.errors import InputError, RunError
from prunas.pipeline import alone, criteria_study, scores, workers
from prunas.pipeline.cli import main
from prunas.pipeline.commands.options import workers_of
from prunas.pipeline.comparison.runs import Cell
from prunas.pipeline.comparison.workers import played
from prunas.pipeline.crew import NOBODY
from prunas.pipeline.criteria_study import Bench
from prunas.pipeline.found import run_search_stages
from prunas.pipeline.progress import Progress
from prunas.pipeline.request import Request
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.scores import Score, job_of_worker, score_of_run
from prunas.pipeline.stages import Job
from prunas.pipeline.workers import HERE, Workers
from prunas.search.archive import Archive
from prunas.search.executors import PATIENT
from prunas.search.executors.simulated import FAR, Fate, Simulated
from prunas.supernet.space import Candidate
from tests.pipeline.pictures import bright_pictures

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was searched in this process."""
    place = tmp_path_factory.mktemp("here")
    request = Request(
        model="test_resnet",
        data=str(bright_pictures(place)),
        budget="macs=50%",
        evaluations=14,
        batch=7,
        epochs=1,
        supernet_epochs=1,
        finalists=1,
        batch_size=24,
        learning_rate=0.02,
        calibration=48,
        scoring=64,
    )
    job = Job(RunFolder.create(place / "run", request, resume=False), CPU, Progress(), HERE)
    run_search_stages(job)
    return place / "run"


def unscored(run: Path, folder: Path) -> RunFolder:
    """The same run, before its search."""
    shutil.copytree(run, folder)
    for file in folder.glob("archive.sqlite*"):
        file.unlink()
    return RunFolder.open(folder)


def rows(run: Path) -> list[tuple[Candidate, float, int]]:
    fingerprint = RunFolder.open(run).request().fingerprint()
    with Archive(run / "archive.sqlite", fingerprint=fingerprint) as archive:
        return [(row.candidate, row.score, row.asked_at) for row in archive.rows()]


def test_workers_give_the_same_search(searched: Path, tmp_path: Path) -> None:
    folder = unscored(searched, tmp_path / "run")
    run_search_stages(Job(folder, CPU, Progress(), Workers("processes", 2)))
    assert rows(tmp_path / "run") == rows(searched)
    ours, whole = folder.read(), RunFolder.open(searched).read()
    assert ours["result"] == whole["result"]
    assert ours["result"]["failed"] == 0
    assert [stage["name"] for stage in ours["stages"]] == [s["name"] for s in whole["stages"]]


def _dying(folder: str, device: str, name: str) -> Score:
    """Scores, until one that kills its worker whoever it is."""
    score = score_of_run(folder, device, name)
    doomed = Candidate(json.loads(Path(folder, "doomed.json").read_text()))

    def scored(candidate: Candidate) -> float:
        if candidate == doomed:
            raise SystemExit(9)
        return score(candidate)

    return scored


def test_a_candidate_that_kills_its_workers_fails_and_the_search_goes_on(
    searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = unscored(searched, tmp_path / "run")
    before = rows(searched)
    doomed = before[3][0]
    (tmp_path / "run" / "doomed.json").write_text(json.dumps(doomed))
    monkeypatch.setattr(scores, "score_of_run", _dying)
    job = Job(folder, CPU, Progress(), Workers("processes", 2))
    with pytest.warns(UserWarning, match="its process ended with code 9"):
        run_search_stages(job)
    found = rows(tmp_path / "run")
    assert len(found) == 14
    assert [repr(row) for row in found[:7]] == [
        repr((candidate, float("nan") if candidate == doomed else score, step))
        for candidate, score, step in before[:7]
    ]
    assert folder.read()["result"]["failed"] == 1


def test_ctrl_c_ends_workers_and_keeps_what_has_arrived(searched: Path, tmp_path: Path) -> None:
    unscored(searched, tmp_path / "run")
    code = """
import os, signal
from prunas.pipeline.cli import main
from prunas.search.archive import Archive
from prunas.search.executors import PATIENT
from prunas.search.executors.simulated import FAR, Fate, Simulated
record = Archive.record
def record_and_stop(archive, evaluation, **place):
    record(archive, evaluation, **place)
    if len(archive) == 3:
        os.killpg(0, signal.SIGINT)
if __name__ == "__main__":
    Archive.record = record_and_stop
    raise SystemExit(main())
"""
    program = tmp_path / "program.py"
    program.write_text(code)
    words = ["search", "--resume", "--out", str(tmp_path / "run"), "--workers", "2"]
    ended = subprocess.run(
        [sys.executable, str(program), *words, "--device", "cpu"],
        capture_output=True,
        text=True,
        start_new_session=True,
    )
    assert ended.returncode == 130
    assert "Traceback" not in ended.stderr
    assert "3 evaluated candidates are kept" in ended.stderr
    assert f"go on with: prunas {' '.join(words)} --device cpu" in ended.stderr
    kept = rows(tmp_path / "run")
    assert len(kept) == 3
    assert set(kept) <= set(rows(searched))
    assert main([*words[:-2], "--device", "cpu", "--json"]) == 0
    assert rows(tmp_path / "run") == rows(searched)


def test_a_worker_leaves_the_run_as_it_is(searched: Path) -> None:
    before = (searched / "run.json").read_bytes()
    candidate, score, _ = rows(searched)[0]
    assert score_of_run(str(searched), "cpu", "supernet")(candidate) == score
    assert (searched / "run.json").read_bytes() == before


def test_a_worker_that_does_not_see_the_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lies on a disk that they share, under the same path"):
        job_of_worker(str(tmp_path / "elsewhere"), "cpu")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"kind": "threads"}, "no executor is called 'threads'; choose here, processes, ray"),
        ({"kind": "processes", "count": 0}, "0 workers evaluate nothing"),
        ({"count": 3}, "one process cannot be 3 workers"),
        ({"kind": "processes"}, "say how many processes: --workers 2"),
        ({"kind": "processes", "count": 2, "address": "auto"}, "only Ray has an address"),
        ({"accelerators": 1.0}, "give --workers as well"),
        ({"limit": 5.0}, "this process cannot time itself out; give --workers with --limit"),
        ({"work_limit": 5.0}, "this process cannot time itself out; give --workers with --limit"),
        ({"kind": "ray", "accelerators": 1.5}, "a worker cannot have 1.5 GPUs"),
        ({"kind": "ray", "accelerators": -1.0}, "a worker cannot have -1 GPUs"),
        ({"kind": "ray", "accelerators": float("nan")}, "a worker cannot have nan GPUs"),
    ],
)
def test_workers_that_make_no_sense(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Workers(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("count", "each", "there", "shares"),
    [
        (3, 0.5, ["0", "1"], ["0", "0", "1"]),
        (4, 0.3, ["5", "7"], ["5", "5", "5", "7"]),
        (2, 1, ["0", "1"], ["0", "1"]),
        (2, 2, ["0", "1", "2", "3"], ["0,1", "2,3"]),
    ],
)
def test_accelerators_are_shared_out(
    count: int, each: float, there: list[str], shares: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(there))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join([*there, "99"]))
    assert workers._shares(count, each) == shares
    with pytest.raises(InputError, match=f"do not fit on the {len(there)} that torch can use"):
        workers._shares(9, each)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--workers", "0"], "0 workers evaluate nothing; give 1 or more"),
        (["--executor", "threads"], "no executor is called 'threads'"),
        (["--workers", "2", "--limit", "0"], "--limit 0 leaves no time"),
        (["--batch", "0"], "batch=0 must be at least 1"),
        (["--batch", "8", "--in-flight", "7"], "in_flight=7 is less than a batch of 8"),
    ],
)
def test_options_that_make_no_sense(
    options: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = ["search", "test_resnet", "--data", "digits", "--budget", "macs=50%"]
    assert main([*usual, "--out", str(tmp_path / "run"), *options]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# -- how long they may take ------------------------------------------------------------------------

LENGTHS = (5.0, 1200.0, 1200.0, 7200.0, 40000.0)  # as of a run resumed shortly before an end


@pytest.fixture
def imagined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers under a virtual clock; the n-th piece of work takes the n-th of the lengths."""

    def crew(workers: Workers, recipe: object, threads: int) -> Simulated[Any, str]:
        lengths = iter(LENGTHS)
        return Simulated(lambda task, worker: Fate(next(lengths, FAR), "done"), [(0, 2)])

    monkeypatch.setattr(Workers, "_crew", crew)


def trainings(workers: Workers) -> list[object]:
    job: Any = SimpleNamespace(crew=NOBODY, workers=workers, device=CPU, folder=RunFolder(Path()))
    alone_ones: Any = range(len(LENGTHS))
    return list(alone._run(job, alone_ones, alone_ones))


def criteria(workers: Workers) -> list[object]:
    bench: Any = SimpleNamespace(subject=None)
    names = [str(each) for each in range(len(LENGTHS))]
    return list(
        criteria_study._spread(bench, Bench.judging, names, workers, Progress(), "criteria")
    )


def players(workers: Workers) -> list[object]:
    anything: Any = None
    cells = [Cell(f"{n}", "space", "budget", n) for n in range(len(LENGTHS))]
    return list(played(cells, anything, anything, workers))


LONG = {"trainings": trainings, "criteria": criteria, "runs of a comparison": players}
Long = Callable[[Workers], list[object]]


@pytest.mark.usefixtures("imagined")
@pytest.mark.parametrize("work", LONG.values(), ids=LONG)
def test_what_takes_longer_than_before_is_not_taken_for_a_hang(work: Long) -> None:
    assert len(work(Workers("processes", 2))) == len(LENGTHS)
    assert len(work(Workers("processes", 2, limit=1.0))) == len(LENGTHS)  # that of evaluations


@pytest.mark.usefixtures("imagined")
@pytest.mark.parametrize("work", LONG.values(), ids=LONG)
def test_a_limit_that_was_asked_for_is_kept(work: Long) -> None:
    with pytest.raises(RunError, match=r"it took more than 7.3e\+03 s"):
        work(Workers("processes", 2, work_limit=7300.0))


def test_limits_are_of_evaluations_or_of_other_work() -> None:
    assert Workers("processes", 2).patience == PATIENT
    assert Workers("processes", 2, work_limit=9.0).patience == PATIENT
    assert Workers("processes", 2, limit=9.0).patience.limit(100.0) == 9.0
    assert workers_of(2, None, None, None, work_limit=9.0) == (
        Workers("processes", 2, work_limit=9.0),
        ["--workers", 2, "--limit", 9.0],
    )


@pytest.mark.parametrize("command", ["train RUN", "rank RUN", "criteria test_resnet"])
def test_commands_of_other_work_take_a_limit(
    command: str, searched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command.replace("RUN", str(searched)).split()
    assert main([*words, "--workers", "2", "--limit", "0"]) == 2
    assert "--limit 0 leaves no time to do anything" in capsys.readouterr().err


def test_how_many_are_asked_at_once() -> None:
    request = Request(model="test_resnet", data="digits", budget="macs=50%")
    assert request.asked_at_once == 10
    assert replace(request, batch=3).asked_at_once == 3
    assert replace(request, in_flight=5).asked_at_once == 1
    assert replace(request, in_flight=120).asked_at_once == 12
    assert replace(request, in_flight=120, batch=60).asked_at_once == 60
    assert replace(request, in_flight=120).fingerprint() == request.fingerprint()
