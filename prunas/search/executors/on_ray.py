"""Workers as Ray actors: on this machine, or wherever a cluster has room.

Ray (Moritz et al., "Ray: A Distributed Framework for Emerging AI Applications", OSDI 2018) finds
places for actors, carries tasks and results, and notices when a machine is gone. Replacing workers
and repeating their work is the supervisor's affair, as with any other crew.
"""

import math
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from socket import create_connection
from time import monotonic, sleep
from typing import Any, Final, Generic, final

import torch
from threadpoolctl import threadpool_limits

from prunas.errors import InputError, RunError
from prunas.search.executors.crew import (
    Lost,
    News,
    Placed,
    Raised,
    Recipe,
    Result,
    Returned,
    Task,
    Work,
    as_news,
    attempt,
    build,
)

LOOPBACK: Final = "127.0.0.1"

_LOOK_UP: Final = 5.0  # seconds after which machines may have come or gone
_ANSWER: Final = 5.0  # seconds within which a cluster answers
_SOON: Final = 60.0  # seconds within which a cluster with room should have placed somebody
_RARELY: Final = 3600.0  # seconds from one note that nobody has a place to the next
_QUIET: Final[Mapping[str, str]] = {
    "RAY_USAGE_STATS_ENABLED": "0",  # or Ray reports to its makers
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what comes anyway; without it Ray warns
}


