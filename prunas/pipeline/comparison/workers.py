"""Runs on tables in processes of their own; which process has which run changes nothing."""

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from prunas.errors import RunError
from prunas.pipeline.comparison.arena import Arena, TableArena
from prunas.pipeline.comparison.request import Comparison
from prunas.pipeline.comparison.runs import Cell, Row, play
from prunas.pipeline.processes import deaf_to_interrupts, single_threaded
from prunas.search.table import read_table

Arenas = Callable[[str, str], Arena]
"""The arena of a space and a budget, by their names."""


def played(
    cells: Sequence[Cell], request: Comparison, arenas: Arenas, *, jobs: int
) -> Generator[Row, None, None]:
    """The runs on tables as they are finished.

    Args:
        cells: which runs.
        request: how they are run.
        arenas: where; processes of their own make theirs anew.
        jobs: processes; a single one is this one.

    Raises:
        RunError: a process was ended from outside.
    """
    if min(jobs, len(cells)) > 1:
        yield from _in_processes(cells, request, min(jobs, len(cells)))
        return
    for cell in cells:
        with single_threaded():
            row = play(cell, request, arenas(cell.space, cell.budget))
        yield row


def _in_processes(
    cells: Sequence[Cell], request: Comparison, jobs: int
) -> Generator[Row, None, None]:
    waiting = list(reversed(cells))
    busy = workers = _begun(request, jobs)
    try:
        for worker in workers:
            _send(worker, waiting.pop())
        while busy:
            heard = wait([worker.channel for worker in busy])
            for worker in [each for each in busy if each.channel in heard]:
                row = _received(worker)
                if waiting:
                    _send(worker, waiting.pop())
                else:
                    busy = [each for each in busy if each is not worker]
                yield row
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()


def table_arenas(request: Comparison) -> Arenas:
    """The arenas of the tables, each made when it is first asked for.

    Raises:
        InputError: a table is not there or damaged.
    """
    tables = {table.name: table for table in map(read_table, request.tables)}
    made: dict[tuple[str, str], TableArena] = {}

    def arena(space: str, budget: str) -> Arena:
        key = space, budget
        if key not in made:
            made[key] = TableArena(tables[space], budget, request.budget(budget))
        return made[key]

    return arena


@dataclass(frozen=True)
class _Worker:
    process: BaseProcess
    channel: Connection


def _begun(request: Comparison, count: int) -> list[_Worker]:
    context = multiprocessing.get_context("spawn")
    workers = []
    with deaf_to_interrupts():
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(request, theirs), daemon=True)
            process.start()
            theirs.close()
            workers.append(_Worker(process, ours))
    return workers


def _serve(request: Comparison, channel: Connection) -> None:
    """Play the runs that come in, until the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # also where signals cannot be masked
    arenas = table_arenas(request)
    with single_threaded():
        while True:
            try:
                cell = channel.recv()
            except EOFError:
                return
            try:
                channel.send(play(cell, request, arenas(cell.space, cell.budget)))
            except Exception as error:  # noqa: BLE001  (whatever it is, the parent raises it)
                error.add_note(traceback.format_exc())  # which does not travel by itself
                channel.send(error)


def _send(worker: _Worker, cell: Cell) -> None:
    with _alive(worker):
        worker.channel.send(cell)


def _received(worker: _Worker) -> Row:
    with _alive(worker):
        found = worker.channel.recv()
    if isinstance(found, Exception):
        raise found
    row: Row = found
    return row


@contextmanager
def _alive(worker: _Worker) -> Iterator[None]:
    """Says so if the process is not."""
    try:
        yield
    except (EOFError, ConnectionError):
        worker.process.join()
        raise RunError(
            f"a process that compared methods ended with code {worker.process.exitcode}; finished"
            " runs are kept: the same command goes on"
        ) from None
