"""Comparisons: equal conditions, exact regret, nothing lost, every refusal a sentence."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prunas.errors import InputError
from prunas.pipeline.cli import main
from prunas.pipeline.comparison import (
    Comparison,
    Means,
    Results,
    compare_methods,
    contenders,
    read_request,
    workers,
)
from prunas.pipeline.comparison.arena import TableArena
from prunas.pipeline.comparison.folder import claimed
from prunas.pipeline.comparison.runs import Cell, Row, improvements, play, start_points
from prunas.pipeline.progress import Progress, Task
from prunas.pipeline.workers import HERE, Workers
from prunas.search.budget import Feasible
from prunas.search.executors import Work
from prunas.search.method import Scored, Search, State
from prunas.search.methods import SEARCHES
from prunas.search.prior import Prior
from prunas.search.randomly import Randomly
from prunas.search.table import Table
from prunas.supernet.space import Candidate, SearchSpace
from tests.pipeline.made_up_table import made_up, write_made_up

BUDGET = "macs=40%"
CONTENDERS = ("evolution", "evolution+di", "random")
ALONE = Means(HERE, torch.device("cpu"), Progress())
TWO = Workers("processes", 2)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with two tables in it."""
    write_made_up(tmp_path / "one.npz")
    write_made_up(tmp_path / "two.npz", seeds=2, seed=7)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(*more: str, methods: Sequence[str] = CONTENDERS, out: str = "out") -> list[str]:
    named = [word for name in methods for word in ("--method", name)]
    small = ["--seeds", "4", "--evaluations", "24", "--start", "5", "--batch", "7", "--jobs", "1"]
    return [
        "compare",
        *named,
        "--table",
        "one.npz",
        "--budget",
        BUDGET,
        *small,
        "--out",
        out,
        *more,
    ]


def asked(**changes: Any) -> Comparison:
    plain = Comparison(
        CONTENDERS, ("one.npz", "two.npz"), budgets=(BUDGET, "macs=60%"), seeds=(0, 1, 2, 3, 5),
        evaluations=24, start=5, batch=7, at=(1, 5, 10),
    )  # fmt: skip
    return replace(plain, **changes)


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int = 2) -> str:
    """The one sentence on the error stream."""
    capsys.readouterr()
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    *_, sentence = err.rstrip("\n").split("\n")
    assert sentence.startswith("prunas: "), err
    return sentence.removeprefix("prunas: ")


