"""The command line. Exit codes: 0 done, 1 the run failed, 2 wrong usage or input, 130 stopped."""

import json
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from shutil import get_terminal_size, rmtree
from typing import Annotated, Any, Final, cast, get_args

import numpy as np
import torch
import typer
from torch import nn

from prunas.allocator import keep_freed_memory
from prunas.errors import InputError, RunError
from prunas.eval.accuracy import accuracy
from prunas.eval.criteria.comparison import findings
from prunas.eval.criteria.table import CRITERIA, DEFAULT
from prunas.eval.latency.backends import BACKENDS, backend_of
from prunas.eval.latency.predictor import FEWEST
from prunas.eval.latency.table import NETWORKS
from prunas.interruption import STOPPED, loaded
from prunas.pipeline import terminal, transformation
from prunas.pipeline.artifact import load, require_replaceable, save
from prunas.pipeline.comparison import Comparison, Means, compare_methods, read_request
from prunas.pipeline.comparison.folder import kept_runs
from prunas.pipeline.coverage import cover, lost, read_rows, zoo
from prunas.pipeline.crew import launched
from prunas.pipeline.criteria_study import Subject, study
from prunas.pipeline.data import load_data
from prunas.pipeline.export import Exported, export_onnx, export_timm, export_torch
from prunas.pipeline.files import require_writable, require_writable_file, write_text, writing
from prunas.pipeline.finals import train_finals
from prunas.pipeline.folders import require_readable
from prunas.pipeline.found import run_search_stages
from prunas.pipeline.lock import LOCK, claimed
from prunas.pipeline.log import LOGS, SILENT, Log, logged, require_logs
from prunas.pipeline.networks import create_network, network_for, pictures_of
from prunas.pipeline.precision import PRECISIONS
from prunas.pipeline.processes import cores
from prunas.pipeline.profile import profile as profiled
from prunas.pipeline.progress import Progress
from prunas.pipeline.pruning import Widths
from prunas.pipeline.pruning import prune as pruned
from prunas.pipeline.rank import rank as ranked
from prunas.pipeline.report import write_report
from prunas.pipeline.report.compare_page import compare_page
from prunas.pipeline.report.criteria_page import criteria_page
from prunas.pipeline.report.rank_page import rank_page
from prunas.pipeline.request import SOURCES, Request, demo_request
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.runs.command import app as runs
from prunas.pipeline.sources import require_source
from prunas.pipeline.spaces import space_of
from prunas.pipeline.stages import Job, fixed
from prunas.pipeline.timings import build_table, timings
from prunas.pipeline.transformers import METHODS
from prunas.pipeline.workers import EXECUTORS, HERE, Workers
from prunas.search.archive import Archive
from prunas.search.budget import Budget
from prunas.search.executors import require_ray
from prunas.search.methods import SEARCHES
from prunas.supernet.grid import GRIDS, as_grid
from prunas.supernet.schedules.table import SCHEDULES, WARMED_UP
from prunas.supernet.trace import KINDS
from prunas.transformer_nat.transformation import NothingToReplaceError

_DEMO: Final = Path("runs/demo")
_DEVICES: Final = ("auto", "cpu", "cuda")
_FORMATS: Final = {
    "onnx": ("onnx",),
    "torch": ("torch",),
    "both": ("onnx", "torch"),
    "timm": ("timm",),
}

