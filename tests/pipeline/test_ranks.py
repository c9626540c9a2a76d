"""Two processes that train together, against one."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from prunas.errors import InputError
from prunas.pipeline import ranks
from prunas.pipeline.cli import main
from prunas.pipeline.crew import launched
from prunas.pipeline.ranks import ALONE, Ranks
from prunas.pipeline.recipe import Recipe
from prunas.pipeline.training import train
from tests.pipeline import together
from tests.pipeline.pictures import bright_pictures
from tests.pipeline.together import Result


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def launch(count: int, *words: object) -> list[subprocess.CompletedProcess[str]]:
    """Processes as a launcher begins them, all with the same command."""
    about = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", *map(str, words)]
    running = [
        subprocess.Popen(
            command,
            env={**os.environ, **about, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    said = [each.communicate() for each in running]
    return [
        subprocess.CompletedProcess(command, each.returncode, *both)
        for each, both in zip(running, said, strict=True)
    ]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Result]]:
    """The results of each of two processes."""
    pytest.importorskip("accelerate")
    folder = tmp_path_factory.mktemp("together")
    for ended in launch(2, "tests.pipeline.together", folder):
        assert ended.returncode == 0, ended.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def assert_same(first: Result, second: Result) -> None:
    assert first["epochs"] == second["epochs"]
    for name, tensor in first["state"].items():
        assert torch.equal(tensor, second["state"][name]), name


@pytest.mark.parametrize("case", ["without_norms", "with_norms", "supernet", "pruningnet"])
def test_two_processes_train_what_one_does(
    case: str, both: list[dict[str, Result]], tmp_path: Path
) -> None:
    first, second = (each[case] for each in both)
    assert_same(first, second)
    alone = together.CASES[case](ALONE, tmp_path)
    for name, tensor in alone["state"].items():
        torch.testing.assert_close(first["state"][name], tensor, rtol=1e-3, atol=1e-4)
    for ours, theirs in zip(first["epochs"], alone["epochs"], strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
        assert ours.accuracy == pytest.approx(theirs.accuracy, abs=1e-6)


def test_an_interrupted_training_goes_on_in_both(both: list[dict[str, Result]]) -> None:
    for each in both:
        assert_same(each["interrupted"], each["uninterrupted"])
    assert_same(both[0]["interrupted"], both[1]["interrupted"])


def test_dropout_differs_between_processes(both: list[dict[str, Result]], tmp_path: Path) -> None:
    """Else the weights would be, but for rounding, those of one process without dropout."""
    alone = together.uninterrupted(ALONE, tmp_path)
    assert not torch.allclose(
        alone["state"]["0.weight"], both[0]["uninterrupted"]["state"]["0.weight"], atol=1e-4
    )


def test_what_the_first_process_refuses_is_refused_in_all(both: list[dict[str, Result]]) -> None:
    first, second = (each["refused"]["said"] for each in both)
    assert first == second
    assert "cannot be read" in first


def test_gradients_are_summed_and_absent_where_nobody_has_one(
    both: list[dict[str, Result]],
) -> None:
    for each in both:
        found: dict[str, Any] = each["gradients"]
        assert found["measures"].tolist() == [2, 1]
        one, two, none = found["gradients"]
        assert torch.equal(one, torch.ones(2, 3))
        assert torch.equal(two, torch.full((2, 3), 2.0))
        assert none is None


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(InputError, match="5 images cannot be shared by 2 processes in 3 parts"):
        Ranks(0, 2).require_share(5, 3)
    with pytest.raises(InputError, match="4 images cannot be shared by 1 processes in 5 parts"):
        train(together.network(0), together.digits(4), Recipe(1, accumulate=5), seed=0)


# -- variables that a launcher has left over -------------------------------------------------------


@pytest.fixture
def left_over(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The variables of the first of two processes, without the second one."""
    launched.cache_clear()
    for name in ("LOCAL_WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.delenv(name, raising=False)
    said = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ranks, "_MEETING", timedelta(seconds=1))
    yield monkeypatch
    launched.cache_clear()


