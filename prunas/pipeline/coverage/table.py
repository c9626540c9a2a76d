"""The table: rows in a CSV file, which is also where an interrupted examination goes on."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from prunas.errors import InputError
from prunas.pipeline.coverage.row import Row
from prunas.pipeline.coverage.workers import examined, examined_elsewhere
from prunas.pipeline.files import replacing, require_writable_file, writing
from prunas.pipeline.workers import Workers

_COLUMNS = list(Row("", "").to_text())


def cover(
    models: Sequence[str],
    file: Path,
    *,
    jobs: int,
    limit: float,
    memory: int,
    on_row: Callable[[Row, int], None],
    workers: Workers | None = None,
) -> list[Row]:
    """Examine the models that have no row in `file` yet; in the end it is sorted by name.

    Every row is in the file before the next one is looked at.

    Args:
        models: names in timm.
        file: a .csv, made if missing.
        jobs: processes of this machine.
        limit: seconds a model.
        memory: bytes a model.
        on_row: called with each new row and the number of models done.
        workers: of a cluster, instead of `jobs`.

    Returns:
        The rows of the models, sorted by name.

    Raises:
        InputError: the file holds something else, or is none that could be written.
        RunError: the file cannot be written.
    """
    require_writable_file(file)
    known = {row.model: row for row in read_rows(file)} if file.exists() else {}
    _write(file, list(known.values()))  # without a row that was cut short
    open_ones = [model for model in models if model not in known]
    done = len(models) - len(open_ones)
    if workers is None:
        arriving = examined(open_ones, jobs=jobs, limit=limit, memory=memory)
    else:
        arriving = examined_elsewhere(open_ones, workers, limit=limit, memory=memory)
    for count, row in enumerate(arriving, 1):
        with writing(file), file.open("a", newline="", encoding="utf-8") as opened:
            _writer(opened).writerow(row.to_text())
        known[row.model] = row
        on_row(row, done + count)
    rows = sorted(known.values(), key=lambda row: row.model)
    _write(file, rows)
    return [row for row in rows if row.model in set(models)]


def read_rows(file: Path) -> list[Row]:
    """The rows of a file that `cover` wrote.

    Raises:
        InputError: it cannot be read, or is no such file.
    """
    try:
        text = file.read_text(encoding="utf-8")
        if text and text.split("\n")[0].strip() != ",".join(_COLUMNS):
            raise ValueError("its first line names other columns")
        whole = text[: text.rfind("\n") + 1]  # a row that a kill cut short is examined again
        return [Row.from_text(texts) for texts in csv.DictReader(io.StringIO(whole, newline=""))]
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{file} is no table of coverage ({error}); give another file") from None


def lost(rows: Sequence[Row], before: Sequence[Row]) -> list[Row]:
    """Those of `rows` that do not pass, though their model did `before`."""
    passed = {row.model for row in before if row.passes}
    return [row for row in rows if row.model in passed and not row.passes]


def _write(file: Path, rows: Sequence[Row]) -> None:
    with replacing(file) as aside, aside.open("w", newline="", encoding="utf-8") as opened:
        writer = _writer(opened)
        writer.writeheader()
        writer.writerows(row.to_text() for row in rows)


def _writer(opened: object) -> "csv.DictWriter[str]":
    return csv.DictWriter(opened, _COLUMNS, lineterminator="\n")  # type: ignore[arg-type]
