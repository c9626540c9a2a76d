"""Latency as a budget: on a made-up device whose times a formula gives."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from prunas.errors import InputError, RunError
from prunas.eval.cost import Cost
from prunas.eval.latency import table
from prunas.eval.latency.backends import Device
from prunas.eval.latency.timing import Timed
from prunas.eval.latency.worth import Worth
from prunas.pipeline import alone, finalists, stages, stopwatch, timings
from prunas.pipeline.alone import Trained
from prunas.pipeline.cli import main
from prunas.pipeline.finalists import last_round
from prunas.pipeline.found import run_search_stages
from prunas.pipeline.progress import Progress
from prunas.pipeline.report import write_report
from prunas.pipeline.request import Request
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.stages import Job
from prunas.search.budget import as_values
from prunas.search.method import Scored
from prunas.supernet.space import Candidate, SearchSpace

DEVICE = Device("abacus", 1, "beads", (("beads", "1.0"),))

Formula = Callable[[SearchSpace, Sequence[Candidate]], Any]


def honest(space: SearchSpace, candidates: Sequence[Candidate]) -> Any:
    """Milliseconds: a start, and what multiply-accumulates and parameters take."""
    cost = Cost(space)
    return 0.05 + 1e-6 * cost.macs(candidates) + 1e-7 * cost.params(candidates)


class Abacus:
    """A backend whose device is named; nothing is run on it."""

    device = DEVICE

    def prepared(self, network: nn.Module, images: torch.Tensor) -> Any:
        raise AssertionError("the device is made up")


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Candidate, ...]]:
    """What was measured, session by session, on a device that follows `honest`."""
    return device_of(monkeypatch, honest)


def device_of(monkeypatch: pytest.MonkeyPatch, formula: Formula) -> list[tuple[Candidate, ...]]:
    seen: list[tuple[Candidate, ...]] = []

    def measured(
        network: nn.Module,
        space: SearchSpace,
        candidates: Sequence[Candidate],
        *_: object,
        **__: object,
    ) -> tuple[Timed, ...]:
        seen.append(tuple(candidates))
        times = np.asarray(formula(space, candidates)).tolist()
        return tuple(Timed(time, 0.99 * time, 1.01 * time, 7) for time in times)

    for module in (stopwatch, timings, table):
        monkeypatch.setattr(module, "measured", measured)
    monkeypatch.setattr(stages, "backend_of", lambda name: Abacus())
    return seen


def job_of(folder: Path, budget: str, **fields: Any) -> Job:
    usual: dict[str, Any] = {
        "finalists": 3,
        "finalist_epochs": 1,
        "epochs": 1,
        "supernet_epochs": 1,
        "evaluations": 12,
        "search": "random",
    }
    request = Request("test_resnet", "digits", budget, **{**usual, **fields})
    run = RunFolder.create(folder, request, resume=False)
    return Job(run, torch.device("cpu"), Progress())


def milliseconds(job: Job, candidate: Sequence[int]) -> float:
    return float(honest(job.space, [Candidate(candidate)])[0])


# -- the budget ------------------------------------------------------------------------------------


def test_a_share_is_one_of_the_measured_time(
    tmp_path: Path, sessions: list[tuple[Candidate, ...]]
) -> None:
    job = job_of(tmp_path / "run", "latency=60%")
    full = milliseconds(job, job.space.full())
    assert job.feasible.limits["latency"] == pytest.approx(0.6 * full * 1e6, rel=1e-6)
    drawn = job.feasible.sample(np.random.default_rng(0), 50)
    times = np.array([milliseconds(job, each) for each in drawn]) / full
    assert times.max() <= 0.6 * 1.01  # predictions, of a device that the features can follow
    assert np.median(times) >= 0.6 * 0.95
    assert len(sessions) == 2  # the table, and candidates near the budget


def test_latency_beside_another_limit(
    tmp_path: Path, sessions: list[tuple[Candidate, ...]]
) -> None:
    job = job_of(tmp_path / "run", "latency=80%,params=30%")
    drawn = job.feasible.sample(np.random.default_rng(0), 20)
    params = job.cost.params([*drawn, job.space.full()]).tolist()
    assert max(params[:-1]) <= 0.3 * params[-1]


def test_times_are_kept_and_measured_once(
    tmp_path: Path, sessions: list[tuple[Candidate, ...]]
) -> None:
    job = job_of(tmp_path / "run", "latency=0.2ms")
    limits, window = dict(job.feasible.limits), job.feasible.sample(np.random.default_rng(1), 9)
    again = Job(RunFolder.open(tmp_path / "run"), torch.device("cpu"), Progress())
    assert limits == {"latency": 200_000} == dict(again.feasible.limits)
    assert again.feasible.sample(np.random.default_rng(1), 9) == window
    assert len(sessions) == 2


def test_the_predictor_is_right_near_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device with a second regime, below which everything takes a third longer."""

    def regimes(space: SearchSpace, candidates: Sequence[Candidate]) -> Any:
        times = honest(space, candidates)
        return np.where(times < 0.7 * honest(space, [space.full()]), times * 1.33, times)

    device_of(monkeypatch, regimes)
    job = job_of(tmp_path / "run", "latency=60%")
    drawn = job.feasible.sample(np.random.default_rng(3), 40)
    predicted = job.prices.latency(as_values(drawn)) / 1e6
    assert np.median(regimes(job.space, drawn) / predicted) == pytest.approx(1, abs=0.03)


