"""What is said of a command that was stopped: what is kept, and how to go on."""

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from prunas.interruption import STOPPED
from prunas.pipeline.run_folder import RunFolder
from prunas.search.archive import Archive


@contextmanager
def stoppable(
    folder: Path | None = None, command: str = "", kept: Callable[[], str] | None = None
) -> Iterator[None]:
    """After Ctrl-C, say what is kept (`kept`, or the run's folder's) and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        if kept is None:
            said = "nothing was changed" if folder is None else _kept(RunFolder(folder), command)
        else:
            said = kept()
        complain(f"stopped; {said}", STOPPED)
        raise typer.Exit(STOPPED) from None


def _kept(folder: RunFolder, command: str) -> str:
    if not (folder.path / "run.json").exists():
        return "nothing had been made yet"
    scored = 0
    if folder.archive.exists():
        fingerprint = folder.request().fingerprint()
        with Archive(folder.archive, fingerprint=fingerprint) as archive:
            scored = len(archive)
    return (
        f"finished stages and {scored} evaluated candidates are kept in {folder.path};"
        f" go on with: {command}"
    )


def command_line(*words: object, device: str) -> str:
    """What is typed to go on, quoted for a shell; the device where it is not chosen by itself."""
    chosen = () if device == "auto" else ("--device", device)
    return shlex.join(map(str, ("prunas", *words, *chosen)))


def complain(sentence: object, code: int) -> int:
    """Say what is wrong on standard error; returns the exit code."""
    typer.echo(f"prunas: {sentence}", err=True)
    return code