app = typer.Typer(
    help="Find, train and export the best smaller network inside a budget.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Keep = Annotated[
    list[str] | None,
    typer.Option(help="Leave these layers alone, e.g. 'blocks.0.*'; may be repeated."),
]
Grid = Annotated[
    str | None, typer.Option(help=f"Which widths are offered: {', '.join(GRIDS)}.", metavar="NAME")
]
Genes = Annotated[
    str | None,
    typer.Option(help=f"What is searched: some of {','.join(KINDS)} (width).", metavar="KINDS"),
]
Resolutions = Annotated[
    str | None,
    typer.Option(help="Sides of images that are searched beside their own.", metavar="160,192"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Device = Annotated[str, typer.Option(help=f"{', '.join(_DEVICES)} (auto: cuda if there is one).")]
DataName = Annotated[
    str | None, typer.Option(help="digits, photos, a folder, an .npz, or a data set of timm.")
]
Pretrained = Annotated[bool, typer.Option("--pretrained", help="Timm's weights.")]
WeightsFile = Annotated[
    str | None, typer.Option(help="The weights in this .safetensors file or state dict.")
]
LatencyBackend = Annotated[
    str | None,
    typer.Option(help=f"What networks are timed on: {', '.join(BACKENDS)}.", metavar="NAME"),
]
LatencyBatch = Annotated[int | None, typer.Option(min=1, help="Images at a time, when timed.")]
Logs = Annotated[
    list[str] | None,
    typer.Option("--log", help=f"Keep curves: {', '.join(LOGS)}; may be repeated.", metavar="NAME"),
]
Run = Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN")]
Seeds = Annotated[
    int | None, typer.Option(help="Final trainings of the found and the uniform network.")
]
FinalEpochs = Annotated[int | None, typer.Option(help="Epochs of each final training.")]
FromScratch = Annotated[
    bool | None,
    typer.Option(help="Begin final training from random weights, or from those of the search."),
]
WorkerCount = Annotated[
    int | None,
    typer.Option("--workers", help="So many evaluate and train candidates. [this process alone]"),
]
Executor = Annotated[
    str | None,
    typer.Option(
        help=f"Where workers run: {', '.join(EXECUTORS)}. [processes, with --workers]",
        metavar="NAME",
    ),
]
Address = Annotated[
    str | None, typer.Option(help="Join this Ray cluster, e.g. auto.", metavar="HOST:PORT")
]
GpusPerWorker = Annotated[
    float | None, typer.Option(help="E.g. 0.25: four workers on each GPU.", metavar="NUMBER")
]
Limit = Annotated[
    float | None,
    typer.Option(help="Seconds after which an evaluation counts as hung. [10 x the usual]"),
]

Compile = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        help="Train the full network and the final ones through torch.compile.",
    ),
]
CheckpointEvery = Annotated[
    float | None,
    typer.Option(help="Seconds between checkpoints within an epoch. [600]", metavar="SECONDS"),
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; those of the process if None.

    Returns:
        The exit code.
    """
    loaded()
    keep_freed_memory()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", module="prunas")
        warnings.showwarning = _show_warning
        return _code(lambda: _start(arguments))


def _start(arguments: Sequence[str] | None) -> None:
    """The program in the first process; the others do what it says. Ends with SystemExit."""
    crew = launched()
    if not crew.ranks.first:
        crew.follow(_followed)
    code = _code(lambda: app(arguments, prog_name="prunas"))
    crew.dismiss(code)
    raise SystemExit(code)


def _followed(folder: Path, device: torch.device) -> Job:
    return Job(RunFolder.open(folder), device, Progress(), crew=launched())


def _code(work: Callable[[], None]) -> int:
    """The exit code of work, whose errors are told."""
    try:
        work()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except InputError as error:
        return _complain(error, 2)
    except RunError as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        return _complain("stopped", STOPPED)
    return 0


def _kinds(genes: str | None) -> tuple[str, ...]:
    """The kinds of genes in "width,depth"."""
    return ("width",) if genes is None else tuple(kind.strip() for kind in genes.split(","))


def _sides(resolutions: str | None) -> tuple[int, ...]:
    """The sides in "160,192"."""
    try:
        return tuple(int(side) for side in (resolutions or "").split(",") if side.strip())
    except ValueError:
        raise InputError(
            f"--resolutions {resolutions!r} are not whole numbers; write them as 160,192"
        ) from None


def _complain(sentence: object, code: int) -> int:
    typer.echo(f"prunas: {sentence}", err=True)
    return code


def _show_warning(
    message: Warning | str, category: type[Warning], *_: object, **__: object
) -> None:
    typer.echo(f"prunas: note: {message}", err=True)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"prunas {version('prunas')}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Version.")
    ] = False,
) -> None:
    """Options of the program itself."""


# -- profile ---------------------------------------------------------------------------------------


@app.command()
def profile(
    model: Annotated[str, typer.Argument(help="A timm network.")],
    input_size: Annotated[
        str | None, typer.Option(help="224 or 3,224,224; else the network's or the data's own.")
    ] = None,
    classes: Annotated[int | None, typer.Option(min=1)] = None,
    data: Annotated[str | None, typer.Option(help="Take size and classes from this data.")] = None,
    grid: Grid = None,
    keep: Keep = None,
    genes: Genes = None,
    resolutions: Resolutions = None,
    budget: Annotated[str | None, typer.Option(help="Is this in reach? E.g. macs=40%.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a network costs, what of it can be searched, and what cannot."""
    with _stoppable():
        source = None if data is None else load_data(data, seed=0)
        size, count = pictures_of(model, source, input_size, classes)
        network = create_network(model, classes=count, input_size=size)
        widths = as_grid(grid or "default")
        space = space_of(
            model,
            network,
            size,
            grid=widths,
            keep=keep or (),
            genes=_kinds(genes),
            resolutions=_sides(resolutions),
        )
        limits = None if budget is None else Budget.parse(budget)
        found = profiled(network, space, size, limits)
    form: Any = network.prunas_origin["small_images"]  # type: ignore[index]
    if as_json:
        about = {"model": model, "input_size": list(size), "classes": count}
        form = form and form["sentence"]
        _print_json({**about, "small_images": form, **found.to_json()})
        return
    title = f"{model}, images of {'x'.join(map(str, size))}, {count} classes"
    width = get_terminal_size((110, 24)).columns
    typer.echo(terminal.profile_text(found, title, max(60, width)))
    if form:
        typer.echo(form["sentence"])


# -- latency ---------------------------------------------------------------------------------------


@app.command()
def latency(
    model: Annotated[str, typer.Argument(help="A timm network.")],
    backend: LatencyBackend = "eager",
    batch: LatencyBatch = 1,
    table: Annotated[
        Path | None,
        typer.Option(help="Build a table there, for search --latency-table.", metavar="FILE"),
    ] = None,
    networks: Annotated[int, typer.Option(min=FEWEST, help="Networks in the table.")] = NETWORKS,
    data: Annotated[str | None, typer.Option(help="Take size and classes from this data.")] = None,
    input_size: Annotated[
        str | None, typer.Option(help="224 or 3,224,224; else the network's or the data's own.")
    ] = None,
    classes: Annotated[int | None, typer.Option(min=1)] = None,
    grid: Grid = None,
    keep: Keep = None,
    genes: Genes = None,
    resolutions: Resolutions = None,
    as_json: AsJson = False,
) -> None:
    """Measure narrower networks on this machine, and say whether cutting pays here."""
    runner = backend_of(backend or "eager")
    progress = Progress(visible=True)
    with _stoppable():
        source = None if data is None else load_data(data, seed=0)
        size, count = pictures_of(model, source, input_size, classes)
        network = create_network(model, classes=count, input_size=size)
        space = space_of(
            model,
            network,
            size,
            grid=as_grid(grid or "default"),
            keep=keep or (),
            genes=_kinds(genes),
            resolutions=_sides(resolutions),
        )
        found = timings(network, space, runner, batch or 1, told=progress.say)
        built = table and build_table(
            table, network, space, runner, batch or 1, networks, told=progress.say
        )
    if as_json:
        _print_json({"model": model, **found.to_json(), "table": built and built.to_json()})
        return
    typer.echo(terminal.timings_text(found))
    if built:
        typer.echo(built.sentence)


# -- prune -----------------------------------------------------------------------------------------


@app.command()
def prune(
    model: Annotated[str, typer.Argument(help="A timm network.")],
    budget: Annotated[str, typer.Option(help="Upper bounds: macs=40%, macs=120M,params=2.5M.")],
    criterion: Annotated[
        str, typer.Option(help=f"{', '.join(CRITERIA)}.", metavar="NAME")
    ] = DEFAULT,
    data: DataName = None,
    pretrained: Pretrained = False,
    weights: WeightsFile = None,
    widths: Annotated[
        str, typer.Option(help=f"How the budget is spent: {', '.join(get_args(Widths))}.")
    ] = "allocated",
    refit: Annotated[
        bool,
        typer.Option(help="Solve the layers left by least squares, or recalibrate batch norms."),
    ] = True,
    images: Annotated[int, typer.Option(min=1, help="Training images to look at.")] = 4096,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the small network. [MODEL-CRITERION]")
    ] = None,
    input_size: Annotated[
        int | None, typer.Option(min=1, help="Resize images to this side.", metavar="SIDE")
    ] = None,
    classes: Annotated[int | None, typer.Option(min=1)] = None,
    grid: Grid = None,
    keep: Keep = None,
    genes: Genes = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Cut a trained network to a budget at once, by a criterion; training it is yours."""
    where = _device(device)
    if widths not in get_args(Widths):
        raise InputError(
            f"widths cannot be {widths!r}; choose one of {', '.join(get_args(Widths))}"
        )
    folder = out or Path(f"{Path(model).name}-{criterion}")
    require_replaceable(folder)
    require_writable(folder)
    with _stoppable():
        source = None if data is None else load_data(data, seed=0, input_size=input_size)
        network, size = network_for(
            source, model, input_size, classes, pretrained, weights, device=where
        )
        widths_offered = as_grid(grid or "default")
        space = space_of(
            model, network, size, grid=widths_offered, keep=keep or (), genes=_kinds(genes)
        )
        found = pruned(
            network,
            space,
            budget,
            criterion_name=criterion,
            batches=None if source is None else fixed(source.train, size, where, limit=images),
            widths=cast(Widths, widths),
            adaptation="refit" if refit else "recalibrate",
            device=where,
        )
        shares = {}
        if source is not None:
            held_out = fixed(source.held_out, size, where)
            shares = {
                "full": accuracy(network, held_out),
                "pruned": accuracy(found.network, held_out),
            }
        save(found.network, folder)
    notes = list(found.ranking.notes)
    if not pretrained and weights is None:
        notes.append("the network has random weights; give --pretrained or --weights")
    if as_json:
        costs = {
            name: {"pruned": pair[0], "full": pair[1]}
            for name, pair in (("macs", found.macs), ("params", found.params))
        }
        about = {"model": str(folder), "criterion": criterion, "candidate": list(found.candidate)}
        _print_json({**about, **costs, "held_out_accuracy": shares or None, "notes": notes})
        return
    typer.echo(terminal.pruned_text(found, shares))
    for note in notes:
        typer.echo(f"note: {note}")
    typer.echo(terminal.loading_text(folder, size))


# -- criteria --------------------------------------------------------------------------------------


@app.command()
def criteria(
    model: Annotated[str, typer.Argument(help="A timm network.")],
    data: DataName = None,
    pretrained: Pretrained = False,
    weights: WeightsFile = None,
    names: Annotated[
        list[str] | None,
        typer.Option("--criterion", help="Only these; may be repeated. [all that can judge]"),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Training images to look at.")] = 1024,
    out: Annotated[Path | None, typer.Option(help="The page. [MODEL-criteria.html]")] = None,
    input_size: Annotated[
        int | None, typer.Option(min=1, help="Resize images to this side.", metavar="SIDE")
    ] = None,
    classes: Annotated[int | None, typer.Option(min=1)] = None,
    keep: Keep = None,
    device: Device = "auto",
    workers: WorkerCount = None,
    executor: Executor = None,
    address: Address = None,
    gpus_per_worker: GpusPerWorker = None,
    as_json: AsJson = False,
) -> None:
    """Write a page about what criteria say of a network, and where choosing is pointless."""
    where = _device(device)
    file = out or Path(f"{Path(model).name}-criteria.html")
    require_writable_file(file)
    crew, _ = _workers(workers, executor, address, gpus_per_worker)
    subject = Subject(
        model=model,
        data=data,
        side=input_size,
        classes=classes,
        pretrained=pretrained,
        weights=weights,
        keep=tuple(keep or ()),
        images=images,
        device=str(where),
    )
    with _stoppable():
        found = study(subject, names or None, crew, Progress(visible=True))
        write_text(file, criteria_page(found))
    said = findings(found.comparison)
    if as_json:
        _print_json({"page": str(file), "criteria": list(found.verdicts), "findings": said})
        return
    for sentence in said:
        typer.echo(sentence)
    typer.echo(f"page, to be opened in a browser: {file}")


# -- search ----------------------------------------------------------------------------------------


@app.command()
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
        str | None, typer.Option(help=f"{', '.join(SEARCHES)}.", metavar="NAME")
    ] = None,
    evaluations: Annotated[int | None, typer.Option(help="Candidates to score.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of everything random.")] = None,
    seeds: Seeds = None,
    epochs: Annotated[
        int | None, typer.Option(min=0, help="Of the full network; 0 leaves it as given.")
    ] = None,
    supernet_epochs: Annotated[int | None, typer.Option(help="Of the shared weights.")] = None,
    finalists: Annotated[
        int | None, typer.Option(help="Candidates trained before one is chosen; 1: by score.")
    ] = None,
    finalist_epochs: Annotated[
        int | None, typer.Option(help="Of each finalist. [5; from scratch a third of the final]")
    ] = None,
    final_epochs: FinalEpochs = None,
    from_scratch: FromScratch = None,
    batch_size: Annotated[int | None, typer.Option(help="Images in a training step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak rate.")] = None,
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
        int | None, typer.Option(min=1, help="Candidates in a step of the shared weights.")
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help=f"Of the shared weights' training: {', '.join(SCHEDULES)}; also with {WARMED_UP}.",
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
            help=f"Of the candidates: {', '.join(SOURCES)}. A file is taken for --start.",
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
        "genes": genes and _kinds(genes),
        "resolutions": resolutions and _sides(resolutions),
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
    where = _device(device)
    crew, words = _workers(workers, executor, address, gpus_per_worker, limit)
    require_logs(log or ())
    again = ("search", "--resume", "--out", folder, *words, *_words(log))
    with (
        _stoppable(folder, _command(*again, device=device)),
        claimed(RunFolder.prepared(folder)),
        logged(log or (), folder, "search", request.to_json()) as curves,
    ):
        job = _begun(folder, request, resume=resume, device=where, log=curves, workers=crew)
        _searched(job)
        report = write_report(folder)
    entries = job.folder.read()
    if as_json:
        _print_json(_answer(folder, entries))
        return
    typer.echo(terminal.search_text(folder, entries))
    _tell_transformation(folder, entries)
    typer.echo(f"report: {report}")


def _searched(job: Job) -> None:
    """The search, and the transformation of what it finds if that was asked."""
    run_search_stages(job)
    if job.request.transform:
        with _nothing_to_replace_noted():
            transformation.transform(job, {})


def _tell_transformation(folder: Path, entries: Mapping[str, Any]) -> None:
    """Unless it is of a network that was found earlier."""
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


def _begun(
    path: Path,
    request: Request,
    *,
    resume: bool,
    device: torch.device,
    log: Log = SILENT,
    workers: Workers = HERE,
) -> Job:
    """A run that is possible; if it turns out not to be, no folder is left behind."""
    new = not (path / "run.json").exists()
    with ExitStack() as undo:
        folder = RunFolder.create(path, request, resume=resume)
        if new:
            undo.callback(_take_back, path)
        job = Job(folder, device, Progress(visible=True, log=log), workers, launched())
        for recipe in (
            request.full_recipe,
            request.supernet_recipe,
            request.finalist_recipe,
            request.final_recipe,
        ):
            recipe()  # raises what is wrong with it, before anything long begins
        job.feasible  # noqa: B018  (so does this: data, network, weights, space, budget)
        require_source(job)
        if job.stopwatch is not None:
            job.stopwatch.require_table()
        require_readable(job.data.files)
        if folder.contents() is None:
            folder.update({"data": job.data.contents.to_json()})
        undo.pop_all()
    return job


def _words(logs: Sequence[str] | None) -> list[str]:
    """The options that ask for these logs."""
    return [word for log in logs or () for word in ("--log", log)]


def _take_back(path: Path) -> None:
    for file in ("run.json", LOCK):
        (path / file).unlink(missing_ok=True)
    for empty in (path / "checkpoints", path):
        with suppress(OSError):
            empty.rmdir()


# -- transform, train, rank ------------------------------------------------------------------------


@app.command()
def transform(
    run: Run,
    method: Annotated[
        str | None, typer.Option(help=f"{', '.join(METHODS)} (policy).", metavar="NAME")
    ] = None,
    evaluations: Annotated[
        int | None, typer.Option(help="Transformations to score on shared weights. [80]")
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Of the shared weights; 0 leaves them as they are. [those of the run's supernet]"
        ),
    ] = None,
    finalists: Annotated[
        int | None, typer.Option(help="Trained alone before one is chosen; 1: by score. [4]")
    ] = None,
    paths: Annotated[
        int | None, typer.Option(help="Transformations in a step of the shared weights. [3]")
    ] = None,
    thrift: Annotated[
        float | None,
        typer.Option(help="Accuracy that saving all work is worth; 0: accuracy alone. [0.2]"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random. [the run's]")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget an earlier one.")] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Replace redundant operators of the found network by cheaper ones, before it is trained."""
    job = Job(RunFolder.open(run), _device(device), Progress(visible=True))
    options = {
        "method": method,
        "evaluations": evaluations,
        "epochs": epochs,
        "finalists": finalists,
        "paths": paths,
        "thrift": thrift,
        "seed": seed,
    }
    stated = {name: value for name, value in options.items() if value is not None}
    with _stoppable(run, _command("transform", run, device=device)), claimed(run):
        entry = transformation.transform(job, stated, fresh=fresh)
        report = write_report(run)
    if as_json:
        _print_json({"run": str(run), "model": str(run / "model"), **_without_graph(entry)})
        return
    typer.echo(terminal.transform_text(run, entry))
    typer.echo(f"report: {report}")


@contextmanager
def _nothing_to_replace_noted() -> Iterator[None]:
    """A search that was to transform as well is done all the same."""
    try:
        yield
    except NothingToReplaceError as error:
        typer.echo(f"prunas: note: {error}", err=True)


@app.command()
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
    log: Logs = None,
    as_json: AsJson = False,
) -> None:
    """Train the found network and, beside it, the uniform one of the same budget."""
    folder = RunFolder.open(run)
    where = _device(device)
    crew, words = _workers(workers, executor, address, gpus_per_worker)
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
        _stoppable(run, _command("train", run, *words, *_words(log), device=device)),
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
        _print_json(_answer(run, entries))
        return
    typer.echo(terminal.train_text(result))
    typer.echo(f"report: {report}")
    typer.echo(terminal.loading_text(run / "model", result["input_size"]))


