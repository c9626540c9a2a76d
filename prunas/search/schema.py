"""The tables of the archive: how they are made, brought up to date and seen to be whole.

Version 2 (`PRAGMA user_version`) holds the evaluations of one run or, merged, of several, with a
checksum for each. Version 1, written before it, held one run, named in a table `meta`.
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from prunas.errors import InputError
from prunas.search.evaluation import COLUMNS, Evaluation, checksum

SCHEMA: Final = 2

_TABLES: Final = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    fingerprint TEXT NOT NULL UNIQUE  -- what its scores depend on
);
CREATE TABLE evaluations (
    id INTEGER PRIMARY KEY,           -- the order, whatever clocks say
    candidate TEXT NOT NULL,          -- JSON list of the chosen values
    score REAL,                       -- NULL: not a number
    macs INTEGER NOT NULL,
    params INTEGER NOT NULL,
    seconds REAL NOT NULL,
    asked_at INTEGER NOT NULL,        -- the step of the search that asked for it
    run INTEGER NOT NULL REFERENCES runs (id),
    checksum INTEGER NOT NULL,
    UNIQUE (run, candidate)
);
"""
_TABLES_1: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE evaluations (
    id INTEGER PRIMARY KEY,
    candidate TEXT NOT NULL UNIQUE,
    score REAL,
    macs INTEGER NOT NULL,
    params INTEGER NOT NULL,
    seconds REAL NOT NULL,
    asked_at INTEGER NOT NULL
);
"""
_INSERT: Final = (
    f"INSERT INTO evaluations (id, {COLUMNS}, run, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables, or bring those of an earlier version up to date; in one transaction each.

    Args:
        connection: without transactions of its own making (`isolation_level=None`).
        path: what errors name.

    Raises:
        InputError: the file is of a newer version, something else, or damaged.
        sqlite3.Error: it cannot be read or written.
    """
    version = _version(connection, path)
    if version == SCHEMA:
        return
    # one transaction: a start that is interrupted leaves the file as it was
    connection.execute("BEGIN IMMEDIATE")
    try:
        if version == 1:
            _from_version_1(connection, path)
        else:
            _statements(connection, _TABLES)
        connection.execute(f"PRAGMA user_version = {SCHEMA}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def require_ours(connection: sqlite3.Connection, path: Path) -> None:
    """See, without changing anything, that the file is empty or an archive; errors as `prepare`."""
    _version(connection, path)


def require_whole(connection: sqlite3.Connection, path: Path) -> None:
    """See that the file is an archive with nothing broken in it.

    Raises:
        InputError: it is not; the sentence says what can be done.
    """
    found = [text for (text,) in connection.execute("PRAGMA integrity_check(1)")]
    if found != ["ok"]:
        raise damaged(path, str(found[0]).partition("\n")[0] if found else "no answer")
    strangers = connection.execute(
        "SELECT 1 FROM evaluations WHERE run NOT IN (SELECT id FROM runs)"
    )
    if strangers.fetchone():
        raise damaged(path, "an evaluation belongs to no run")


_TROUBLE: Final = frozenset(
    (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    )
)


def is_damage(error: Exception) -> bool:
    """Whether the file is at fault, and not its disk or another process."""
    code = getattr(error, "sqlite_errorcode", None)  # errors of Python's own have none
    return code is None or code & 0xFF not in _TROUBLE


class DamagedError(InputError):
    """The archive is broken, and the sentence says how what is left of it can be saved."""


def damaged(path: Path, reason: object) -> DamagedError:
    return DamagedError(
        f"{path} is damaged or not a prunas archive ({reason}); `prunas runs recover RUN` saves"
        " what can be read of it, and the search evaluates the rest again"
    )


def insert(
    connection: sqlite3.Connection, run: int, evaluation: Evaluation, place: int | None = None
) -> None:
    """Add one evaluation, behind all others if it has no place; alone it is a transaction."""
    row = evaluation.to_row()
    connection.execute(_INSERT, (place, *row, run, checksum(run, row)))


def rows_of(connection: sqlite3.Connection, run: int, path: Path) -> Iterator[Evaluation]:
    """The evaluations of a run in the order recorded.

    Raises:
        InputError: one is not what was recorded.
    """
    query = f"SELECT {COLUMNS}, checksum FROM evaluations WHERE run = ? ORDER BY id"
    for number, (*row, known) in enumerate(connection.execute(query, (run,)), 1):
        yield checked(run, row, known, f"evaluation {number}", path)


def checked(run: int, row: list[Any], known: object, name: str, path: Path) -> Evaluation:
    """The evaluation of a row; raises InputError where it is not what was recorded."""
    if known != checksum(run, row):
        raise damaged(path, f"{name} is not what was recorded")
    try:
        return Evaluation.from_row(row)
    except ValueError as error:
        raise damaged(path, f"{name}: {error}") from None


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """0 for an empty file."""
    connection.execute("PRAGMA trusted_schema = OFF")
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if not tables and not version:
        return 0
    if "evaluations" not in tables:
        raise InputError(f"{path} is a database but not a prunas archive; choose another folder")
    if not version and "meta" in tables:
        version = dict(connection.execute("SELECT key, value FROM meta")).get("schema")
    if version not in ("1", SCHEMA):
        raise InputError(
            f"{path} has archive version {version}, this prunas reads up to {SCHEMA}; use the"
            " prunas that wrote it or a newer one, or start a new run in another folder"
        )
    _require_tables(connection, int(version), path)
    return int(version)


def _require_tables(connection: sqlite3.Connection, version: int, path: Path) -> None:
    """See that the file has the tables of its version and nothing else.

    A view in the place of a table may never end, and a trigger change what is recorded.
    """
    with closing(sqlite3.connect(":memory:")) as usual:
        usual.executescript(_TABLES if version == SCHEMA else _TABLES_1)
        known = _objects(usual)
    for name, (kind, definition) in _objects(connection).items():
        if kind not in ("table", "index"):
            raise InputError(
                f"{path} holds a {kind} {name!r}, and archives of prunas hold none; choose another"
                " folder"
            )
        if known.get(name) != (kind, definition):
            raise damaged(path, f"its {kind} {name!r} is not as prunas makes it")


def _objects(connection: sqlite3.Connection) -> dict[str, tuple[str, str | None]]:
    """{name: (kind, definition without comments and layout)} of all that a file holds."""
    found = connection.execute("SELECT name, type, sql FROM sqlite_master")
    return {name: (kind, sql and _plain(sql)) for name, kind, sql in found}


def _plain(sql: str) -> str:
    return "".join(re.sub("--.*", "", sql).split())


def _from_version_1(connection: sqlite3.Connection, path: Path) -> None:
    fingerprint = dict(connection.execute("SELECT key, value FROM meta")).get("fingerprint")
    if fingerprint is None:
        raise damaged(path, "it names no run")
    rows = connection.execute(f"SELECT {COLUMNS} FROM evaluations ORDER BY id").fetchall()
    _statements(connection, "DROP TABLE evaluations; DROP TABLE meta;" + _TABLES)
    connection.execute("INSERT INTO runs VALUES (1, ?)", (fingerprint,))
    connection.executemany(_INSERT, [(None, *row, 1, checksum(1, row)) for row in rows])


def _statements(connection: sqlite3.Connection, text: str) -> None:
    """Unlike `executescript`, inside the transaction that is open."""
    for statement in text.split(";"):
        if statement.strip():
            connection.execute(statement)
