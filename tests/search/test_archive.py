"""The archive: what is recorded stays, and what is not an archive is refused."""

import math
import os
import resource
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from prunas.errors import InputError, RunError
from prunas.search import archive as archive_module
from prunas.search import schema
from prunas.search.archive import Archive, Evaluation
from prunas.search.record import read_archive, recover
from prunas.supernet.space import Candidate


def evaluation(*values: int, score: float = 0.5) -> Evaluation:
    return Evaluation(Candidate(values), score, 1000, 100, 0.25, 3)


def changed(path: Path, statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(statements)


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


@pytest.mark.skipif(sys.platform != "linux", reason="other systems lack some of these names")
@pytest.mark.parametrize(
    "name", [b"what?", b"50%25", b"a#b", b"a&mode=ro", b"caf\xe9", "café".encode()]
)
def test_a_folder_may_have_any_name(name: bytes, tmp_path: Path) -> None:
    """SQLite takes an address, in which some of these mean something."""
    folder = tmp_path / os.fsdecode(name)
    folder.mkdir()
    with Archive(folder / "archive.sqlite", fingerprint="run") as archive:
        archive.record(evaluation(3, 1))
    assert [file.parent for file in tmp_path.rglob("archive.sqlite")] == [folder]
    assert read_archive(folder / "archive.sqlite") == {"run": (evaluation(3, 1),)}


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
    assert [row[:-1] for row in found] == [(1, "[4, 2]", 0.5, 1000, 100, 0.25, 3, 1)]


def test_a_candidate_is_recorded_once(tmp_path: Path) -> None:
    with Archive(tmp_path / "archive.sqlite", fingerprint="run") as archive:
        archive.record(evaluation(1))
        archive.record(evaluation(1))  # a result that arrives twice
        with pytest.raises(RunError, match=r"score 0\.5 where it is now 0\.7; is another run"):
            archive.record(evaluation(1, score=0.7))
        assert archive.score_of(Candidate((1,))) == 0.5
        archive.record(evaluation(2, score=math.nan))
        archive.record(evaluation(2, score=math.nan))
        assert [row.candidate for row in archive.rows()] == [(1,), (2,)]


def test_evaluations_that_arrive_in_another_order_have_places(tmp_path: Path) -> None:
    path = tmp_path / "archive.sqlite"
    with Archive(path, fingerprint="run") as archive:
        archive.record(evaluation(3), place=3)
        with archive.together():
            archive.record(evaluation(1), place=1)
            archive.record(evaluation(4), place=3)  # is taken
        assert [row.candidate for row in archive.rows()] == [(1,), (3,), (4,)]


def record_together(archive: Archive, *rows: Evaluation, then: type[BaseException] | None) -> None:
    with archive.together():
        for row in rows:
            archive.record(row)
        if then is not None:
            raise then


def test_what_is_recorded_together_is_kept_when_something_else_is_raised(tmp_path: Path) -> None:
    path = tmp_path / "archive.sqlite"
    with Archive(path, fingerprint="run") as archive:
        with pytest.raises(KeyboardInterrupt):
            record_together(archive, evaluation(1), then=KeyboardInterrupt)
        long = evaluation(*range(3000))
        with largest_file(60_000), pytest.raises(RunError, match="1 evaluations recorded so far"):
            record_together(archive, evaluation(2), long, then=None)
        kept = archive.rows()
        assert len(archive) == len(kept)
    assert list(read_archive(path)["run"]) == kept
    assert kept[0] == evaluation(1)


def test_two_processes_with_one_archive_are_told(tmp_path: Path) -> None:
    path = tmp_path / "archive.sqlite"
    with Archive(path, fingerprint="run") as ours, Archive(path, fingerprint="run") as theirs:
        ours.record(evaluation(1))
        with pytest.raises(RunError, match="is another run using the same folder"):
            theirs.record(evaluation(1))
        theirs.record(evaluation(2))
        assert len(ours.rows()) == 2


def test_places_decide_the_order(tmp_path: Path) -> None:
    """Evaluations that arrive in another order; a taken place is behind all others."""
    path = tmp_path / "archive.sqlite"
    with Archive(path, fingerprint="run") as archive:
        for value, place in ((3, 3), (1, 1), (4, None), (2, 2), (5, 1)):
            archive.record(evaluation(value), place=place)
        assert [row.candidate for row in archive.rows()] == [(1,), (2,), (3,), (4,), (5,)]


def test_what_is_recorded_together_is_there_at_once(tmp_path: Path) -> None:
    path = tmp_path / "archive.sqlite"
    with Archive(path, fingerprint="run") as archive:
        with archive.together():
            archive.record(evaluation(1))
            archive.record(evaluation(2))
            assert read(path) == []
        assert len(read(path)) == 2
        with pytest.raises(KeyboardInterrupt):
            recorded_together(archive, evaluation(3), then=KeyboardInterrupt())
        assert len(read(path)) == 3  # nothing that is finished is lost


def recorded_together(
    archive: Archive, *evaluations: Evaluation, then: BaseException | None = None
) -> None:
    with archive.together():
        for each in evaluations:
            archive.record(each)
        if then is not None:
            raise then


def read(path: Path) -> list[tuple[object, ...]]:
    """What another process sees."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as reader:
        found = reader.execute("SELECT * FROM evaluations").fetchall()
    reader.close()
    return found


def test_together_on_a_full_disk(tmp_path: Path) -> None:
    """The archive believes what is on disk, no more, and goes on once there is room."""
    path = tmp_path / "archive.sqlite"
    with Archive(path, fingerprint="run") as archive:
        archive.record(evaluation(0))
        (pages,) = archive._connection.execute("PRAGMA page_count").fetchone()
        archive._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(RunError, match="recorded so far are safe"):
            recorded_together(archive, evaluation(1), evaluation(*range(5000)))
        assert len(archive) == len(read(path)) < 3
        archive._connection.execute("PRAGMA max_page_count = 100000")
        before = len(archive)
        recorded_together(archive, evaluation(2), evaluation(3))
        assert len(archive) == len(read(path)) == before + 2


def test_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "archive.sqlite"
    Archive(path, fingerprint="resnet on digits").close()
    with pytest.raises(InputError, match="evaluations of another run"):
        Archive(path, fingerprint="resnet on photos")


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "archive.sqlite"
    Archive(path, fingerprint="run").close()
    changed(path, "PRAGMA user_version = 99")
    for opened in (lambda: Archive(path, fingerprint="run"), lambda: read_archive(path)):
        with pytest.raises(InputError, match="archive version 99, this prunas reads up to 2"):
            opened()
    with pytest.raises(InputError, match="archive version 99"):
        recover(path, ["run"])


VERSION_1 = """
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
INSERT INTO meta VALUES ('schema', '1'), ('fingerprint', 'run');
INSERT INTO evaluations VALUES
    (1, '[4, 2]', 0.5, 1000, 100, 0.25, 0), (2, '[3, 2]', NULL, 900, 90, 0.5, 0);
"""


def test_an_archive_of_version_1_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "archive.sqlite"
    changed(path, VERSION_1)
    before = path.read_bytes()
    (rows,) = read_archive(path).values()
    assert [(row.candidate, row.macs) for row in rows] == [((4, 2), 1000), ((3, 2), 900)]
    assert path.read_bytes() == before  # reading alone changes nothing
    with pytest.raises(InputError, match="evaluations of another run"):
        Archive(path, fingerprint="another")
    with Archive(path, fingerprint="run") as archive:
        assert archive.rows()[0] == rows[0]
        assert math.isnan(archive.rows()[1].score)
        archive.record(evaluation(1, 1))
    assert len(read_archive(path)["run"]) == 3


def test_a_migration_that_is_killed_leaves_version_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "archive.sqlite"
    changed(path, VERSION_1)
    with monkeypatch.context() as patch:
        patch.setattr(schema, "checksum", stop)
        with pytest.raises(KeyboardInterrupt):
            Archive(path, fingerprint="run")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM meta").fetchone() == (2,)
    with Archive(path, fingerprint="run") as archive:
        assert len(archive) == 2


def stop(*_: object) -> int:
    raise KeyboardInterrupt


def test_an_archive_of_several_runs_is_that_of_each(tmp_path: Path) -> None:
    path = tmp_path / "archive.sqlite"
    with Archive(path, fingerprint="one") as archive:
        archive.record(evaluation(1))
    changed(path, "INSERT INTO runs VALUES (2, 'two')")
    with Archive(path, fingerprint="two") as archive:
        assert len(archive) == 0
        archive.record(evaluation(1, score=0.9))
    assert {name: [row.score for row in rows] for name, rows in read_archive(path).items()} == {
        "one": [0.5],
        "two": [0.9],
    }


# -- disks -----------------------------------------------------------------------------------------


def test_a_transaction_that_a_kill_left_in_a_rollback_journal_is_taken_back(
    tmp_path: Path,
) -> None:
    """Journals are there for a moment when an archive is made, and always on network disks."""
    (tmp_path / "own").mkdir()
    path = tmp_path / "own" / "archive.sqlite"
    rows = [evaluation(value) for value in range(2000)]
    with Archive(path, fingerprint="run") as archive, archive.together():
        for row in rows:
            archive.record(row)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA cache_size = 2")  # so that it writes before the end
        before = path.read_bytes()
        connection.execute("BEGIN")
        connection.execute("UPDATE evaluations SET score = -1")
        for name in ("read", "opened"):
            shutil.copytree(path.parent, tmp_path / name)
    assert (tmp_path / "read" / "archive.sqlite").read_bytes() != before
    assert (tmp_path / "read" / "archive.sqlite-journal").stat().st_size
    assert list(read_archive(tmp_path / "read" / "archive.sqlite")["run"]) == rows
    with Archive(tmp_path / "opened" / "archive.sqlite", fingerprint="run") as archive:
        assert archive.rows() == rows


def on_a_network_disk(patch: pytest.MonkeyPatch) -> None:
    """SQLite's file locks are files there and it has no shared memory, as on network disks."""
    plain = archive_module.address
    patch.setattr(
        archive_module, "address", lambda path, way: plain(path, way) + "&vfs=unix-dotfile"
    )


def test_a_disk_without_shared_memory_gets_a_rollback_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_network_disk(monkeypatch)
    path = tmp_path / "archive.sqlite"
    with pytest.warns(match="takes no write-ahead log"):
        archive = Archive(path, fingerprint="run")
    with archive:
        archive.record(evaluation(1))
    assert [file.name for file in tmp_path.iterdir()] == ["archive.sqlite"]
    assert len(read_archive(path)["run"]) == 1


def test_a_log_that_came_from_another_disk_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a killed run leaves it, copied to a network disk."""
    (tmp_path / "local").mkdir()
    with Archive(tmp_path / "local" / "archive.sqlite", fingerprint="run") as archive:
        archive.record(evaluation(1))
        shutil.copytree(tmp_path / "local", tmp_path / "copy")
    assert (tmp_path / "copy" / "archive.sqlite-wal").stat().st_size
    on_a_network_disk(monkeypatch)
    with pytest.warns(match="takes no write-ahead log"):
        archive = Archive(tmp_path / "copy" / "archive.sqlite", fingerprint="run")
    with archive:
        archive.record(evaluation(2))
        assert len(archive) == 2


@pytest.mark.parametrize("killed", [False, True])
def test_an_archive_on_a_read_only_disk_can_be_read(
    killed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    path = tmp_path / "archive.sqlite"
    archive = Archive(path, fingerprint="run")
    archive.record(evaluation(1))
    if not killed:
        archive.close()
    before = sorted(file.name for file in tmp_path.iterdir())
    assert len(read_archive(path)["run"]) == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == before
    archive.close()


# -- damage ----------------------------------------------------------------------------------------


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


def test_the_database_of_another_program_is_refused_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "archive.sqlite"
    changed(path, "CREATE TABLE songs (title TEXT)")
    before = path.read_bytes()
    with pytest.raises(InputError, match="a database but not a prunas archive"):
        Archive(path, fingerprint="run")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("there", [True, False])
def test_an_archive_that_is_a_link_is_refused_and_not_written_through(
    there: bool, tmp_path: Path
) -> None:
    victim, path = tmp_path / "victim.sqlite", tmp_path / "archive.sqlite"
    if there:
        victim.touch()
    path.symlink_to(victim)
    for opened in (lambda: Archive(path, fingerprint="run"), lambda: recover(path, ["run"])):
        with pytest.raises(InputError, match=r"archive\.sqlite is a link to .*victim\.sqlite"):
            opened()
    assert victim.exists() == there
    assert not there or victim.read_bytes() == b""


ENDLESS = """
CREATE VIEW evaluations AS
    WITH RECURSIVE x(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM x) SELECT i AS id, 1 AS run FROM x;
CREATE TABLE runs (id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE);
INSERT INTO runs VALUES (1, 'run');
PRAGMA user_version = 2;
"""
FORGETFUL = "CREATE TRIGGER x AFTER INSERT ON evaluations BEGIN DELETE FROM evaluations; END;"
OTHER_COLUMNS = "DROP TABLE evaluations; CREATE TABLE evaluations (id, run, score);"


@pytest.mark.parametrize("script", [ENDLESS, FORGETFUL])
def test_a_file_that_does_more_than_hold_rows_is_refused(tmp_path: Path, script: str) -> None:
    path = tmp_path / "archive.sqlite"
    if script is FORGETFUL:
        Archive(path, fingerprint="run").close()
    changed(path, script)
    for opened in (
        lambda: Archive(path, fingerprint="run"),
        lambda: read_archive(path),
        lambda: recover(path, ["run"]),
    ):
        with pytest.raises(InputError, match="archives of prunas hold none"):
            opened()


def test_other_columns_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "archive.sqlite"
    Archive(path, fingerprint="run").close()
    changed(path, OTHER_COLUMNS)
    for opened in (lambda: Archive(path, fingerprint="run"), lambda: read_archive(path)):
        with pytest.raises(InputError, match=r"evaluations' is not as prunas makes it\); `prunas"):
            opened()


def test_a_file_of_version_1_that_names_no_run_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "archive.sqlite"
    changed(path, VERSION_1 + "DELETE FROM meta WHERE key = 'fingerprint';")
    for opened in (lambda: Archive(path, fingerprint="run"), lambda: read_archive(path)):
        with pytest.raises(InputError, match="names no run"):
            opened()


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "archive.sqlite"
    with Archive(path, fingerprint="run") as archive:
        for value in range(400):
            archive.record(evaluation(value))
    content = path.read_bytes()
    path.write_bytes(content[:-8192] + b"lost" * 2048)
    with pytest.raises(InputError, match=r"damaged.*prunas runs recover"):
        Archive(path, fingerprint="run")
    saved, aside = recover(path, ["run"])
    assert aside.read_bytes()[-8192:] == b"lost" * 2048
    with Archive(path, fingerprint="run") as archive:
        assert saved == len(archive)
        assert 150 < saved < 400
        assert archive.rows() == [evaluation(*row.candidate) for row in archive.rows()]
    with pytest.raises(InputError, match=f"is whole, with {saved} evaluations"):
        recover(path, ["run"])
    with pytest.raises(InputError, match="there is no archive"):
        recover(tmp_path / "none.sqlite", ["run"])


@pytest.fixture
def damaged_with_a_log(tmp_path: Path) -> Iterator[Path]:
    """A damaged archive of which the last evaluations are in the log alone."""
    path = tmp_path / "killed" / "archive.sqlite"
    (tmp_path / "own").mkdir()
    with Archive(tmp_path / "own" / "archive.sqlite", fingerprint="run") as archive:
        for value in range(400):
            archive.record(evaluation(value))
        shutil.copytree(tmp_path / "own", path.parent)
    content = path.read_bytes()
    path.write_bytes(content[: 5 * 4096] + b"lost" * 1024 + content[6 * 4096 :])
    with closing(sqlite3.connect(path)) as reader:  # as long as it reads the log is not taken in
        reader.execute("SELECT * FROM sqlite_master").fetchall()
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM runs").fetchall()
        yield path


class KilledError(BaseException):
    """Nobody catches it."""


def test_a_recovery_that_is_killed_at_any_moment_loses_nothing(
    damaged_with_a_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = damaged_with_a_log
    shutil.copytree(path.parent, tmp_path / "undisturbed")
    saved, _ = recover(tmp_path / "undisturbed" / "archive.sqlite", ["run"])
    assert saved > len(without_its_log(path, tmp_path / "without"))
    moments, damaged = 0, path.read_bytes()
    while killed_at(moments, path, monkeypatch):
        moments += 1
        for aside in path.parent.glob("archive.damaged-?.sqlite"):
            assert aside.read_bytes() == damaged, "half a copy"
    assert moments > 6
    assert len(read_archive(path)["run"]) == saved


def without_its_log(path: Path, folder: Path) -> tuple[Evaluation, ...]:
    folder.mkdir()
    copy = folder / path.name
    shutil.copy(path, copy)
    recover(copy, ["run"])
    return read_archive(copy)["run"]


def killed_at(moment: int, path: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Recover an archive, killed before the change of that number; False: it came to its end."""
    left, copy = moment, shutil.copy

    def mortal(function: Any) -> Any:
        def change(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == -1:
                if function is copy:
                    Path(arguments[1]).write_bytes(b"half of the")
                raise KilledError
            return function(*arguments, **options)

        return change

    with monkeypatch.context() as patch:
        for owner, name in ((os, "replace"), (shutil, "copy"), (Path, "unlink")):
            patch.setattr(owner, name, mortal(getattr(owner, name)))
        try:
            recover(path, ["run"])
        except KilledError:
            return True
        except InputError:  # it is whole
            pass
        return False


@pytest.mark.parametrize("column", ["candidate", "score", "macs", "params", "seconds", "asked_at"])
def test_a_value_that_is_not_what_was_recorded_is_damage(column: str, tmp_path: Path) -> None:
    """SQLite has no checksums: a flipped bit in a score leaves it a well-formed database."""
    path = tmp_path / "archive.sqlite"
    with Archive(path, fingerprint="run") as archive:
        archive.record(evaluation(1))
        archive.record(evaluation(2))
    changed(path, f"UPDATE evaluations SET {column} = '[7]' WHERE id = 2")
    for opened in (lambda: Archive(path, fingerprint="run"), lambda: read_archive(path)):
        with pytest.raises(InputError, match="evaluation 2 is not what was recorded"):
            opened()
    assert recover(path, ["run"])[0] == 1


def test_a_run_whose_name_is_damaged_in_the_table_alone_is_recovered(tmp_path: Path) -> None:
    """Its index still knows the name: it is this run, and no other one."""
    path = tmp_path / "archive.sqlite"
    with Archive(path, fingerprint="a run of its own") as archive:
        archive.record(evaluation(1))
    content = path.read_bytes()
    assert content.count(b"a run of its own") == 2
    for name, place in (("table", content.find), ("index", content.rfind)):
        copy = tmp_path / f"{name}.sqlite"
        start = place(b"a run of its own")
        copy.write_bytes(content[:start] + b"A" + content[start + 1 :])
        assert recover(copy, ["a run of its own"])[0] == 1


def test_an_archive_of_version_1_of_another_run_is_not_recovered(tmp_path: Path) -> None:
    path = tmp_path / "archive.sqlite"
    changed(path, VERSION_1 + "UPDATE evaluations SET candidate = 'no list' WHERE id = 2;")
    before = path.read_bytes()
    with pytest.raises(InputError, match="evaluations of another run, and so nothing to recover"):
        recover(path, ["another"])
    assert path.read_bytes() == before
    assert recover(path, ["run"])[0] == 1


def test_nothing_can_be_saved_of_what_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "archive.sqlite"
    path.write_bytes(b"not a database at all" * 1000)
    assert recover(path, ["run"])[0] == 0
    with Archive(path, fingerprint="run") as archive:
        assert len(archive) == 0


def test_a_row_that_no_run_owns_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "archive.sqlite"
    with Archive(path, fingerprint="run") as archive:
        archive.record(evaluation(1))
    changed(path, "INSERT INTO runs VALUES (2, 'other'); DELETE FROM runs WHERE id = 1")
    with pytest.raises(InputError, match="belongs to no run"):
        read_archive(path)


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