@app.command()
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
    as_json: AsJson = False,
) -> None:
    """Train random networks alone and tell how well scores had ordered them."""
    folder = RunFolder.open(run)
    crew, words = _workers(workers, executor, address, gpus_per_worker)
    job = Job(folder, _device(device), Progress(visible=True), crew, launched())
    names = list(dict.fromkeys(weights or [job.request.source]))
    length = job.request.final_epochs if epochs is None else epochs
    options = ["--candidates", candidates, "--epochs", length]
    options += [word for name in names for word in ("--weights", name)] + words
    with _stoppable(run, _command("rank", run, *options, device=device)), claimed(run):
        found = ranked(job, names, candidates=candidates, epochs=length)
        entry = found.to_json()
        folder.update({"rank": entry})
        page = run / "rank.html"
        write_text(page, rank_page(found, model=job.request.model, data=job.data.name))
    if as_json:
        _print_json({"run": str(run), "page": str(page), **entry})
        return
    typer.echo(terminal.rank_text(found))
    typer.echo(f"page, to be opened in a browser: {page}")


# -- compare ---------------------------------------------------------------------------------------


@app.command()
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
    means = Means(crew, _device(device), Progress(visible=True))
    with _stoppable(kept=lambda: kept_runs(out)):
        found = compare_methods(request, out, means)
        page = out / "compare.html"
        write_text(page, compare_page(found))
    if as_json:
        _print_json({"folder": str(out), "page": str(page), **found.to_json()})
        return
    typer.echo(terminal.compare_text(found))
    typer.echo(f"page, to be opened in a browser: {page}")


