"""`prunas profile`."""

from shutil import get_terminal_size
from typing import Annotated, Any

import typer

from prunas.pipeline import terminal
from prunas.pipeline.commands.answers import print_json
from prunas.pipeline.commands.options import (
    AsJson,
    Classes,
    Genes,
    Grid,
    Keep,
    Resolutions,
    kinds_of,
    sides_of,
)
from prunas.pipeline.commands.stopping import stoppable
from prunas.pipeline.data import load_data
from prunas.pipeline.networks import create_network, pictures_of
from prunas.pipeline.profile import profile as profiled
from prunas.pipeline.spaces import space_of
from prunas.search.budget import Budget
from prunas.supernet.grid import as_grid


def profile(
    model: Annotated[str, typer.Argument(help="A timm network.")],
    input_size: Annotated[
        str | None, typer.Option(help="224 or 3,224,224; else the network's or the data's own.")
    ] = None,
    classes: Classes = None,
    data: Annotated[str | None, typer.Option(help="Take size and classes from this data.")] = None,
    grid: Grid = None,
    keep: Keep = None,
    genes: Genes = None,
    resolutions: Resolutions = None,
    budget: Annotated[str | None, typer.Option(help="Is this in reach? E.g. macs=40%.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a network costs, what of it can be searched, and what cannot."""
    with stoppable():
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
            genes=kinds_of(genes),
            resolutions=sides_of(resolutions),
        )
        limits = None if budget is None else Budget.parse(budget)
        found = profiled(network, space, size, limits)
    form: Any = network.prunas_origin["small_images"]  # type: ignore[index]
    if as_json:
        about = {"model": model, "input_size": list(size), "classes": count}
        form = form and form["sentence"]
        print_json({**about, "small_images": form, **found.to_json()})
        return
    title = f"{model}, images of {'x'.join(map(str, size))}, {count} classes"
    width = get_terminal_size((110, 24)).columns
    typer.echo(terminal.profile_text(found, title, max(60, width)))
    if form:
        typer.echo(form["sentence"])
