"""Curves of a run for TensorBoard or MLflow, as they come about: losses, scores, accuracies.

A run that goes on tells its log everything again, what is on record first, so that a log is whole
whatever was lost with a killed process. Nothing is told twice.
"""

import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol, final

from prunas.errors import InputError, RunError
from prunas.pipeline.files import writing
from prunas.pipeline.sealed import read_sealed, write_sealed


class Log(Protocol):
    """Where points of curves go."""

    def write(self, name: str, value: float, step: int) -> None:
        """One point of the curve of that name."""
        ...


@final
class Silent:
    """Keeps nothing."""

    def write(self, name: str, value: float, step: int) -> None: ...


SILENT: Final[Log] = Silent()


class _Opened(Log, Protocol):
    """A log that is being written."""

    def close(self, ending: str) -> None:
        """The run is over; `ending` is FINISHED, FAILED or KILLED, as MLflow calls it."""
        ...


@final
class _Each:
    """Several logs at once; every point of a curve goes to them once, if it is a number.

    They are opened for the first point: by then the run's folder holds a run. No result depends on
    a log: one that fails later is given up in a sentence, and the run goes on without it.
    """

    def __init__(self, kinds: Mapping[str, Callable[[], _Opened]]) -> None:
        self._unopened = dict(kinds)
        self._logs: dict[str, _Opened] = {}
        self._known: set[tuple[str, int]] = set()

    def write(self, name: str, value: float, step: int) -> None:
        if (name, step) in self._known or not math.isfinite(value):
            return
        self._known.add((name, step))
        while self._unopened:
            kind = next(iter(self._unopened))
            with self._given_up(kind):
                self._logs[kind] = self._unopened.pop(kind)()
        for kind, log in tuple(self._logs.items()):
            with self._given_up(kind):
                log.write(name, value, step)

    def close(self, ending: str) -> None:
        for kind in tuple(self._logs):
            with self._given_up(kind):
                self._logs.pop(kind).close(ending)

    @contextmanager
    def _given_up(self, kind: str) -> Iterator[None]:
        """Whatever is raised inside is said, except for what is said already."""
        try:
            yield
        except (InputError, RunError):
            raise
        except Exception as error:  # noqa: BLE001 - trackers raise what they like
            if log := self._logs.pop(kind, None):
                with suppress(Exception):  # as likely as not
                    log.close("FAILED")
            warnings.warn(
                f"--log {kind} fails ({_said(error)}); the run goes on without it. Once it works,"
                f" `prunas runs resume RUN --log {kind}` tells it everything again",
                stacklevel=1,
            )


