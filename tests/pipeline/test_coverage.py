"""The coverage table: what passes, what a worker may do to itself, and what is kept."""

import csv
import json
import math
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import prunas
from prunas.errors import RunError
from prunas.pipeline.cli import main
from prunas.pipeline.coverage import Row, cover, examine, protocol, read_rows, workers, zoo
from prunas.pipeline.progress import Task
from prunas.pipeline.workers import Workers
from prunas.search.executors.simulated import Fate, Simulated

GIB = 2**30
PASSED = Row(
    "m", "resnet", False, params=10, macs=20, side=32, genes=3, blocks=2, pinned=1,
    why="1 x a reason; another", macs_can_go=0.9, params_can_go=0.8, macs_left=0.3, params_left=0.5,
    trace_s=0.1, cut_s=0.2, oracle_side=32, oracle_width=1.0, permutation=1e-15, masked=0.0,
    runs=True, reloads=True, seconds=2.0, stage="done",
)  # fmt: skip


def test_a_broken_cluster_leaves_no_row_of_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def crew(elsewhere: Workers, recipe: object, threads: int) -> Simulated[str, Row]:
        return Simulated(lambda task, worker: Fate(1.0, None), [(0, 2)])

    monkeypatch.setattr(Workers, "_crew", crew)
    models = [f"model {number}" for number in range(12)]
    arriving = workers.examined_elsewhere(models, Workers("ray"), limit=9.0, memory=GIB)
    with pytest.raises(RunError, match="10 tasks after one another"):
        next(arriving)


def test_a_model_is_traced_cut_and_proven() -> None:
    told: list[Row] = []
    row = examine("test_efficientnet", memory=4 * GIB, report=told.append)
    assert row.passes
    assert row.old_protocol
    assert (row.family, row.stage, row.error) == ("efficientnet", "done", "")
    assert row.oracle_side == 64 < row.side == 160  # type: ignore[operator]
    assert row.permutation is not None and row.permutation < 1e-9  # noqa: PT018
    assert [each.stage for each in told] == [
        "trace",
        "trace",
        "oracles",
        "oracles",
        "cut",
        "reload",
        "done",
    ]
    assert told[1].genes == row.genes
    assert told[1].permutation is None
    assert told[3].permutation == row.permutation
    assert (row.oracle_width, row.classifier_added) == (1.0, False)


def test_a_network_that_does_not_fit_is_proven_narrower() -> None:
    row = examine("test_efficientnet", memory=44 * 100_000)  # of 356,196 parameters
    assert row.passes
    assert row.oracle_width == 0.25


def test_a_network_that_fits_at_no_width() -> None:
    row = examine("test_efficientnet", memory=44 * 1_000)
    assert row.macs_left is not None
    assert "copies of its weights do not fit at 0.0625 of its widths" in row.error
    assert (row.stage, row.passes) == ("oracles", False)


def test_a_network_without_a_classifier_gets_one() -> None:
    row = examine("vit_tiny_patch16_dinov3_qkvb", memory=4 * GIB)
    assert row.passes
    assert row.classifier_added
    assert row.side == 256
    assert row.oracle_side == 64


def test_networks_of_torchvision() -> None:
    row = examine("torchvision/lraspp_mobilenet_v3_large", memory=4 * GIB)
    assert row.passes
    assert row.family == "torchvision/lraspp"


def test_patterns_name_networks() -> None:
    assert zoo.names(["resnet18", "resnet1*"]) == sorted(zoo.names(["resnet1*"]))
    segmentation = [name for name in zoo.names(["torchvision/*"]) if "deeplab" in name]
    assert len(segmentation) == 3
    with pytest.raises(prunas.InputError, match="'resnet19'; did you mean resnet18"):
        zoo.names(["resnet19"])
    with pytest.raises(prunas.InputError, match="no network is called '_'; 'resnet"):
        zoo.entry("_")