@pytest.mark.parametrize("rank", [0, 1])
def test_processes_that_nobody_has_begun_are_not_waited_for(
    rank: int, left_over: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("accelerate")
    left_over.setenv("RANK", str(rank))
    assert main(["runs", "list", "."]) == 1
    *_, last = capfd.readouterr().err.splitlines()  # after what torch says of it
    assert last.startswith(
        f"prunas: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT say that this is process {rank} of 2,"
        f" which meet at 127.0.0.1:{os.environ['MASTER_PORT']}, but they did not ("
    )
    assert last.endswith("; or none, and: unset RANK WORLD_SIZE MASTER_ADDR MASTER_PORT")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORLD_SIZE", "abc"),
        ("WORLD_SIZE", ""),
        ("RANK", "2"),
        ("RANK", "-1"),
        ("MASTER_PORT", ""),
        ("MASTER_PORT", "65536"),
        ("LOCAL_WORLD_SIZE", "two"),
        ("LOCAL_RANK", ""),
    ],
)
def test_what_no_launcher_says_is_refused(
    name: str, value: str, left_over: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    left_over.setenv(name, value)
    assert main(["runs", "list", "."]) == 2
    assert f"{name}={value!r} is nothing that a launcher says; begin" in capsys.readouterr().err


def test_an_address_that_is_empty(
    left_over: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("accelerate")
    left_over.setenv("MASTER_ADDR", "")
    assert main(["runs", "list", "."]) == 1
    assert "MASTER_ADDR expected, but not set); begin all" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["runs", "--help"], []])
def test_help_waits_for_nobody(words: list[str], left_over: pytest.MonkeyPatch) -> None:
    left_over.setattr(ranks, "rendezvous", lambda *_, **__: pytest.fail("it waits"))
    assert main(words) == (0 if words else 2)


# -- the program -----------------------------------------------------------------------------------

OPTIONS = [
    *("--budget", "macs=50%", "--evaluations", 4, "--seeds", 1, "--epochs", 1),
    *("--supernet-epochs", 1, "--finalists", 2, "--finalist-epochs", 1, "--final-epochs", 1),
    *("--batch-size", 24, "--learning-rate", 0.02, "--device", "cpu"),
]


def test_the_program_ends_with_one_voice(tmp_path: Path) -> None:
    """A usage error is told once, and all processes have its exit code."""
    pytest.importorskip("accelerate")
    first, second = launch(
        2, "prunas.pipeline.cli", "search", "test_resnet", "--data", tmp_path / "none", *OPTIONS
    )
    assert (first.returncode, second.returncode) == (2, 2)
    assert first.stderr.startswith("prunas: there is no data set")
    assert second.stderr == ""


@pytest.mark.slow
def test_a_run_of_two_processes(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    data, out = bright_pictures(tmp_path), tmp_path / "run"
    words = ["search", "test_resnet", "--data", data, *OPTIONS, "--out", out]
    first, second = launch(2, "prunas.pipeline.cli", *words, "--json")
    assert (first.returncode, second.returncode) == (0, 0), (first.stderr, second.stderr)
    assert second.stdout == ""
    found = json.loads(first.stdout)["result"]["candidate"]
    first, second = launch(2, "prunas.pipeline.cli", "train", out, "--device", "cpu", "--json")
    assert (first.returncode, second.returncode) == (0, 0), (first.stderr, second.stderr)
    result = json.loads(first.stdout)["result"]
    assert result["candidate"] == found
    assert set(result["accuracy"]) == {"full", "uniform", "found"}
    assert not list(out.rglob("*.part"))


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    first, second = launch(2, "tests.pipeline.together", tmp_path, "dying")
    assert first.returncode == 1
    assert "another process of this training has ended" in first.stderr
    assert second.returncode == -signal.SIGKILL
