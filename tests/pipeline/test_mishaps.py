"""Errors of the system and of memory, wherever they arise: a sentence and an exit code."""

import errno
import os
from pathlib import Path

import pytest
import torch

from prunas.pipeline.cli import main

LONG = "x" * 300
MODEL = "test_resnet"
SEARCH = ["search", MODEL, "--data", "digits", "--budget", "macs=40%"]
PRUNE = ["prune", MODEL, "--data", "digits", "--budget", "macs=40%"]


def told(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int) -> str:
    """The one sentence on the error stream."""
    assert main(arguments) == code
    out, err = capsys.readouterr()
    *_, last = err.splitlines()
    assert out == ""
    assert "Traceback" not in err
    return last


@pytest.mark.parametrize(
    "arguments",
    [
        [*SEARCH, "--out", LONG],
        [*SEARCH, "--weights", LONG],
        [*SEARCH, "--start", LONG],
        ["search", MODEL, "--data", LONG, "--budget", "macs=40%", "--out", "run"],
        [*SEARCH, "--latency-backend", "eager", "--latency-table", LONG],
        ["latency", MODEL, "--table", LONG],
        [*PRUNE, "--out", LONG],
        [*PRUNE, "--weights", LONG],
        ["runs", "list", LONG],
        ["runs", "merge", "one", "two", "--out", LONG],
        ["runs", "export", LONG, "--out", "table"],
        ["runs", "export", "run", "--out", LONG],
        ["demo", "--out", LONG],
        ["criteria", MODEL, "--out", LONG],
        ["coverage", MODEL, "--out", LONG],
    ],
    ids=lambda arguments: " ".join(arguments).replace(LONG, "LONG"),
)
def test_a_name_that_is_too_long(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    sentence = told(capsys, arguments, 2)
    assert sentence.startswith("prunas: ")
    assert LONG in sentence
    assert sentence.endswith("File name too long; mend that, or give another name")
    assert [each.name for each in tmp_path.iterdir()] in ([], ["runs"])


@pytest.mark.parametrize(
    "arguments",
    [["runs", "merge", "/one", "/two", "--out", "both"], ["criteria", MODEL, "--out", "page.html"]],
    ids=lambda arguments: arguments[0],
)
def test_a_working_folder_that_has_been_deleted(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    sentence = told(capsys, arguments, 2)
    assert sentence == "prunas: the folder that you are in is gone; go to another one"


def fail_with(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the work of `prunas report`."""

    def failed(run: Path) -> Path:
        raise error

    monkeypatch.setattr("prunas.pipeline.commands.report.write_report", failed)


@pytest.mark.parametrize(
    ("error", "sentence", "code"),
    [
        (
            PermissionError(errno.EACCES, os.strerror(errno.EACCES), "locked/run.json"),
            "locked/run.json: Permission denied; mend that, or give another name",
            2,
        ),
        (
            OSError(errno.EIO, os.strerror(errno.EIO), "run/run.json"),
            "run/run.json: Input/output error; what was finished is kept",
            1,
        ),
        (
            OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
            "Too many open files; what was finished is kept",
            1,
        ),
        (OSError("no cause"), "no cause; what was finished is kept", 1),
    ],
    ids=["locked", "broken", "too many", "unknown"],
)
def test_errors_of_the_system(
    error: OSError,
    sentence: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fail_with(error, monkeypatch)
    assert told(capsys, ["report", "run"], code) == f"prunas: {sentence}"


CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"
    " tried to allocate 400000000000000 bytes. Error code 12 (Cannot allocate memory)"
)
GPU = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.10 GiB"


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (RuntimeError(CPU), " (400000000000000 bytes more were asked for)"),
        (torch.OutOfMemoryError(GPU), " (20.00 MiB more were asked for)"),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be"), ""),
        (
            MemoryError("Unable to allocate 71.1 PiB for an array with shape (9,)"),
            " (71.1 PiB more were asked for)",
        ),
        (MemoryError(), ""),
    ],
    ids=["CPU", "GPU", "full GPU", "array", "Python"],
)
def test_memory_that_does_not_suffice(
    error: Exception,
    asked: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fail_with(error, monkeypatch)
    assert told(capsys, ["report", "run"], 1) == (
        f"prunas: there is not enough memory{asked}; take less with --batch-size, --accumulate or"
        " --input-size, whichever the command has; what was finished is kept"
    )


def test_torch_says_so_when_it_has_no_memory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "prunas.pipeline.commands.report.write_report", lambda run: torch.empty(10**14)
    )
    assert "there is not enough memory (400000000000000 bytes" in told(capsys, ["report", "r"], 1)


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(RuntimeError("the shapes do not match"), monkeypatch)
    with pytest.raises(RuntimeError, match="the shapes do not match"):
        main(["report", "run"])