def _players(jobs: int | None, executor: str | None, address: str | None) -> Workers:
    if (executor, address) == (None, None) and jobs == 1:
        return HERE
    return _workers(jobs, executor, address, None)[0]


# -- runs ------------------------------------------------------------------------------------------

app.add_typer(runs, name="runs")


@runs.command()
def resume(run: Run, device: Device = "auto", log: Logs = None, as_json: AsJson = False) -> None:
    """Go on with a run where it was stopped, to what was asked of it."""
    where = _device(device)
    folder = RunFolder.open(run)
    request, goal = folder.request(), folder.read().get("goal")
    goal = "train" if goal == "train" else "search"
    require_logs(log or ())
    with (
        _stoppable(run, _command("runs", "resume", run, *_words(log), device=device)),
        claimed(run),
        logged(log or (), run, goal, request.to_json()) as curves,
    ):
        job = _begun(run, request, resume=True, device=where, log=curves)
        _searched(job)
        if goal == "train":
            train_finals(job)
        report = write_report(run)
    entries = folder.read()
    if as_json:
        _print_json(_answer(run, entries))
        return
    if "accuracy" in entries["result"]:
        typer.echo(terminal.train_text(entries["result"]))
    else:
        typer.echo(terminal.search_text(run, entries))
        _tell_transformation(run, entries)
    typer.echo(f"report: {report}")


