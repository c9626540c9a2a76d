"""The whole comparison: see that it is possible, play what is missing, write what it shows."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from prunas.errors import InputError
from prunas.pipeline import lock
from prunas.pipeline.comparison.arena import Arena, Problem, table_identity
from prunas.pipeline.comparison.folder import CompareFolder, claimed
from prunas.pipeline.comparison.live import RunArena, require_prior, run_identity, scoring
from prunas.pipeline.comparison.outputs import write_results
from prunas.pipeline.comparison.request import Comparison
from prunas.pipeline.comparison.results import Results, contest_of
from prunas.pipeline.comparison.runs import Cell, Row, cells_of, play
from prunas.pipeline.comparison.workers import played, table_arenas
from prunas.pipeline.progress import Progress
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.stages import Job
from prunas.pipeline.workers import Workers
from prunas.search.table import Table, read_table
from prunas.supernet.space import Candidate


@dataclass(frozen=True)
class Means:
    """What a comparison computes with: workers play on tables, or evaluate on a run."""

    workers: Workers
    device: torch.device
    progress: Progress


def compare_methods(request: Comparison, out: Path, means: Means) -> Results:
    """Run every contender on every problem with every seed, and compare.

    Runs that `out` holds of the same comparison are not repeated.

    Args:
        request: what to compare.
        out: folder of the results.
        means: what to compute with.

    Raises:
        InputError: a table or run cannot be used, a budget leaves nothing to search, or `out`
            holds something else or is in use.
        RunError: the disk is full, or a run cannot be played.
    """
    return _on_tables(request, out, means) if request.run is None else _on_run(request, out, means)


def _on_tables(request: Comparison, out: Path, means: Means) -> Results:
    tables = [read_table(name) for name in request.tables]
    _require_own_names([table.name for table in tables])
    _require_priors(tables, _priors(request))
    arenas = table_arenas(request)
    problems = [
        arenas(table.name, budget).problem for table in tables for budget in request.budgets
    ]
    with claimed(out) as folder:
        folder.begin(request.to_json(), [table_identity(table) for table in tables])
        rows, cells = _open_cells(folder, request, problems)
        with (
            _recorded(folder, rows, len(cells), means.progress) as record,
            closing(played(cells, request, arenas, means.workers)) as arriving,
        ):
            for row in arriving:
                record(row)
        return _results(folder, request, problems, rows)


def _on_run(request: Comparison, out: Path, means: Means) -> Results:
    run = RunFolder.open(Path(str(request.run)))
    job = Job(run, means.device, means.progress, means.workers)
    require_prior(request, job)
    request = replace(request, budgets=request.budgets or (job.request.budget,))
    arenas = [RunArena(job, text, request.budget(text)) for text in request.budgets]
    problems = [arena.problem for arena in arenas]
    with claimed(out) as folder:
        folder.begin(request.to_json(), [run_identity(job)])
        rows, cells = _open_cells(folder, request, problems)
        if cells:
            with (
                lock.claimed(run.path),
                scoring(job, folder.archive, _tested(rows), _priors(request)) as weights,
                _recorded(folder, rows, len(cells), means.progress) as record,
            ):
                ready: dict[str, Arena] = {
                    arena.text: replace(arena, weights=weights) for arena in arenas
                }
                for cell in cells:
                    record(play(cell, request, ready[cell.budget]))
        return _results(folder, request, problems, rows, run.read().get("rank"))


def _require_own_names(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two of the tables are called {name}; name each table once")


def _require_priors(tables: Sequence[Table], names: Collection[str]) -> None:
    for table, name in product(tables, sorted(names)):
        if name not in table.priors:
            raise InputError(
                f"the table {table.name} has no prior {name!r}, only"
                f" {', '.join(table.priors) or 'none'}; leave out the contenders with it"
            )


def _open_cells(
    folder: CompareFolder, request: Comparison, problems: Sequence[Problem]
) -> tuple[list[Row], list[Cell]]:
    """The finished runs, and those still to be played."""
    rows = folder.rows()
    known = {row.cell for row in rows}
    places = [(problem.space, problem.budget) for problem in problems]
    return rows, [cell for cell in cells_of(request, places) if cell not in known]


@contextmanager
def _recorded(
    folder: CompareFolder, rows: list[Row], missing: int, progress: Progress
) -> Iterator[Callable[[Row], None]]:
    """A function that keeps a run and shows how far things are."""
    total = len(rows) + missing
    with progress.task("runs") as task:

        def record(row: Row) -> None:
            folder.append(row)
            rows.append(row)
            task.update(len(rows), total)

        yield record


def _priors(request: Comparison) -> set[str]:
    """The priors that some contender is told."""
    return {each.prior for each in request.contenders if each.prior is not None}


def _tested(rows: Sequence[Row]) -> dict[Candidate, float]:
    """The test scores on record, by candidate."""
    return {
        Candidate(row.curve[-1][1]): row.test
        for row in rows
        if row.curve and isinstance(row.curve[-1][1], list)
    }


def _results(
    folder: CompareFolder,
    request: Comparison,
    problems: Sequence[Problem],
    rows: Sequence[Row],
    agreement: Mapping[str, Any] | None = None,
) -> Results:
    """What the runs show, and the files about it."""
    contests = tuple(
        contest_of(problem, request, [row for row in rows if _is_of(row, problem)])
        for problem in problems
    )
    results = Results(request, contests, agreement)
    write_results(folder, results)
    return results


def _is_of(row: Row, problem: Problem) -> bool:
    return (row.cell.space, row.cell.budget) == (problem.space, problem.budget)
