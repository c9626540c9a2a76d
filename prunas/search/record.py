"""Archives read by those who do not search: reports, lists, exports, and what a damaged one holds.

The file is copied into memory first and read there: nothing is locked, made or brought up to date
on disk, so that a run can go on meanwhile, or lie on a disk that nobody may write to.
"""

import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from typing import Final
from urllib.parse import quote

from prunas.errors import InputError, RunError
from prunas.search.evaluation import COLUMNS, Evaluation
from prunas.search.schema import (
    DamagedError,
    checked,
    damaged,
    insert,
    is_damage,
    prepare,
    require_whole,
    rows_of,
)

Record = Mapping[str, tuple[Evaluation, ...]]
"""The evaluations of each run of an archive in the order recorded, by the run's fingerprint."""

_PAUSE: Final = 5.0  # seconds to wait for a writer
_MOST_LOST: Final = 10_000  # rows in a row that cannot be read, after which there are no more


def read_archive(path: Path) -> Record:
    """Everything in an archive, of this version or an earlier one; none if there is no file.

    Raises:
        InputError: it is damaged, no archive, or of a newer version.
        RunError: it cannot be read, or another process holds it.
    """
    if not path.exists():
        return {}
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as copy:
        try:
            _copy(path, copy)
            prepare(copy, path)
            require_whole(copy, path)
            runs = copy.execute("SELECT fingerprint, id FROM runs ORDER BY id").fetchall()
            return {name: tuple(rows_of(copy, run, path)) for name, run in runs}
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter from within a page
            if is_damage(error):
                raise damaged(path, error) from None
            raise RunError(f"cannot read {path} ({error})") from None


def write_archive(path: Path, record: Record) -> None:
    """Make an archive of these evaluations, in one transaction.

    Raises:
        RunError: it cannot be written.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        try:
            prepare(connection, path)
            connection.execute("BEGIN IMMEDIATE")
            for run, (fingerprint, rows) in enumerate(record.items(), 1):
                connection.execute("INSERT INTO runs VALUES (?, ?)", (run, fingerprint))
                for row in rows:
                    insert(connection, run, row)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise RunError(f"cannot write {path} ({error}); make room and try again") from None


def recover(path: Path, *, fingerprint: str) -> tuple[int, Path]:
    """Make an archive of what can be read of a damaged one, which is kept beside it.

    Every row is looked up by itself, and taken if it is what was recorded.

    Args:
        path: the archive.
        fingerprint: of its run.

    Returns:
        The number of evaluations saved, and where the damaged archive is.

    Raises:
        InputError: there is no archive, it is not damaged, or it is of a newer version.
        RunError: the folder cannot be written.
    """
    _require_damaged(path)
    rows = {row.candidate: row for row in _readable(path, fingerprint)}
    aside = next(file for file in _names(path) if not file.exists())
    fresh = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write_archive(fresh, {fingerprint: tuple(rows.values())})
        shutil.copy(path, aside)
        for ending in ("-wal", "-shm"):  # they belong to the damaged one
            with suppress(FileNotFoundError):
                os.replace(f"{path}{ending}", f"{aside}{ending}")
        os.replace(fresh, path)
    except OSError as error:
        raise RunError(f"{path} cannot be replaced ({error.strerror})") from None
    finally:
        fresh.unlink(missing_ok=True)
    return len(rows), aside


def _require_damaged(path: Path) -> None:
    if not path.exists():
        raise InputError(f"there is no archive {path}, and so nothing to recover")
    try:
        found = read_archive(path)
    except DamagedError:
        return
    number = sum(map(len, found.values()))
    raise InputError(f"{path} is whole, with {number} evaluations; there is nothing to recover")


def _names(path: Path) -> Iterator[Path]:
    for number in count(1):
        yield path.with_name(f"{path.stem}.damaged-{number}{path.suffix}")


def _readable(path: Path, fingerprint: str) -> Iterator[Evaluation]:
    """The rows of a run that are what was recorded, wherever they are."""
    with closing(_connected(path)) as connection:
        run = _number_of(connection, fingerprint)
        lost = 0
        for identity in count(1):
            row = _row(connection, identity, run, path)
            if row is not None:
                yield row
            lost = 0 if row is not None else lost + 1
            if lost > _MOST_LOST:
                return


def _row(
    connection: sqlite3.Connection, identity: int, run: int | None, path: Path
) -> Evaluation | None:
    """One evaluation; None if it is lost, of another run, or was never there."""
    columns = COLUMNS if run is None else f"{COLUMNS}, run, checksum"
    query = f"SELECT {columns} FROM evaluations WHERE id = ?"
    try:
        found = connection.execute(query, (identity,)).fetchone()
        if found is None:
            return None
        if run is None:
            return Evaluation.from_row(found)
        *row, owner, known = found
        return checked(run, row, known, "", path) if owner == run else None
    except (sqlite3.Error, ValueError):
        return None


def _number_of(connection: sqlite3.Connection, fingerprint: str) -> int | None:
    """The number of the run in the file; None in a file of version 1."""
    try:
        runs = dict(connection.execute("SELECT fingerprint, id FROM runs"))
    except sqlite3.Error as error:
        return None if "no such table" in str(error) else 1
    return int(runs.get(fingerprint, 1))


# -- the file --------------------------------------------------------------------------------------


def _copy(path: Path, copy: sqlite3.Connection) -> None:
    with closing(_connected(path)) as connection:
        connection.backup(copy)


def _connected(path: Path) -> sqlite3.Connection:
    """A connection that does not write.

    Not with mode=ro where the folder can be written: such a reader may not tidy up, and leaves the
    files of the log behind.
    """
    if os.access(path.parent, os.W_OK) and os.access(path, os.W_OK):
        way = "mode=rw"
    elif path.with_name(f"{path.name}-wal").exists():
        way = "mode=ro"
    else:
        way = "mode=ro&immutable=1"  # else SQLite wants to make a log, in vain
    address = f"file:{quote(str(path.absolute()))}?{way}"
    connection = sqlite3.connect(address, _PAUSE, isolation_level=None, uri=True)
    connection.execute("PRAGMA query_only = 1")
    return connection
