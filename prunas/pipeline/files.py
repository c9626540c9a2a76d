"""Writing so that nothing is ever half there: aside first, then renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import safetensors

from prunas.errors import RunError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the ways in which writing fails into a sentence."""
    try:
        yield
    except (OSError, safetensors.SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"{path} cannot be written ({reason}); what was finished is kept") from None


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Gives a path to write to, which becomes `file` at the end; a reader sees old or new.

    If anything is raised, Ctrl-C included, `file` stays as it was and nothing else is left.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    aside = file.with_name(f".{file.name}.{os.getpid()}.part")
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield aside
            os.replace(aside, file)
        finally:
            aside.unlink(missing_ok=True)


def write_text(file: Path, text: str) -> None:
    """Write `text` as UTF-8, aside and then renamed; errors as in `replacing`."""
    with replacing(file) as aside:
        aside.write_text(text, encoding="utf-8")


def replace_folder(new: Path, folder: Path) -> None:
    """Put the finished folder `new` in the place of `folder`."""
    with writing(folder):
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.replace(folder, old)
        os.replace(new, folder)
        shutil.rmtree(old, ignore_errors=True)
