"""Archives read by those who do not search: reports, lists, exports, and what a damaged one holds.

The file is copied into memory first and read there: nothing is locked, made or brought up to date
on disk, so that a run can go on meanwhile, or lie on a disk that nobody may write to.
"""

import filecmp
import os
import shutil
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from itertools import count, takewhile
from pathlib import Path
from typing import Final

from prunas.errors import InputError, RunError
from prunas.flushing import flush
from prunas.search.archive import address, require_no_link
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
    try:
        with closing(_made(path)) as connection:
            prepare(connection, path)
            connection.execute("BEGIN IMMEDIATE")
            for run, (fingerprint, rows) in enumerate(record.items(), 1):
                connection.execute("INSERT INTO runs VALUES (?, ?)", (run, fingerprint))
                for row in rows:
                    insert(connection, run, row)
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise RunError(f"cannot write {path} ({error}); make room and try again") from None


def recover(path: Path, fingerprints: Sequence[str]) -> tuple[int, Path]:
    """Make an archive of what can be read of a damaged one, which is kept beside it.

    Every row is looked up by itself, and taken if it is what was recorded. A process that is killed
    here has lost nothing: called again, this saves as much.

    Args:
        path: the archive.
        fingerprints: of its run, or of all in it in the order in which they were merged.

    Returns:
        The number of evaluations saved, and where the damaged archive is.

    Raises:
        InputError: there is no archive, it is a link, not damaged, of a newer version, or holds
            other runs alone.
        RunError: the folder cannot be written.
    """
    require_no_link(path)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        _put_log_back(path)
        _require_damaged(path)
        record = {name: _saved(path, name, place) for place, name in enumerate(fingerprints, 1)}
        write_archive(fresh, record)
        aside = _kept(path)
        for ending in (*_LOGS, "-shm"):  # they would be taken for those of the new archive
            Path(f"{path}{ending}").unlink(missing_ok=True)
        os.replace(fresh, path)
    except OSError as error:
        raise RunError(f"{path} cannot be replaced ({error.strerror}); it is kept") from None
    finally:
        fresh.unlink(missing_ok=True)
    return sum(map(len, record.values())), aside


def _require_damaged(path: Path) -> None:
    if not path.exists():
        raise InputError(f"there is no archive {path}, and so nothing to recover")
    try:
        found = read_archive(path)
    except DamagedError:
        return
    number = sum(map(len, found.values()))
    raise InputError(f"{path} is whole, with {number} evaluations; there is nothing to recover")


_LOGS: Final = ("-wal", "-journal")
"""Endings of files without which an archive may lack its last evaluations."""


def _kept(path: Path) -> Path:
    """A copy of the archive, last of all under its own name: whatever has that is complete."""
    aside = next(file for file in _names(path) if not file.exists())
    for ending in (*_LOGS, ""):
        if os.path.exists(f"{path}{ending}"):
            _copy_file(f"{path}{ending}", Path(f"{aside}{ending}"))
    return aside


def _put_log_back(path: Path) -> None:
    """Undo what was done when a process was killed that had removed the log and no more."""
    for aside in takewhile(Path.exists, _names(path)):
        if path.exists() and filecmp.cmp(aside, path, shallow=False):
            for ending in _LOGS:
                kept, lost = f"{aside}{ending}", Path(f"{path}{ending}")
                if os.path.exists(kept) and not lost.exists():
                    _copy_file(kept, lost)


def _copy_file(file: str, copy: Path) -> None:
    """Copy a file, which has its name once it is on the disk."""
    aside = copy.with_name(f".{copy.name}.{os.getpid()}.part")
    try:
        shutil.copy(file, aside)
        flush(aside)
        os.replace(aside, copy)
        with suppress(OSError):  # not every disk knows how
            flush(copy.parent)
    finally:
        aside.unlink(missing_ok=True)


def _names(path: Path) -> Iterator[Path]:
    for number in count(1):
        yield path.with_name(f"{path.stem}.damaged-{number}{path.suffix}")


def _saved(path: Path, fingerprint: str, number: int) -> tuple[Evaluation, ...]:
    """What can be read of a run, each candidate once."""
    return tuple({row.candidate: row for row in _readable(path, fingerprint, number)}.values())


def _readable(path: Path, fingerprint: str, number: int) -> Iterator[Evaluation]:
    """The rows of a run that are what was recorded, wherever they are."""
    with closing(_connected(path)) as connection:
        run = _number_of(connection, fingerprint, number, path)
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


def _number_of(
    connection: sqlite3.Connection, fingerprint: str, usual: int, path: Path
) -> int | None:
    """The number of the run in the file, the usual one if none can be read; None in version 1.

    Raises:
        InputError: those that can be read are others.
    """
    try:
        runs = _numbers(connection, fingerprint)
    except sqlite3.Error as error:
        if "no such table" not in str(error):
            return usual
        _require_listed(fingerprint, _names_in_version_1(connection), path)
        return None
    _require_listed(fingerprint, runs, path)
    return int(runs.get(fingerprint, usual))


def _numbers(connection: sqlite3.Connection, fingerprint: str) -> dict[str, int]:
    """{fingerprint: number} of the table; the index may know a name that is damaged there."""
    found = dict(connection.execute("SELECT fingerprint, id FROM runs"))
    indexed = "SELECT fingerprint, id FROM runs WHERE fingerprint = ?"
    if fingerprint not in found:
        found.update(connection.execute(indexed, (fingerprint,)))
    return found


def _names_in_version_1(connection: sqlite3.Connection) -> list[str]:
    with suppress(sqlite3.Error):
        found = connection.execute("SELECT value FROM meta WHERE key = 'fingerprint'")
        return [name for (name,) in found]
    return []


def _require_listed(fingerprint: str, known: Collection[str], path: Path) -> None:
    if known and fingerprint not in known:
        raise InputError(
            f"{path} holds the evaluations of another run, and so nothing to recover for this one;"
            " put this run's own archive in its place"
        )


# -- the file --------------------------------------------------------------------------------------


def _made(path: Path) -> sqlite3.Connection:
    """A connection to a new file, in which nothing is a transaction of its own making."""
    return sqlite3.connect(path, isolation_level=None)


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
    connection = sqlite3.connect(address(path, way), _PAUSE, isolation_level=None, uri=True)
    connection.execute("PRAGMA query_only = 1")
    return connection
