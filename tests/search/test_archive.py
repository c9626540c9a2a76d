"""The archive: what is recorded stays, and what is not an archive is refused."""

import math
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from prunas.errors import InputError, RunError
from prunas.search.archive import Archive, Evaluation
from prunas.supernet.space import Candidate


def evaluation(*values: int, score: float = 0.5) -> Evaluation:
    return Evaluation(Candidate(values), score, 1000, 100, 0.25, 3)


def test_rows_come_back_in_order(tmp_path: Path) -> None:
    rows = [evaluation(3, 1), evaluation(1, 2, score=-math.inf), evaluation(2, 2, score=1e-9)]
    path = tmp_path / "archive.sqlite"
    with Archive(path, fingerprint="run") as archive:
        for row in rows:
            archive.record(row)
        assert archive.rows() == rows
    with Archive(path, fingerprint="run") as archive:
        assert archive.rows() == rows
        assert len(archive) == 3
        assert archive.score_of(Candidate((1, 2))) == -math.inf
        assert archive.score_of(Candidate((9, 9))) is None
        assert isinstance(archive.rows()[0].candidate, Candidate)


def test_nan_is_kept_as_nan(tmp_path: Path) -> None:
    path = tmp_path / "archive.sqlite"
    with Archive(path, fingerprint="run") as archive:
        archive.record(evaluation(1, score=math.nan))
    with Archive(path, fingerprint="run") as archive:
        score = archive.score_of(Candidate((1,)))
        assert score is not None
        assert math.isnan(score)


def test_recorded_means_committed(tmp_path: Path) -> None:
    """Another connection sees the row while the archive is still open, as the report does."""
    path = tmp_path / "archive.sqlite"
    with Archive(path, fingerprint="run") as archive:
        archive.record(evaluation(4, 2))
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as reader:
            found = reader.execute("SELECT * FROM evaluations").fetchall()
        reader.close()
    assert found == [(1, "[4, 2]", 0.5, 1000, 100, 0.25, 3)]


def test_a_candidate_is_recorded_once(tmp_path: Path) -> None:
    with Archive(tmp_path / "archive.sqlite", fingerprint="run") as archive:
        archive.record(evaluation(1))
        with pytest.raises(RunError, match="is another run using the same folder"):
            archive.record(evaluation(1, score=0.7))
        assert archive.score_of(Candidate((1,))) == 0.5


def test_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "archive.sqlite"
    Archive(path, fingerprint="resnet on digits").close()
    with pytest.raises(InputError, match="evaluations of another run"):
        Archive(path, fingerprint="resnet on photos")


def test_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "archive.sqlite"
    Archive(path, fingerprint="run").close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
    connection.close()
    with pytest.raises(InputError, match="archive version 99, this prunas writes 1"):
        Archive(path, fingerprint="run")


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("These are notes, and long enough to be more than an SQLite header." * 3)
    with pytest.raises(InputError, match="damaged or not a prunas archive"):
        Archive(text, fingerprint="run")
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()
    with pytest.raises(InputError, match="a database but not a prunas archive"):
        Archive(other, fingerprint="run")
    assert "These are notes" in text.read_text()


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "archive.sqlite"
    with Archive(path, fingerprint="run") as archive:
        for value in range(2000):
            archive.record(evaluation(value))
    content = path.read_bytes()
    path.write_bytes(content[:8192] + b"lost" * ((len(content) - 8192) // 4))
    with pytest.raises(InputError, match="damaged"):
        Archive(path, fingerprint="run")


def test_an_archive_that_another_process_holds_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "archive.sqlite"
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("CREATE TABLE meta (key TEXT)")
    with pytest.raises(RunError, match=r"cannot read .*locked"):
        Archive(path, fingerprint="run", patience=0.0)
    holder.close()


@pytest.mark.parametrize("place", [".", "missing/archive.sqlite"])
def test_a_place_that_cannot_be_opened_is_refused(tmp_path: Path, place: str) -> None:
    with pytest.raises(InputError, match="cannot open"):
        Archive(tmp_path / place, fingerprint="run")


def test_an_empty_file_becomes_an_archive(tmp_path: Path) -> None:
    """A start that was interrupted before anything was written leaves one."""
    path = tmp_path / "archive.sqlite"
    path.touch()
    with Archive(path, fingerprint="run") as archive:
        assert len(archive) == 0


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The operating system refuses to let files grow beyond `size` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_a_sentence_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "archive.sqlite"
    long = evaluation(*range(3000))
    with Archive(path, fingerprint="run") as archive:
        archive.record(evaluation(1))
        with largest_file(40_000), pytest.raises(RunError, match="1 evaluations recorded so far"):
            archive.record(long)
        assert archive.score_of(long.candidate) is None
        archive.record(long)  # there is room again
    with Archive(path, fingerprint="run") as archive:
        assert archive.rows() == [evaluation(1), long]


def test_a_full_disk_at_the_start_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "archive.sqlite"
    with largest_file(4096), pytest.raises(RunError, match="make room"):
        Archive(path, fingerprint="run")
    with Archive(path, fingerprint="run") as archive:
        assert len(archive) == 0
