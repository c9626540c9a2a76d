"""Curves: what a run tells its logs, and that nothing is told twice."""

import math
import os
import re
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

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
        assert re.fullmatch(r"[/\w.\- :]+", key), "a server takes no other names"
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
        def __init__(self, folder: Path, request: Mapping[str, Any]) -> None: ...

        def write(self, name: str, value: float, step: int) -> None:
            told.append((name, value, step))

        def close(self, ending: str) -> None:
            told.append((ending, 0.0, 0))

    monkeypatch.setattr(log, "LOGS", {"one": Told, "two": Told})
    monkeypatch.setattr(log, "find_spec", lambda name: object())
    with logged(["one", "two", "one"], tmp_path, "search", {}) as curve:
        curve.write("loss", 1.0, 0)
    assert told == [("loss", 1.0, 0)] * 2 + [("FINISHED", 0.0, 0)] * 2


class Failing:
    """Raises in one of its methods what no library of prunas raises."""

    at = ""
    calls: ClassVar[list[str]] = []

    def __init__(self, folder: Path, request: Mapping[str, Any]) -> None:
        self._called("open")

    def write(self, name: str, value: float, step: int) -> None:
        self._called("write")

    def close(self, ending: str) -> None:
        self._called("close")

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name == self.at:
            raise ConnectionError("the tracker is gone\nand says a lot about it")


def two_points(kinds: Sequence[str], folder: Path) -> None:
    with logged(kinds, folder, "search", {}) as curve:
        curve.write("loss", 1.0, 0)
        curve.write("loss", 0.5, 1)


@pytest.mark.parametrize(
    ("at", "calls"),
    [
        ("open", ["open"]),
        ("write", ["open", "write", "close"]),
        ("close", ["open", "write", "write", "close"]),
    ],
)
def test_a_log_that_fails_is_given_up_once_and_the_others_go_on(
    at: str, calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow: FakeMLflow
) -> None:
    monkeypatch.setattr(Failing, "at", at)
    monkeypatch.setattr(Failing, "calls", [])
    monkeypatch.setattr(log, "LOGS", {"failing": Failing, "mlflow": log.LOGS["mlflow"]})
    said = r"--log failing fails \(the tracker is gone\); the run goes on without it"
    with pytest.warns(UserWarning, match=said) as warned:
        two_points(["failing", "mlflow"], tmp_path)
    assert len(warned) == 1
    assert Failing.calls == calls
    (run,) = mlflow.runs.values()
    assert run["metrics"] == {"loss": [(0, 1.0), (1, 0.5)]}
    assert run["status"] == "FINISHED"


def test_an_mlflow_that_does_not_answer_is_refused_before_anything_begins(
    mlflow: FakeMLflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(name: str) -> None:
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
        raise ConnectionError("Max retries exceeded")

    monkeypatch.setattr(mlflow, "get_experiment_by_name", unreachable)
    sentence = r"--log mlflow does not answer \(Max retries exceeded\); set MLFLOW_TRACKING_URI"
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    with pytest.raises(InputError, match=sentence):
        require_logs(["mlflow"])
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tensorboard itself
def test_a_disk_that_is_full_for_tensorboard_ends_no_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with logged(["tensorboard"], tmp_path, "search", {}) as curve:
        curve.write("loss", 1.0, 0)
        (file,) = (tmp_path / "logs" / "search").iterdir()
        with (
            largest_file(file.stat().st_size + 10),
            pytest.warns(
                UserWarning, match=r"--log tensorboard fails \(.*File too large\)"
            ) as said,
        ):
            curve.write("loss", 0.5, 1)
        assert len(said) == 1
        curve.write("loss", 0.25, 2)
    assert curves(tmp_path / "logs" / "search") == {"loss": [(0, 1.0)]}


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file grows beyond `size` bytes inside."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


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