def _said(error: Exception) -> str:
    """An error in one line."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


@contextmanager
def logged(
    kinds: Sequence[str], folder: Path, goal: str, request: Mapping[str, Any]
) -> Iterator[Log]:
    """A log that passes on to those of these kinds, some of `LOGS`, and closes them at the end.

    Args:
        kinds: none: a log that keeps nothing.
        folder: of the run.
        goal: of what is run, such as "search"; each has a log of its own.
        request: what is asked of the run, which a log may keep.

    Raises:
        InputError: there is no such log, its library is missing, or it does not answer.
    """
    require_logs(kinds)
    if not kinds:
        yield SILENT
        return
    place = folder / "logs" / goal
    curves = _Each({kind: partial(LOGS[kind], place, request) for kind in kinds})
    ending = "FAILED"
    try:
        yield curves
        ending = "FINISHED"
    except KeyboardInterrupt:
        ending = "KILLED"
        raise
    finally:
        curves.close(ending)


def require_logs(kinds: Sequence[str]) -> None:
    """Refuse logs that cannot be kept, before anything begins.

    Raises:
        InputError: there is no such log, its library is missing, or it does not answer.
    """
    for kind in kinds:
        if kind not in LOGS:
            raise InputError(f"no log is called {kind!r}; choose {', '.join(LOGS)}")
        if find_spec(kind) is None:
            raise InputError(f"--log {kind} needs {kind}; run: pip install 'prunas[{kind}]'")
    if "mlflow" in kinds:
        _require_mlflow()


# -- TensorBoard -----------------------------------------------------------------------------------


@final
class _TensorBoard:
    """Event files in the folder, for `tensorboard --logdir`; earlier ones are told anew.

    Raises:
        RunError: the folder cannot be written.
    """

    def __init__(self, folder: Path, request: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter  # an extra

        with writing(folder):
            for earlier in folder.glob(_EVENTS):
                earlier.unlink()
            writer: Any = SummaryWriter(str(folder))
            writer.file_writer.event_writer.close()
            (file,) = folder.glob(_EVENTS)
            writer.file_writer.event_writer = _Events(file)
        self._writer = writer

    def write(self, name: str, value: float, step: int) -> None:
        self._writer.add_scalar(name, value, step)

    def close(self, ending: str) -> None:
        self._writer.close()


_EVENTS: Final = "events.out.tfevents.*"


@final
class _Events:
    """Writes each event at once, and so raises what is wrong with the disk.

    TensorBoard's own class writes in a thread, which prints tracebacks.
    """

    def __init__(self, file: Path) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._records: Any = RecordWriter(file.open("ab"))

    def add_event(self, event: Any) -> None:
        try:
            self._records.write(event.SerializeToString())
            self._records.flush()
        except OSError:
            with suppress(OSError):
                self._records.close()
            raise

    def flush(self) -> None:
        self._records.flush()

    def close(self) -> None:
        self._records.close()


# -- MLflow ----------------------------------------------------------------------------------------


@final
class _MLflow:
    """A run in the experiment "prunas", wherever MLflow is set to keep it.

    Points that it has from an earlier process are not sent again.
    """

    def __init__(self, folder: Path, request: Mapping[str, Any]) -> None:
        from mlflow import MlflowClient  # an extra

        self._client: Any = MlflowClient()
        self._identity = _mlflow_run(self._client, folder, request)
        self._known: dict[str, set[int]] = {}

    def write(self, name: str, value: float, step: int) -> None:
        if name not in self._known:
            history = self._client.get_metric_history(self._identity, name)
            self._known[name] = {point.step for point in history}
        if step not in self._known[name]:
            self._client.log_metric(self._identity, name, value, step=step)

    def close(self, ending: str) -> None:
        self._client.set_terminated(self._identity, ending)


def _require_mlflow() -> None:
    """Ask for the experiment, which need not be there."""
    from mlflow import MlflowClient  # an extra

    try:
        with _few_retries():
            MlflowClient().get_experiment_by_name("prunas")
    except Exception as error:  # noqa: BLE001 - each of its stores has its own
        raise InputError(
            f"--log mlflow does not answer ({_said(error)}); set MLFLOW_TRACKING_URI to where"
            " MLflow keeps its runs, or leave the log out"
        ) from None


@contextmanager
def _few_retries() -> Iterator[None]:
    """MLflow's own patience with a server that is not there is four minutes."""
    name = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    stated = name in os.environ
    os.environ.setdefault(name, "1")
    try:
        yield
    finally:
        if not stated:
            del os.environ[name]


def _mlflow_run(client: Any, folder: Path, request: Mapping[str, Any]) -> str:
    """The run that belongs to the folder, begun if there is none."""
    file = folder / "mlflow.json"
    if file.exists():
        try:
            return str(read_sealed(file)["run"])
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{file} cannot be read ({error}); delete it to begin anew") from None
    known = client.get_experiment_by_name("prunas")
    experiment = known.experiment_id if known else client.create_experiment("prunas")
    name = f"{folder.parents[1].resolve().name} {folder.name}"
    identity: str = client.create_run(experiment, run_name=name).info.run_id
    for key, value in request.items():
        client.log_param(identity, key, value if isinstance(value, str) else json.dumps(value))
    write_sealed(file, {"run": identity})
    return identity


LOGS: Final[Mapping[str, Callable[[Path, Mapping[str, Any]], _Opened]]] = {
    "tensorboard": _TensorBoard,
    "mlflow": _MLflow,
}
