"""Models in processes of their own: one that hangs or takes all memory ends alone."""

import multiprocessing
import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from time import monotonic
from typing import Final

import torch

from prunas.allocator import hand_back_large_tensors
from prunas.pipeline.coverage.protocol import examine
from prunas.pipeline.coverage.row import Row
from prunas.pipeline.workers import Workers
from prunas.search.executors import Failed, Patience, Work, as_finished, end_with_parent, settled
from prunas.search.executors.processes import LONGEST_WAIT

_GRACE: Final = 120.0  # seconds beyond a model's limit, after which it is the worker that hangs


@dataclass
class _Work:
    """One model under way; `row` is the latest that it reported."""

    process: ForkServerProcess
    channel: Connection
    deadline: float
    row: Row


def examined(models: Sequence[str], *, jobs: int, limit: float, memory: int) -> Iterator[Row]:
    """Rows of the models, as they are finished.

    Args:
        models: names in timm.
        jobs: how many at once, each with one thread.
        limit: seconds for a model; what it had found by then is in its row.
        memory: bytes for a model.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # importing torch once is enough
    waiting, running = list(reversed(models)), list[_Work]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_begun(context, waiting.pop(), limit, memory))
            _listen(running)
            for work in [each for each in running if _over(each)]:
                running.remove(work)
                yield _ended(work, limit)
    finally:
        for work in running:
            work.process.kill()


def examined_elsewhere(
    models: Sequence[str], workers: Workers, *, limit: float, memory: int
) -> Iterator[Row]:
    """The same by workers of a cluster, each of which has a process for every model."""
    patience = Patience(first=limit + _GRACE, factor=0.0, least=limit + _GRACE)
    with workers.executor(partial(examiner, limit, memory), patience=patience) as executor:
        for outcome in settled(as_finished(executor, models)):
            if isinstance(outcome, Failed):
                yield Row(outcome.task, "", stage="begin", error=outcome.reasons[-1])
            else:
                yield outcome.result


def examiner(limit: float, memory: int) -> Work[str, Row]:
    """What examines models in a worker: the recipe of one."""
    return lambda model: next(examined([model], jobs=1, limit=limit, memory=memory))


def _begun(
    context: multiprocessing.context.ForkServerContext, model: str, limit: float, memory: int
) -> _Work:
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_examine, args=(model, memory, theirs), daemon=True)
    process.start()
    theirs.close()
    return _Work(process, ours, monotonic() + limit, Row(model, "", stage="begin"))


def _examine(model: str, memory: int, channel: Connection) -> None:
    end_with_parent()
    torch.set_num_threads(1)
    hand_back_large_tensors()
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    channel.send(examine(model, memory=memory, report=channel.send))


def _listen(running: Sequence[_Work]) -> None:
    """Wait for news, or until the next deadline, and keep the latest row of each."""
    pause = max(0.0, min(work.deadline for work in running) - monotonic())
    heard = wait([work.channel for work in running], timeout=min(pause, LONGEST_WAIT))
    for work in running:
        if work.channel in heard:
            try:
                work.row = work.channel.recv()
            except EOFError:
                work.process.join()


def _over(work: _Work) -> bool:
    return not work.process.is_alive() or monotonic() >= work.deadline


def _ended(work: _Work, limit: float) -> Row:
    while work.channel.poll():
        try:
            work.row = work.channel.recv()
        except EOFError:
            break
    if work.row.stage == "done":
        work.process.join()
        return work.row
    if work.process.is_alive():
        work.process.kill()
        reason = f"took more than {limit:g} s"
    else:
        reason = f"its process ended with code {work.process.exitcode}"
    return work.row if work.row.error else replace(work.row, error=reason)