def test_a_device_that_became_slower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are told as if the full network took what the table says, and that is said."""
    slowness = [1.0]

    def tiring(space: SearchSpace, candidates: Sequence[Candidate]) -> Any:
        return slowness[0] * honest(space, candidates)

    device_of(monkeypatch, tiring)
    job = job_of(tmp_path / "run", "latency=60%")
    job.feasible  # noqa: B018
    slowness[0] = 1.5
    said: list[str] = []
    assert job.stopwatch is not None
    watch = replace(job.stopwatch, told=said.append)
    (time,) = watch.times([job.space.smallest()])
    assert time.milliseconds == pytest.approx(milliseconds(job, job.space.smallest()))
    assert time.spread == pytest.approx(0.02)
    assert len(said) == 1
    assert said[0].startswith("what was measured before takes 1.5 times as long now")


def test_a_device_of_which_one_network_is_misjudged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several are measured again, so that the full one alone does not decide."""
    wrong = [1.0]

    def uneven(space: SearchSpace, candidates: Sequence[Candidate]) -> Any:
        times, full = honest(space, candidates), honest(space, [space.full()])
        return np.where(times == full, times * wrong[0], times)

    sessions = device_of(monkeypatch, uneven)
    job = job_of(tmp_path / "run", "latency=60%")
    job.feasible  # noqa: B018
    wrong[0] = 1.3
    assert job.stopwatch is not None
    (time,) = job.stopwatch.times([job.space.smallest()])
    assert time.milliseconds == pytest.approx(milliseconds(job, job.space.smallest()))
    assert job.stopwatch.full.milliseconds == pytest.approx(milliseconds(job, job.space.full()))
    assert len(sessions[-1]) == 1 + stopwatch.AGAIN + 1


