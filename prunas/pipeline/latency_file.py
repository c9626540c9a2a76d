"""Latency tables on disk, one per device; a table of something else is refused, not used."""

import json
from pathlib import Path

from prunas.errors import InputError
from prunas.eval.latency.backends import Device
from prunas.eval.latency.table import LatencyTable
from prunas.pipeline.sealed import read_sealed, write_sealed
from prunas.supernet.space import SearchSpace


def save_table(table: LatencyTable, file: Path) -> None:
    """Write `table` as JSON: aside first and then renamed.

    Raises:
        RunError: the file cannot be written; an earlier one is kept.
    """
    write_sealed(file, json.loads(table.to_json()))


def load_table(file: Path, space: SearchSpace, device: Device, batch: int = 1) -> LatencyTable:
    """Read a table for this space, device and batch.

    Raises:
        InputError: there is no such file, it is not a table, or one of something else.
    """
    try:
        text = json.dumps(read_sealed(file))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"the latency table {file} cannot be read ({reason}); name another, or delete it and"
            " it is built again"
        ) from None
    try:
        table = LatencyTable.from_json(text)
        table.require(space, device, batch)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    return table
