"""`prunas export`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from torch import nn

from prunas.errors import InputError
from prunas.pipeline import terminal
from prunas.pipeline.artifact import load
from prunas.pipeline.commands.answers import print_json
from prunas.pipeline.commands.options import AsJson, Run
from prunas.pipeline.commands.stopping import stoppable
from prunas.pipeline.export import Exported, export_onnx, export_timm, export_torch
from prunas.pipeline.run_folder import RunFolder

_FORMATS: Final = {
    "onnx": ("onnx",),
    "torch": ("torch",),
    "both": ("onnx", "torch"),
    "timm": ("timm",),
}


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
    folder, files = out or run / "export", list[Exported]()
    with stoppable(kept=lambda: f"{len(files)} finished files are kept in {folder}"):
        files.extend(_exported(load(run / "model"), form, folder))
    if as_json:
        listed = [
            {"format": f.format, "file": str(f.file), "bytes": f.size, "difference": f.difference}
            for f in files
        ]
        print_json({"run": str(run), "files": listed})
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
