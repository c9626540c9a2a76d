"""The folder of a comparison: runs are appended as they are finished, the rest is written anew."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from prunas.errors import InputError
from prunas.pipeline.comparison.runs import Row
from prunas.pipeline.files import sweep, writing
from prunas.pipeline.lock import try_lock
from prunas.pipeline.run_folder import versions
from prunas.pipeline.sealed import read_sealed, sealed, unsealed, write_sealed

SCHEMA: Final = 1


@dataclass(frozen=True)
class CompareFolder:
    """compare.json, runs.jsonl, summary.csv, pairs.csv, compare.html, and archive.sqlite of a run.

    Attributes:
        path: the folder.
        opened: runs.jsonl, locked as long as this process writes to it.
    """

    path: Path
    opened: IO[bytes]

    @property
    def entries(self) -> Path:
        return self.path / "compare.json"

    @property
    def archive(self) -> Path:
        return self.path / "archive.sqlite"

    @property
    def page(self) -> Path:
        return self.path / "compare.html"

    def begin(self, request: Mapping[str, Any], spaces: Sequence[Mapping[str, Any]]) -> None:
        """Write down what is compared, or see that it is what was written before.

        Raises:
            InputError: the folder holds another comparison.
        """
        asked = {"request": dict(request), "spaces": [dict(space) for space in spaces]}
        if not self.entries.exists():
            if self.rows():
                raise InputError(
                    f"{self.path} holds runs of an unknown comparison (compare.json is missing);"
                    " give another --out"
                )
            self.write({"schema": SCHEMA, **asked, "versions": versions()})
            return
        before = _read(self.entries)
        # files may have moved: which tables they are is in "spaces"
        found, wanted = ({**_flat(each), "tables": None} for each in (before, asked))
        differing = [name for name in wanted if found.get(name) != wanted[name]]
        if differing:
            name = differing[0]
            raise InputError(
                f"{self.path} holds another comparison: {name} was {_short(found.get(name))}, now"
                f" {_short(wanted[name])}; repeat its request or give another --out"
            )

    def rows(self) -> list[Row]:
        """The finished runs. A last line that was not finished is taken away.

        Raises:
            InputError: another line is damaged.
        """
        self.opened.seek(0)
        lines = self.opened.read().splitlines(keepends=True)
        rows = []
        whole = 0
        for number, line in enumerate(lines, 1):
            try:
                rows.append(Row.from_json(unsealed(line)))
            except (ValueError, KeyError, TypeError, OverflowError):
                if number < len(lines):
                    raise InputError(
                        f"line {number} of {self.opened.name} is damaged; delete the line, and its"
                        " run is made again"
                    ) from None
                break
            if not line.endswith(b"\n"):
                rows.pop()
                break
            whole += len(line)
        with writing(self.path):
            self.opened.truncate(whole)
        return rows

    def append(self, row: Row) -> None:
        """Keep a finished run; it is in the file when this returns.

        Raises:
            RunError: the disk is full.
        """
        with writing(self.path / "runs.jsonl"):
            self.opened.write(json.dumps(sealed(row.to_json())).encode() + b"\n")
            self.opened.flush()
            os.fsync(self.opened.fileno())

    def write(self, entries: Mapping[str, Any]) -> None:
        """Write these entries into compare.json, the others as they are."""
        before = _read(self.entries) if self.entries.exists() else {}
        write_sealed(self.entries, {**before, **entries})


@contextmanager
def claimed(path: Path) -> Iterator[CompareFolder]:
    """The folder, made if it is missing, for this process alone.

    What an earlier one left half-written is removed. On a disk that cannot lock nobody is refused.

    Raises:
        InputError: it holds something else, its runs are a link, it cannot be written, or another
            process has it.
    """
    known = any((path / name).exists() for name in ("compare.json", "runs.jsonl"))
    if path.exists() and not known and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} exists and holds no comparison; give another folder with --out")
    if (path / "runs.jsonl").is_symlink():
        raise InputError(
            f"{path / 'runs.jsonl'} is a link, and runs would be appended to what it names; put"
            " the file itself there, or give another --out"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
        opened = (path / "runs.jsonl").open("a+b")
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path} cannot be written ({reason}); give another --out") from None
    with opened:
        if not try_lock(opened):
            raise InputError(
                f"another process is writing to {path}; wait for it, or give another --out"
            )
        sweep(path, below=False)  # there may be runs below, and these be going on
        yield CompareFolder(path, opened)


def kept_runs(path: Path) -> str:
    """What to say of the folder after Ctrl-C."""
    file = path / "runs.jsonl"
    count = file.read_bytes().count(b"\n") if file.exists() else 0
    return f"{count} finished runs are kept in {path}; the same command goes on"


def _flat(entries: Mapping[str, Any]) -> dict[str, Any]:
    return {**entries["request"], "run": None, "spaces": entries["spaces"]}


def _short(value: Any, most: int = 120) -> str:
    text = json.dumps(value)
    return text if len(text) <= most else f"{text[:most]}..."


def _read(file: Path) -> dict[str, Any]:
    try:
        data = read_sealed(file, ("schema", SCHEMA))
        if isinstance(data.get("request"), dict) and isinstance(data.get("spaces"), list):
            return data
        reason = "it holds no comparison"
    except (OSError, ValueError) as error:
        reason = str(error)
    raise InputError(f"{file} cannot be read ({reason}); give another --out")
