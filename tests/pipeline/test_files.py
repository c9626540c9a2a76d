"""What is written is whole or not there."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from prunas.errors import InputError, RunError
from prunas.pipeline import files
from prunas.pipeline.artifact import require_replaceable
from prunas.pipeline.files import in_place, replace_folder, replacing, sweep, write_text
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.tensor_file import read_tensors, write_tensors
from prunas.pipeline.weights import load_weights
from tests.pipeline.left_over import an_ended_process


def _write_half(file: Path, error: type[BaseException]) -> None:
    with replacing(file) as aside:
        aside.write_text("half of the n")
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_write_leaves_the_old_file_alone(
    error: type[BaseException], tmp_path: Path
) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")
    with pytest.raises(error):
        _write_half(file, error)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_what_is_written_appears_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "made" / "a.txt"
    with replacing(file) as aside:
        aside.write_text("new")
        assert not file.exists()
    assert file.read_text() == "new"
    assert list(file.parent.iterdir()) == [file]


def test_a_name_that_is_no_text_can_be_told(tmp_path: Path) -> None:
    write_text(tmp_path / "a", f"pictures of {os.fsdecode(_NO_TEXT)}")
    assert (tmp_path / "a").read_text() == r"pictures of caf\udce9"


@pytest.mark.parametrize("asks", [RunFolder.prepared, require_replaceable, read_tensors])
def test_a_place_whose_name_is_no_text_is_refused_for_weights(
    asks: Callable[[Path], object], tmp_path: Path
) -> None:
    place = tmp_path / os.fsdecode(_NO_TEXT)
    with pytest.raises(InputError, match=r"the name '.*caf\\udce9' is no UTF-8.*; rename it"):
        asks(place)
    assert not place.exists()


_NO_TEXT = b"caf\xe9"


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_file_gets_the_usual_permissions(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        write_text(tmp_path / "a", "")
        write_tensors(tmp_path / "b", {}, {})
        (tmp_path / "c").write_text("")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()} == {0o666 & ~mask}


def test_weights_that_may_not_be_read_are_not_said_to_be_missing() -> None:
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        file = Path(place) / "a.safetensors"
        write_tensors(file, {"a": torch.ones(2)}, {})
        file.chmod(0)
        with nobody():
            with pytest.raises(InputError, match=r"a\.safetensors may not be read by you; ask its"):
                read_tensors(file)
            with pytest.raises(InputError, match=r"cannot be read: .*Permission denied"):
                load_weights(nn.Linear(2, 2), file)


@contextmanager
def nobody() -> Iterator[None]:
    """Another user than root, who may read everything."""
    ours = os.geteuid()
    if not ours:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(ours)


def test_what_killed_processes_began_to_write_of_a_file_is_removed(tmp_path: Path) -> None:
    gone, alive = an_ended_process(), os.getppid()
    theirs = {f".a.txt.{alive}.part", f".a.{gone}.part", f".b.txt.{gone}.part", ".a.txt.part"}
    for name in (
        *theirs,
        f".a.txt.{gone}.part",
        f".a.txt.{os.getpid()}.part",
        f".a.txt.{9**99}.part",
    ):
        (tmp_path / name).write_text("half of the n")
    write_text(tmp_path / "a.txt", "whole")
    assert {each.name for each in tmp_path.iterdir()} == {"a.txt", *theirs}


def test_what_a_living_process_writes_is_not_swept(tmp_path: Path) -> None:
    theirs = tmp_path / f".table.csv.{os.getppid()}.part"
    for file in (theirs, tmp_path / f".table.csv.{an_ended_process()}.part"):
        file.write_text("half of the n")
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [theirs]


def test_what_a_kill_leaves_of_weights_is_swept(tmp_path: Path) -> None:
    """Safetensors writes under names of its own before it renames to the one it was given."""
    code = """
import os, signal, sys, threading
import numpy
from safetensors.numpy import save_file

def watch():
    while not any(name.startswith(".tmp") for name in os.listdir(sys.argv[1])):
        pass
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=watch).start()
while True:
    save_file({"a": numpy.zeros(3_000_000)}, sys.argv[1] + "/.a.safetensors.7.part")
"""
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=300)
    assert ended.returncode == -signal.SIGKILL
    assert [*tmp_path.glob(".tmp*")]
    sweep(tmp_path)
    assert not [*tmp_path.iterdir()]


def test_a_folder_is_never_without_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever of the renames is the last one, `in_place` finds the old folder or the new one."""
    for last in (0, 1, 2):
        folder = tmp_path / f"model-{last}"
        for text in ("old", "new"):
            (tmp_path / text).mkdir()
            (tmp_path / text / "name").write_text(text)
        replace_folder(tmp_path / "old", folder)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", _at_most(last, os.replace))
            patch.setattr(shutil, "rmtree", lambda *_, **__: None)
            if last < 2:
                with pytest.raises(KeyboardInterrupt):
                    replace_folder(tmp_path / "new", folder)
        expected = "new" if last == 2 else "old"
        if last == 2:
            replace_folder(tmp_path / "new", folder)
        assert (in_place(folder) / "name").read_text() == expected
        shutil.rmtree(tmp_path / "new", ignore_errors=True)


def _at_most(count: int, rename: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
    """Stops the process, as it were, instead of one rename more."""
    left = [None] * count

    def renamed(source: Path, target: Path) -> None:
        if not left:
            raise KeyboardInterrupt
        left.pop()
        rename(source, target)

    return renamed


def test_a_folder_left_as_a_link_is_not_followed(tmp_path: Path) -> None:
    """Earlier versions put it there where an artifact was a link."""
    elsewhere = tmp_path / "elsewhere"
    for name in ("elsewhere", "model", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(name)
    (tmp_path / ".model.old").symlink_to(elsewhere)
    replace_folder(tmp_path / "new", tmp_path / "model")
    assert (tmp_path / "model" / "name").read_text() == "new"
    assert (elsewhere / "name").read_text() == "elsewhere"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["elsewhere", "model"]


def test_a_kill_between_two_renames_leaves_one_to_be_replaced(tmp_path: Path) -> None:
    old, new, folder = (tmp_path / name for name in (".model.old", "new", "model"))
    for each in (old, new):
        each.mkdir()
        (each / "name").write_text(each.name)
    assert in_place(folder) == old
    replace_folder(new, folder)
    assert in_place(folder) == folder
    assert (folder / "name").read_text() == "new"
    assert [each.name for each in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("name", ["pipe", "link", "devices/stdout"])
def test_a_file_is_never_put_in_the_place_of_a_pipe_or_device(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a device folder, a made-up one, not even links to files are replaced."""
    monkeypatch.setattr(files, "_DEVICES", str(tmp_path / "devices"))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "file").write_text("")
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "stdout").symlink_to("../file")
    with pytest.raises(InputError, match=f"{name} is a pipe or a device.*; give the name of a"):
        files.require_writable_file(tmp_path / name)


def test_files_and_links_to_them_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nothing")
    for name in ("file", "link", "dangling", "new"):
        files.require_writable_file(tmp_path / name)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="cannot be written"):
        write_text(tmp_path / "file" / "a.txt", "text")