def runs(folder: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The rows of runs.jsonl without the time that they took, and the checksum of that."""
    rows = [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]
    keys = ("contender", "space", "budget", "seed")
    result = {tuple(row[key] for key in keys): row for row in rows}
    assert len(result) == len(rows)
    for row in rows:
        assert row.pop("seconds") >= 0
        assert row.pop("checksum")
    return result


# -- equal conditions ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Watched:
    """An arena that remembers what was scored."""

    arena: TableArena
    scored: list[Candidate] = field(default_factory=list)
    seeds: set[int] = field(default_factory=set)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.arena, name)

    def scores(self, candidates: Sequence[Candidate], evaluation_seed: int) -> list[float]:
        self.scored.extend(candidates)
        self.seeds.add(evaluation_seed)
        return self.arena.scores(candidates, evaluation_seed)


def watched(request: Comparison, contender: str, seed: int) -> tuple[Watched, Row]:
    arena = Watched(TableArena(made_up(), BUDGET, request.budget(BUDGET)))
    row = play(Cell(contender, "toy", BUDGET, seed), request, arena)
    return arena, row


@pytest.mark.parametrize("seed", [0, 4])
def test_all_begin_with_the_same_candidates_and_score_as_many(seed: int) -> None:
    request = asked()
    played = [watched(request, name, seed) for name in CONTENDERS]
    first = played[0][0].scored[: request.start]
    for arena, row in played:
        assert arena.scored[: request.start] == first
        assert len(arena.scored) == len(set(arena.scored)) == row.evaluations == 24
        assert arena.seeds == {row.evaluation_seed} == {seed % 3}
    assert arena.feasible.in_window(np.array(first)).all()
    others = {tuple(arena.scored[request.start :]) for arena, _ in played}
    assert len(others) == len(CONTENDERS)


def test_start_points_depend_on_seed_budget_and_space_alone() -> None:
    request = asked()
    first = watched(request, "random", 0)[0].scored
    assert watched(request, "random", 0)[0].scored == first
    assert watched(replace(request, evaluations=30), "random", 0)[0].scored[:24] == first
    assert watched(request, "random", 3)[0].scored[:5] != first[:5]
    arena = TableArena(made_up(), BUDGET, request.budget(BUDGET))
    cells = [
        Cell("x", "toy", BUDGET, 0),
        Cell("y", "toy", "macs=41%", 0),
        Cell("x", "t", BUDGET, 0),
        Cell("x", os.fsdecode(b"pictures of caf\xe9"), BUDGET, 0),
    ]
    drawn = [start_points(5, cell, arena) for cell in cells]
    assert drawn[0] == first[:5]
    assert all(other != drawn[0] for other in drawn[1:])


def test_without_start_points_a_method_is_on_its_own() -> None:
    arena, row = watched(asked(start=0), "evolution", 0)
    assert row.evaluations == len(arena.scored) == 24


@dataclass(frozen=True)
class Spy:
    """Random search that remembers what it was told before."""

    priors: list[Prior | None]
    batches: list[int]

    def start(
        self, space: SearchSpace, budget: Feasible, prior: Prior | None, rng: np.random.Generator
    ) -> State:
        self.priors.append(prior)
        return Randomly().start(space, budget, prior, rng)

    def ask(self, state: State, n: int) -> tuple[State, list[Candidate]]:
        self.batches.append(n)
        return Randomly().ask(state, n)

    def tell(self, state: State, scored: Sequence[Scored]) -> State:
        return Randomly().tell(state, scored)


def test_the_prior_is_that_of_the_evaluation_seed_and_only_for_those_who_want_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spy = Spy([], [])
    offered: dict[str, Search] = {**SEARCHES, "spy": spy}
    monkeypatch.setattr(contenders, "SEARCHES", offered)
    request = asked(methods=("spy", "spy+di"))
    plain, told = (watched(request, name, 4)[0].scored for name in request.methods)
    assert spy.priors == [None, made_up().priors["di"][1]]
    assert spy.batches == 2 * [7, 7, 7]  # 19 in whole batches
    assert plain[:5] == told[:5]
    assert plain[5:] != told[5:]  # a stream of its own for each contender


def test_a_space_that_is_used_up_ends_a_run() -> None:
    arena, row = watched(asked(evaluations=500), "random", 0)
    inside = arena.feasible.in_window(made_up().candidates).sum()
    assert row.evaluations == len(arena.scored) == inside < 500


def test_a_method_with_nothing_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Spy, "ask", lambda self, state, n: (state, []))
    monkeypatch.setattr(contenders, "SEARCHES", {**SEARCHES, "spy": Spy([], [])})
    request = asked(methods=("spy", "random"), start=0)
    with pytest.raises(InputError, match="spy proposes no candidate on toy at macs=40%"):
        watched(request, "spy", 0)


def test_an_improvement_is_more_than_as_much() -> None:
    scores = (np.nan, 0.2, 0.2, 0.1, np.nan, 0.3)
    done = [Scored(Candidate((i,)), score) for i, score in enumerate(scores)]
    assert improvements(done) == [(2, done[1]), (6, done[5])]


def test_a_curve_holds_the_improvements_and_the_best_is_tested() -> None:
    arena, row = watched(asked(), "evolution", 1)
    table = made_up()
    scores = table.scores(arena.scored, 1).tolist()
    better = [i for i, score in enumerate(scores) if score > max(scores[:i], default=-1)]
    places = table.places(np.array(arena.scored)).tolist()
    assert row.curve == tuple((i + 1, places[i], scores[i]) for i in better)
    assert row.test == table.test_scores([arena.scored[better[-1]]], 1)[0]


# -- what it shows ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    """A finished comparison, and its folder."""
    folder = tmp_path_factory.mktemp("compared")
    write_made_up(folder / "one.npz")
    write_made_up(folder / "two.npz", seeds=2, seed=7)
    tables = (str(folder / "one.npz"), str(folder / "two.npz"))
    return folder / "out", compare_methods(asked(tables=tables), folder / "out", ALONE)


def best_of(table: Table, budget: str) -> list[tuple[float, float]]:
    """The best score and test score within the limits under each evaluation seed, slowly."""
    feasible = TableArena(table, budget, asked().budget(budget)).feasible
    inside = [
        candidate
        for candidate in map(Candidate, table.candidates.tolist())
        if feasible.contains(np.array([candidate]))[0]
    ]
    return [
        (
            max(float(table.scores([each], seed)[0]) for each in inside),
            max(float(table.test_scores([each], seed)[0]) for each in inside),
        )
        for seed in range(table.seeds)
    ]


def test_regret_is_exact(compared: tuple[Path, Results]) -> None:
    """The slow form: every candidate, one at a time, and every row of the file."""
    folder, results = compared
    rows = runs(folder).values()
    tables = {"one": made_up("one"), "two": made_up("two", seeds=2, seed=7)}
    best = {(t, b): best_of(tables[t], b) for t in tables for b in asked().budgets}
    assert len(rows) == 3 * 2 * 2 * 5
    for summary in results.summaries:
        place = summary.space, summary.budget
        regrets, tests = [], []
        for row in rows:
            if (row["contender"], row["space"], row["budget"]) == (summary.contender, *place):
                seed = row["seed"] % tables[summary.space].seeds
                assert row["evaluation_seed"] == seed
                reached = [score for number, _, score in row["curve"] if number <= summary.at]
                regrets.append(best[place][seed][0] - max(reached))
                tests.append(best[place][seed][1] - row["test"])
        assert summary.seeds == len(regrets) == 5
        assert summary.mean.value == pytest.approx(np.mean(regrets))
        assert summary.median == pytest.approx(np.median(regrets))
        if summary.at == 24:
            assert summary.test is not None
            assert summary.test.value == pytest.approx(np.mean(tests))
        else:
            assert summary.test is None


def test_all_have_the_same_regret_at_the_start(compared: tuple[Path, Results]) -> None:
    _, results = compared
    for contest in results.contests:
        assert contest.points == (1, 5, 10, 24)
        first, *others = contest.regrets[:, :, :5]
        assert all((first == other).all() for other in others)
        for duel in contest.duels[5]:
            assert (duel.adjusted, duel.chance, duel.verdict) == (1, 0.5, "no evidence")


def test_evaluations_to_where_random_search_ends(compared: tuple[Path, Results]) -> None:
    _, results = compared
    for contest in results.contests:
        target = contest.regrets[2, :, -1].mean()
        for summary in contest.summaries:
            curves = contest.regrets[contest.names.index(summary.contender)]
            reached = [next((t for t, r in enumerate(c, 1) if r <= target), np.inf) for c in curves]
            median = float(np.median(reached))
            assert summary.to_random_mean == (median if np.isfinite(median) else None)


def test_blocks_are_problems_and_evaluation_seeds(compared: tuple[Path, Results]) -> None:
    _, results = compared
    assert [len(contest.blocks) for contest in results.contests] == [3, 3, 2, 2]
    first = results.contests[0]
    # seeds 0, 1, 2, 3, 5 on three sets of scores: 0 and 3 on the first, 2 and 5 on the last
    expected = [first.regrets[:, rows, -1].mean(axis=1) for rows in ([0, 3], [1], [2, 4])]
    np.testing.assert_allclose(first.blocks, expected)
    assert results.ranks is not None
    assert results.ranks.blocks == 10


def test_the_files(compared: tuple[Path, Results]) -> None:
    folder, results = compared
    entries = json.loads((folder / "compare.json").read_text())
    assert Comparison.from_json(entries["request"]) == results.request
    assert [space["name"] for space in entries["spaces"]] == ["one", "two"]
    assert entries["versions"]["numpy"] == np.__version__
    assert entries["problems"][2]["evaluation_seeds"] == 2
    assert len(entries["summaries"]) == 3 * 4 * 4
    with (folder / "summary.csv").open() as opened:
        rows = list(csv.DictReader(opened))
    assert len(rows) == 3 * 4 * 4
    assert float(rows[0]["mean_regret"]) == entries["summaries"][0]["mean"]["value"]
    assert rows[0]["mean_test_regret"] == ""
    with (folder / "pairs.csv").open() as opened:
        pairs = list(csv.DictReader(opened))
    assert len(pairs) == 3 * 4 * 4
    assert {row["verdict"] for row in pairs} <= {"better", "worse", "no evidence"}
    assert [float(row["p_holm"]) for row in pairs] == [row["p_holm"] for row in entries["pairs"]]


def test_a_run_alone_ranks_nothing(place: Path) -> None:
    found = compare_methods(
        asked(tables=("one.npz",), budgets=(BUDGET,), seeds=(0, 3)), Path("out"), ALONE
    )
    assert found.ranks is None  # one evaluation seed, one problem
    assert found.to_json()["ranks"] is None


# -- the same again --------------------------------------------------------------------------------


def test_the_number_of_processes_changes_nothing(place: Path) -> None:
    assert main(words("--table", "two.npz", out="alone")) == 0
    assert main([*words("--table", "two.npz", out="both"), "--jobs", "2"]) == 0
    assert runs(Path("alone")) == runs(Path("both"))
    one, two = (json.loads(Path(name, "compare.json").read_text()) for name in ("alone", "both"))
    for entries in (one, two):
        del entries["checksum"]
        for summary in entries["summaries"]:
            del summary["seconds"]
    assert one == two


def _ends(request: Comparison) -> Work[Cell, Row]:
    """Work that ends its process the first time that anybody does it."""
    work = workers.player(request)

    def once(cell: Cell) -> Row:
        try:
            Path("ended").touch(exist_ok=False)
        except FileExistsError:
            return work(cell)
        os._exit(3)

    return once


def _fails(request: Comparison) -> Work[Cell, Row]:
    return lambda cell: 1 // 0  # type: ignore[return-value]


def test_a_process_that_is_ended_is_replaced(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(out="alone")) == 0
    monkeypatch.setattr(workers, "player", _ends)
    assert main([*words(out="both"), "--jobs", "2"]) == 0
    assert Path("ended").exists()
    assert runs(Path("alone")) == runs(Path("both"))


def test_an_error_of_a_method_comes_back_with_its_place(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(workers, "player", _fails)
    sentence = refused(capsys, [*words(), "--jobs", "2"], 1)
    assert "cannot be played: ZeroDivisionError: integer division or modulo by zero" in sentence
    assert "(test_compare.py:" in sentence
    assert sentence.endswith("finished runs are kept")


@contextmanager
def ctrl_c_at(update: int) -> Iterator[None]:
    """A signal, as from the keyboard, after so many runs."""
    plain = Task.update

    def counted(task: Task, done: int, total: int) -> None:
        plain(task, done, total)
        if done == update:
            signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Task, "update", counted)
        yield


def test_it_goes_on_after_ctrl_c(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(out="whole")) == 0
    with ctrl_c_at(5):
        sentence = refused(capsys, words(), 130)
    assert sentence == "stopped; 5 finished runs are kept in out; the same command goes on"
    assert len(runs(Path("out"))) == 5
    counted: list[Cell] = []

    def watched_play(cell: Cell, *rest: Any) -> Row:
        counted.append(cell)
        return play(cell, *rest)

    monkeypatch.setattr(workers, "play", watched_play)
    assert main(words()) == 0
    assert len(counted) == 12 - 5
    assert runs(Path("out")) == runs(Path("whole"))
    assert main(words()) == 0
    assert len(counted) == 12 - 5


def test_ctrl_c_while_processes_begin(place: Path) -> None:
    code = """
import os, signal
from prunas.pipeline.cli import main
from prunas.search.executors import Processes
begin = Processes.begin
def stop(*words):
    os.killpg(0, signal.SIGINT)
    begin(*words)
if __name__ == "__main__":
    Processes.begin = stop
    raise SystemExit(main())
"""
    Path("program.py").write_text(code)
    command = [sys.executable, "program.py", *words(), "--jobs", "2"]
    ended = subprocess.run(command, capture_output=True, text=True, start_new_session=True)
    assert ended.returncode == 130
    assert ended.stderr == (
        "prunas: stopped; 0 finished runs are kept in out; the same command goes on\n"
    )


def test_a_torn_last_line_is_made_again(place: Path) -> None:
    assert main(words()) == 0
    whole, file = runs(Path("out")), Path("out/runs.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    for torn in (lines[-1][:-1], lines[-1][:40], lines[-1][:-4] + b"\n"):
        file.write_bytes(b"".join(lines[:-1]) + torn)
        assert main(words()) == 0
        assert runs(Path("out")) == whole


def test_a_damaged_line_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words()) == 0
    file = Path("out/runs.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([lines[0], b'{"seed": 1}\n', *lines[2:]]))
    assert "line 2 of out/runs.jsonl is damaged" in refused(capsys, words())


# -- requests --------------------------------------------------------------------------------------


def test_a_file_and_options(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = {**asked().to_json(), "seeds": 2, "evaluations": 9}
    Path("asked.json").write_text(json.dumps(content))
    request = Comparison.from_json(read_request(Path("asked.json")))
    assert request == asked(seeds=(0, 1), evaluations=9)
    capsys.readouterr()
    assert main(["compare", "asked.json", "--seeds", "1", "--jobs", "1", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["folder"] == "runs/compare"
    assert {each["seeds"] for each in answer["summaries"]} == {1}
    assert Path(answer["page"]).exists()


def test_all_is_every_method_both_ways() -> None:
    request = asked(methods=("all",))
    names = [each.name for each in request.contenders]
    assert names == [name + tail for name in SEARCHES for tail in ("", "+di")]
    assert request.to_json()["methods"] == names  # another day there may be more


def test_points_end_with_all_evaluations() -> None:
    assert Comparison(("random", "uniform"), ("t",), budgets=(BUDGET,)).points == [
        50,
        100,
        200,
        500,
    ]
    assert asked(evaluations=70, at=(50, 100)).points == [50, 70]
    assert asked().budget(BUDGET).tolerance == 0.1
    assert asked(tolerance=0.3).budget(BUDGET).tolerance == 0.3
    assert asked(tables=(), run="run").budget(BUDGET).tolerance == 0.02


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--method", "evolutoin"], "'evolutoin'; did you mean evolution? known are evolution,"),
        (["--method", "random+ki"], "no prior is called 'ki'; there are di, dais, as in random+di"),
        (["--method", "rando+di"], "no search is called 'rando'; did you mean random?"),
        (["--method", "random+dais"], "the table one has no prior 'dais', only di; leave out"),
        (["--method", "evolution+di"], "the method evolution+di is given twice"),
        (["--method", "all"], "all names every method already; leave out evolution"),
        (["--table", "three.npz"], "no table is called 'three.npz', nor is it a file"),
        (["--table", "one.npz"], "the table one.npz is given twice"),
        (["--table", "copy/one.npz"], "two of the tables are called one"),
        (["--table", "damaged.npz"], "the table damaged.npz is damaged or no table"),
        (["--budget", "macs=40%"], "the budget macs=40% is given twice"),
        (["--budget", "macs=0.4"], "the budgets macs=40% and macs=0.4 are the same; name one"),
        (["--budget", "flops=1"], "prunas counts multiply-accumulates"),
        (["--budget", "macs=0.1%"], "no candidate has at most"),
        (["--budget", "macs=27060"], "1 candidate makes use of the budget macs=27060 on one"),
        (["--run", "somewhere"], "name either tables, such as --table NAME, or one run"),
        (["--seeds", "0"], "0 seeds compare nothing"),
        (["--evaluations", "0"], "evaluations=0 must be at least 1"),
        (["--seeds", "1000001"], "seeds=1000001 must be at most 1000000"),
        (["--evaluations", "10000000000000"], "evaluations=10000000000000 must be at most 1000000"),
        (["--batch", "0"], "batch=0 must be at least 1"),
        (["--batch", "1000001"], "batch=1000001 must be at most 1000000"),
        (["--start", "25"], "start=25 is outside 0..24"),
        (["--start", "-1"], "start=-1 is outside 0..24"),
        (["--tolerance", "1"], "the tolerance 1.0 is outside [0, 1)"),
        (["--at", "5", "--at", "0"], "at=0 must be at least 1"),
        (["--device", "tpu"], "no device is called 'tpu'"),
        (["--out", "one.npz"], "one.npz exists and holds no comparison"),
        (["--out", "copy"], "copy exists and holds no comparison"),
        (["--out", "one.npz/out"], "one.npz/out cannot be written"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    more: list[str], sentence: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("copy").mkdir()
    write_made_up(Path("copy/one.npz"))
    Path("damaged.npz").write_bytes(Path("one.npz").read_bytes()[:500])
    assert sentence in refused(capsys, [*words(), *more])
    assert not Path("out").exists()


def test_many_seeds_are_soon_known_to_differ() -> None:
    assert len(asked(seeds=tuple(range(100_000))).seeds) == 100_000


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"seeds": [0, 3, 3]}, "the seed 3 is given twice"),
        ({"seeds": [-1]}, "seed -1 is negative"),
        ({"seeds": [0.5]}, "seeds must be a whole number, not 0.5"),
        ({"seeds": "many"}, "seeds must be a whole number, not 'many'"),
        ({"methods": "random"}, "methods must be a list of texts, not 'random'"),
        ({"methods": []}, "name the methods"),
        ({"methods": ["random"]}, "random alone cannot be compared; add another"),
        ({"methods": ["all", "all"]}, "all names every method already; leave out all"),
        ({"budgets": []}, "a comparison on tables needs budgets"),
        ({"tables": []}, "name either tables"),
        ({"at": [0]}, "at=0 must be at least 1"),
        ({"at": 5}, "at must be a list of whole numbers"),
        ({"run": 3}, "run must be a text, not 3"),
        ({"tolerance": "a tenth"}, "tolerance must be a number, not 'a tenth'"),
        ({"tolerance": 10**400}, "0 is too large; give a share such as 0.02"),
        ({"seeds": 10**30}, "seeds=1000000000000000000000000000000 must be at most 1000000"),
        ({"evaluations": True}, "evaluations must be a whole number, not True"),
        ({"method": ["random"]}, "a comparison has no 'method'; it has methods, tables,"),
    ],
)
def test_what_a_file_cannot_say(
    changes: dict[str, Any], sentence: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("asked.json").write_text(json.dumps({**asked().to_json(), **changes}))
    assert sentence in refused(capsys, ["compare", "asked.json", "--out", "out"])
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "cannot be read as a comparison"),
        ("[]", "holds no JSON object); write an object such as {'methods': ...}"),
        (None, "cannot be read as a comparison"),
    ],
)
def test_what_is_no_request(
    content: str | None, sentence: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        Path("asked.json").write_text(content)
    assert sentence in refused(capsys, ["compare", "asked.json"])


# -- one folder, one comparison, one process -------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--seeds", "3"], "seeds was [0, 1, 2, 3], now [0, 1, 2]"),
        (["--method", "uniform"], "methods was"),
        (["--table", "two.npz"], "spaces was"),
    ],
)
def test_another_comparison_in_the_folder(
    more: list[str], sentence: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words()) == 0
    before = runs(Path("out"))
    said = refused(capsys, [*words(), *more])
    assert said.startswith("out holds another comparison: ")
    assert sentence in said
    assert runs(Path("out")) == before


def test_a_table_that_has_changed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words()) == 0
    Path("one.npz").rename("moved.npz")
    moved = [word.replace("one.npz", "moved.npz") for word in words()]
    assert main(moved) == 0  # the same table in another file
    write_made_up(Path("one.npz"), seed=1)
    assert "holds another comparison: spaces was" in refused(capsys, words())


def test_a_second_process_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with claimed(Path("out")):
        assert "another process is writing to out; wait for it" in refused(capsys, words())
    assert main(words()) == 0


def test_a_disk_that_cannot_lock_refuses_nobody(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with claimed(Path("out")):
        assert main(words()) == 0


def test_runs_that_are_a_link_are_not_written(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("victim").write_text("mine")
    Path("out").mkdir()
    Path("out/runs.jsonl").symlink_to(Path("victim").resolve())
    assert "runs.jsonl is a link, and runs would be appended" in refused(capsys, words())
    assert Path("victim").read_text() == "mine"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "holds runs of an unknown comparison (compare.json is missing)"),
        ("{", "compare.json cannot be read"),
        ("{}", "compare.json cannot be read (it has schema None"),
        ('{"schema": 0, "request": {}, "spaces": []}', "has schema 0, this prunas reads 1"),
    ],
)
def test_a_folder_that_cannot_be_understood(
    content: str | None, sentence: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words()) == 0
    file = Path("out/compare.json")
    file.unlink() if content is None else file.write_text(content)
    assert sentence in refused(capsys, words())
