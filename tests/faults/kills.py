"""Runs that are killed with signal 9 at a moment, and what must be true then and afterwards."""

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any, Final

import torch
from safetensors.torch import load_file

from prunas.pipeline.artifact import load
from prunas.pipeline.cli import main
from prunas.pipeline.files import in_place, is_left_over
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.sealed import read_sealed
from prunas.pipeline.tensor_file import read_tensors
from prunas.search.evaluation import Evaluation
from prunas.search.record import read_archive

Words = Sequence[str]
"""A command line."""

_FOREVER: Final = 600.0


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (-9: killed), and after how many seconds."""

    code: int
    seconds: float


@dataclass(frozen=True)
class Change:
    """A change of what a folder holds: a file opened to be written, renamed or removed.

    Attributes:
        folder: below it.
        number: that many come before it.
    """

    folder: Path
    number: int


def run(
    commands: Sequence[Words],
    *,
    kill_after: float = _FOREVER,
    kill_before: Change | None = None,
) -> Ended:
    """Run command lines one after the other in a process of one core, killed after a while.

    The process is forked from a clean one that has imported everything, so that the seconds are
    those of the work. It kills itself before a change; one that does not come does nothing.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_work, args=(commands, 1, kill_before))
    process.start()
    start = monotonic()
    process.join(kill_after)
    process.kill()
    process.join()
    seconds = monotonic() - start
    assert process.exitcode is not None, "it was waited for"
    return Ended(process.exitcode, seconds)


def _work(commands: Sequence[Words], cores: int = 1, kill_before: Change | None = None) -> None:
    """With one core, all trainings are made in this process."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    torch.set_num_threads(1)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    if kill_before:
        _die_before(kill_before)
    for words in commands:
        if code := main(list(words)):
            os._exit(code)
    os._exit(0)


def _die_before(change: Change) -> None:
    """Kill this process before a change, of those that Python knows: not within SQLite or Rust.

    What is written there is renamed here, so that no moment is without a neighbour.
    """
    numbers = count()

    def hook(event: str, details: tuple[Any, ...]) -> None:
        counted = _is_change(event, details) and str(change.folder) in str(details)
        if counted and next(numbers) == change.number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _is_change(event: str, details: tuple[Any, ...]) -> bool:
    if event == "open":
        _, _, flags = details
        return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return event in _CHANGES


_CHANGES: Final = frozenset(
    ["os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "sqlite3.connect"]
)


def go_on(folder: Path, begin: Words) -> list[Words]:
    """What a user types after a kill: again what there was, or how to go on."""
    first = ["search", "--resume", "--out", str(folder)]
    return [
        first if (folder / "run.json").exists() else begin,
        ["transform", str(folder), "--evaluations", "4", "--epochs", "1", "--finalists", "2"],
        ["train", str(folder)],
    ]


# -- at any moment ---------------------------------------------------------------------------------


def whole(folder: Path) -> dict[tuple[int, ...], float]:
    """See that no file is half there under its own name; the evaluations on record."""
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not any(map(is_left_over, (file, *file.parents))):
            _require_whole(file)
    if in_place(folder / "model").exists():
        load(folder / "model")
    return {row.candidate: row.score for row in recorded(folder)}


def _require_whole(file: Path) -> None:
    match file.suffix:
        case ".json":
            entries = read_sealed(file)
            assert "checksum" in json.loads(file.read_text()), f"{file} has no checksum"
            assert entries, f"{file} is empty"
        case ".safetensors":
            read_tensors(file)
        case ".html":
            assert file.read_text().rstrip().endswith("</html>"), f"{file} is half a page"
        case _:
            assert file.name in _KNOWN, f"nobody knows what {file} is"


_ARCHIVE: Final = "archive.sqlite"
_KNOWN: Final = (".lock", *(_ARCHIVE + end for end in ("", "-wal", "-shm", "-journal")))
"""The journal is there while a new archive is told to keep a log."""


def recorded(folder: Path) -> list[Evaluation]:
    """The evaluations in the archive of a run, none if there is none."""
    found = read_archive(folder / _ARCHIVE)
    return [row for rows in found.values() for row in rows]


# -- in the end ------------------------------------------------------------------------------------


def outcome(folder: Path) -> dict[str, Any]:
    """All that a run found, without what it took: equal for equal runs."""
    result = {k: v for k, v in RunFolder.open(folder).read()["result"].items() if k != "seconds"}
    rows = [
        (row.candidate, row.score, row.macs, row.params, row.asked_at) for row in recorded(folder)
    ]
    curves = {
        file.name: _curve(file) for file in sorted((folder / "checkpoints").glob("*.safetensors"))
    }
    return {"result": result, "rows": rows, "curves": curves, "files": _files(folder)}


def same_weights(one: Path, other: Path) -> bool:
    """Whether two artifacts hold equal tensors."""
    ours, theirs = (load_file(each / "weights.safetensors") for each in (one, other))
    return ours.keys() == theirs.keys() and all(
        torch.equal(tensor, theirs[name]) for name, tensor in ours.items()
    )


def _curve(file: Path) -> list[dict[str, float]]:
    """Loss, accuracy and rate of each epoch in a checkpoint."""
    _, notes = read_tensors(file)
    found = json.loads(notes.get("epochs", "[]"))
    epochs = found if isinstance(found, list) else []
    return [{name: value for name, value in each.items() if name != "seconds"} for each in epochs]


def _files(folder: Path) -> list[str]:
    """Names; what a kill leaves half-written is gone in the end."""
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*"))


# -- workers ---------------------------------------------------------------------------------------


def run_and_kill_a_worker(commands: Sequence[Words], after: float) -> tuple[bool, int]:
    """Run command lines with processes for trainings, and kill one of these after a while.

    Returns:
        Whether there was one, waiting for the first if need be, and the exit code of the driver.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_work, args=(commands, 2))
    process.start()
    process.join(after)
    killed = False
    while process.is_alive() and not killed:
        found = _descendants(process.pid)
        workers = [each for each, parent in found if _computes(each, parent == process.pid)]
        if workers:
            with suppress(ProcessLookupError):
                os.kill(workers[int(after * 1e6) % len(workers)], signal.SIGKILL)
                killed = True
        process.join(0.01)
    process.join(_FOREVER)
    process.kill()
    process.join()
    assert process.exitcode is not None, "it was waited for"
    return killed, process.exitcode


def _descendants(parent: int | None) -> list[tuple[int, int]]:
    """Processes that a process has begun, and theirs, each with its parent (Linux)."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = status.read_text().rpartition(")")[2].split()
            parents[int(status.parent.name)] = int(fields[1])
    found = [parent]
    for each in found:
        found += [child for child, its in parents.items() if its == each]
    return [(each, parents[each]) for each in found[1:] if each is not None]


def _computes(process: int, is_child: bool) -> bool:
    """Whether it is a worker, and not what multiprocessing keeps for itself.

    Workers are forked from a server, which is a child of the driver and looks like them.
    """
    with suppress(OSError):
        words = Path(f"/proc/{process}/cmdline").read_bytes()
        return b"_tracker" not in words and not (is_child and b"forkserver" in words)
    return False
