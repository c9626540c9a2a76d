"""`prunas prune`."""

from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from prunas.errors import InputError
from prunas.eval.accuracy import accuracy
from prunas.eval.criteria.table import CRITERIA, DEFAULT
from prunas.pipeline import terminal
from prunas.pipeline.artifact import require_replaceable, save
from prunas.pipeline.commands.answers import print_json
from prunas.pipeline.commands.options import (
    AsJson,
    Classes,
    DataName,
    Device,
    Genes,
    Grid,
    Keep,
    Pretrained,
    WeightsFile,
    device_of,
    kinds_of,
)
from prunas.pipeline.commands.stopping import stoppable
from prunas.pipeline.data import load_data
from prunas.pipeline.files import linked, require_writable
from prunas.pipeline.networks import network_for, untrained
from prunas.pipeline.pruning import Widths
from prunas.pipeline.pruning import prune as pruned
from prunas.pipeline.spaces import space_of
from prunas.pipeline.stages import fixed
from prunas.supernet.grid import as_grid


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
    classes: Classes = None,
    grid: Grid = None,
    keep: Keep = None,
    genes: Genes = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Cut a trained network to a budget at once, by a criterion; training it is yours."""
    where = device_of(device)
    if widths not in get_args(Widths):
        raise InputError(
            f"widths cannot be {widths!r}; choose one of {', '.join(get_args(Widths))}"
        )
    folder = out or Path(f"{Path(model).name}-{criterion}")
    require_replaceable(folder)
    require_writable(linked(folder))
    with stoppable():
        source = None if data is None else load_data(data, seed=0, input_size=input_size)
        network, size = network_for(
            source, model, input_size, classes, pretrained, weights, device=where
        )
        widths_offered = as_grid(grid or "default")
        space = space_of(
            model, network, size, grid=widths_offered, keep=keep or (), genes=kinds_of(genes)
        )
        found = pruned(
            network,
            space,
            budget,
            criterion=criterion,
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
    if note := untrained(network, given=pretrained or weights is not None):
        notes.append(note)
    if as_json:
        costs = {
            name: {"pruned": pair[0], "full": pair[1]}
            for name, pair in (("macs", found.macs), ("params", found.params))
        }
        about = {"model": str(folder), "criterion": criterion, "candidate": list(found.candidate)}
        print_json({**about, **costs, "held_out_accuracy": shares or None, "notes": notes})
        return
    typer.echo(terminal.pruned_text(found, shares))
    for note in notes:
        typer.echo(f"note: {note}")
    typer.echo(terminal.loading_text(folder, size))
