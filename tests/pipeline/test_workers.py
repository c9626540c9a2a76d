"""A run with workers: the same search, and what can be asked of them."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from prunas.errors import InputError
from prunas.pipeline import scores, workers
from prunas.pipeline.cli import main
from prunas.pipeline.found import run_search_stages
from prunas.pipeline.progress import Progress
from prunas.pipeline.request import Request
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.scores import Score, job_of_worker, score_of_run
from prunas.pipeline.stages import Job
from prunas.pipeline.workers import HERE, Workers
from prunas.search.archive import Archive
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


def test_how_many_are_asked_at_once() -> None:
    request = Request(model="test_resnet", data="digits", budget="macs=50%")
    assert request.asked_at_once == 10
    assert replace(request, batch=3).asked_at_once == 3
    assert replace(request, in_flight=5).asked_at_once == 1
    assert replace(request, in_flight=120).asked_at_once == 12
    assert replace(request, in_flight=120, batch=60).asked_at_once == 60
    assert replace(request, in_flight=120).fingerprint() == request.fingerprint()
