"""`prunas demo`."""

from pathlib import Path
from shutil import rmtree
from typing import Annotated, Final

import typer

from prunas.errors import InputError
from prunas.pipeline import terminal
from prunas.pipeline.commands.answers import answer, print_json
from prunas.pipeline.commands.beginning import begun
from prunas.pipeline.commands.options import AsJson, Device, device_of
from prunas.pipeline.commands.stopping import command_line, stoppable
from prunas.pipeline.files import writing
from prunas.pipeline.finals import train_finals
from prunas.pipeline.found import run_search_stages
from prunas.pipeline.lock import LOCK, claimed
from prunas.pipeline.report import write_report
from prunas.pipeline.request import Request, demo_request
from prunas.pipeline.run_folder import RunFolder

_DEMO: Final = Path("runs/demo")


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
    where = device_of(device)
    given = () if out == _DEMO else ("--out", out)
    go_on = command_line("demo", *given, device=device)
    with stoppable(out, go_on), claimed(RunFolder.prepared(out)):
        if (out / "run.json").exists() and _outdated(RunFolder.open(out), request, resume):
            _empty(out)
        job = begun(out, request, resume=True, device=where)
        job.folder.update({"goal": "train", "demo": True})
        run_search_stages(job)
        result = train_finals(job)
        report = write_report(out)
    entries = job.folder.read()
    if as_json:
        print_json(answer(out, entries))
        return
    typer.echo(terminal.train_text(result))
    typer.echo(f"report, to be opened in a browser: {report}")
    typer.echo(terminal.loading_text(out / "model", result["input_size"]))


def _outdated(folder: RunFolder, request: Request, resume: bool | None) -> bool:
    """Whether a demo starts anew. Another run is never touched: see also `RunFolder.create`.

    Raises:
        InputError: it is another run, and was to be replaced.
    """
    entries, found = folder.read(), folder.request()
    if resume is False and not entries.get("demo"):
        raise InputError(f"{folder.path} holds a run that is no demo; give another --out")
    if resume or not entries.get("demo"):
        return False
    trained = "accuracy" in entries.get("result", {})
    finished = trained and folder.path.joinpath("report.html").exists()
    return resume is False or finished or found.fingerprint() != request.fingerprint()


def _empty(folder: Path) -> None:
    """Remove a run, run.json last: what a kill leaves is still a run, which has found nothing."""
    RunFolder(folder).update({"result": {}})
    with writing(folder):
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name == "run.json"):
            if entry.is_dir() and not entry.is_symlink():
                rmtree(entry)
            elif entry.name != LOCK:
                entry.unlink()
