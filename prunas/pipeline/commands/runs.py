"""`prunas runs`: what can be done with runs besides making them."""

import sys
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from shutil import get_terminal_size
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from prunas.pipeline import terminal
from prunas.pipeline.commands.answers import answer, print_json
from prunas.pipeline.commands.beginning import begun
from prunas.pipeline.commands.options import (
    Address,
    AsJson,
    Device,
    Executor,
    GpusPerWorker,
    Limit,
    Logs,
    Run,
    WorkerCount,
    device_of,
    words_of,
    workers_of,
)
from prunas.pipeline.commands.search import searched, tell_transformation
from prunas.pipeline.commands.stopping import command_line, stoppable
from prunas.pipeline.finals import train_finals
from prunas.pipeline.lock import claimed
from prunas.pipeline.log import logged, require_logs
from prunas.pipeline.moved import move
from prunas.pipeline.progress import plain_console
from prunas.pipeline.report import write_report
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.runs import (
    FORMATS,
    Listed,
    export_runs,
    fingerprints_of,
    is_merged,
    list_runs,
    merge_runs,
)
from prunas.search.record import read_archive
from prunas.search.record import recover as recover_archive

app = typer.Typer(
    help="List, resume, merge, export and recover runs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command("list")
def list_(
    folder: Annotated[Path, typer.Argument(help="Runs in it and below it.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List the runs in a folder, and how far each has come."""
    found = list_runs(folder)
    if as_json:
        print_json({"runs": [each.to_json() for each in found]})
    elif not found:
        typer.echo(f"there are no runs in {folder}")
    else:
        width = max(60, get_terminal_size((110, 24)).columns)
        plain_console(sys.stdout, width).print(_table(found))
        for each in found:
            if each.trouble:
                typer.echo(each.trouble)


def _table(found: Sequence[Listed]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("run", "state", "network", "data", "budget", "seed"):
        table.add_column(name, overflow="fold")
    for name in ("scored", "best score", "test accuracy"):
        table.add_column(name, justify="right")
    for each in found:
        scored = "" if each.state == "damaged" else f"{each.evaluations}"
        scored += "" if each.asked is None else f" of {each.asked}"
        table.add_row(
            each.folder,
            each.state,
            each.model,
            each.data,
            each.budget,
            ", ".join(map(str, each.seeds)),
            scored,
            "" if each.best is None else f"{each.best:.4f}",
            "" if each.accuracy is None else f"{each.accuracy:.4f}",
        )
    return table


@app.command()
def resume(
    run: Run,
    device: Device = "auto",
    workers: WorkerCount = None,
    executor: Executor = None,
    address: Address = None,
    gpus_per_worker: GpusPerWorker = None,
    limit: Limit = None,
    log: Logs = None,
    data: Annotated[
        str | None, typer.Option(help="Where its data lie now, if not where they were.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="The same of its weights file.", metavar="FILE")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Go on with a run where it was stopped, to what was asked of it."""
    where = device_of(device)
    crew, words = workers_of(workers, executor, address, gpus_per_worker, limit)
    folder = RunFolder.open(run)
    request, goal = folder.request(), folder.read().get("goal")
    goal = "train" if goal == "train" else "search"
    require_logs(log or ())
    with (
        stoppable(run, command_line("runs", "resume", run, *words, *words_of(log), device=device)),
        claimed(run),
        logged(log or (), run, goal, request.to_json()) as curves,
    ):
        move(folder, data=data, weights=weights)
        job = begun(run, request, resume=True, device=where, log=curves, workers=crew)
        if goal == "search" or not _found(folder):
            searched(job)
        if goal == "train":
            train_finals(job)
        report = write_report(run)
    entries = folder.read()
    if as_json:
        print_json(answer(run, entries))
        return
    if "accuracy" in entries["result"]:
        typer.echo(terminal.train_text(entries["result"]))
    else:
        typer.echo(terminal.search_text(run, entries))
        tell_transformation(run, entries)
    typer.echo(f"report: {report}")


def _found(folder: RunFolder) -> bool:
    """Whether the search is done. `train` may have changed what its finalists would be now."""
    result = folder.read().get("result") or {}
    wanted = result.get("evaluations")
    known = read_archive(folder.archive).get(folder.request().fingerprint(), ())
    return "candidate" in result and isinstance(wanted, int) and len(known) >= wanted


@app.command()
def merge(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.", metavar="RUN...")],
    out: Annotated[Path, typer.Option(help="A new folder for all of them.")],
    as_json: AsJson = False,
) -> None:
    """Merge runs of equal requests: other seeds side by side, equal ones into one run."""
    found = merge_runs(runs, out)
    if as_json:
        counts = {"evaluations": found.evaluations, "twice": found.twice}
        print_json({"run": str(out), "runs": found.runs, **counts})
        return
    twice = f", {found.twice} of which were there twice" if found.twice else ""
    typer.echo(f"{out}: {found.evaluations} evaluations of {found.runs} run(s){twice}")
    if found.runs == 1:
        typer.echo(f"go on with it: prunas runs resume {quote(str(out))}")


@app.command()
def export(
    run: Run,
    out: Annotated[Path, typer.Option(help="The file.", metavar="FILE")],
    form: Annotated[
        str, typer.Option("--format", help=f"{', '.join(FORMATS)}.", metavar="NAME")
    ] = "csv",
    as_json: AsJson = False,
) -> None:
    """Write the evaluations of a run as a table for other programs."""
    rows = export_runs(run, form, out)
    if as_json:
        print_json({"run": str(run), "file": str(out), "rows": rows})
    else:
        typer.echo(f"{out}: {rows} evaluations")


@app.command()
def recover(run: Run, as_json: AsJson = False) -> None:
    """Save what can be read of a damaged archive; a search then evaluates the rest again."""
    fingerprints = fingerprints_of(run)
    with claimed(run):
        saved, aside = recover_archive(RunFolder(run).archive, fingerprints)
    if as_json:
        print_json({"run": str(run), "saved": saved, "damaged": str(aside)})
        return
    typer.echo(f"{saved} evaluations were saved; the damaged archive is kept as {aside}")
    if is_merged(run):
        typer.echo("the others are in the runs that were merged: merge them again for all")
    else:
        typer.echo(f"evaluate the others again: prunas runs resume {quote(str(run))}")
