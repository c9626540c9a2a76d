"""`prunas search`."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from prunas.errors import InputError
from prunas.pipeline import terminal, transformation
from prunas.pipeline.commands.answers import answer, print_json
from prunas.pipeline.commands.beginning import begun
from prunas.pipeline.commands.options import (
    Address,
    AsJson,
    CheckpointEvery,
    Compile,
    DataName,
    Device,
    Executor,
    FinalEpochs,
    FromScratch,
    Genes,
    GpusPerWorker,
    Grid,
    Keep,
    LatencyBackend,
    LatencyBatch,
    Limit,
    Logs,
    Resolutions,
    Seeds,
    WorkerCount,
    device_of,
    kinds_of,
    sides_of,
    usual,
    words_of,
    workers_of,
)
from prunas.pipeline.commands.stopping import command_line, stoppable
from prunas.pipeline.found import run_search_stages
from prunas.pipeline.lock import claimed
from prunas.pipeline.log import logged, require_logs
from prunas.pipeline.precision import PRECISIONS
from prunas.pipeline.report import write_report
from prunas.pipeline.request import SOURCES, Request
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.stages import Job
from prunas.search.methods import SEARCHES
from prunas.supernet.schedules.table import SCHEDULES, WARMED_UP
from prunas.transformer_nat.transformation import NothingToReplaceError


def search(
    model: Annotated[
        str | None, typer.Argument(help="A timm network; left out with --resume --out DIR.")
    ] = None,
    data: DataName = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Upper bounds: macs=40%, macs=120M,params=2.5M, latency=5ms."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run. [runs/MODEL-DATA]")] = None,
    search: Annotated[
        str | None, typer.Option(help=f"{', '.join(SEARCHES)}. {usual('search')}", metavar="NAME")
    ] = None,
    evaluations: Annotated[
        int | None, typer.Option(help=f"Candidates to score. {usual('evaluations')}")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help=f"Of everything random. {usual('seed')}")
    ] = None,
    seeds: Seeds = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=0, help="Of the full network; 0: as given. [40; 5 from given weights]"),
    ] = None,
    supernet_epochs: Annotated[
        int | None, typer.Option(help=f"Of the shared weights. {usual('supernet_epochs')}")
    ] = None,
    finalists: Annotated[
        int | None,
        typer.Option(
            help=f"Candidates trained before one is chosen; 1: by score. {usual('finalists')}"
        ),
    ] = None,
    finalist_epochs: Annotated[
        int | None, typer.Option(help="Of each finalist. [5; from scratch a third of the final]")
    ] = None,
    final_epochs: FinalEpochs = None,
    from_scratch: FromScratch = None,
    batch_size: Annotated[
        int | None, typer.Option(help=f"Images in a training step. {usual('batch_size')}")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help=f"Peak rate. {usual('learning_rate')}")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(PRECISIONS)}. [auto: bf16 on CUDA, no on a CPU]", metavar="NAME"
        ),
    ] = None,
    accumulate: Annotated[
        int | None, typer.Option(min=1, help="Parts in which a step runs, for less memory. [1]")
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(help="Decay of an average of weights, which is the result. [0: none]"),
    ] = None,
    compiled: Compile = None,
    checkpoint_every: CheckpointEvery = None,
    paths: Annotated[
        int | None,
        typer.Option(min=1, help=f"Candidates in a step of the shared weights. {usual('paths')}"),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help=f"Of the shared weights' training: {', '.join(SCHEDULES)}; also with {WARMED_UP}."
            f" {usual('schedule')}",
            metavar="NAME",
        ),
    ] = None,
    kernel_transform: Annotated[
        bool, typer.Option("--kernel-transform", help="Learn how smaller kernels are made.")
    ] = False,
    pretrained: Annotated[
        bool | None, typer.Option("--pretrained", help="Start from timm's weights.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help=f"Of the candidates: {', '.join(SOURCES)}. A file is taken for --start."
            f" {usual('source')}",
            metavar="NAME",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(help="Start from this .safetensors file or state dict.", metavar="FILE"),
    ] = None,
    small_memory: Annotated[
        bool, typer.Option("--small-memory", help="Generate a weight only while its layer runs.")
    ] = False,
    grid: Grid = None,
    keep: Keep = None,
    genes: Genes = None,
    resolutions: Resolutions = None,
    input_size: Annotated[
        int | None, typer.Option(min=1, help="Resize images to this side.", metavar="SIDE")
    ] = None,
    no_prior: Annotated[
        bool, typer.Option("--no-prior", help="Do without discriminant information.")
    ] = False,
    latency_backend: LatencyBackend = None,
    latency_batch: LatencyBatch = None,
    latency_table: Annotated[
        str | None, typer.Option(help="Read, or built there. [in --out]", metavar="FILE")
    ] = None,
    transformed: Annotated[
        bool, typer.Option("--transform", help="Replace redundant operators of what is found.")
    ] = False,
    device: Device = "auto",
    batch: Annotated[
        int | None, typer.Option(help="Candidates asked for at once. [10, or a tenth in flight]")
    ] = None,
    in_flight: Annotated[
        int | None,
        typer.Option(help="So many are evaluated at a time, without waiting for whole batches."),
    ] = None,
    workers: WorkerCount = None,
    executor: Executor = None,
    address: Address = None,
    gpus_per_worker: GpusPerWorker = None,
    limit: Limit = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    log: Logs = None,
    as_json: AsJson = False,
) -> None:
    """Search for the best network inside a budget. Everything finished is kept as it is made."""
    stated = {
        "model": model,
        "data": data,
        "budget": budget,
        "search": search,
        "evaluations": evaluations,
        "batch": batch,
        "in_flight": in_flight,
        "seed": seed,
        "seeds": seeds,
        "epochs": epochs,
        "supernet_epochs": supernet_epochs,
        "finalists": finalists,
        "finalist_epochs": finalist_epochs,
        "final_epochs": final_epochs,
        "from_scratch": from_scratch,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "precision": precision,
        "accumulate": accumulate,
        "ema": ema,
        "compile": compiled,
        "checkpoint_every": checkpoint_every,
        "paths": paths,
        "schedule": schedule,
        "kernel_transform": kernel_transform or None,
        "pretrained": pretrained,
        **_weights(weights, start),
        "small_memory": small_memory or None,
        "grid": grid,
        "keep": keep or None,
        "genes": genes and kinds_of(genes),
        "resolutions": resolutions and sides_of(resolutions),
        "input_size": input_size,
        "prior": False if no_prior else None,
        "latency_backend": latency_backend,
        "latency_batch": latency_batch,
        "latency_table": latency_table,
        "transform": transformed or None,
    }
    given = {name: value for name, value in stated.items() if value is not None}
    request = _request(given, out if resume else None)
    _require_timed(given, request)
    folder = out or _default_folder(request)
    where = device_of(device)
    crew, words = workers_of(workers, executor, address, gpus_per_worker, limit)
    require_logs(log or ())
    again = ("search", "--resume", "--out", folder, *words, *words_of(log))
    with (
        stoppable(folder, command_line(*again, device=device)),
        claimed(RunFolder.prepared(folder)),
        logged(log or (), folder, "search", request.to_json()) as curves,
    ):
        job = begun(folder, request, resume=resume, device=where, log=curves, workers=crew)
        if job.folder.read().get("goal") == "train":
            job.folder.update({"goal": "search"})
        searched(job)
        report = write_report(folder)
    entries = job.folder.read()
    if as_json:
        print_json(answer(folder, entries))
        return
    typer.echo(terminal.search_text(folder, entries))
    tell_transformation(folder, entries)
    typer.echo(f"report: {report}")


def searched(job: Job) -> None:
    """The search, and the transformation of what it finds if that was asked."""
    run_search_stages(job)
    if job.request.transform:
        with _nothing_to_replace_noted():
            transformation.transform(job, {})


@contextmanager
def _nothing_to_replace_noted() -> Iterator[None]:
    """A search that was to transform as well is done all the same."""
    try:
        yield
    except NothingToReplaceError as error:
        typer.echo(f"prunas: note: {error}", err=True)


def tell_transformation(folder: Path, entries: Mapping[str, Any]) -> None:
    """Say what a transformation replaced, unless it is of a network that was found earlier."""
    entry = entries.get("transformation")
    if entry and entry["key"]["candidate"] == entries["result"]["candidate"]:
        typer.echo(terminal.transform_text(folder, entry))


def _weights(of_candidates: str | None, start: str | None) -> dict[str, str | None]:
    """The weights source, and the file to start from, which may be given as either option."""
    if of_candidates is None or of_candidates in SOURCES:
        return {"source": of_candidates, "weights": start}
    if start is not None:
        raise InputError(
            f"no weights source is called {of_candidates!r}; choose {', '.join(SOURCES)}"
        )
    if not any(mark in of_candidates for mark in "./") and not Path(of_candidates).exists():
        raise InputError(
            f"there is no weights file {of_candidates}, nor a weights source of that name; sources"
            f" are {', '.join(SOURCES)}"
        )
    return {"source": None, "weights": of_candidates}


def _request(given: Mapping[str, Any], recorded: Path | None) -> Request:
    """What was asked; without a model, what the run in `recorded` was asked, with changes."""
    if "model" in given:
        missing = [f"--{name}" for name in ("data", "budget") if name not in given]
        if missing:
            raise InputError(
                f"a search needs {' and '.join(missing)}, such as --data digits --budget macs=40%"
            )
        return Request.from_json(dict(given))
    if recorded is None:
        raise InputError("name a network, or continue a run with --resume --out DIR")
    return Request.from_json({**RunFolder.open(recorded).request().to_json(), **given})


def _require_timed(given: Mapping[str, Any], request: Request) -> None:
    """Refuse options about times where nothing is timed; a run of before may have them."""
    about = [name for name in ("latency_table", "latency_batch") if name in given]
    if about and request.latency_backend is None and not request.limits_latency:
        raise InputError(
            f"--{about[0].replace('_', '-')} {given[about[0]]} is for networks that are timed, and"
            f" none is with --budget {request.budget}; limit latency there, or give"
            " --latency-backend"
        )


def _default_folder(request: Request) -> Path:
    """runs/MODEL-DATA, of names alone."""
    return Path("runs") / f"{Path(request.model).name}-{Path(request.data).stem}"
