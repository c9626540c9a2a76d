"""`prunas rank`."""

from typing import Annotated

import typer

from prunas.pipeline import terminal
from prunas.pipeline.commands.answers import print_json
from prunas.pipeline.commands.options import (
    Address,
    AsJson,
    Device,
    Executor,
    GpusPerWorker,
    Run,
    TrainingLimit,
    WorkerCount,
    device_of,
    workers_of,
)
from prunas.pipeline.commands.stopping import command_line, stoppable
from prunas.pipeline.crew import launched
from prunas.pipeline.files import write_text
from prunas.pipeline.lock import claimed
from prunas.pipeline.progress import Progress
from prunas.pipeline.rank import rank as ranked
from prunas.pipeline.report.rank_page import rank_page
from prunas.pipeline.request import SOURCES
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.stages import Job


def rank(
    run: Run,
    candidates: Annotated[int, typer.Option(help="Networks to train alone.")] = 50,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Of each. [as in the final training]")
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(help=f"Whose scores: {', '.join(SOURCES)}; may be repeated. [the run's]"),
    ] = None,
    device: Device = "auto",
    workers: WorkerCount = None,
    executor: Executor = None,
    address: Address = None,
    gpus_per_worker: GpusPerWorker = None,
    limit: TrainingLimit = None,
    as_json: AsJson = False,
) -> None:
    """Train random networks alone and tell how well scores had ordered them."""
    folder = RunFolder.open(run)
    crew, words = workers_of(workers, executor, address, gpus_per_worker, work_limit=limit)
    job = Job(folder, device_of(device), Progress(visible=True), crew, launched())
    names = list(dict.fromkeys(weights or [job.request.source]))
    length = job.request.final_epochs if epochs is None else epochs
    options = ["--candidates", candidates, "--epochs", length]
    options += [word for name in names for word in ("--weights", name)] + words
    with stoppable(run, command_line("rank", run, *options, device=device)), claimed(run):
        found = ranked(job, names, candidates=candidates, epochs=length)
        entry = found.to_json()
        folder.update({"rank": entry})
        page = run / "rank.html"
        write_text(page, rank_page(found, model=job.request.model, data=job.data.name))
    if as_json:
        print_json({"run": str(run), "page": str(page), **entry})
        return
    typer.echo(terminal.rank_text(found))
    typer.echo(f"page, to be opened in a browser: {page}")
