"""`prunas compare`."""

from pathlib import Path
from typing import Annotated

import typer

from prunas.pipeline import terminal
from prunas.pipeline.commands.answers import print_json
from prunas.pipeline.commands.options import (
    Address,
    AsJson,
    Device,
    Executor,
    device_of,
    workers_of,
)
from prunas.pipeline.commands.stopping import stoppable
from prunas.pipeline.comparison import Comparison, Means, compare_methods, read_request
from prunas.pipeline.comparison.folder import kept_runs
from prunas.pipeline.files import write_text
from prunas.pipeline.processes import cores
from prunas.pipeline.progress import Progress
from prunas.pipeline.report.compare_page import compare_page
from prunas.pipeline.workers import HERE, Workers
from prunas.search.methods import SEARCHES


def compare(
    file: Annotated[
        Path | None, typer.Argument(help="A comparison in JSON; options go before it.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{', '.join(SEARCHES)}, each also as NAME+di or NAME+dais, with a prior; or all.",
            metavar="NAME",
        ),
    ] = None,
    table: Annotated[
        list[str] | None, typer.Option(help="A table by name or file.", metavar="NAME")
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="Instead, evaluate on the weights of this run.")
    ] = None,
    budget: Annotated[
        list[str] | None, typer.Option(help="Upper bounds such as macs=40%. [the run's]")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Runs of each contender. [20]")] = None,
    evaluations: Annotated[int | None, typer.Option(help="Candidates a run scores. [500]")] = None,
    start: Annotated[
        int | None, typer.Option(help="Random ones among these that all begin with. [20]")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Candidates asked for at once. [10]")] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Below a limit. [0.10 on tables, 0.02 on a run]")
    ] = None,
    at: Annotated[
        list[int] | None, typer.Option(help="Compare after so many as well. [50 100 200]")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Workers. [all cores; on a run none]")
    ] = None,
    executor: Executor = None,
    address: Address = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("runs/compare"),
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Compare search methods under equal conditions; methods, tables and budgets may be repeated.

    What is finished is kept: the same command goes on.
    """
    options = {
        "methods": method,
        "tables": table,
        "run": run,
        "budgets": budget,
        "seeds": seeds,
        "evaluations": evaluations,
        "start": start,
        "batch": batch,
        "tolerance": tolerance,
        "at": at,
    }
    given = {name: value for name, value in options.items() if value is not None}
    request = Comparison.from_json({**(read_request(file) if file else {}), **given})
    usual = cores() if run is None and address is None else None
    crew = _players(jobs or usual, executor, address)
    means = Means(crew, device_of(device), Progress(visible=True))
    with stoppable(kept=lambda: kept_runs(out)):
        found = compare_methods(request, out, means)
        page = out / "compare.html"
        write_text(page, compare_page(found))
    if as_json:
        print_json({"folder": str(out), "page": str(page), **found.to_json()})
        return
    typer.echo(terminal.compare_text(found))
    typer.echo(f"page, to be opened in a browser: {page}")


def _players(jobs: int | None, executor: str | None, address: str | None) -> Workers:
    if (executor, address) == (None, None) and jobs == 1:
        return HERE
    return workers_of(jobs, executor, address, None)[0]
