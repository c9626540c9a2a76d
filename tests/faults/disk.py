"""A disk that refuses writes: each of them once, or some of them."""

import errno
import json
import os
import re
import shutil
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from prunas.pipeline import files, tensor_file
from prunas.pipeline.lock import LOCK
from prunas.search import archive, record
from tests.faults.kills import recorded


class Disk:
    """Refuses a share of all writes when they are first tried, and takes them afterwards.

    A write is known by what had been finished when the program started, by what is written and how
    often it has been written since: a program that is started again over the same things makes the
    same writes. Half of the refusals say that the disk is full, half that it is read-only.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._finished = ""
        self._done: Counter[str] = Counter()
        self.refused: list[str] = []

    def start(self, finished: str) -> None:
        """The program is started; this is finished."""
        self._finished = finished
        self._done.clear()

    def write(self, how: str, what: str | Path) -> int | None:
        """The error of a write; None if it may go on."""
        name = f"{how} {re.sub(r'[.][0-9]+[.]part', '', Path(what).name)}"
        write = f"{name}, number {self._done[name]} after {self._finished}"
        chance = crc32(write.encode())
        if write not in self.refused and chance % 1000 < 1000 * self._share:
            self.refused.append(write)
            return (errno.ENOSPC, errno.EROFS)[chance // 1000 % 2]
        self._done[name] += 1
        return None

    def require(self, how: str, what: str | Path) -> None:
        """Raise the error of a write; a disk that becomes full has taken the beginning."""
        if code := self.write(how, what):
            if code == errno.ENOSPC and how in ("write", "save", "copy"):
                descriptor = os.open(what, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.write(descriptor, b"the beginn")
                os.close(descriptor)
            raise OSError(code, os.strerror(code))


def install(disk: Disk, patch: pytest.MonkeyPatch) -> None:
    """Let everything that prunas writes go through the disk."""
    for owner, name, how in (
        (os, "replace", "rename"),
        (files, "flush", "flush"),
        (Path, "mkdir", "make"),
        (shutil, "copyfile", "copy"),
        (tensor_file, "save_file", "save"),
    ):
        patch.setattr(owner, name, _guarded(disk, getattr(owner, name), how))
    patch.setattr(Path, "open", _guarded_open(disk, Path.open))
    patch.setattr(os, "open", _guarded_lock(disk, os.open))
    patch.setattr(archive, "_connected", lambda path, patience: _connected(disk, path, patience))
    patch.setattr(record, "_made", lambda path: _connected(disk, path, 5.0))


def _guarded(disk: Disk, function: Any, how: str) -> Any:
    """The function, of which the last path among its arguments is what is written."""

    def guarded(*arguments: Any, **options: Any) -> Any:
        paths = [each for each in arguments if isinstance(each, str | Path)]
        # folders that are there are not made; that their names are flushed is but a precaution
        if how not in ("make", "flush") or not Path(paths[0]).is_dir():
            disk.require(how, paths[-1])
        return function(*arguments, **options)

    return guarded


def _guarded_open(disk: Disk, function: Any) -> Any:
    """`Path.open`, and with it `write_text` and `write_bytes`."""

    def guarded(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if set(mode) & set("wax+"):
            disk.require("write", path)
        return function(path, mode, *arguments, **options)

    return guarded


def _guarded_lock(disk: Disk, function: Any) -> Any:
    """`os.open`, of which the lock is what prunas makes."""

    def guarded(path: Any, flags: int, *arguments: Any, **options: Any) -> Any:
        if flags & os.O_CREAT and Path(path).name == LOCK:
            disk.require("lock", path)
        return function(path, flags, *arguments, **options)

    return guarded


def _connected(disk: Disk, path: Path, patience: float) -> sqlite3.Connection:
    class Connection(sqlite3.Connection):
        def execute(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
            verb = statement.split()[0]
            if verb in ("INSERT", "BEGIN", "CREATE", "COMMIT"):
                code = disk.write(verb.lower(), path)
                if code is not None:
                    raise _refusal(code)
            return super().execute(statement, *arguments)

    return sqlite3.connect(path, patience, isolation_level=None, factory=Connection)


def _refusal(code: int) -> sqlite3.OperationalError:
    full = code == errno.ENOSPC
    said = "database or disk is full" if full else "attempt to write a readonly database"
    error = sqlite3.OperationalError(said)
    error.sqlite_errorcode = sqlite3.SQLITE_FULL if full else sqlite3.SQLITE_READONLY
    return error


def finished(folder: Path) -> str:
    """What a run has finished, as one word: stages, evaluations, trained tensors, other files."""
    if not (folder / "run.json").exists():
        return "nothing"
    entries = json.loads((folder / "run.json").read_text())
    known = [*sorted(entries), *(stage["name"] for stage in entries["stages"])]
    for file in sorted(folder.rglob("*")):
        if file.suffix == ".safetensors":
            known.append(f"{file.name} {crc32(_tensors(file))}")
        elif file.suffix == ".html":
            known.append(file.name)
    known += [str(row.candidate) for row in recorded(folder)]
    return f"{crc32(' '.join(known).encode()):08x}"


def _tensors(file: Path) -> bytes:
    """The bytes behind the header, where notes such as times are."""
    written = file.read_bytes()
    return written[8 + int.from_bytes(written[:8], "little") :]
