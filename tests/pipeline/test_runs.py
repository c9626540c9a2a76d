"""Runs listed, merged, exported and recovered."""

import csv
import json
import math
import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prunas.pipeline.cli import main
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.runs import export_runs, exporting, list_runs
from prunas.pipeline.sealed import write_sealed
from prunas.search.record import read_archive
from prunas.supernet.space import Candidate
from tests.pipeline.left_over import an_ended_process
from tests.pipeline.made_up_run import GENES, a_run, evaluations


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> Any:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    capsys.readouterr()
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err.removeprefix("prunas: ")


# -- list ------------------------------------------------------------------------------------------


def test_runs_are_listed_by_name_with_what_they_have_come_to(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = evaluations(30)
    a_run(place / "runs" / "b", rows)
    a_run(place / "runs" / "a" / "inner", rows[:8], finished=False, seed=4)
    a_run(place / "runs" / "a" / "inner" / "checkpoints" / "hidden", rows)
    (place / "runs" / "broken").mkdir()
    (place / "runs" / "broken" / "run.json").write_text("{")
    (place / "runs" / "link").symlink_to(place / "runs" / "b")
    (inner, b, broken) = printed(capsys, ["runs", "list"])["runs"]
    best = max(row.score for row in rows if not math.isnan(row.score))
    assert b == {
        "folder": "runs/b", "state": "trained", "model": "mobilenetv2_050", "data": "digits",
        "budget": "macs=0.4", "seeds": [0], "evaluations": 30, "asked": 300, "best": best,
        "accuracy": 0.969, "trouble": "",
    }  # fmt: skip
    assert (inner["folder"], inner["state"], inner["seeds"]) == ("runs/a/inner", "begun", [4])
    assert (inner["evaluations"], inner["accuracy"]) == (8, None)
    assert broken["state"] == "damaged"
    assert "runs/broken/run.json cannot be read" in broken["trouble"]
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["runs", "list"]) == 0
    out = capsys.readouterr().out
    for text in ("runs/a/inner", "8 of 300", "30 of 300", "0.9690", "cannot be read"):
        assert text in out


def test_a_folder_without_runs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no folder runs" in refused(capsys, ["runs", "list"])
    assert main(["runs", "list", "."]) == 0
    assert "there are no runs in" in capsys.readouterr().out


