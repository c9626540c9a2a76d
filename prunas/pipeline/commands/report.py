"""`prunas report`."""

import typer

from prunas.pipeline.commands.answers import print_json
from prunas.pipeline.commands.options import AsJson, Run
from prunas.pipeline.commands.stopping import stoppable
from prunas.pipeline.report import write_report


def report(run: Run, as_json: AsJson = False) -> None:
    """Write report.html of a run, finished or not."""
    with stoppable():
        file = write_report(run)
    if as_json:
        print_json({"run": str(run), "report": str(file)})
    else:
        typer.echo(file)
