"""`prunas transform`."""

from typing import Annotated

import typer

from prunas.pipeline import terminal, transformation
from prunas.pipeline.commands.answers import print_json, without_graph
from prunas.pipeline.commands.options import AsJson, Device, Run, device_of
from prunas.pipeline.commands.stopping import command_line, stoppable
from prunas.pipeline.lock import claimed
from prunas.pipeline.progress import Progress
from prunas.pipeline.report import write_report
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.stages import Job
from prunas.pipeline.transformers import METHODS


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
        typer.Option(
            help="Score, on shared weights, that saving all work is worth; 0: score alone. [0.2]"
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random. [the run's]")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget an earlier one.")] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Replace redundant operators of the found network by cheaper ones, before it is trained."""
    job = Job(RunFolder.open(run), device_of(device), Progress(visible=True))
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
    with stoppable(run, command_line("transform", run, device=device)), claimed(run):
        entry = transformation.transform(job, stated, fresh=fresh)
        report = write_report(run)
    if as_json:
        print_json({"run": str(run), "model": str(run / "model"), **without_graph(entry)})
        return
    typer.echo(terminal.transform_text(run, entry))
    typer.echo(f"report: {report}")
