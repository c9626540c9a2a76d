"""Curves of a run for TensorBoard or MLflow, as they come about: losses, scores, accuracies.

A run that goes on tells its log everything again, what is on record first, so that a log is whole
whatever was lost with a killed process. Nothing is told twice.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol, final

from prunas.errors import InputError
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


@final
class _Each:
    """Several logs at once; every point of a curve goes to them once, if it is a number.

    They are opened for the first point: by then the run's folder holds a run.
    """

    def __init__(self, open_all: Callable[[], Sequence[Log]]) -> None:
        self._open_all = open_all
        self._known: set[tuple[str, int]] = set()

    @cached_property
    def _logs(self) -> Sequence[Log]:
        return self._open_all()

    def write(self, name: str, value: float, step: int) -> None:
        if (name, step) not in self._known and math.isfinite(value):
            self._known.add((name, step))
            for log in self._logs:
                log.write(name, value, step)


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
        InputError: there is no such log, or its library is missing.
    """
    require_logs(kinds)
    with ExitStack() as stack:

        def open_all() -> list[Log]:
            place, distinct = folder / "logs" / goal, dict.fromkeys(kinds)
            return [stack.enter_context(LOGS[kind](place, request)) for kind in distinct]

        yield _Each(open_all) if kinds else SILENT


def require_logs(kinds: Sequence[str]) -> None:
    """Refuse logs that cannot be kept, before anything begins.

    Raises:
        InputError: there is no such log, or its library is missing.
    """
    for kind in kinds:
        if kind not in LOGS:
            raise InputError(f"no log is called {kind!r}; choose {', '.join(LOGS)}")
        if find_spec(kind) is None:
            raise InputError(f"--log {kind} needs {kind}; run: pip install 'prunas[{kind}]'")


# -- TensorBoard -----------------------------------------------------------------------------------


@final
class _TensorBoard:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def write(self, name: str, value: float, step: int) -> None:
        self._writer.add_scalar(name, value, step)


@contextmanager
def _tensorboard(folder: Path, request: Mapping[str, Any]) -> Iterator[Log]:
    """Event files in the folder, for `tensorboard --logdir`; earlier ones are told anew.

    Raises:
        RunError: the folder cannot be written.
    """
    from torch.utils.tensorboard import SummaryWriter  # an extra

    with writing(folder):
        for earlier in folder.glob("events.out.tfevents.*"):
            earlier.unlink()
        writer = SummaryWriter(str(folder), flush_secs=5)
    try:
        yield _TensorBoard(writer)
    finally:
        writer.close()


# -- MLflow ----------------------------------------------------------------------------------------


@final
class _MLflow:
    """One run of MLflow; points that it has from an earlier process are not sent again."""

    def __init__(self, client: Any, identity: str) -> None:
        self._client, self._identity = client, identity
        self._known: dict[str, set[int]] = {}

    def write(self, name: str, value: float, step: int) -> None:
        if name not in self._known:
            history = self._client.get_metric_history(self._identity, name)
            self._known[name] = {point.step for point in history}
        if step not in self._known[name]:
            self._client.log_metric(self._identity, name, value, step=step)


@contextmanager
def _mlflow(folder: Path, request: Mapping[str, Any]) -> Iterator[Log]:
    """A run in the experiment "prunas", wherever MLflow is set to keep it."""
    from mlflow import MlflowClient  # an extra

    client = MlflowClient()
    identity = _mlflow_run(client, folder, request)
    ending = "FAILED"
    try:
        yield _MLflow(client, identity)
        ending = "FINISHED"
    except KeyboardInterrupt:
        ending = "KILLED"
        raise
    finally:
        client.set_terminated(identity, ending)


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


LOGS: Final[Mapping[str, Callable[[Path, Mapping[str, Any]], Any]]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
}