def test_names_in_brackets_are_listed_as_they_are(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    a_run(place / "runs" / "resnet[macs50]", evaluations(3), data="photos[/b]", model="x:fire:")
    assert main(["runs", "list"]) == 0
    out = capsys.readouterr().out
    for name in ("runs/resnet[macs50]", "photos[/b]", "x:fire:"):
        assert name in out


# -- merge -----------------------------------------------------------------------------------------


def test_runs_of_other_seeds_stay_apart_in_one_archive(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1, 2):
        a_run(place / f"seed-{seed}", evaluations(20, seed), seed=seed, evaluations=20 + seed)
    left = (place / f".all.{an_ended_process()}.part", place / f".all.{os.getppid()}.part")
    for each in left:
        (each / "checkpoints").mkdir(parents=True)
    words = ["runs", "merge", "seed-2", "seed-0", "seed-1", "--out", "all"]
    assert printed(capsys, words) == {"run": "all", "runs": 3, "evaluations": 60, "twice": 0}
    assert [each.exists() for each in left] == [False, True]
    fingerprints = [RunFolder(place / f"seed-{n}").request().fingerprint() for n in (2, 0, 1)]
    found = read_archive(place / "all" / "archive.sqlite")
    assert list(found) == fingerprints
    assert repr(found[fingerprints[1]]) == repr(tuple(evaluations(20, 0)))
    (listed,) = list_runs(place / "all")
    assert (listed.state, listed.seeds, listed.evaluations) == ("merged", (0, 1, 2), 60)
    assert "holds no run" in refused(capsys, ["runs", "resume", "all"])
    a_run(place / "seed-3", evaluations(5, 3), seed=3)
    again = printed(capsys, ["runs", "merge", "all", "seed-3", "--out", "more"])
    assert (again["runs"], again["evaluations"]) == (4, 65)


def test_a_run_that_went_on_in_two_places_becomes_one(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = evaluations(30)
    a_run(place / "here", rows[:20], evaluations=20)
    free: dict[str, Any] = {"batch": 5, "in_flight": 20, "compile": True, "checkpoint_every": 30.0}
    rest = [*rows[:10], *rows[20:]]
    a_run(place / "there", rest, evaluations=40, seeds=5, transform=True, **free)
    assert main(["runs", "merge", "here", "there", "--out", "in one"]) == 0
    assert "prunas runs resume 'in one'" in capsys.readouterr().out
    assert main(["runs", "merge", "here", "there", "--out", "one"]) == 0
    out = capsys.readouterr().out
    assert "one: 30 evaluations of 1 run(s), 10 of which were there twice" in out
    assert "prunas runs resume one" in out
    run = RunFolder.open(place / "one")
    assert repr(read_archive(run.archive)[run.request().fingerprint()]) == repr(tuple(rows))
    assert run.request().evaluations == 40
    assert "result" not in run.read()
    assert run.checkpoint("full").read_text() == "weights of here"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": "resnet18"}, "model is 'mobilenetv2_050' in one and 'resnet18' in the other"),
        ({"grid": "every"}, "grid is"),
        ({"epochs": 3}, "epochs is None in one and 3 in the other"),
        ({"seed": 1}, "their genes differ"),
        ({}, "they were not scored on the same weights"),
    ],
)
def test_runs_that_do_not_compare_are_not_merged(
    change: dict[str, Any], sentence: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = evaluations(5)
    others = [replace(row, score=0.5) for row in rows]
    if sentence.startswith("their genes"):
        others = [replace(row, candidate=type(row.candidate)(row.candidate[1:])) for row in rows]
    a_run(place / "one", rows)
    a_run(place / "two", others, finished=not sentence.startswith("their genes"), **change)
    assert sentence in refused(capsys, ["runs", "merge", "one", "two", "--out", "both"])
    assert sorted(each.name for each in place.iterdir()) == ["one", "two"]


def test_runs_of_other_data_of_one_name_are_not_merged(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = [{"pictures": 90, "digest": "a"}, None, {"pictures": 90, "digest": "b"}]
    held += [{"pictures": 80, "digest": "c"}, {"pictures": 90, "digest": "a"}]
    for seed, data in enumerate(held):
        run = RunFolder(a_run(place / f"{seed}", evaluations(5, seed), seed=seed, data="d.npz"))
        if data:
            run.update({"data": data})
    other = "cannot be merged: d.npz held other pictures or labels in one than in the other"
    assert f"0 and 2 {other}" in refused(capsys, ["runs", "merge", "0", "1", "2", "--out", "x"])
    said = refused(capsys, ["runs", "merge", "0", "3", "--out", "x"])
    assert "d.npz held 90 pictures in one and 80 in the other" in said
    assert not (place / "x").exists()
    assert main(["runs", "merge", "0", "1", "--out", "two"]) == 0
    assert f"two and 2 {other}" in refused(capsys, ["runs", "merge", "two", "2", "--out", "x"])
    assert main(["runs", "merge", "two", "4", "--out", "all"]) == 0


def test_a_run_that_was_killed_before_it_had_checkpoints_is_merged(place: Path) -> None:
    data = {"pictures": 90, "digest": "a"}
    for name in ("one", "two"):
        a_run(place / name, evaluations(3))
    RunFolder(place / "two").update({"data": data})
    shutil.rmtree(place / "one" / "checkpoints")
    assert main(["runs", "merge", "one", "two", "--out", "both"]) == 0
    assert RunFolder(place / "both").contents() == data


def test_a_link_to_an_empty_folder_is_merged_into(place: Path) -> None:
    for seed in (0, 1):
        a_run(place / str(seed), evaluations(3), seed=seed)
    (place / "empty").mkdir()
    (place / "link").symlink_to("empty")
    assert main(["runs", "merge", "0", "1", "--out", "link"]) == 0
    assert (place / "empty" / "merged.json").exists()
    assert sorted(each.name for each in place.iterdir()) == ["0", "1", "empty", "link"]


@pytest.mark.parametrize(
    ("run", "sentence"),
    [(None, "it names no run"), ({"data": {"pictures": "x"}}, "'data' of a run is {'pictures'")],
)
def test_a_merged_folder_that_says_what_cannot_be(
    run: dict[str, Any] | None,
    sentence: str,
    place: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = [] if run is None else [{"name": "a", "request": {}, **run}]
    write_sealed(place / "merged.json", {"schema": 1, "genes": [], "runs": runs})
    said = refused(capsys, ["runs", "export", ".", "--out", "x"])
    assert "merged.json cannot be read: " in said
    assert sentence in said


def test_merging_needs_two_runs_and_a_new_folder(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_run(place / "one", evaluations(5))
    assert "merge two runs or more" in refused(capsys, ["runs", "merge", "one", "--out", "x"])
    words = ["runs", "merge", "one", "one", "--out", "one"]
    assert "one exists; merge into a new folder" in refused(capsys, words)


def test_the_folder_that_one_is_in_is_not_merged_into(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be replaced, and whoever is in it be nowhere."""
    for seed in (0, 1):
        a_run(place / str(seed), evaluations(3), seed=seed)
    (place / "empty").mkdir()
    monkeypatch.chdir(place / "empty")
    said = refused(capsys, ["runs", "merge", "../0", "../1", "--out", "."])
    assert ". is the folder that you are in, which would be replaced" in said
    assert not list((place / "empty").iterdir())


# -- export ----------------------------------------------------------------------------------------


def test_a_run_becomes_a_table(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = evaluations(20)
    a_run(place / "run", [replace(rows[0], score=math.inf), *rows[1:]], seed=3)
    words = ["runs", "export", "run", "--out", "table.csv"]
    assert printed(capsys, words) == {"run": "run", "file": "table.csv", "rows": 20}
    with (place / "table.csv").open(newline="") as opened:
        table = list(csv.DictReader(opened))
    assert [float(row["score"]) for row in table if row["score"]] == [
        math.inf, *[row.score for row in rows[1:] if not math.isnan(row.score)]
    ]  # fmt: skip
    assert [row["score"] for row in table].count("") == 1
    names = [gene["name"] for gene in GENES]
    assert [tuple(int(row[name]) for name in names) for row in table] == [
        row.candidate for row in rows
    ]
    assert (table[4]["run"], table[4]["seed"], table[4]["number"]) == ("run", "3", "5")
    assert table[4]["macs"] == str(rows[4].macs)


def test_parquet_holds_the_same_with_its_types(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for seed in (0, 1):
        a_run(place / str(seed), evaluations(20, seed), seed=seed, finished=False)
    assert main(["runs", "merge", "0", "1", "--out", "both"]) == 0
    assert main(["runs", "export", "both", "--format", "parquet", "--out", "t.parquet"]) == 0
    table = parquet.read_table(place / "t.parquet").to_pydict()
    rows = [*evaluations(20, 0), *evaluations(20, 1)]
    assert table["seed"] == [0] * 20 + [1] * 20
    assert table["score"] == [None if math.isnan(row.score) else row.score for row in rows]
    assert table["params"] == [row.params for row in rows]
    last = len(GENES) - 1
    assert table[f"gene {last}"] == [row.candidate[last] for row in rows]


def test_tables_that_cannot_be_written(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    a_run(place / "run", evaluations(3))
    words = ["runs", "export", "run", "--out", "table", "--format"]
    assert "no format is called 'xls'; choose csv, parquet" in refused(capsys, [*words, "xls"])
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    sentence = refused(capsys, [*words, "parquet"])
    assert "Parquet needs pyarrow; run: pip install 'prunas[parquet]'" in sentence
    assert not (place / "table").exists()


@pytest.mark.parametrize(
    "name",
    [
        "archive.sqlite",
        "archive.sqlite-wal",
        "run.json",
        "report.html",
        "rank.html",
        ".lock",
        "model",
        "merged.json",
        "checkpoints/full.safetensors",
        "checkpoints/new.csv",
        "model/arch.json",
        "../link/model/arch.json",
    ],
)
def test_an_export_never_replaces_a_part_of_its_run(
    name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = a_run(place / "one", evaluations(3))
    (place / "link").symlink_to(run)
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    said = refused(capsys, ["runs", "export", "one", "--out", f"one/{name}"])
    assert "is a part of the run that is exported; give another --out" in said
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


def test_an_archive_that_is_still_to_be_made_is_no_place_for_a_table(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (a_run(place / "one", []) / "archive.sqlite").unlink()
    said = refused(capsys, ["runs", "export", "one", "--out", "one/archive.sqlite"])
    assert "is a part of the run that is exported" in said
    (listed,) = list_runs(place / "one")
    assert listed.trouble == ""


def test_a_table_may_have_a_new_name_in_its_run(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_run(place / "one", evaluations(3))
    for file in ("one/table.csv", "one/export/table.csv"):
        words = ["runs", "export", "one", "--out", file]
        assert printed(capsys, words)["rows"] == 3
        assert f"{file} exists in the run that is exported" in refused(capsys, words)


def test_a_folder_is_no_table(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_run(place / "one", evaluations(3))
    words = ["runs", "export", "one", "--out", "."]
    assert ". is a folder; give the name of a file with --out" in refused(capsys, words)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_candidates_of_other_lengths_are_no_table(
    form: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow")
    first, second = evaluations(2)
    a_run(place / "run", [first, replace(second, candidate=Candidate(second.candidate[:3]))])
    said = refused(capsys, ["runs", "export", "run", "--out", "table", "--format", form])
    assert f"candidates of 3 and of {len(first.candidate)} genes are no table" in said
    assert not (place / "table").exists()


@pytest.mark.parametrize("value", [10**30, 2**31, -1])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_values_that_no_gene_has_are_damage(
    form: str, value: int, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow")
    (row,) = evaluations(1)
    a_run(place / "run", [replace(row, candidate=Candidate((value, *row.candidate[1:])))])
    said = refused(capsys, ["runs", "export", "run", "--out", "table", "--format", form])
    assert "its values are not within 0 and 2**31" in said
    assert not (place / "table").exists()


@pytest.fixture
def merged_of_no_text(place: Path) -> Path:
    """Two runs in one folder, one of them with a name that is no text."""
    for seed in (0, 1):
        a_run(place / str(seed), evaluations(2), seed=seed)
    assert main(["runs", "merge", "0", "1", "--out", "all"]) == 0
    entries = json.loads((place / "all" / "merged.json").read_text())
    entries["runs"][0]["name"] = "\ud800"
    write_sealed(place / "all" / "merged.json", entries)
    return place


def test_what_parquet_does_not_hold_is_a_sentence(
    merged_of_no_text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow")
    words = ["runs", "export", "all", "--out", "table", "--format", "parquet"]
    assert "Parquet does not hold such values" in refused(capsys, words)
    assert not (merged_of_no_text / "table").exists()


def test_a_run_whose_name_is_no_text_is_exported(merged_of_no_text: Path) -> None:
    assert export_runs(merged_of_no_text / "all", "csv", merged_of_no_text / "table") == 4
    assert "\n\\ud800,0," in (merged_of_no_text / "table").read_text()


# -- recover ---------------------------------------------------------------------------------------


def test_what_can_be_read_of_a_damaged_archive_is_saved(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = a_run(place / "run", evaluations(200)) / "archive.sqlite"
    assert "is whole, with 200 evaluations" in refused(capsys, ["runs", "recover", "run"])
    content = archive.read_bytes()
    archive.write_bytes(content[:-4096] + bytes(4096))
    assert "prunas runs recover RUN" in refused(capsys, ["runs", "export", "run", "--out", "x"])
    found = printed(capsys, ["runs", "recover", "run"])
    assert found["damaged"] == "run/archive.damaged-1.sqlite"
    (rows,) = read_archive(archive).values()
    assert 0 < len(rows) == found["saved"]
    assert {repr(row) for row in rows} <= {repr(row) for row in evaluations(200)}


def test_the_archive_of_another_run_is_not_recovered_as_this_ones(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (1, 2):
        a_run(place / str(seed), evaluations(4, seed), seed=seed)
    archive = place / "1" / "archive.sqlite"
    shutil.copy(place / "2" / "archive.sqlite", archive)
    with closing(sqlite3.connect(archive)) as connection, connection:
        connection.execute("UPDATE evaluations SET macs = 7 WHERE id = 3")
    before = archive.read_bytes()
    said = refused(capsys, ["runs", "recover", "1"])
    assert "archive.sqlite holds the evaluations of another run, and so nothing to recover" in said
    assert archive.read_bytes() == before
    assert not list((place / "1").glob("*damaged*"))


def test_what_can_be_read_of_merged_runs_is_saved(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1):
        a_run(place / str(seed), evaluations(200, seed), seed=seed)
    assert main(["runs", "merge", "1", "0", "--out", "all"]) == 0
    archive = place / "all" / "archive.sqlite"
    with closing(sqlite3.connect(archive)) as connection, connection:
        connection.execute("UPDATE evaluations SET macs = 7 WHERE id IN (3, 300, 301)")
    (listed,) = list_runs(place / "all")
    assert "prunas runs recover RUN" in listed.trouble
    capsys.readouterr()
    assert main(["runs", "recover", "all"]) == 0
    out = capsys.readouterr().out
    assert "merge them again for all" in out
    assert "resume" not in out
    known = [RunFolder(place / name).request().fingerprint() for name in "10"]
    found = read_archive(archive)
    assert list(found) == known
    for seed, name, lost in ((1, known[0], {2}), (0, known[1], {99, 100})):
        rows = [row for place, row in enumerate(evaluations(200, seed)) if place not in lost]
        assert repr(found[name]) == repr(tuple(rows))
    assert "397 evaluations were saved" in out