@pytest.mark.parametrize("stage", ["trace", "verify"])
def test_what_fails_is_a_sentence_in_the_row(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise prunas.InputError("it is of no use\nat all")

    monkeypatch.setattr(protocol, stage, fails)
    row = examine("test_efficientnet", memory=4 * GIB)
    assert row.error == "InputError: it is of no use"
    assert row.stage == {"trace": "trace", "verify": "oracles"}[stage]
    assert not row.passes


@pytest.mark.parametrize(
    ("change", "passes", "old"),
    [
        ({}, True, True),
        ({"macs_left": 0.61}, False, True),
        ({"permutation": None}, False, True),
        ({"masked": None}, False, True),
        ({"reloads": False}, False, True),
        ({"runs": False}, False, False),
        ({"params_left": 1.0}, True, False),
    ],
)
def test_what_passes(change: dict[str, Any], passes: bool, old: bool) -> None:
    row = replace(PASSED, **change)
    assert (row.passes, row.old_protocol) == (passes, old)


_NUMBERS = st.none() | st.floats(0, 1e9).map(lambda value: float(f"{value:.4g}"))
_TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")))


@given(
    number=_NUMBERS,
    count=st.none() | st.integers(0, 10**12),
    flag=st.none() | st.booleans(),
    text=_TEXTS,
)
def test_rows_survive_the_file(
    number: float | None, count: int | None, flag: bool | None, text: str
) -> None:
    row = replace(PASSED, masked=number, macs=count, runs=flag, why=text, error=text)
    assert Row.from_text(row.to_text()) == row


@pytest.mark.parametrize("memory", ["inf", "1e+10"])
def test_more_memory_than_machines_have(memory: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["coverage", "test_resnet", "--memory", memory]) == 2
    assert f"--memory {memory} is more GiB than any machine has" in capsys.readouterr().err


# -- processes -------------------------------------------------------------------------------------


def _quick(model: str, *, memory: int, report: Callable[[Row], None]) -> Row:
    row = replace(PASSED, model=model, stage="trace")
    report(row)
    if model == "dies":
        os._exit(7)
    while model == "hangs":
        time.sleep(60)
    if model == "eats":
        bytearray(64 * GIB)
    return replace(row, stage="done")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that do as their model's name says, forked from here to have the mock."""
    fork = _Fork(multiprocessing.get_context("fork"))
    monkeypatch.setattr(workers, "examine", _quick)
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: fork)


class _Fork:
    """The context of forks, which preloads nothing."""

    def __init__(self, context: Any) -> None:
        self.Pipe, self.Process = context.Pipe, context.Process

    def set_forkserver_preload(self, names: list[str]) -> None:
        """There is no server."""


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("limit", [1e8, math.inf])
def test_a_limit_may_be_longer_than_the_system_can_wait(limit: float) -> None:
    (row,) = workers.examined(["a"], jobs=1, limit=limit, memory=16 * GIB)
    assert row.passes


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("jobs", [1, 3])
def test_a_worker_that_dies_hangs_or_eats_ends_alone(jobs: int, tmp_path: Path) -> None:
    models = ["a", "dies", "b", "hangs", "eats", "c"]
    told: list[tuple[str, int]] = []
    rows = cover(
        models,
        tmp_path / "table.csv",
        jobs=jobs,
        limit=5,
        memory=16 * GIB,
        on_row=lambda row, done: told.append((row.model, done)),
    )
    assert [row.model for row in rows] == sorted(models)
    assert sorted(model for model, _ in told) == sorted(models)
    assert [done for _, done in told] == [1, 2, 3, 4, 5, 6]
    errors = {row.model: row.error for row in rows if row.error}
    assert set(errors) == {"dies", "hangs", "eats"}
    assert errors["dies"] == "its process ended with code 7"
    assert errors["hangs"] == "took more than 5 s"
    assert errors["eats"].startswith("its process ended with code")
    assert all(row.genes == 3 for row in rows)  # what was known is kept


