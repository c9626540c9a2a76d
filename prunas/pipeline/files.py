"""Writing so that nothing is ever half there: aside first, then renamed."""

import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import safetensors

from prunas.errors import InputError, RunError
from prunas.flushing import flush


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the ways in which writing fails into a sentence."""
    try:
        yield
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError(
            f"{path} cannot be written ({_reason(error)}); what was finished is kept"
        ) from None


def _reason(error: Exception) -> object:
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        _, _, first = error.args[0][0]  # of what could not be copied of a folder
        return first
    return getattr(error, "strerror", None) or error


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Gives a path to write to, which becomes `file` at the end; a reader sees old or new.

    If anything is raised, Ctrl-C included, `file` stays as it was and nothing else is left. A
    process that is killed may leave the path; the next one that writes `file` removes it, and
    `sweep`. What is written is on the disk before it gets its name, so that a power cut leaves old
    or new, too. It may be read by whoever may read what `open` makes, whatever wrote it.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = aside_of(file)
        try:
            aside.touch()
            usual = stat.S_IMODE(aside.stat().st_mode)
            yield aside
            if usual & ~aside.stat().st_mode:  # safetensors makes files that are its user's alone
                aside.chmod(usual)
            flush(aside)
            os.replace(aside, file)
        finally:
            aside.unlink(missing_ok=True)
        _flush_names(file.parent)


def write_text(file: Path, text: str) -> None:
    r"""Write `text` as UTF-8, aside and then renamed; errors as in `replacing`.

    What is no text, as the names of some old files, is written as \udc and its byte.
    """
    with replacing(file) as aside:
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")


def aside_of(path: Path) -> Path:
    """Where this process writes what becomes `path`; what killed ones left there is removed."""
    for left in sorted(path.parent.glob(".*")):
        parts = _LEFT_OVER.fullmatch(left.name)
        if parts and parts["of"] == path.name and parts["pid"] and not _is_another(parts["pid"]):
            _remove(left)
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def replace_folder(new: Path, folder: Path) -> None:
    """Put the finished folder `new` in the place of `folder`; of a link, give what is `linked`."""
    with writing(folder):
        old = _old(folder)
        _flush_names(new)
        if folder.exists():  # else a kill may have left it there
            _remove(old)
            os.replace(folder, old)
        os.replace(new, folder)
        _flush_names(folder.parent)
        _remove(old)


def in_place(folder: Path) -> Path:
    """Where the folder is: `replace_folder` may have been killed between its two renames."""
    old = _old(linked(folder))
    return old if old.exists() and not folder.exists() else folder


def linked(folder: Path) -> Path:
    """What a link names, which is replaced while the link stays; else the folder itself."""
    return Path(os.path.realpath(folder)) if folder.is_symlink() else folder


def sweep(folder: Path, *, below: bool = True) -> None:
    """Remove what killed processes had begun to write in `folder`, and `below` it.

    What another process that lives is writing, an export say, stays.
    """
    found = folder.rglob(".*") if below else folder.glob(".*")
    for left in sorted(found):
        parts = _LEFT_OVER.fullmatch(left.name)
        if parts and not (parts["pid"] and _is_another(parts["pid"])):
            _remove(left)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def require_regular(file: Path) -> None:
    """Refuse pipes and devices, which may never end.

    Raises:
        OSError: there is no such file.
        ValueError: it is no regular file.
    """
    if not stat.S_ISREG(file.stat().st_mode):
        raise ValueError("it is no regular file")


def require_text(path: Path) -> None:
    """Refuse a name that is no text, by which files of weights cannot be opened.

    Raises:
        InputError: it is none.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise InputError(
            f"the name {str(path)!r} is no UTF-8, and no weights can be read from there; rename it,"
            " or give another place"
        ) from None


def require_elsewhere(folder: Path) -> None:
    """Refuse to replace the folder that this process works in, which would then be nowhere.

    Raises:
        InputError: it is that folder.
    """
    if folder.resolve() == Path.cwd():
        raise InputError(
            f"{folder} is the folder that you are in, which would be replaced; leave it, or give"
            " another one"
        )


def require_writable(path: Path) -> None:
    """Refuse a file or folder that could not be written, before the work for it begins.

    Raises:
        InputError: the folder that it would lie in is none, or is not ours to write.
    """
    above = next(each for each in path.absolute().parents if os.path.exists(each))
    if not above.is_dir():
        raise InputError(f"{path} cannot be written ({above} is no folder); name another place")
    if not os.access(above, os.W_OK | os.X_OK):
        raise InputError(
            f"{path} cannot be written ({above} is write-protected); name another place"
        )


def require_writable_file(file: Path) -> None:
    """The same for a file alone.

    Raises:
        InputError: it cannot be written, is a folder, or would replace a pipe or a device.
    """
    if file.is_dir():
        raise InputError(f"{file} is a folder; give the name of a file with --out")
    named = os.path.realpath(file.parent) == _DEVICES  # /dev/stdout may well lead to a regular file
    if named or (file.exists() and not file.is_file()):
        raise InputError(
            f"{file} is a pipe or a device, which a file would replace; give the name of a file"
            " with --out"
        )
    require_writable(file)


def is_left_over(path: Path) -> bool:
    """Whether a killed process may have left it: nothing that anybody would miss."""
    return _LEFT_OVER.fullmatch(path.name) is not None


_DEVICES: Final = "/dev"

_LEFT_OVER: Final = re.compile(r"\.(?P<of>.*?)(\.(?P<pid>[0-9]+))?\.part(-\w+)?|\.tmp\w{6}")
"""SQLite's own files have an ending more; safetensors writes aside in its own way."""


def _is_another(pid: str) -> bool:
    """Whether another process of this number lives on this machine."""
    if int(pid) == os.getpid():  # an earlier one had it: containers begin to count anew
        return False
    try:
        os.kill(int(pid), 0)  # no signal, but the question whether it could be sent
    except PermissionError:
        return True  # it is somebody else's
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _flush_names(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the disk knows how."""
    with suppress(OSError):
        flush(folder)
