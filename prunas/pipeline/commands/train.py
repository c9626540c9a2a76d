"""`prunas train`."""

import typer

from prunas.pipeline import terminal
from prunas.pipeline.commands.answers import answer, print_json
from prunas.pipeline.commands.options import (
    Address,
    AsJson,
    CheckpointEvery,
    Compile,
    Device,
    Executor,
    FinalEpochs,
    FromScratch,
    GpusPerWorker,
    Logs,
    Run,
    Seeds,
    TrainingLimit,
    WorkerCount,
    device_of,
    words_of,
    workers_of,
)
from prunas.pipeline.commands.stopping import command_line, stoppable
from prunas.pipeline.crew import launched
from prunas.pipeline.finals import train_finals
from prunas.pipeline.lock import claimed
from prunas.pipeline.log import logged, require_logs
from prunas.pipeline.progress import Progress
from prunas.pipeline.report import write_report
from prunas.pipeline.request import Request
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.stages import Job


def train(
    run: Run,
    seeds: Seeds = None,
    final_epochs: FinalEpochs = None,
    from_scratch: FromScratch = None,
    compiled: Compile = None,
    checkpoint_every: CheckpointEvery = None,
    device: Device = "auto",
    workers: WorkerCount = None,
    executor: Executor = None,
    address: Address = None,
    gpus_per_worker: GpusPerWorker = None,
    limit: TrainingLimit = None,
    log: Logs = None,
    as_json: AsJson = False,
) -> None:
    """Train the found network and, beside it, the uniform one of the same budget."""
    folder = RunFolder.open(run)
    where = device_of(device)
    crew, words = workers_of(workers, executor, address, gpus_per_worker, work_limit=limit)
    stated = {
        "seeds": seeds,
        "final_epochs": final_epochs,
        "from_scratch": from_scratch,
        "compile": compiled,
        "checkpoint_every": checkpoint_every,
    }
    given = {name: value for name, value in stated.items() if value is not None}
    request = Request.from_json({**folder.request().to_json(), **given})
    require_logs(log or ())
    with (
        stoppable(run, command_line("train", run, *words, *words_of(log), device=device)),
        claimed(run),
        logged(log or (), run, "train", request.to_json()) as curves,
    ):
        folder.update({"request": request.to_json(), "goal": "train"})
        result = train_finals(
            Job(folder, where, Progress(visible=True, log=curves), crew, launched())
        )
        report = write_report(run)
    entries = folder.read()
    if as_json:
        print_json(answer(run, entries))
        return
    typer.echo(terminal.train_text(result))
    typer.echo(f"report: {report}")
    typer.echo(terminal.loading_text(run / "model", result["input_size"]))
