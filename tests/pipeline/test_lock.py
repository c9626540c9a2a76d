"""A run belongs to one process at a time, and to nobody once that has ended."""

import fcntl
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

import pytest

from prunas.errors import InputError
from prunas.pipeline.lock import LOCK, claimed


def _hold(folder: Path, channel: Connection) -> None:
    with claimed(folder):
        channel.send("mine")
        channel.recv()


def _holder(folder: Path) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_hold, args=(folder, theirs), daemon=True)
    process.start()
    assert ours.recv() == "mine"
    return process, ours


def test_the_second_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    process, channel = _holder(tmp_path)
    with (
        pytest.raises(InputError, match=f"is being worked on by process {process.pid}; wait for"),
        claimed(tmp_path),
    ):
        pass
    channel.send("enough")
    process.join()
    with claimed(tmp_path):
        assert (tmp_path / LOCK).exists()
    assert not list(tmp_path.iterdir())


def test_a_lock_whose_holder_has_just_removed_it_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking it, the file may go: two would then hold two files."""
    flock, tries = fcntl.flock, []

    def late(opened: IO[str], how: int) -> None:
        tries.append(how)
        if len(tries) == 1:
            (tmp_path / LOCK).unlink()
        flock(opened, how)

    monkeypatch.setattr("fcntl.flock", late)
    with claimed(tmp_path):
        assert len(tries) == 2
        with pytest.raises(InputError, match="is being worked on"), claimed(tmp_path):
            pass


@pytest.mark.parametrize("there", [True, False])
def test_a_lock_that_is_a_link_is_refused_and_not_followed(there: bool, tmp_path: Path) -> None:
    victim, run = tmp_path / "victim.txt", tmp_path / "run"
    run.mkdir()
    if there:
        victim.write_text("precious")
    (run / LOCK).symlink_to(victim)
    with pytest.raises(InputError, match=r"\.lock is a link, which prunas never"), claimed(run):
        pass
    assert victim.exists() == there
    assert not there or victim.read_text() == "precious"


def test_a_lock_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / LOCK)
    with pytest.raises(InputError, match=r"\.lock is no regular file"), claimed(tmp_path):
        pass


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    process, _ = _holder(tmp_path)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    gone = process.pid
    (tmp_path / f".run.json.{gone}.part").write_text("half of the n")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / f".full.safetensors.{gone}.part").write_text("half of the n")
    (tmp_path / ".model.part").mkdir()
    (tmp_path / ".model.part" / "arch.json").write_text("half of the n")
    (tmp_path / f".archive.sqlite.{gone}.part-wal").write_text("half of the n")
    (tmp_path / "notes.part").write_text("mine")
    with claimed(tmp_path):
        left = sorted(file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*"))
        assert left == [LOCK, "checkpoints", "notes.part"]


@pytest.mark.parametrize("content", ["", "[]", '{"pid": 1', '{"pid": "x", "host": 1}', "[" * 9999])
def test_a_lock_that_does_not_say_whose_it_is(content: str, tmp_path: Path) -> None:
    process, _ = _holder(tmp_path)
    (tmp_path / LOCK).write_text(content)
    with pytest.raises(InputError, match="worked on by another process"), claimed(tmp_path):
        pass
    process.kill()
    process.join()


def test_another_host_is_named(tmp_path: Path) -> None:
    process, _ = _holder(tmp_path)
    (tmp_path / LOCK).write_text('{"pid": 12, "host": "elsewhere"}')
    with pytest.raises(InputError, match="by process 12 on elsewhere"), claimed(tmp_path):
        pass
    process.kill()
    process.join()


def test_a_disk_that_cannot_lock_refuses_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with claimed(tmp_path), claimed(tmp_path):
        pass
