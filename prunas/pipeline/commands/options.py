"""Options that several commands have, and what is made of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import torch
import typer

from prunas.errors import InputError
from prunas.eval.latency.backends import BACKENDS
from prunas.pipeline.log import LOGS
from prunas.pipeline.request import Request
from prunas.pipeline.workers import EXECUTORS, Workers
from prunas.search.executors import require_ray
from prunas.supernet.grid import GRIDS
from prunas.supernet.trace import KINDS

_DEVICES: Final = ("auto", "cpu", "cuda")


def usual(name: str) -> str:
    """What a search takes where this is not given, as help shows it."""
    return f"[{getattr(Request, name)}]"


Classes = Annotated[
    int | None, typer.Option(min=1, help="How many. [those of the data, or of the network]")
]
Keep = Annotated[
    list[str] | None,
    typer.Option(help="Leave these layers alone, e.g. 'blocks.0.*'; may be repeated."),
]
Grid = Annotated[
    str | None,
    typer.Option(help=f"Which widths are offered: {', '.join(GRIDS)}. [default]", metavar="NAME"),
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
    str | None,
    typer.Option(help="digits, photos, a folder, an .npz, or timm's such as torch/cifar10."),
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
    int | None,
    typer.Option(
        help=f"Trainings of the found and the uniform network. [the run's, or {Request.seeds}]"
    ),
]
FinalEpochs = Annotated[
    int | None,
    typer.Option(help=f"Epochs of each final training. [the run's, or {Request.final_epochs}]"),
]
FromScratch = Annotated[
    bool | None,
    typer.Option(
        help="Begin final training from random weights, or from those of the search. [the latter]"
    ),
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
TrainingLimit = Annotated[
    float | None,
    typer.Option("--limit", help="Seconds after which a worker's training counts as hung. [never]"),
]
CriterionLimit = Annotated[
    float | None,
    typer.Option(
        "--limit", help="Seconds after which a worker's criterion or group counts as hung. [never]"
    ),
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


def device_of(name: str) -> torch.device:
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


def workers_of(
    count: int | None,
    executor: str | None,
    address: str | None,
    gpus: float | None,
    limit: float | None = None,
    *,
    work_limit: float | None = None,
) -> tuple[Workers, list[Any]]:
    """The workers asked for, and the options that ask for them again.

    A command has one `--limit`: of evaluations, or of the other work that it is for.

    Raises:
        InputError: they do not go together, or there is no such cluster.
    """
    stated = {
        "--workers": count,
        "--executor": executor,
        "--address": address,
        "--gpus-per-worker": gpus,
        "--limit": work_limit if limit is None else limit,
    }
    words = [word for pair in stated.items() if pair[1] is not None for word in pair]
    usual = "ray" if address is not None else "here" if count is None else "processes"
    crew = Workers(executor or usual, count, address, gpus or 0.0, limit, work_limit)
    if crew.kind == "ray":
        require_ray(address)  # before anything is trained for it
    return crew, words


def kinds_of(genes: str | None) -> tuple[str, ...]:
    """The kinds of genes in "width,depth"."""
    return ("width",) if genes is None else tuple(kind.strip() for kind in genes.split(","))


def sides_of(resolutions: str | None) -> tuple[int, ...]:
    """The sides in "160,192"."""
    try:
        return tuple(int(side) for side in (resolutions or "").split(",") if side.strip())
    except ValueError:
        raise InputError(
            f"--resolutions {resolutions!r} are not whole numbers; write them as 160,192"
        ) from None


def words_of(logs: Sequence[str] | None) -> list[str]:
    """The options that ask for these logs."""
    return [word for log in logs or () for word in ("--log", log)]
