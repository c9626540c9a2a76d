"""What `--json` prints."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer


def print_json(answer: Mapping[str, Any]) -> None:
    """One object on one line of standard output."""
    typer.echo(json.dumps(answer))


def answer(folder: Path, entries: Mapping[str, Any]) -> dict[str, Any]:
    """What a program wants to know of a run: where it is, and run.json without the long lists."""
    wanted = ("request", "budget", "device", "result", "stages")
    known = {name: entries[name] for name in wanted if name in entries}
    if "transformation" in entries:
        known["transformation"] = without_graph(entries["transformation"])
    return {"run": str(folder), "model": str(folder / "model"), **known}


def without_graph(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A transformation without its picture."""
    return {name: value for name, value in entry.items() if name != "graph"}
