"""The folder of a run: what is in it, and how it is written so that nothing is ever half there."""

import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from prunas.errors import InputError
from prunas.pipeline.files import is_left_over, require_text, writing
from prunas.pipeline.lock import LOCK
from prunas.pipeline.request import Request
from prunas.pipeline.sealed import read_sealed, write_sealed

SCHEMA: Final = 1


def _are_stages(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, dict)
        and isinstance(each.get("name"), str)
        and isinstance(each.get("seconds"), int | float)
        for each in value
    )


def _are_candidates(result: Mapping[str, Any]) -> bool:
    named = [value for name, value in result.items() if name.endswith("candidate")]
    return all(
        isinstance(value, list) and all(type(each) is int for each in value) for value in named
    )


def _is_space(space: Any) -> bool:
    genes = space.get("genes", []) if isinstance(space, dict) else None
    return isinstance(genes, list) and all(map(_is_gene, genes))


def _is_gene(gene: Any) -> bool:
    return (
        isinstance(gene, dict)
        and isinstance(gene.get("name"), str)
        and isinstance(gene.get("kind"), str)
        and isinstance(gene.get("choices"), list)
        and bool(gene["choices"])
        and all(type(each) is int for each in gene["choices"])
    )


def are_contents(value: Any) -> bool:
    """Whether it is what `Contents.to_json` writes."""
    return isinstance(value, dict) and isinstance(value.get("pictures"), int)


_FIELDS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "request": lambda value: isinstance(value, dict),
    "budget": lambda value: isinstance(value, dict),
    "result": lambda value: isinstance(value, dict) and _are_candidates(value),
    "stages": _are_stages,
    "space": _is_space,
    "data": are_contents,
    "weights": lambda value: isinstance(value, str),
    "moved": lambda value: isinstance(value, dict) and all(type(v) is str for v in value.values()),
}


@dataclass(frozen=True)
class RunFolder:
    """A run on disk: run.json, archive.sqlite, checkpoints/, model/, report.html.

    Attributes:
        path: the folder.
        owned: False in a process that works for the one whose run it is: stages are not timed.
    """

    path: Path
    owned: bool = True

    @property
    def archive(self) -> Path:
        return self.path / "archive.sqlite"

    @property
    def model(self) -> Path:
        return self.path / "model"

    def checkpoint(self, name: str) -> Path:
        return self.path / "checkpoints" / f"{name}.safetensors"

    @classmethod
    def create(cls, path: Path, request: Request, *, resume: bool) -> "RunFolder":
        """A new run in `path`, or with `resume` the one that is there.

        Raises:
            InputError: `path` holds something else, another run, or a run although `resume` is
                off, or it cannot be made or written.
            RunError: the disk is full.
        """
        run = cls(path)
        if (path / "run.json").exists():
            return run._resumed(request, resume)
        cls.prepared(path)
        run.update(
            {
                "schema": SCHEMA,
                "request": request.to_json(),
                "seed": request.seed,
                "versions": versions(),
                "stages": [],
            }
        )
        run._make_checkpoints()  # after run.json, so that a crash between leaves an empty folder
        return run

    @staticmethod
    def prepared(path: Path) -> Path:
        """The folder of a run or for one, made if it is missing.

        Raises:
            InputError: it holds something else, cannot be made or written, or has a name in which
                no weights can be kept.
        """
        require_text(path)
        if (path / "run.json").exists():
            return path
        if path.exists() and not (path.is_dir() and all(map(_is_ours, path.iterdir()))):
            raise InputError(f"{path} exists and holds no run; give another folder with --out")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"{path} cannot be made ({reason}); give another --out") from None
        if not os.access(path, os.W_OK | os.X_OK):
            raise InputError(f"{path} cannot be written; give another folder with --out")
        return path

    def _make_checkpoints(self) -> None:
        with writing(self.path):
            (self.path / "checkpoints").mkdir(exist_ok=True)

    def _resumed(self, request: Request, resume: bool) -> "RunFolder":
        if not resume:
            raise InputError(f"{self.path} holds a run; continue it with --resume or give --out")
        found = self.request()
        if found.fingerprint() != request.fingerprint():
            before, after = found.to_json(), request.to_json()
            differing = [key for key in after if before[key] != after[key]]
            raise InputError(
                f"{self.path} holds another run: {differing[0]} was {before[differing[0]]!r},"
                f" now {after[differing[0]]!r}; repeat its request or give another --out"
            )
        self.update({"request": request.to_json()})
        self._make_checkpoints()
        return self

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """The run in `path`.

        Raises:
            InputError: there is none, or it is of another version.
        """
        run = cls(path)
        run.read()
        return run

    def read(self) -> dict[str, Any]:
        """The content of run.json.

        Raises:
            InputError: it is missing, damaged, or of another version.
        """
        file = self.path / "run.json"
        try:
            data = read_sealed(file, ("schema", SCHEMA))
        except FileNotFoundError:
            raise InputError(f"{self.path} holds no run (run.json is missing)") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{file} cannot be read: {error}") from None
        for name, fits in _FIELDS.items():
            if name in data and not fits(data[name]):
                found = repr(data[name])[:40]
                raise InputError(f"{file} cannot be read: its {name!r} is {found}")
        return {"stages": [], **data}

    def request(self) -> Request:
        return Request.from_json(self.read().get("request", {}))

    def contents(self) -> Mapping[str, Any] | None:
        """What its data held when it began; None if that was never written down."""
        found: Mapping[str, Any] | None = self.read().get("data")
        return found

    def update(self, entries: Mapping[str, Any]) -> None:
        """Write these entries into run.json, the others as they are."""
        file = self.path / "run.json"
        before = self.read() if file.exists() else {}
        write_sealed(file, {**before, **entries})

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; what an interrupted one had spent counts too."""
        if not self.owned:
            yield
            return
        start = perf_counter()
        try:
            yield
        finally:
            stages = self.read()["stages"]
            spent = {entry["name"]: entry["seconds"] for entry in stages}
            spent[name] = round(spent.get(name, 0.0) + perf_counter() - start, 3)
            self.update({"stages": [{"name": n, "seconds": s} for n, s in spent.items()]})


def _is_ours(entry: Path) -> bool:
    """Whether a killed start may have left it in a folder that holds no run yet."""
    return entry.name == LOCK or is_left_over(entry)


def versions() -> dict[str, str]:
    """Of everything that can change a result."""
    names = ("prunas", "torch", "timm", "numpy", "deap")
    return {**{name: version(name) for name in names}, "python": platform.python_version()}
