"""`prunas coverage`."""

from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer

from prunas.errors import InputError, RunError
from prunas.pipeline import terminal
from prunas.pipeline.commands.answers import print_json
from prunas.pipeline.commands.options import Address, AsJson
from prunas.pipeline.commands.stopping import stoppable
from prunas.pipeline.coverage import cover, lost, read_rows, zoo
from prunas.pipeline.progress import Progress
from prunas.pipeline.workers import Workers

_MOST_MEMORY: Final = 2.0**33  # GiB: 2^63 bytes, beyond which systems know no limits


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
    _require_memory(memory)
    before = read_rows(against) if against is not None else []
    models = zoo.names(patterns or ["*"])
    if sample is not None and sample < len(models):
        drawn = np.random.default_rng(seed).choice(len(models), sample, replace=False)
        models = [models[index] for index in sorted(drawn)]
    progress = Progress(visible=True)
    with stoppable(kept=lambda: _kept(out)), progress.task("models") as task:
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
        print_json({"models": len(rows), "passed": passed, "table": str(out), "seed": seed})
    else:
        typer.echo(terminal.coverage_text(rows))
        typer.echo(f"table: {out}" + (f", sample of seed {seed}" if sample is not None else ""))
    if gone := lost(rows, before):
        names = ", ".join(row.model for row in gone)
        raise RunError(f"{len(gone)} that passed in {against} no longer pass: {names}")


def _require_memory(memory: float) -> None:
    if memory >= _MOST_MEMORY:
        raise InputError(f"--memory {memory:g} is more GiB than any machine has; give fewer")


def _kept(table: Path) -> str:
    if not table.exists():
        return "nothing had been made yet"
    return f"the rows of finished models are kept in {table}; the same command goes on"
