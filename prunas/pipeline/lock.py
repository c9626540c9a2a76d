"""A run belongs to one process at a time."""

import fcntl
import json
import os
import platform
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EACCES, EAGAIN, ELOOP
from pathlib import Path
from typing import IO, Any, Final

from prunas.errors import InputError
from prunas.pipeline.files import sweep, writing

LOCK: Final = ".lock"


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """The folder is this process's own inside; what an earlier one left half-written is removed.

    The lock is the operating system's, held on `folder`/.lock: it goes when its process ends,
    however that ends, so that it can never be stale; a file that a killed process leaves says
    nothing. On a disk that cannot lock (some network disks) nobody is refused.

    Args:
        folder: it exists.

    Raises:
        InputError: another process has the folder, which the sentence names; or its .lock is a
            link or no regular file.
        RunError: the folder cannot be written.
    """
    with _locked(folder / LOCK) as opened:
        with writing(folder):
            opened.truncate(0)
            json.dump({"pid": os.getpid(), "host": platform.node()}, opened)
            opened.flush()
        sweep(folder)
        yield


def try_lock(opened: IO[Any]) -> bool:
    """Lock a file; False if another process has. On a disk that cannot lock it is anybody's."""
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (EAGAIN, EACCES)
    return True


@contextmanager
def _locked(file: Path) -> Iterator[IO[str]]:
    opened = _opened(file)
    with opened:
        try:
            yield opened
        finally:
            with suppress(OSError):
                file.unlink()  # ours still: whoever has opened it meanwhile finds it gone


def _opened(file: Path) -> IO[str]:
    """The locked file, of which the folder knows: not one that its holder has just removed."""
    while True:
        opened = _open(file)
        if not try_lock(opened):
            holder = _holder(opened)
            opened.close()
            raise InputError(
                f"{file.parent} is being worked on by {holder}; wait for it or stop it, and"
                " then start again"
            )
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(opened.fileno()), file.stat()):
                return opened
        opened.close()


def _open(file: Path) -> IO[str]:
    """The file, made if it is missing. It is emptied later, and so no link to another one."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK  # the last for pipes
    with writing(file.parent):
        try:
            descriptor = os.open(file, flags, 0o666)
        except OSError as error:
            if error.errno == ELOOP:
                raise InputError(f"{file} is a link, which prunas never makes; delete it") from None
            raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{file} is no regular file; delete it")
    return os.fdopen(descriptor, "r+", encoding="utf-8")


def _holder(opened: IO[str]) -> str:
    """Whoever wrote the file, in words."""
    opened.seek(0)
    try:
        found = json.loads(opened.read())
        pid, host = int(found["pid"]), str(found["host"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "another process"
    return f"process {pid}" + ("" if host == platform.node() else f" on {host}")
