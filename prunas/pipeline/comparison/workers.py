"""Runs on tables, here or by workers elsewhere; which of them has which run changes nothing."""

from collections.abc import Callable, Generator, Sequence
from functools import partial

from prunas.errors import RunError
from prunas.pipeline.comparison.arena import Arena, TableArena
from prunas.pipeline.comparison.request import Comparison
from prunas.pipeline.comparison.runs import Cell, Row, play
from prunas.pipeline.processes import single_threaded
from prunas.pipeline.workers import Workers
from prunas.search.executors import Failed, Work, as_finished
from prunas.search.table import read_table

Arenas = Callable[[str, str], Arena]
"""The arena of a space and a budget, by their names."""


def played(
    cells: Sequence[Cell], request: Comparison, arenas: Arenas, workers: Workers
) -> Generator[Row, None, None]:
    """The runs on tables as they are finished.

    Args:
        cells: which runs.
        request: how they are run.
        arenas: where, for those in this process; workers elsewhere make theirs anew.
        workers: who plays them.

    Raises:
        RunError: one cannot be played.
    """
    if not workers.elsewhere or len(cells) == 1:
        for cell in cells:
            with single_threaded():
                row = play(cell, request, arenas(cell.space, cell.budget))
            yield row
        return
    recipe = partial(player, request)
    with workers.executor(recipe, patience=workers.work_patience) as executor:
        for outcome in as_finished(executor, cells):
            if isinstance(outcome, Failed):
                raise RunError(
                    f"{outcome.task.contender} on {outcome.task.space} cannot be played:"
                    f" {outcome.reasons[-1]}; finished runs are kept"
                )
            yield outcome.result


def player(request: Comparison) -> Work[Cell, Row]:
    """What plays runs on tables in a worker: the recipe of one."""
    arenas = table_arenas(request)
    return lambda cell: play(cell, request, arenas(cell.space, cell.budget))


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
