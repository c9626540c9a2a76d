"""`prunas latency`."""

from pathlib import Path
from typing import Annotated

import typer

from prunas.eval.latency.backends import backend_of
from prunas.eval.latency.predictor import FEWEST
from prunas.eval.latency.table import NETWORKS
from prunas.pipeline import terminal
from prunas.pipeline.commands.answers import print_json
from prunas.pipeline.commands.options import (
    AsJson,
    Classes,
    Genes,
    Grid,
    Keep,
    LatencyBackend,
    LatencyBatch,
    Resolutions,
    kinds_of,
    sides_of,
)
from prunas.pipeline.commands.stopping import stoppable
from prunas.pipeline.data import load_data
from prunas.pipeline.networks import create_network, pictures_of
from prunas.pipeline.progress import Progress
from prunas.pipeline.spaces import space_of
from prunas.pipeline.timings import build_table, require_new_table, timings
from prunas.supernet.grid import as_grid


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
    classes: Classes = None,
    grid: Grid = None,
    keep: Keep = None,
    genes: Genes = None,
    resolutions: Resolutions = None,
    as_json: AsJson = False,
) -> None:
    """Measure narrower networks on this machine, and say whether cutting pays here."""
    runner = backend_of(backend or "eager")
    progress = Progress(visible=True)
    if table is not None:
        require_new_table(table)
    with stoppable():
        source = None if data is None else load_data(data, seed=0)
        size, count = pictures_of(model, source, input_size, classes)
        network = create_network(model, classes=count, input_size=size)
        space = space_of(
            model,
            network,
            size,
            grid=as_grid(grid or "default"),
            keep=keep or (),
            genes=kinds_of(genes),
            resolutions=sides_of(resolutions),
        )
        found = timings(network, space, runner, batch or 1, told=progress.say)
        built = table and build_table(
            table, network, space, runner, batch or 1, networks, told=progress.say
        )
    if as_json:
        print_json({"model": model, **found.to_json(), "table": built and built.to_json()})
        return
    typer.echo(terminal.timings_text(found))
    if built:
        typer.echo(built.sentence)