def test_a_table_of_another_device(
    tmp_path: Path, sessions: list[tuple[Candidate, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(tmp_path / "run", "latency=60%")
    job.feasible  # noqa: B018
    monkeypatch.setattr(Abacus, "device", replace(DEVICE, processor="slide rule"))
    again = Job(RunFolder.open(tmp_path / "run"), torch.device("cpu"), Progress())
    with pytest.raises(InputError, match=r"measured with beads on abacus.*this is.*slide rule"):
        again.feasible  # noqa: B018


def test_a_table_that_is_shared(tmp_path: Path, sessions: list[tuple[Candidate, ...]]) -> None:
    """Built by the first run that names it, read by the second."""
    named = str(tmp_path / "tables" / "abacus.json")
    first = job_of(tmp_path / "a", "latency=60%", latency_table=named)
    second = job_of(tmp_path / "b", "latency=50%", latency_table=named)
    assert first.feasible.limits["latency"] > second.feasible.limits["latency"]
    assert [len(session) > 30 for session in sessions] == [True, False, False]


def test_a_budget_out_of_reach(tmp_path: Path, sessions: list[tuple[Candidate, ...]]) -> None:
    job = job_of(tmp_path / "run", "latency=1us")
    sentence = r"at most 0\.001 ms latency: .*; ask for latency=0\.\d+ms"
    with pytest.raises(InputError, match=sentence):
        job.feasible  # noqa: B018


# -- the last round --------------------------------------------------------------------------------


def scored(job: Job, n: int) -> list[Scored]:
    """Candidates inside the budget, each a little worse than the one before."""
    drawn = list(dict.fromkeys(job.feasible.sample(np.random.default_rng(0), n)))
    return [Scored(candidate, 1 - index / 100) for index, candidate in enumerate(drawn)]


def for_strangers(late: list[float]) -> Formula:
    """A device that is `late` for all networks but those that it knows from before."""
    familiar: set[Candidate] = set()

    def slowing(space: SearchSpace, candidates: Sequence[Candidate]) -> Any:
        if late[0] == 1:
            familiar.update(candidates)
        factors = [1 if each in familiar else late[0] for each in candidates]
        return honest(space, candidates) * factors

    return slowing


def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(job: Job, trainings: Sequence[Any], on_done: object) -> list[Trained]:
        return [Trained(0.5, None) for _ in trainings]

    monkeypatch.setattr(finalists, "train_alone", train)


def test_only_what_is_in_time_enters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow: set[Candidate] = set()

    def moody(space: SearchSpace, candidates: Sequence[Candidate]) -> Any:
        return honest(space, candidates) * [1.5 if each in slow else 1 for each in candidates]

    device_of(monkeypatch, moody)
    no_training(monkeypatch)
    job = job_of(tmp_path / "run", "latency=60%")
    rows = scored(job, 10)
    slow |= {row.candidate for row in rows[:4]} | {job.uniform}
    entered = {each.candidate for each in last_round(job, rows, None)}
    assert not entered & slow
    assert len(entered) == 3
    assert job.folder.read()["stages"][-2]["name"] == "measure the best candidates"


def test_predictions_that_are_short_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the search scored is made narrower, until it is in time."""
    late = [1.0]
    slowing = for_strangers(late)
    device_of(monkeypatch, slowing)
    no_training(monkeypatch)
    job = job_of(tmp_path / "run", "latency=60%")
    rows = scored(job, 20)
    late[0] = 1.06
    found = last_round(job, rows, None)
    limit = job.feasible.limits["latency"] / 1e6
    times = [slowing(job.space, [each.candidate]).item() for each in found]
    assert len(found) == 3
    assert max(times) <= limit
    assert min(times) >= 0.93 * limit
    assert all(each.score is None for each in found)
    assert not {each.candidate for each in found} & {row.candidate for row in rows}


def test_nothing_is_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late = [1.0]
    slowing = for_strangers(late)
    device_of(monkeypatch, slowing)
    job = job_of(tmp_path / "run", "latency=60%")
    rows = scored(job, 20)
    late[0] = 99.0
    with pytest.raises(RunError, match=r"none of the 3 best candidates is within [\d.]+ ms when"):
        last_round(job, rows, None)


# -- a whole run -----------------------------------------------------------------------------------


def test_a_run_says_what_its_networks_take(
    tmp_path: Path, sessions: list[tuple[Candidate, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alone, "cores", lambda: 1, raising=False)
    job = job_of(tmp_path / "run", "latency=50%")
    found = run_search_stages(job)
    result = job.folder.read()["result"]
    assert result["latency"] == pytest.approx(milliseconds(job, found))
    assert result["latency_full"] == pytest.approx(milliseconds(job, job.space.full()))
    assert result["latency_uniform"] == pytest.approx(milliseconds(job, job.uniform))
    assert result["latency"] <= 0.5 * result["latency_full"]
    assert "beads on abacus" in result["latency_device"]
    assert job.folder.read()["budget"] == dict(job.feasible.limits)
    page = write_report(job.folder.path).read_text()
    assert "Latency, measured" in page
    assert "fewer multiply-accumulates" in page


def test_a_budget_of_macs_with_a_backend_is_timed_too(
    tmp_path: Path, sessions: list[tuple[Candidate, ...]]
) -> None:
    """Without a table: only the networks that are reported are measured."""
    job = job_of(tmp_path / "run", "macs=50%", latency_backend="onnxruntime")
    run_search_stages(job)
    assert job.folder.read()["result"]["latency_worth"].endswith("full network's " + _full_of(job))
    assert len(sessions) == 1
    assert len(sessions[0]) == 3


def _full_of(job: Job) -> str:
    return f"{milliseconds(job, job.space.full()):.3g} ms"


def test_a_run_without_either_is_not_timed(tmp_path: Path) -> None:
    assert job_of(tmp_path / "run", "macs=50%").stopwatch is None


# -- what cutting is worth -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time", "said"),
    [
        (0.5, "60% fewer multiply-accumulates save 50% of the time, 0.5 ms for the full"),
        (0.8, "cutting pays little here: 60% fewer multiply-accumulates save 20% of the time"),
        (0.98, "cutting does not pay here: 60% fewer multiply-accumulates, and 0.98 ms for the"),
    ],
)
def test_worth(time: float, said: str) -> None:
    full, small = Timed(1.0, 0.9, 1.1, 9), Timed(time, time, time, 9)
    worth = Worth(full, small, 0.4)
    assert worth.sentence.startswith(said)
    assert worth.pays == (time < 0.97)


def test_timings_of_narrower_networks(
    tmp_path: Path,
    sessions: list[tuple[Candidate, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("prunas.pipeline.commands.latency.backend_of", lambda name: Abacus())
    file = tmp_path / "table.json"
    call = ["latency", "test_resnet", "--data", "digits", "--table", str(file), "--json"]
    assert main(call) == 0
    told = json.loads(capsys.readouterr().out)
    names = [row["name"] for row in told["networks"]]
    assert names[0] == "full network"
    assert names[-1] == "smallest candidate"
    assert len(told["findings"]) == len(names) - 1
    assert told["table"]["networks"] == 64
    assert file.exists()
    measured = len(sessions)
    assert main(call) == 2
    assert "exists; name another file" in capsys.readouterr().err
    assert main([*call[:5], str(file / "below.json")]) == 2
    assert f"({file} is no folder); name another place" in capsys.readouterr().err
    assert len(sessions) == measured  # refused before anything is timed
    assert main(["latency", "test_resnet", "--data", "digits"]) == 0
    shown = capsys.readouterr().out
    assert "beads on abacus" in shown
    assert "fewer multiply-accumulates" in shown


def test_latency_where_nothing_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    call = ["profile", "test_resnet", "--data", "digits", "--budget", "latency=5ms"]
    assert main(call) == 2
    assert "the latency of candidates is not known here" in capsys.readouterr().err