# -- report, export --------------------------------------------------------------------------------


@app.command()
def report(run: Run, as_json: AsJson = False) -> None:
    """Write report.html of a run, finished or not."""
    with _stoppable():
        file = write_report(run)
    if as_json:
        _print_json({"run": str(run), "report": str(file)})
    else:
        typer.echo(file)


@app.command()
def export(
    run: Run,
    form: Annotated[
        str, typer.Option("--format", help=f"{', '.join(_FORMATS)}.", metavar="NAME")
    ] = "both",
    out: Annotated[Path | None, typer.Option(help="Folder for the files. [RUN/export]")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the found network as ONNX, for torch.export, or as shapes for timm, and compare."""
    if form not in _FORMATS:
        raise InputError(f"no format is called {form!r}; choose {', '.join(_FORMATS)}")
    entries = RunFolder.open(run).read()
    with _stoppable():
        network = load(run / "model")
        files = list(_exported(network, form, out or run / "export"))
    if as_json:
        listed = [
            {"format": f.format, "file": str(f.file), "bytes": f.size, "difference": f.difference}
            for f in files
        ]
        _print_json({"run": str(run), "files": listed})
        return
    typer.echo(terminal.export_text(files, entries.get("result", {}).get("params_full")))


def _exported(network: nn.Module, form: str, folder: Path) -> Iterator[Exported]:
    origin: Any = network.prunas_origin
    size = origin.get("sees") or origin["input_size"]
    if "onnx" in _FORMATS[form]:
        yield export_onnx(network, size, folder / "model.onnx")
    if "torch" in _FORMATS[form]:
        yield export_torch(network, size, folder / "model.pt2")
    if "timm" in _FORMATS[form]:
        yield export_timm(network, size, folder / "model.txt")


# -- coverage --------------------------------------------------------------------------------------


@app.command()
def coverage(
    patterns: Annotated[
        list[str] | None, typer.Argument(help="Names such as 'resnet*' or 'torchvision/*'. [all]")
    ] = None,
    out: Annotated[Path, typer.Option(help="The table; rows in it are not repeated.")] = Path(
        "coverage.csv"
    ),
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Models at once. [1, or as a cluster has room]")
    ] = None,
    address: Address = None,
    limit: Annotated[float, typer.Option(min=1, help="Seconds for a model.")] = 600,
    memory: Annotated[float, typer.Option(min=1, help="GiB for a model.")] = 8,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Only so many of them, drawn at random.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides the sample.")] = 0,
    against: Annotated[
        Path | None, typer.Option(help="A table; what passes there must pass.", metavar="FILE")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Trace, cut and prove many models; one row each."""
    before = read_rows(against) if against is not None else []
    models = zoo.names(patterns or ["*"])
    if sample is not None and sample < len(models):
        drawn = np.random.default_rng(seed).choice(len(models), sample, replace=False)
        models = [models[index] for index in sorted(drawn)]
    progress = Progress(visible=True)
    with _stoppable(), progress.task("models") as task:
        rows = cover(
            models,
            out,
            workers=None if address is None else Workers("ray", jobs, address),
            jobs=jobs or 1,
            limit=limit,
            memory=int(memory * 2**30),
            on_row=lambda row, done: task.update(done, len(models)),
        )
    if as_json:
        passed = sum(row.passes for row in rows)
        _print_json({"models": len(rows), "passed": passed, "table": str(out), "seed": seed})
    else:
        typer.echo(terminal.coverage_text(rows))
        typer.echo(f"table: {out}" + (f", sample of seed {seed}" if sample is not None else ""))
    if gone := lost(rows, before):
        names = ", ".join(row.model for row in gone)
        raise RunError(f"{len(gone)} that passed in {against} no longer pass: {names}")


# -- demo ------------------------------------------------------------------------------------------


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = _DEMO,
    resume: Annotated[
        bool | None,
        typer.Option(
            "--resume/--fresh", help="Keep or replace what is there. [continue, unless finished]"
        ),
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Search, train and report a small network on bundled handwritten digits, in minutes."""
    request = demo_request()
    where = _device(device)
    given = () if out == _DEMO else ("--out", out)
    go_on = _command("demo", *given, device=device)
    with _stoppable(out, go_on), claimed(RunFolder.prepared(out)):
        if (out / "run.json").exists() and _outdated(RunFolder.open(out), request, resume):
            _empty(out)
        job = _begun(out, request, resume=True, device=where)
        job.folder.update({"goal": "train"})
        run_search_stages(job)
        result = train_finals(job)
        report = write_report(out)
    entries = job.folder.read()
    if as_json:
        _print_json(_answer(out, entries))
        return
    typer.echo(terminal.train_text(result))
    typer.echo(f"report, to be opened in a browser: {report}")
    typer.echo(terminal.loading_text(out / "model", result["input_size"]))


def _outdated(folder: RunFolder, request: Request, resume: bool | None) -> bool:
    """Whether a demo starts anew; another run is never touched (`RunFolder.create` refuses it)."""
    found = folder.request()
    if (found.model, found.data) != (request.model, request.data) or resume:
        return False
    finished = folder.path.joinpath("report.html").exists()
    return resume is False or finished or found.fingerprint() != request.fingerprint()


def _empty(folder: Path) -> None:
    """Remove a run, run.json last: what a kill leaves is still a run."""
    with writing(folder):
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name == "run.json"):
            if entry.is_dir() and not entry.is_symlink():
                rmtree(entry)
            elif entry.name != LOCK:
                entry.unlink()


# -- shared ----------------------------------------------------------------------------------------


def _device(name: str) -> torch.device:
    """The device called `name`.

    Raises:
        InputError: it is not known or not there.
    """
    if name not in _DEVICES:
        raise InputError(f"no device is called {name!r}; choose {', '.join(_DEVICES)}")
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise InputError("there is no CUDA device that torch can use; choose --device cpu")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def _workers(
    count: int | None,
    executor: str | None,
    address: str | None,
    gpus: float | None,
    limit: float | None = None,
) -> tuple[Workers, list[Any]]:
    """The workers asked for, and the options that ask for them again.

    Raises:
        InputError: they do not go together, or there is no such cluster.
    """
    stated = {
        "--workers": count,
        "--executor": executor,
        "--address": address,
        "--gpus-per-worker": gpus,
        "--limit": limit,
    }
    words = [word for pair in stated.items() if pair[1] is not None for word in pair]
    usual = "ray" if address is not None else "here" if count is None else "processes"
    crew = Workers(executor or usual, count, address, gpus or 0.0, limit)
    if crew.kind == "ray":
        require_ray(address)  # before anything is trained for it
    return crew, words


@contextmanager
def _stoppable(
    folder: Path | None = None, command: str = "", kept: Callable[[], str] | None = None
) -> Iterator[None]:
    """After Ctrl-C, say what is kept (`kept`, or the run's folder's) and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        if kept is None:
            said = "nothing was changed" if folder is None else _kept(RunFolder(folder), command)
        else:
            said = kept()
        _complain(f"stopped; {said}", STOPPED)
        raise typer.Exit(STOPPED) from None


def _kept(folder: RunFolder, command: str) -> str:
    if not (folder.path / "run.json").exists():
        return "nothing had been made yet"
    scored = 0
    if folder.archive.exists():
        fingerprint = folder.request().fingerprint()
        with Archive(folder.archive, fingerprint=fingerprint) as archive:
            scored = len(archive)
    return (
        f"finished stages and {scored} evaluated candidates are kept in {folder.path};"
        f" go on with: {command}"
    )


def _command(*words: object, device: str) -> str:
    chosen = () if device == "auto" else ("--device", device)
    return shlex.join(map(str, ("prunas", *words, *chosen)))


def _answer(folder: Path, entries: Mapping[str, Any]) -> dict[str, Any]:
    """What a program wants to know of a run: where it is, and run.json without the long lists."""
    wanted = ("request", "budget", "device", "result", "stages")
    known = {name: entries[name] for name in wanted if name in entries}
    if "transformation" in entries:
        known["transformation"] = _without_graph(entries["transformation"])
    return {"run": str(folder), "model": str(folder / "model"), **known}


def _without_graph(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A transformation without its picture."""
    return {name: value for name, value in entry.items() if name != "graph"}


def _print_json(answer: Mapping[str, Any]) -> None:
    typer.echo(json.dumps(answer))


if __name__ == "__main__":
    sys.exit(main())
