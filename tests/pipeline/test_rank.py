"""Ranking: what is trained, what is compared, and what is said of it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import prunas
from prunas.eval.accuracy import accuracy
from prunas.eval.ranking import kendall
from prunas.eval.recalibration import recalibrate_
from prunas.pipeline import alone, rank
from prunas.pipeline.cli import main
from prunas.pipeline.progress import Progress
from prunas.pipeline.rank import MACS, PRIOR, Ranking, findings
from prunas.pipeline.report.rank_page import rank_page
from prunas.pipeline.request import Request
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.stages import Job, sort_channels, train_full
from prunas.supernet.space import Candidate
from tests.pipeline.pictures import bright_pictures


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    file = bright_pictures(tmp_path_factory.mktemp("data"))
    request = Request(
        model="test_resnet", data=str(file), budget="macs=50%", evaluations=4, seeds=1,
        epochs=1, supernet_epochs=1, finalists=1, final_epochs=1,
        batch_size=24, learning_rate=0.02, calibration=48,
    )  # fmt: skip
    folder = RunFolder.create(tmp_path_factory.mktemp("runs") / "run", request, resume=False)
    return Job(folder, torch.device("cpu"), Progress())


@pytest.fixture(scope="module")
def ranked(job: Job) -> Ranking:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alone, "_cores", lambda: 1)
        return rank.rank(job, ["supernet", "pruningnet"], candidates=8, epochs=1)


def test_candidates_are_distinct_and_inside_the_budget(job: Job, ranked: Ranking) -> None:
    assert len(set(ranked.candidates)) == 8
    limit = job.feasible.limits["macs"]
    assert list(ranked.macs) == job.cost.macs(list(ranked.candidates)).tolist()
    assert all(0.45 * limit < macs <= limit for macs in ranked.macs)
    assert 4 <= sum(ranked.in_window) < 8
    assert set(ranked.predicted) == {"supernet", "pruningnet", PRIOR, MACS}
    assert ranked.predicted[MACS] == ranked.macs


def test_networks_begin_from_the_full_one_and_are_measured_on_the_test_set(
    job: Job, ranked: Ranking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a learning rate of nothing, the oracle is to cut and recalibrate."""
    full, _ = sort_channels(job, train_full(job))
    found = alone.train_alone(
        job,
        [
            alone.Training(candidate, job.request.ranking_recipe(1), 0, "ranking")
            for candidate in ranked.candidates
        ],
        lambda done: None,
    )
    assert [each.test for each in found] == list(ranked.trained)
    still = replace(job.request.ranking_recipe(1), learning_rate=0.0, augment=False)
    candidate = ranked.candidates[0]
    monkeypatch.setattr(alone, "train", lambda network, *a, **k: network.eval())
    network = alone.network_of(job, alone.Training(candidate, still, 0, "ranking"))
    small = prunas.cut(full, job.space, candidate)
    recalibrate_(small, job.fixed(job.data.train, job.request.calibration))
    test = job.fixed(job.data.test)
    assert accuracy(network, test) == accuracy(small.eval(), test)


def test_what_is_done_is_not_done_again(
    job: Job, ranked: Ranking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alone, "_train", lambda *a: pytest.fail("trained again"))
    again = rank.rank(job, ["supernet"], candidates=8, epochs=1)
    assert again.trained == ranked.trained
    assert again.predicted["supernet"] == ranked.predicted["supernet"]
    fewer = rank.rank(job, ["supernet"], candidates=6, epochs=1)
    assert fewer.candidates == ranked.candidates[:6]


def made_up(order: Callable[[np.ndarray], np.ndarray], *, inside: int = 20) -> Ranking:
    """Forty networks whose accuracy is 0.5 + i / 100, and a prediction of them."""
    count = np.arange(40)
    macs = np.random.default_rng(3).permutation(40)
    return Ranking(
        candidates=tuple(Candidate((i,)) for i in range(40)),
        macs=tuple(macs.tolist()),
        in_window=tuple(i < inside for i in range(40)),
        trained=tuple((0.5 + count / 100).tolist()),
        predicted={"supernet": tuple(order(count).tolist()), MACS: tuple(macs.tolist())},
        epochs=5,
    )


@pytest.mark.parametrize(
    ("order", "said", "beside"),
    [
        (lambda i: i, "orders networks as training does in part: Kendall's tau 1.00", "above"),
        (lambda i: -i, "orders networks the wrong way round: Kendall's tau -1.00", "below"),
        (lambda i: (17 * i) % 40, "cannot be told from a random order", "no clear difference"),
    ],
)
def test_what_is_said(order: Callable[[np.ndarray], np.ndarray], said: str, beside: str) -> None:
    over_all, in_window = findings(made_up(order))
    assert f"supernet {said}" in over_all
    assert "over all networks" in over_all
    assert beside in over_all
    assert "ordering them by MACs" in over_all
    assert "where the budget is used" in in_window


def test_agreement_of_the_window_is_of_those_networks_only() -> None:
    found = made_up(lambda i: np.where(i < 20, -i, i))
    assert found.where_used["supernet"].tau.value == -1
    assert found.where_used["supernet"].n == 20
    assert found.overall["supernet"].tau.value == pytest.approx(
        kendall(np.array(found.predicted["supernet"]), np.array(found.trained))
    )
    assert found.overall["supernet"].top == 8


def test_nothing_is_said_of_a_few_networks_in_the_window() -> None:
    found = made_up(lambda i: i, inside=9)
    assert len(findings(found)) == 1
    assert found.to_json()["agreement"]["window"] == {}
    page = rank_page(found, model="<b>", data="d")
    assert "9 networks are too few to say; rank more." in page
    assert "<b>" not in page
    assert "&lt;b&gt;" in page


def test_the_command_line(job: Job, ranked: Ranking, capsys: pytest.CaptureFixture[str]) -> None:
    run = job.folder.path
    options = ["--candidates", "8", "--epochs", "1"]
    both = ["--weights", "supernet", "--weights", "pruningnet"]
    assert main(["rank", str(run), *options, *both, "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "8 networks, Kendall's tau with training" in said
    assert f"page, to be opened in a browser: {run}/rank.html" in said
    assert "Do scores rank as training does?" in (run / "rank.html").read_text()
    assert main(["rank", str(run), *options, *both, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert set(answer["agreement"]["all"]) == {"supernet", "pruningnet", PRIOR, MACS}
    entry = json.loads((run / "run.json").read_text())["rank"]
    assert entry["networks"] == answer["networks"]
    assert [row["trained"] for row in entry["networks"]] == list(ranked.trained)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--candidates", "5"], "5 candidates have no order to speak of; rank 6 or more"),
        (["--weights", "hypernet"], "no weights source is called 'hypernet'"),
        (["--epochs", "0"], "should be greater than or equal to 1"),
    ],
)
def test_bad_requests(
    job: Job, options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rank", str(job.folder.path), *options]) == 2
    assert sentence in capsys.readouterr().err


def test_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_a_budget_with_few_networks(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = job.feasible.sample(np.random.default_rng(0), 1)
    monkeypatch.setattr(job.feasible, "sample", lambda rng, n: [one])
    monkeypatch.setattr(job.feasible, "front_sample", lambda rng, n, least: [one])
    with pytest.raises(prunas.InputError, match=r"only 1 different networks .*and 9 were asked"):
        rank.rank(job, ["supernet"], candidates=9, epochs=1)