class _Actor:
    """A worker. Errors of its work are values, so what Ray raises is about the worker itself."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._work: Work[Any, Any] | None = None

    def place(self) -> None:
        """Answer, as an actor can that has found a place."""

    def build(self, recipe: Recipe[Any, Any], place: str) -> Returned[None] | Raised:
        """Apply a recipe, in the folder that relative paths of its arguments start from."""
        with suppress(OSError):  # another machine need not have it
            os.chdir(place)
        torch.set_num_threads(self._threads)
        threadpool_limits(self._threads)
        self._work, built = build(recipe)
        return built

    def work(self, task: Any) -> Returned[Any] | Raised:
        assert self._work is not None, "an actor is built before it is given work"
        return attempt(self._work, task)


@final
class OnRay(Generic[Task, Result]):
    """As many actors as the cluster has room for; they follow it as it grows and shrinks.

    Where others use the cluster, they wait for their turn, however long; a note says so while
    nobody has a place.

    Args:
        recipe: builds a worker. What it reads must be there on every machine of the cluster: a
            run's folder lies on a disk that they share.
        count: at most so many actors; None: as many as there is room for.
        address: of a cluster, such as "auto" or "10.0.0.1:6379"; None begins one on this machine,
            which nobody can reach from elsewhere.
        processors: CPUs that an actor takes.
        accelerators: GPUs that an actor takes; 0.25 puts four on each.

    Raises:
        InputError: Ray is not installed, there is no cluster at the address, or there is no room
            for a single actor and never will be.
    """

    def __init__(
        self,
        recipe: Recipe[Task, Result],
        count: int | None = None,
        *,
        address: str | None = None,
        processors: float = 1.0,
        accelerators: float = 0.0,
    ) -> None:
        self._ray = _ray()
        self._needs = {"CPU": processors, "GPU": accelerators}
        self._count = count
        self._room = 0
        self._looked_up = -math.inf
        self._actors: dict[int, Any] = {}
        self._unplaced: dict[Any, int] = {}
        self._pending: dict[Any, tuple[int, int | None]] = {}
        self._waits_since: float | None = None
        self._next_note = 0.0
        with ExitStack() as undo:
            # Ray prints there what it thinks of workers that died; answers of a program go there
            undo.enter_context(redirect_stdout(sys.stderr))
            if _joined(self._ray, address, count, processors):
                undo.callback(self._ray.shutdown)
            # in the object store once; an actor's machine fetches it once
            self._recipe = self._ray.put(recipe)
            if self.wanted() == 0 and address is None:
                raise InputError(
                    f"a worker needs {_listed(self._needs)}, but this machine has"
                    f" {_listed(self._ray.cluster_resources())}; ask for less"
                )
            self._undo = undo.pop_all()

    def now(self) -> float:
        return monotonic()

    def wanted(self) -> int:
        if monotonic() - self._looked_up >= _LOOK_UP:
            self._looked_up = monotonic()
            self._room = sum(_fitting(self._needs, node) for node in self._machines())
        return self._room if self._count is None else min(self._count, self._room)

    def _machines(self) -> list[Mapping[str, float]]:
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def begin(self, worker: int) -> bool:
        actor = self._ray.remote(_Actor).options(
            num_cpus=self._needs["CPU"], num_gpus=self._needs["GPU"], max_restarts=0
        )
        self._actors[worker] = actor.remote(max(1, int(self._needs["CPU"])))
        self._unplaced[self._actors[worker].place.remote()] = worker
        return False

    def give(self, worker: int, number: int, task: Task) -> None:
        self._pending[self._actors[worker].work.remote(task)] = worker, number

    def heard(self, patience: float) -> Sequence[News[Result]]:
        self._note_waiting()
        asked = [*self._unplaced, *self._pending]
        timeout = min(patience, _LOOK_UP)
        if not asked:  # there is no room for anybody
            sleep(timeout)
            return []
        ready, _ = self._ray.wait(asked, timeout=timeout)
        if ready:  # and all others that are by now
            ready, _ = self._ray.wait(asked, num_returns=len(asked), timeout=0)
        return [self._received(reference) for reference in ready]

    def end(self, worker: int) -> None:
        self._ray.kill(self._actors.pop(worker))
        self._unplaced = {ref: kept for ref, kept in self._unplaced.items() if kept != worker}
        self._pending = {ref: kept for ref, kept in self._pending.items() if kept[0] != worker}

    def close(self) -> None:
        for worker in list(self._actors):
            self.end(worker)
        self._undo.close()

    def _received(self, reference: Any) -> News[Result]:
        placed = self._unplaced.pop(reference, None)
        worker, number = (placed, None) if placed is not None else self._pending.pop(reference)
        try:
            found = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._looked_up = -math.inf  # its machine may be gone
            return Lost(worker, f"{type(error).__name__}: {_line(error)}")
        if placed is not None:
            building = self._actors[worker].build.remote(self._recipe, os.getcwd())
            self._pending[building] = worker, None
            return Placed(worker)
        return as_news(worker, number, found)

    def _note_waiting(self) -> None:
        """Say that nobody has a place: at once if there is none, in a minute if all are taken."""
        now = self.now()
        if len(self._unplaced) < len(self._actors):
            self._waits_since = None
            return
        if self._waits_since is None:
            self._waits_since, self._next_note = now, now + (_SOON if self._room else 0.0)
        if now < self._next_note:
            return
        self._next_note = now + _RARELY
        hours = round((now - self._waits_since) / 3600)
        warnings.warn(
            f"a worker needs {_listed(self._needs)}; the cluster has"
            f" {_listed(self._ray.cluster_resources())}, free are"
            f" {_listed(self._ray.available_resources())}; waiting for room"
            + (f", for {hours} h now" if hours else ""),
            stacklevel=2,
        )


def _fitting(needs: Mapping[str, float], machine: Mapping[str, float]) -> int:
    """Actors with these needs that a machine has room for.

    >>> _fitting({"CPU": 1, "GPU": 0.25}, {"CPU": 16.0, "GPU": 2.0})
    8
    """
    shares = [machine.get(name, 0.0) / need for name, need in needs.items() if need > 0]
    return int(min(shares, default=0.0) + 1e-9)


def _listed(resources: Mapping[str, float]) -> str:
    known = {name: resources.get(name, 0.0) for name in ("CPU", "GPU")}
    return " and ".join(
        f"{value:g} {name}" for name, value in known.items() if value or name == "CPU"
    )


def _ray() -> Any:
    """The package.

    Raises:
        InputError: it is not installed.
    """
    try:
        with _environment(_QUIET):
            import ray
    except ImportError:
        raise InputError(
            "Ray is not installed; pip install 'prunas[distributed]', or use processes"
        ) from None
    return ray


def require_ray(address: str | None) -> None:
    """Refuse Ray where it is missing, or nobody answers at the address.

    Ray itself would try for minutes.

    Raises:
        InputError: so it is.
    """
    _ray()
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):  # "auto", for example: Ray knows at once
        return
    try:
        create_connection((host.strip("[]"), int(port)), timeout=_ANSWER).close()
    except (OSError, OverflowError, ValueError) as error:
        raise _no_cluster(address, error) from None


def _no_cluster(address: str | None, error: Exception) -> InputError:
    return InputError(
        f"there is no Ray cluster to join at {address!r} ({_line(error)}); give the address that"
        " `ray start` has printed"
    )


def _joined(ray: Any, address: str | None, count: int | None, processors: float) -> bool:
    """Join a cluster, or begin one, unless this process is in one; whether it was not."""
    if ray.is_initialized():
        return False
    if address is not None:
        require_ray(address)
        try:
            with _environment(_QUIET):
                ray.init(address=address, log_to_driver=False, logging_level="error")
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise _no_cluster(address, error) from None
        return True
    room = os.cpu_count() or 1
    if count is not None:  # as many as asked, also beyond the cores of the machine
        room = max(room, math.ceil(count * processors))
    try:
        with _loopback(ray):
            ray.init(
                address="local",
                num_cpus=room,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="error",
            )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise RunError(f"Ray cannot begin on this machine: {_line(error)}") from None
    if {node["NodeManagerAddress"] for node in ray.nodes()} != {LOOPBACK}:
        ray.shutdown()
        raise RunError(
            "Ray would listen to other machines, which nobody asked for; begin a cluster with"
            " `ray start` and give its --address"
        )
    return True


@contextmanager
def _loopback(ray: Any) -> Iterator[None]:
    """A cluster begun here binds to loopback, as Ray has it on Windows and macOS by default.

    There is no public setting of it on Linux: an address of 127.0.0.1 that it is given, Ray
    replaces by one that can be reached.
    """
    constants = ray._private.ray_constants
    found = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = False
    try:
        with _environment({**_QUIET, constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}):
            yield
    finally:
        constants.ENABLE_RAY_CLUSTER = found


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """These variables, unless the user has set them; as found afterwards."""
    missing = {name: value for name, value in changes.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)
