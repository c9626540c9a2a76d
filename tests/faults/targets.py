"""Every kind of file that prunas reads, small, and its reader."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

import prunas
from prunas.errors import InputError
from prunas.eval.latency.backends import Device
from prunas.eval.latency.table import LatencyTable, fingerprint
from prunas.eval.latency.timing import Timed
from prunas.pipeline.arrays import read_arrays
from prunas.pipeline.comparison.folder import claimed as comparison
from prunas.pipeline.comparison.runs import Cell, Row
from prunas.pipeline.latency_file import load_table, save_table
from prunas.pipeline.report.run import read_run
from prunas.pipeline.request import Request
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.runs import list_runs, merge_runs
from prunas.pipeline.runs.source import read_sources
from prunas.pipeline.sealed import sealed
from prunas.pipeline.tensor_file import read_tensors, write_tensors
from prunas.pipeline.weights import load_weights
from prunas.search.archive import Archive
from prunas.search.record import read_archive
from prunas.search.table import read_table
from prunas.supernet.space import SearchSpace
from tests.pipeline.made_up_run import evaluations, record
from tests.pipeline.made_up_table import write_made_up

Read = Callable[[Path], Any]


@dataclass(frozen=True)
class Target:
    """A file of a folder, and who reads it.

    Attributes:
        name: of the target.
        file: the one that is damaged.
        folder: with everything that the reader needs; copied for each damage.
        read: what the reader makes of the folder, as a value whose text can be compared.
        sealed: whether any change by chance is to be noticed.
        may_lack: whether a list that lacks some is right: what is lost is made again.
    """

    name: str
    file: str
    folder: Path
    read: Read
    sealed: bool = True
    may_lack: bool = False


def targets(place: Path) -> list[Target]:
    """Every kind of file that prunas reads, small, with its reader."""
    return [
        *_of_archive(place / "run"),
        *_of_artifact(place / "artifact"),
        *_of_run(place / "run"),
        *_of_comparison(place / "comparison"),
        *_of_tables(place / "tables"),
        *_of_weights(place / "weights"),
    ]


def _write_run(folder: Path, fields: dict[str, Any]) -> Path:
    """A run with a request that is whole, and an archive of its evaluations."""
    folder.mkdir(parents=True)
    request = Request.from_json(fields["request"])
    entries = sealed({**fields, "request": request.to_json()})
    (folder / "run.json").write_text(json.dumps(entries), encoding="utf-8")
    file = folder / "archive.sqlite"
    with Archive(file, fingerprint=request.fingerprint()) as archive, archive.together():
        for row in evaluations(120):
            archive.record(row)
    return folder


def _of_archive(folder: Path) -> list[Target]:
    _write_run(folder, record())
    name = RunFolder.open(folder).request().fingerprint()
    logged = folder.with_name("logged")  # as a kill leaves it: everything is still in the log
    os.makedirs(logged)
    aside = folder.with_name("aside")
    os.makedirs(aside)
    with Archive(aside / "archive.sqlite", fingerprint=name) as archive:
        for row in evaluations(30):
            archive.record(row)
        for file in aside.glob("archive.sqlite*"):
            shutil.copy(file, logged)
    (logged / "archive.sqlite-shm").unlink()  # may be old or missing; it is made anew

    def opened(folder: Path) -> object:
        with Archive(folder / "archive.sqlite", fingerprint=name) as archive:
            return archive.rows()

    whole = "archive.sqlite"
    return [
        Target("archive, read", whole, folder, _rows, may_lack=True),
        Target("archive, opened", whole, folder, opened, may_lack=True),
        Target("archive with a log", whole, logged, _rows, may_lack=True),
        Target("log of an archive", "archive.sqlite-wal", logged, _rows, may_lack=True),
    ]


def _rows(folder: Path) -> list[Any]:
    found = read_archive(folder / "archive.sqlite")
    return [row for rows in found.values() for row in rows]


class Small(nn.Module):
    """A network that is quickly built."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3)
        self.norm = nn.BatchNorm2d(12)
        self.second = nn.Conv2d(12, 4, 1)
        self.scale = 2

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.second(self.norm(self.first(image)).relu()).mean((2, 3))
        return out * self.scale


def _of_artifact(folder: Path) -> list[Target]:
    network = Small().eval()
    space = prunas.trace(network, (3, 8, 8))
    prunas.save(prunas.cut(network, space, space.uniform(0.5)), folder)

    def read(folder: Path) -> object:
        loaded = prunas.load(folder)
        kept = [(n, v) for n, v in vars(loaded).items() if isinstance(v, int | float | str)]
        return repr(kept), {n: t.tolist() for n, t in loaded.state_dict().items()}

    return [
        Target("artifact, arch.json", "arch.json", folder, read),
        Target("artifact, weights", "weights.safetensors", folder, read),
    ]


