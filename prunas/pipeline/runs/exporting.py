"""The evaluations of runs as a table for other programs."""

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from prunas.errors import InputError
from prunas.pipeline.files import replacing
from prunas.pipeline.runs.source import MERGED, Source, read_sources

Columns = Mapping[str, Sequence[Any]]


def export_runs(folder: Path, form: str, file: Path) -> int:
    """Write one row for each evaluation of a run, or of all that were merged.

    Columns are the run, its seed and search, the number of the evaluation in it, score, macs,
    params, seconds and asked_at as in `Evaluation`, and the value of each gene under its name. A
    score that is not a number is empty.

    Args:
        folder: a run.
        form: one of `FORMATS`.
        file: what is written; an earlier file is replaced.

    Returns:
        The number of rows.

    Raises:
        InputError: there is no such format, its library is missing, the folder holds no run, or
            the file is a part of it.
        RunError: the file cannot be written.
    """
    if form not in FORMATS:
        raise InputError(f"no format is called {form!r}; choose {', '.join(FORMATS)}")
    if form == "parquet" and find_spec("pyarrow") is None:
        raise InputError("Parquet needs pyarrow; run: pip install 'prunas[parquet]'")
    if file.exists() and file.resolve() in _own(folder):
        raise InputError(f"{file} is a part of the run that is exported; give another --out")
    columns = _columns(read_sources(folder))
    with replacing(file) as aside:
        FORMATS[form](columns, aside)
    return len(columns["run"])


def _own(folder: Path) -> list[Path]:
    """What a run cannot do without."""
    return [(folder / name).resolve() for name in ("archive.sqlite", "run.json", MERGED)]


def _columns(sources: Sequence[Source]) -> Columns:
    known = next((each.genes for each in sources if each.genes), ())
    rows = [(each, number, row) for each in sources for number, row in enumerate(each.rows, 1)]
    count = len(rows[0][2].candidate) if rows else len(known)
    names = known if len(known) == count else tuple(f"gene {place}" for place in range(count))
    fixed: dict[str, list[Any]] = {
        "run": [source.name for source, _, _ in rows],
        "seed": [source.request.seed for source, _, _ in rows],
        "search": [source.request.search for source, _, _ in rows],
        "number": [number for _, number, _ in rows],
        "score": [None if math.isnan(row.score) else row.score for _, _, row in rows],
        "macs": [row.macs for _, _, row in rows],
        "params": [row.params for _, _, row in rows],
        "seconds": [row.seconds for _, _, row in rows],
        "asked_at": [row.asked_at for _, _, row in rows],
    }
    genes = {
        name if name not in fixed else f"gene {name}": [row.candidate[place] for _, _, row in rows]
        for place, name in enumerate(names)
    }
    return {**fixed, **genes}


def _write_csv(columns: Columns, file: Path) -> None:
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(_lines(columns))


def _lines(columns: Columns) -> Iterator[tuple[Any, ...]]:
    return zip(*columns.values(), strict=True)


def _write_parquet(columns: Columns, file: Path) -> None:
    import pyarrow as arrow  # an extra
    from pyarrow import parquet

    kinds = {"run": arrow.string(), "search": arrow.string()}
    kinds |= {"score": arrow.float64(), "seconds": arrow.float64()}
    arrays = [arrow.array(each, kinds.get(name, arrow.int64())) for name, each in columns.items()]
    parquet.write_table(arrow.table(arrays, names=list(columns)), file)


FORMATS: Final[Mapping[str, Callable[[Columns, Path], None]]] = {
    "csv": _write_csv,
    "parquet": _write_parquet,
}