@pytest.mark.usefixtures("quick")
def test_rows_that_are_there_are_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"

    def run(models: list[str]) -> list[str]:
        told: list[str] = []
        cover(
            models, file, jobs=1, limit=9, memory=16 * GIB, on_row=lambda r, n: told.append(r.model)
        )
        return told

    assert run(["b"]) == ["b"]
    assert run(["a", "b", "c"]) == ["a", "c"]
    assert run(["c"]) == []
    assert [row.model for row in read_rows(file)] == ["a", "b", "c"]
    content = file.read_text()
    file.write_text(content[:-9])  # as a kill leaves it
    assert [row.model for row in read_rows(file)] == ["a", "b"]
    assert run(["a", "b", "c"]) == ["c"]
    assert file.read_text() == content


@pytest.mark.parametrize(
    "text", ["", "junk", "junk\n", "\n", "model,genes\na,1\n", "model,family\na,b,c\n"]
)
def test_another_file_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text(text)
    if not text:  # an empty file has no rows, which is no reason to complain
        assert read_rows(file) == []
        return
    with pytest.raises(prunas.InputError, match="is no table of coverage"):
        read_rows(file)


def test_a_pipe_is_no_table(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(prunas.InputError, match="pipe is a pipe or a device"):
        cover([], tmp_path / "pipe", jobs=1, limit=1, memory=GIB, on_row=lambda row, done: None)


def test_the_table_is_plain_csv(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    cover([], file, jobs=1, limit=1, memory=GIB, on_row=lambda row, done: None)
    with file.open(newline="") as opened:
        assert next(csv.reader(opened))[:3] == ["model", "family", "classifier_added"]


# -- the command -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_the_command_draws_a_sample_and_says_its_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = str(tmp_path / "table.csv")
    command = ["coverage", "resnet1*", "resnet2*", "--sample", "3", "--seed", "5", "--out", table]
    assert main([*command, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer == {"models": 3, "passed": 3, "table": table, "seed": 5}
    models = [row.model for row in read_rows(Path(table))]
    assert all(model.startswith(("resnet1", "resnet2")) for model in models)
    assert main(command) == 0
    assert "3 of 3 models pass; 3 run at half width" in (told := capsys.readouterr().out)
    assert f"table: {table}, sample of seed 5" in told


@pytest.mark.usefixtures("quick")
def test_what_passed_before_must_pass_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tmp_path / "before.csv"
    cover(
        ["resnet18", "resnet34"], before, jobs=1, limit=9, memory=GIB, on_row=lambda row, done: None
    )
    text = before.read_text()
    command = ["coverage", "resnet18", "--against", str(before), "--out"]
    assert main([*command, str(tmp_path / "now.csv")]) == 0
    now = tmp_path / "worse.csv"
    now.write_text("".join(line.replace(",0.3,", ",0.7,") for line in text.splitlines(True)))
    assert main([*command, str(now)]) == 1
    assert "1 that passed in" in (told := capsys.readouterr().err)
    assert "no longer pass: resnet18" in told
    before.write_text(now.read_text())  # what did not pass before need not pass now
    assert main([*command, str(now)]) == 0
    assert main([*command[:-2], str(tmp_path / "none.csv"), "--out", str(now)]) == 2


@pytest.mark.usefixtures("quick")
def test_a_table_that_was_stopped_says_what_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(self: Task, done: int, total: int) -> None:
        raise KeyboardInterrupt

    command = ["coverage", "resnet18", "resnet34", "--out", str(tmp_path / "table.csv")]
    with monkeypatch.context() as patch:
        patch.setattr(Task, "update", stopped)
        assert main(command) == 130
    assert "the rows of finished models are kept in" in capsys.readouterr().err
    assert len(read_rows(tmp_path / "table.csv")) == 1
    assert main(command) == 0
    assert "2 of 2 models pass" in capsys.readouterr().out


def test_a_pattern_without_models_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["coverage", "no_such_model"]) == 2
    assert "no network is called 'no_such_model'" in capsys.readouterr().err
