"""The evaluations of runs as a table for other programs."""

import csv
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from prunas.errors import InputError
from prunas.pipeline.files import replacing, require_writable_file
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
        file: what is written; an earlier file is replaced, unless it is in the run's folder.

    Returns:
        The number of rows.

    Raises:
        InputError: there is no such format, its library is missing, the folder holds no run or
            one whose rows make no table, or the file is a folder, a pipe or a device, or has
            the place of a part of it.
        RunError: the file cannot be written.
    """
    if form not in FORMATS:
        raise InputError(f"no format is called {form!r}; choose {', '.join(FORMATS)}")
    if form == "parquet" and find_spec("pyarrow") is None:
        raise InputError("Parquet needs pyarrow; run: pip install 'prunas[parquet]'")
    require_writable_file(file)
    _require_apart(folder, file)
    columns = _columns(read_sources(folder))
    with replacing(file) as aside:
        FORMATS[form](columns, aside)
    return len(columns["run"])


_PARTS: Final = frozenset(
    ("run.json", MERGED, "report.html", "rank.html", "checkpoints", "model", "logs", "export")
)
"""What a run comes to hold, besides its archive with its logs and hidden files."""


def _require_apart(run: Path, file: Path) -> None:
    """Refuse a table in the place of anything that the run's folder holds or comes to hold.

    Free in it are new names directly in the folder, and in `export`.
    """
    place, inside = file.parent.resolve() / file.name, run.resolve()  # a link itself is replaced
    if inside not in place.parents:
        return
    top, *below = place.relative_to(inside).parts
    free = top == "export" if below else not (top in _PARTS or top.startswith((".", "archive.")))
    if not free:
        raise InputError(f"{file} is a part of the run that is exported; give another --out")
    if os.path.lexists(place):
        raise InputError(
            f"{file} exists in the run that is exported; delete it, or give another --out"
        )


def _columns(sources: Sequence[Source]) -> Columns:
    """The values of all rows under their names.

    Raises:
        InputError: candidates differ in length.
    """
    known = next((each.genes for each in sources if each.genes), ())
    rows = [(each, number, row) for each in sources for number, row in enumerate(each.rows, 1)]
    lengths = sorted({len(row.candidate) for _, _, row in rows} or {len(known)})
    if len(lengths) > 1:
        raise InputError(
            f"candidates of {lengths[0]} and of {lengths[-1]} genes are no table; they were not"
            " recorded by one search"
        )
    (count,) = lengths
    names = (
        known
        if len(set(known)) == len(known) == count
        else tuple(f"gene {place}" for place in range(count))
    )
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
    # names of folders may be no text
    with file.open("w", newline="", encoding="utf-8", errors="backslashreplace") as opened:
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
    try:
        arrays = [
            arrow.array(each, kinds.get(name, arrow.int64())) for name, each in columns.items()
        ]
        table = arrow.table(arrays, names=list(columns))
    except (ValueError, OverflowError) as error:  # a name that is no text, say
        raise InputError(f"Parquet does not hold such values ({error}); choose csv") from None
    parquet.write_table(table, file)


FORMATS: Final[Mapping[str, Callable[[Columns, Path], None]]] = {
    "csv": _write_csv,
    "parquet": _write_parquet,
}
