"""The command line. Exit codes: 0 done, 1 the run failed, 2 wrong usage or input, 130 stopped."""

import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final

import torch
import typer

from prunas.allocator import keep_freed_memory
from prunas.errors import InputError, RunError
from prunas.interruption import STOPPED, loaded
from prunas.pipeline.commands.compare import compare
from prunas.pipeline.commands.coverage import coverage
from prunas.pipeline.commands.criteria import criteria
from prunas.pipeline.commands.demo import demo
from prunas.pipeline.commands.export import export
from prunas.pipeline.commands.latency import latency
from prunas.pipeline.commands.profile import profile
from prunas.pipeline.commands.prune import prune
from prunas.pipeline.commands.rank import rank
from prunas.pipeline.commands.report import report
from prunas.pipeline.commands.runs import app as runs
from prunas.pipeline.commands.search import search
from prunas.pipeline.commands.stopping import complain
from prunas.pipeline.commands.train import train
from prunas.pipeline.commands.transform import transform
from prunas.pipeline.crew import launched
from prunas.pipeline.mishaps import mishap
from prunas.pipeline.progress import Progress
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.stages import Job
from prunas.pipeline.streams import lenient_streams

app = typer.Typer(
    help="Find, train and export the best smaller network inside a budget.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    profile,
    latency,
    prune,
    criteria,
    search,
    transform,
    train,
    rank,
    compare,
    report,
    export,
    coverage,
    demo,
):
    app.command()(command)
app.add_typer(runs, name="runs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; those of the process if None.

    Returns:
        The exit code.
    """
    loaded()
    keep_freed_memory()
    with lenient_streams(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", module="prunas")
        warnings.showwarning = _show_warning
        return _code(lambda: _start(arguments))


def _start(arguments: Sequence[str] | None) -> None:
    """The program in the first process; the others do what it says. Ends with SystemExit."""
    program = partial(app, arguments, prog_name="prunas")
    words = sys.argv[1:] if arguments is None else arguments
    if not words or _ASKING.intersection(words):  # for which nobody waits for other processes
        raise SystemExit(_code(program))
    crew = launched()
    if not crew.ranks.first:
        crew.follow(_followed)
    code = _code(program)
    crew.dismiss(code)
    raise SystemExit(code)


_ASKING: Final = frozenset({"--help", "--version"})


def _followed(folder: Path, device: torch.device) -> Job:
    return Job(RunFolder.open(folder), device, Progress(), crew=launched())


def _code(work: Callable[[], None]) -> int:
    """The exit code of work, whose errors are told."""
    try:
        work()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except InputError as error:
        return complain(error, 2)
    except RunError as error:
        return complain(error, 1)
    except KeyboardInterrupt:
        return complain("stopped", STOPPED)
    except (OSError, MemoryError, RuntimeError) as error:
        told = mishap(error)
        if told is None:
            raise
        return complain(*told)
    return 0


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


if __name__ == "__main__":
    sys.exit(main())
