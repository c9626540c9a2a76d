"""The record of every evaluation of a run, in SQLite.

One row per evaluation, on disk before anybody is told, so that an interrupted run loses nothing.
One process writes; any number may read at the same time (write-ahead log).
"""

import os
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final
from urllib.parse import quote

from prunas.errors import InputError, RunError
from prunas.search.evaluation import Evaluation as Evaluation
from prunas.search.schema import (
    damaged,
    insert,
    is_damage,
    prepare,
    require_ours,
    require_whole,
    rows_of,
)
from prunas.supernet.space import Candidate

_PAGES: Final = 100  # in the log before they move to the archive: a copy without the log lacks few


@final
class Archive:
    """The evaluations of one run. Use it in a `with` statement, or call `close`.

    Every evaluation is a transaction of its own, and waits for the disk (`synchronous = FULL`):
    neither a kill nor a power cut takes back what was recorded. That costs a few milliseconds
    where an evaluation takes many. On a disk without shared memory (network disks), where SQLite
    has no write-ahead log, a rollback journal does the same, and readers wait for the writer.

    Args:
        path: the file; made if missing, brought up to date if it is of an earlier version.
        fingerprint: text that says what a score depends on (network, data, seed ...). Scores of
            another fingerprint would not be comparable, so such a file is refused.
        patience: seconds to wait for another process that holds the file.

    Raises:
        InputError: the file is no archive, a link, damaged, or of a newer version or another run.
        RunError: the disk is full or read-only, or another process holds the file.
    """

    def __init__(self, path: Path, *, fingerprint: str, patience: float = 5.0) -> None:
        self._path = path
        self._scores: dict[Candidate, Evaluation] = {}
        self._safe = 0  # of them are on disk
        self._connection = _connected(path, patience)
        try:
            self._prepare(fingerprint, patience)
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; everything recorded is already in it."""
        self._connection.close()

    def __len__(self) -> int:
        return len(self._scores)

    def score_of(self, candidate: Candidate) -> float | None:
        """The recorded score (NaN included), None for a candidate never evaluated."""
        known = self._scores.get(candidate)
        return None if known is None else known.score

    def rows(self) -> list[Evaluation]:
        """All evaluations in the order of their places, which is that of recording without any."""
        with self._reading():
            return list(rows_of(self._connection, self._run, self._path))

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is recorded inside is one transaction: all of it is on disk when this ends.

        The disk is waited for once, where it would be for every evaluation. What was recorded
        before something else is raised, Ctrl-C say, is kept.

        Raises:
            RunError: it could not be written; then none of it is recorded.
        """
        before = len(self._scores)
        with self._writing():
            self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            self._commit(before)

    def _commit(self, before: int) -> None:
        """End a transaction; if that fails, or SQLite has undone it, forget what it held."""
        connection = self._connection
        if connection.in_transaction:
            try:
                with self._writing():
                    connection.execute("COMMIT")
                self._safe = len(self._scores)
                return
            except RunError:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                self._forget(before)
                raise
        self._forget(before)

    def _forget(self, before: int) -> None:
        self._scores = dict(islice(self._scores.items(), before))

    def record(self, evaluation: Evaluation, *, place: int | None = None) -> None:
        """Add one evaluation; it is on disk when this returns.

        One that is there already, with the same score, is not recorded a second time.

        Args:
            evaluation: what is known now.
            place: its number, from 1, in the order of `rows`, for evaluations that arrive in
                another order; None, or one that is taken, puts it behind all others.

        Raises:
            RunError: it could not be written (disk full), or the candidate has another score.
        """
        if evaluation.candidate not in self._scores:
            with self._writing():
                insert(self._connection, self._run, evaluation, self._free(place))
            self._scores[evaluation.candidate] = evaluation
            self._safe = self._safe if self._connection.in_transaction else len(self._scores)
        elif not evaluation.same_score(known := self._scores[evaluation.candidate].score):
            raise RunError(
                f"{self._path} already has this candidate, with the score {known} where it is now"
                f" {evaluation.score}; is another run using the same folder?"
            )

    def _free(self, place: int | None) -> int | None:
        taken = self._connection.execute("SELECT 1 FROM evaluations WHERE id = ?", (place,))
        return None if taken.fetchone() else place

    def _prepare(self, fingerprint: str, patience: float) -> None:
        with self._reading():
            self._choose_journal(patience)
        with self._reading(), self._writing():
            prepare(self._connection, self._path)
        with self._reading():
            require_whole(self._connection, self._path)
            self._run = self._run_of(fingerprint)
            found = rows_of(self._connection, self._run, self._path)
            self._scores |= {row.candidate: row for row in found}
        self._safe = len(self._scores)

    def _choose_journal(self, patience: float) -> None:
        """A write-ahead log where the disk takes one; a file of somebody else's stays as it is."""
        try:
            require_ours(self._connection, self._path)
            (mode,) = self._connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode not in _NO_SHARED_MEMORY:
                raise
            mode = self._without_shared_memory(patience)
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(f"PRAGMA wal_autocheckpoint = {_PAGES}")
        if mode != "wal":
            warnings.warn(
                f"the disk of {self._path} takes no write-ahead log (is it a network disk?); the"
                " archive is as safe without, but reading it waits for the search",
                stacklevel=2,
            )

    def _without_shared_memory(self, patience: float) -> str:
        """Take up a log that was begun elsewhere, which needs the file alone for a moment."""
        self._connection.close()
        self._connection = _connected(self._path, patience)
        self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        require_ours(self._connection, self._path)
        (mode,) = self._connection.execute("PRAGMA journal_mode = DELETE").fetchone()
        self._connection.execute("PRAGMA locking_mode = NORMAL")
        self._connection.execute("SELECT 1 FROM sqlite_master").fetchone()  # lets go of it
        return str(mode)

    def _run_of(self, fingerprint: str) -> int:
        """The number of the run in the file; a file without any becomes that of this run."""
        runs: dict[str, int] = dict(self._connection.execute("SELECT fingerprint, id FROM runs"))
        if not runs:
            with self._writing():
                self._connection.execute("INSERT INTO runs VALUES (1, ?)", (fingerprint,))
            return 1
        if fingerprint not in runs:
            raise InputError(
                f"{self._path} holds the evaluations of another run (its network, data, seed or"
                " settings differ), whose scores do not compare; start in another folder"
            )
        return runs[fingerprint]

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter from within a page
            if is_damage(error):
                raise damaged(self._path, error) from None
            raise RunError(f"cannot read {self._path} ({error})") from None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            raise RunError(
                f"{self._path} already has this candidate; is another run using the same folder?"
            ) from None
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter from within a page
            if is_damage(error):
                raise damaged(self._path, error) from None
            raise RunError(
                f"cannot write {self._path} ({error}); the {self._safe} evaluations"
                " recorded so far are safe: make room and start again to go on"
            ) from None


_NO_SHARED_MEMORY: Final = (
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMMAP,
    sqlite3.SQLITE_IOERR_SHMLOCK,
)


def require_no_link(path: Path) -> None:
    """Refuse a link in the place of an archive: SQLite would write to the file that it names.

    It follows no links in the places of its logs.

    Raises:
        InputError: it is one.
    """
    if path.is_symlink():
        raise InputError(
            f"{path} is a link to {os.readlink(path)}, which prunas would write to; put the"
            " archive itself there"
        )


def _connected(path: Path, patience: float) -> sqlite3.Connection:
    require_no_link(path)
    try:
        return sqlite3.connect(address(path, "mode=rwc"), patience, isolation_level=None, uri=True)
    except sqlite3.OperationalError as error:
        raise InputError(f"cannot open {path} ({error}); does its folder exist?") from None


def address(path: Path, way: str) -> str:
    """What SQLite calls a file that it opens in a certain way, whatever its name consists of."""
    return f"file:{quote(os.fsencode(path.absolute()))}?{way}"