def _of_run(folder: Path) -> list[Target]:
    def read(folder: Path) -> object:
        run = RunFolder.open(folder)
        return run.request(), repr(read_run(folder)), read_sources(folder)[0].request

    def listed(folder: Path) -> object:
        (found,) = list_runs(folder)
        if found.trouble:
            raise InputError(found.trouble)
        return found

    pair = folder.with_name("pair")
    request = record()["request"]
    for seed in (0, 1):
        _write_run(pair / str(seed), record(request={**request, "seed": seed}))
    merged = folder.with_name("merged")
    merge_runs([pair / "0", pair / "1"], merged)
    return [
        Target("run.json", "run.json", folder, read),
        Target("run.json, listed", "run.json", folder, listed),
        Target("merged.json", "merged.json", merged, lambda f: repr(read_sources(f))),
    ]


def _of_comparison(folder: Path) -> list[Target]:
    request = {"methods": ["random"], "seeds": [0]}
    with comparison(folder) as opened:
        opened.begin(request, [{"name": "made up"}])
        for seed in range(5):
            cell = Cell("random", "made up", "macs=50%", seed)
            opened.append(Row(cell, 0, ((1, 3, 0.5), (4, 2, 0.75)), 10, 0.1, 0.7))

    def read(folder: Path) -> list[Row]:
        with comparison(folder) as opened:
            opened.begin(request, [{"name": "made up"}])
            return opened.rows()

    return [
        Target("compare.json", "compare.json", folder, read),
        Target("runs.jsonl", "runs.jsonl", folder, read, may_lack=True),
    ]


_DEVICE: Final = Device("abacus", 1, "beads", (("beads", "1"),))


def _of_tables(folder: Path) -> list[Target]:
    folder.mkdir()
    write_made_up(folder / "table.npz")
    space = read_table(folder / "table.npz").space
    times = tuple(Timed(1.0 + place, 0.9, 1.1 + place, 5) for place in range(20))
    candidates = (space.full(), *space.sample(np.random.default_rng(0), 19))
    table = LatencyTable(_DEVICE, fingerprint(space), 1, "float32", candidates, times)
    save_table(table, folder / "latency.json")
    rng = np.random.default_rng(0)
    np.savez(folder / "data.npz", images=rng.integers(0, 99, (12, 4, 4)), labels=np.arange(12) % 3)
    (folder / "space.json").write_text(space.to_json())

    def read(folder: Path) -> object:
        found = read_table(folder / "table.npz")
        return found.held_out.tolist(), found.space.to_json(), repr(found.priors)

    def read_data(folder: Path) -> object:
        found = read_arrays(folder / "data.npz")
        return found.train.pictures.tolist(), found.train.labels.tolist(), found.classes

    def read_space(folder: Path) -> object:
        return SearchSpace.from_json(
            (folder / "space.json").read_text("utf-8", "replace")
        ).to_json()

    return [
        Target("table", "table.npz", folder, read),
        Target("data", "data.npz", folder, read_data, sealed=False),
        Target(
            "latency table",
            "latency.json",
            folder,
            lambda f: load_table(f / "latency.json", space, _DEVICE),
        ),
        Target("space", "space.json", folder, read_space, sealed=False),
    ]


def _of_weights(folder: Path) -> list[Target]:
    folder.mkdir()
    network = Small()
    write_tensors(folder / "own.safetensors", network.state_dict(), {"owner": "me"})
    save_file(network.state_dict(), folder / "given.safetensors")
    torch.save(network.state_dict(), folder / "given.pth")

    def read(folder: Path) -> object:
        tensors, notes = read_tensors(folder / "own.safetensors")
        return notes, {name: tensor.tolist() for name, tensor in tensors.items()}

    def loaded(name: str) -> Read:
        def read(folder: Path) -> object:
            fresh = Small()
            load_weights(fresh, folder / name)
            return {name: tensor.tolist() for name, tensor in fresh.state_dict().items()}

        return read

    given = "given.safetensors"
    return [
        Target("checkpoint", "own.safetensors", folder, read),
        Target("weights, safetensors", given, folder, loaded(given), sealed=False),
        Target("weights, torch", "given.pth", folder, loaded("given.pth"), sealed=False),
    ]
