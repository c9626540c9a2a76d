"""The record of every evaluation of a run, in SQLite.

One row per evaluation, on disk before anybody is told, so that an interrupted run loses nothing.
One process writes; any number may read at the same time (write-ahead log).
"""

import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from prunas.errors import InputError, RunError
from prunas.supernet.space import Candidate

SCHEMA: Final = 1

_TABLES: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE evaluations (
    id INTEGER PRIMARY KEY,
    candidate TEXT NOT NULL UNIQUE,  -- JSON list of the chosen values
    score REAL,                      -- NULL: not a number
    macs INTEGER NOT NULL,
    params INTEGER NOT NULL,
    seconds REAL NOT NULL,
    asked_at INTEGER NOT NULL        -- the step of the search that asked for it
);
"""
_COLUMNS: Final = "candidate, score, macs, params, seconds, asked_at"


@dataclass(frozen=True)
class Evaluation:
    """One scored candidate.

    Attributes:
        candidate: what was evaluated.
        score: higher is better; NaN if it has none.
        macs: multiply-accumulates of one image.
        params: number of parameters.
        seconds: how long the evaluation took.
        asked_at: the step of the search that asked for it, from 0.
    """

    candidate: Candidate
    score: float
    macs: int
    params: int
    seconds: float
    asked_at: int


class Archive:
    """The evaluations of one run. Use it in a `with` statement, or call `close`.

    Args:
        path: the file; made if missing.
        fingerprint: text that says what a score depends on (network, data, seed ...). Scores of
            another fingerprint would not be comparable, so such a file is refused.
        patience: seconds to wait for another process that holds the file.

    Raises:
        InputError: the file is no archive, or of another version or another run.
        RunError: the disk is full, or another process holds the file.
    """

    def __init__(self, path: Path, *, fingerprint: str, patience: float = 5.0) -> None:
        self._path = path
        self._scores: dict[Candidate, float] = {}
        try:
            self._connection = sqlite3.connect(path, patience, isolation_level=None)
        except sqlite3.OperationalError as error:
            raise InputError(f"cannot open {path} ({error}); does its folder exist?") from None
        try:
            self._prepare(fingerprint)
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
        return self._scores.get(candidate)

    def rows(self) -> list[Evaluation]:
        """All evaluations in the order recorded."""
        cursor = self._connection.execute(f"SELECT {_COLUMNS} FROM evaluations ORDER BY id")
        return [_evaluation(*row) for row in cursor]

    def record(self, evaluation: Evaluation) -> None:
        """Append one evaluation; it is on disk when this returns.

        Raises:
            RunError: it could not be written (disk full), or the candidate is there already.
        """
        text = json.dumps(evaluation.candidate)
        score = None if math.isnan(evaluation.score) else evaluation.score
        row = (text, score, *astuple(evaluation)[2:])
        with self._writing():
            self._connection.execute(
                f"INSERT INTO evaluations ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", row
            )
        self._scores[evaluation.candidate] = evaluation.score

    def _prepare(self, fingerprint: str) -> None:
        with self._reading():
            tables = {
                name for (name,) in self._connection.execute("SELECT name FROM sqlite_master")
            }
        if not tables:
            self._create(fingerprint)
        elif not {"meta", "evaluations"} <= tables:
            raise InputError(
                f"{self._path} is a database but not a prunas archive; choose another folder"
            )
        with self._reading():
            self._check(fingerprint)
            self._scores |= {row.candidate: row.score for row in self.rows()}

    def _create(self, fingerprint: str) -> None:
        rows = [("schema", str(SCHEMA)), ("fingerprint", fingerprint)]
        with self._writing():
            self._connection.execute("PRAGMA journal_mode = WAL")
            # one transaction: an interrupted start leaves an empty file, not half an archive
            self._connection.executescript(f"BEGIN IMMEDIATE; {_TABLES}")
            self._connection.executemany("INSERT INTO meta VALUES (?, ?)", rows)
            self._connection.execute("COMMIT")

    def _check(self, fingerprint: str) -> None:
        found = dict(self._connection.execute("SELECT key, value FROM meta"))
        if found.get("schema") != str(SCHEMA):
            raise InputError(
                f"{self._path} has archive version {found.get('schema')}, this prunas writes"
                f" {SCHEMA}; start a new run in another folder"
            )
        if found.get("fingerprint") != fingerprint:
            raise InputError(
                f"{self._path} holds the evaluations of another run (its network, data, seed or"
                " settings differ), whose scores do not compare; start in another folder"
            )

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise RunError(f"cannot read {self._path} ({error})") from None
        except sqlite3.DatabaseError as error:
            raise InputError(
                f"{self._path} is damaged or not a prunas archive ({error}); choose another folder"
            ) from None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            raise RunError(
                f"{self._path} already has this candidate; is another run using the same folder?"
            ) from None
        except (sqlite3.OperationalError, OSError) as error:
            raise RunError(
                f"cannot write {self._path} ({error}); the {len(self._scores)} evaluations"
                " recorded so far are safe: make room and start again to go on"
            ) from None


def _evaluation(
    text: str, score: float | None, macs: int, params: int, seconds: float, asked_at: int
) -> Evaluation:
    known = math.nan if score is None else score
    return Evaluation(Candidate(json.loads(text)), known, macs, params, seconds, asked_at)
