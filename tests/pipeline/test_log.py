"""Curves: what a run tells its logs, and that nothing is told twice."""

import math
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from prunas.errors import InputError
from prunas.pipeline import log
from prunas.pipeline.log import SILENT, logged, require_logs


def curves(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    """What TensorBoard shows of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        name: [(each.step, pytest.approx(each.value)) for each in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


@pytest.mark.filterwarnings("ignore")  # of tensorboard itself
def test_tensorboard_shows_what_was_written_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    for epochs in (2, 4):  # the second process tells everything again
        with logged(["tensorboard"], tmp_path, "search", {}) as curve:
            for epoch in range(epochs):
                curve.write("full network/loss", 1 / (epoch + 1), epoch)
                curve.write("full network/loss", 1 / (epoch + 1), epoch)
            curve.write("search/score", math.nan, 1)
    expected = {"full network/loss": [(step, 1 / (step + 1)) for step in range(4)]}
    assert curves(tmp_path / "logs" / "search") == expected


class FakeMLflow:
    """Keeps in memory what a tracking server would; `MlflowClient()` is any client of it."""

    def __init__(self) -> None:
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}

    def get_experiment_by_name(self, name: str) -> Any:
        known = self.experiments.get(name)
        return known and SimpleNamespace(experiment_id=known)

    def create_experiment(self, name: str) -> str:
        return self.experiments.setdefault(name, f"experiment of {name}")

    def create_run(self, experiment: str, *, run_name: str) -> Any:
        assert experiment in self.experiments.values()
        identity = f"run {len(self.runs)}"
        self.runs[identity] = {"name": run_name, "params": {}, "metrics": {}, "status": "RUNNING"}
        return SimpleNamespace(info=SimpleNamespace(run_id=identity))

    def log_param(self, run: str, key: str, value: str) -> None:
        self.runs[run]["params"][key] = value

    def log_metric(self, run: str, key: str, value: float, *, step: int) -> None:
        self.runs[run]["metrics"].setdefault(key, []).append((step, value))

    def get_metric_history(self, run: str, key: str) -> list[Any]:
        return [SimpleNamespace(step=step) for step, _ in self.runs[run]["metrics"].get(key, [])]

    def set_terminated(self, run: str, status: str) -> None:
        self.runs[run]["status"] = status


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> FakeMLflow:
    fake, module = FakeMLflow(), ModuleType("mlflow")
    module.MlflowClient = lambda: fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setattr(log, "find_spec", lambda name: object())
    return fake


def stopped_search(folder: Path, request: dict[str, Any]) -> None:
    with logged(["mlflow"], folder, "search", request) as curve:
        curve.write("search/score", 0.5, 1)
        raise KeyboardInterrupt


def test_mlflow_gets_one_run_with_every_point_once(tmp_path: Path, mlflow: FakeMLflow) -> None:
    request = {"model": "test_resnet", "seed": 3}
    with pytest.raises(KeyboardInterrupt):
        stopped_search(tmp_path / "mine", request)
    (run,) = mlflow.runs.values()
    assert run["status"] == "KILLED"
    with logged(["mlflow"], tmp_path / "mine", "search", request) as curve:
        for step, score in ((1, 0.5), (2, 0.75)):
            curve.write("search/score", score, step)
    assert run == {
        "name": "mine search",
        "params": {"model": "test_resnet", "seed": "3"},
        "metrics": {"search/score": [(1, 0.5), (2, 0.75)]},
        "status": "FINISHED",
    }
    with logged(["mlflow"], tmp_path / "mine", "train", request) as curve:
        curve.write("loss", 0.5, 1)
    assert [each["name"] for each in mlflow.runs.values()] == ["mine search", "mine train"]


def failing_search(folder: Path) -> None:
    with logged(["mlflow"], folder, "search", {}) as curve:
        curve.write("loss", 0.5, 1)
        raise ZeroDivisionError


def test_a_failed_run_is_one_in_mlflow_too(tmp_path: Path, mlflow: FakeMLflow) -> None:
    with pytest.raises(ZeroDivisionError):
        failing_search(tmp_path)
    assert mlflow.runs["run 0"]["status"] == "FAILED"
    (tmp_path / "logs" / "search" / "mlflow.json").write_text("{")
    with pytest.raises(InputError, match=r"mlflow\.json cannot be read .* delete it to begin anew"):
        failing_search(tmp_path)


def test_nothing_is_made_before_there_is_a_point(tmp_path: Path, mlflow: FakeMLflow) -> None:
    with logged(["mlflow"], tmp_path, "search", {}):
        pass
    assert not mlflow.runs
    assert not list(tmp_path.iterdir())


def test_several_logs_are_told_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, float, int]] = []

    class Told:
        def write(self, name: str, value: float, step: int) -> None:
            told.append((name, value, step))

    def kept(folder: Path, request: Mapping[str, Any]) -> Any:
        return nullcontext(Told())

    monkeypatch.setattr(log, "LOGS", {"one": kept, "two": kept})
    monkeypatch.setattr(log, "find_spec", lambda name: object())
    with logged(["one", "two", "one"], tmp_path, "search", {}) as curve:
        curve.write("loss", 1.0, 0)
    assert told == [("loss", 1.0, 0)] * 2


def test_without_logs_nothing_is_made(tmp_path: Path) -> None:
    with logged([], tmp_path, "search", {}) as curve:
        assert curve is SILENT
        curve.write("loss", 1.0, 0)
    assert not list(tmp_path.iterdir())


def test_a_log_that_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no log is called 'paper'; choose tensorboard, mlflow"):
        require_logs(["paper"])
    monkeypatch.setattr(log, "find_spec", lambda name: None)
    for name in ("tensorboard", "mlflow"):
        with pytest.raises(InputError, match=rf"needs {name}; run: pip install 'prunas\[{name}\]'"):
            require_logs([name])
