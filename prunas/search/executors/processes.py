"""Workers in processes of this machine."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from threading import Thread
from time import monotonic
from typing import Any, Final, Generic, final

import torch
from threadpoolctl import threadpool_limits

from prunas.errors import RunError
from prunas.search.executors.crew import (
    Lost,
    News,
    Recipe,
    Result,
    Task,
    as_news,
    attempt,
    build,
)

LONGEST_WAIT: Final = 1e6
"""Seconds. Systems wait for 2^31 milliseconds at most; whoever waits longer waits again."""

_CUDA: Final = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class _Process:
    process: BaseProcess
    channel: Connection
    slot: int
    """Its place among those that work at the same time; it decides the accelerator."""


@final
class Processes(Generic[Task, Result]):
    """So many processes, each built by the recipe; Ctrl-C is their parent's affair.

    Args:
        recipe: builds a worker.
        count: how many.
        threads: of each. The number decides in which order sums are taken, and so their last
            bits: it should not depend on how many workers there are.
        accelerators: what each process sees of them, such as "0" or "1"; all take turns. None
            leaves that as it is.
    """

    def __init__(
        self,
        recipe: Recipe[Task, Result],
        count: int,
        *,
        threads: int = 1,
        accelerators: Sequence[str] | None = None,
    ) -> None:
        self._recipe = recipe
        self._count = count
        self._threads = threads
        self._accelerators = accelerators
        self._context = _context()
        self._processes: dict[int, _Process] = {}
        self._channels: dict[Connection, int] = {}

    def now(self) -> float:
        return monotonic()

    def wanted(self) -> int:
        return self._count

    def begin(self, worker: int) -> bool:
        slot = min(set(range(self._count)) - {each.slot for each in self._processes.values()})
        named = self._accelerators
        environment = {} if named is None else {_CUDA: named[slot]}
        try:
            process, ours = self._started(environment)
        except (OSError, EOFError) as error:  # the latter if the server could not fork
            raise RunError(
                f"worker {len(self._processes) + 1} of {self._count} cannot be begun ({error});"
                " ask for fewer workers, or raise what the system allows (ulimit -n, ulimit -u)"
            ) from None
        self._processes[worker] = _Process(process, ours, slot)
        self._channels[ours] = worker
        return True

    def _started(self, environment: dict[str, str]) -> tuple[BaseProcess, Connection]:
        """A process, and our end of the channel to it."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(self._recipe, self._threads, environment, theirs), daemon=True
        )
        try:
            with deaf_to_interrupts():
                process.start()
        except (OSError, EOFError):
            ours.close()
            raise
        finally:
            theirs.close()
        return process, ours

    def give(self, worker: int, number: int, task: Task) -> None:
        with suppress(ConnectionError):  # that it has ended is heard next
            self._processes[worker].channel.send((number, task))

    def heard(self, patience: float) -> Sequence[News[Result]]:
        heard = wait(list(self._channels), min(patience, LONGEST_WAIT))
        return [self._received(channel) for channel in heard if isinstance(channel, Connection)]

    def end(self, worker: int) -> None:
        ended = self._processes.pop(worker)
        del self._channels[ended.channel]
        ended.process.kill()
        ended.process.join()
        ended.channel.close()

    def close(self) -> None:
        for each in self._processes.values():
            each.process.kill()  # all of them, before any is waited for
        for worker in list(self._processes):
            self.end(worker)

    def _received(self, channel: Connection) -> News[Result]:
        worker = self._channels[channel]
        try:
            number, found = channel.recv()
        except (EOFError, ConnectionError):
            process = self._processes[worker].process
            process.join()
            return Lost(worker, _ending(process.exitcode))
        return as_news(worker, number, found)


def _ending(code: int | None) -> str:
    """What the exit code of a process says."""
    if code == -9:
        return "its process was killed (signal 9), as happens where memory runs out"
    return f"its process ended with code {code}"


def _context() -> Any:
    """Processes are forked from a clean one that has imported torch, where there is that."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _serve(
    recipe: Recipe[Any, Any], threads: int, environment: dict[str, str], channel: Connection
) -> None:
    """Be built, then do the work that comes in, until the parent ends."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # also where signals cannot be masked
    os.environ.update(environment)
    torch.set_num_threads(threads)
    with threadpool_limits(threads), suppress(EOFError, ConnectionError):
        work, built = build(recipe)
        channel.send((None, built))
        while work is not None:
            number, task = channel.recv()
            channel.send((number, attempt(work, task)))


def end_with_parent() -> None:
    """End this process as soon as its parent has ended, however that was, whatever it is doing.

    Otherwise a training would go on for hours beside the run that was resumed. The parent is who
    made the process, also where a server forked it.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker is a child"

    def end() -> None:
        wait([parent.sentinel])
        os._exit(1)

    Thread(target=end, daemon=True).start()


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Processes begun here never see Ctrl-C: the parent does, and ends them.

    A worker that ignored the signal by itself could only do so after its imports. A signal that
    arrives meanwhile waits for the parent.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # now: where it begins, it lets SIGINT through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
