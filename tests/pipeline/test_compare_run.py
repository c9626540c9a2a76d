"""Comparisons on the weights of a run: every candidate is evaluated once for all contenders."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from prunas.errors import RunError
from prunas.pipeline.cli import main
from prunas.pipeline.comparison import Comparison, Means, Results, compare_methods, live, study
from prunas.pipeline.progress import Progress
from prunas.pipeline.request import Request
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.workers import HERE
from prunas.search.archive import Archive
from prunas.search.executors import Supervisor
from prunas.search.executors.simulated import Fate, Simulated
from prunas.supernet.space import Candidate
from tests.pipeline.pictures import bright_pictures

METHODS = ("random", "evolution", "evolution+di")
ALONE = Means(HERE, torch.device("cpu"), Progress())


def test_a_broken_machine_scores_no_candidate_as_failed() -> None:
    crew: Simulated[Candidate, float] = Simulated(lambda task, w: Fate(1.0, None), [(0, 2)])
    with Supervisor(crew) as executor:
        arriving = live._scores(executor, [Candidate((number,)) for number in range(12)])
        with pytest.raises(RunError, match="10 tasks after one another"):
            next(arriving)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    file = bright_pictures(tmp_path_factory.mktemp("data"))
    request = Request(
        model="test_resnet", data=str(file), budget="macs=50%", evaluations=4, seeds=1,
        epochs=1, supernet_epochs=1, finalists=1, final_epochs=1,
        batch_size=24, learning_rate=0.02, calibration=48,
    )  # fmt: skip
    return RunFolder.create(tmp_path_factory.mktemp("runs") / "run", request, resume=False)


@pytest.fixture(scope="module")
def request_of(run: RunFolder) -> Comparison:
    return Comparison(METHODS, run=str(run.path), seeds=(0, 1), evaluations=8, start=4, batch=3)


@pytest.fixture(scope="module")
def compared(
    request_of: Comparison, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Results, list[Candidate]]]:
    """A finished comparison, and the candidates that were evaluated on held-out images."""
    folder = tmp_path_factory.mktemp("compared") / "out"
    evaluated: list[Candidate] = []
    plain = live._scores

    def watched(executor: Any, candidates: Sequence[Candidate]) -> Iterator[float]:
        evaluated.extend(candidates)
        yield from plain(executor, candidates)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live, "_scores", watched)
        yield folder, compare_methods(request_of, folder, ALONE), evaluated


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]


def test_each_candidate_is_evaluated_once_for_all(
    run: RunFolder, compared: tuple[Path, Results, list[Candidate]]
) -> None:
    folder, _, evaluated = compared
    assert len(set(evaluated)) == len(evaluated) < 3 * 2 * 8
    with Archive(folder / "archive.sqlite", fingerprint=run.request().fingerprint()) as archive:
        assert {row.candidate for row in archive.rows()} == set(evaluated)
        for row in rows(folder):
            assert row["evaluations"] == 8
            for _, candidate, score in row["curve"]:
                assert archive.score_of(Candidate(candidate)) == score


def test_regret_is_against_the_best_seen(compared: tuple[Path, Results, list[Candidate]]) -> None:
    folder, results, _ = compared
    (contest,) = results.contests
    assert contest.problem.budget == "macs=50%"  # the run's
    assert contest.problem.best is None
    best = max(row["curve"][-1][2] for row in rows(folder))
    test = max(row["test"] for row in rows(folder))
    for name, regrets, tests in zip(
        contest.names, contest.regrets, contest.test_regrets, strict=True
    ):
        of_name = [row for row in rows(folder) if row["contender"] == name]
        assert regrets[:, -1].tolist() == [best - row["curve"][-1][2] for row in of_name]
        assert tests.tolist() == [test - row["test"] for row in of_name]
    assert contest.regrets.min() == 0


def test_what_is_done_is_not_done_again(
    request_of: Comparison,
    compared: tuple[Path, Results, list[Candidate]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, results, _ = compared
    monkeypatch.setattr(study, "scoring", lambda *_: pytest.fail("weights were made again"))
    assert compare_methods(request_of, folder, ALONE).summaries == results.summaries


def test_half_a_comparison_goes_on_to_the_same_rows(
    request_of: Comparison, compared: tuple[Path, Results, list[Candidate]]
) -> None:
    folder, _, _ = compared
    file = folder / "runs.jsonl"
    varying = {"seconds": 0, "checksum": ""}
    whole = [{**row, **varying} for row in rows(folder)]
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:2]))
    compare_methods(request_of, folder, ALONE)
    assert [{**row, **varying} for row in rows(folder)] == whole


def test_the_command_line_shows_how_scores_rank(
    run: RunFolder,
    compared: tuple[Path, Results, list[Candidate]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, _, _ = compared
    tau = {"value": 0.61, "low": 0.4, "high": 0.75}
    run.update({"rank": {"agreement": {"all": {"supernet": {"tau": tau}}, "window": {}}}})
    named = [word for name in METHODS for word in ("--method", name)]
    numbers = ["--seeds", "2", "--evaluations", "8", "--start", "4", "--batch", "3"]
    words = ["compare", *named, "--run", str(run.path), *numbers, "--out", str(folder)]
    assert main(words) == 0
    assert "test_resnet on bright, macs=50%: regret after 8 evaluations" in capsys.readouterr().out
    page = (folder / "compare.html").read_text()
    assert "0.61 (0.40 to 0.75)" in page
    assert "regret is against the best that any contender" in page


def test_no_run_and_no_prior(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", "--method", "random", "--method", "evolution+di", "--out"]
    out = str(tmp_path / "out")
    assert main([*words, out, "--run", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err
    request = Request.from_json({**run.request().to_json(), "prior": False})
    without = RunFolder.create(tmp_path / "without", request, resume=False)
    assert main([*words, out, "--run", str(without.path)]) == 2
    assert "was made without a prior, which evolution+di needs" in capsys.readouterr().err
    assert not Path(out).exists()


def test_a_budget_that_leaves_one_network(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", "--method", "random", "--method", "evolution", "--run", str(run.path)]
    full = ["--budget", "macs=100%", "--tolerance", "0", "--out", str(tmp_path / "out")]
    assert main([*words, *full]) == 2
    assert "1 candidate makes use of the budget macs=100%" in capsys.readouterr().err
