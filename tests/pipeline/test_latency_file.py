"""Latency tables on disk."""

from dataclasses import replace
from pathlib import Path

import pytest

from prunas.errors import InputError, RunError
from prunas.eval.latency.backends import Device
from prunas.eval.latency.table import LatencyTable, fingerprint
from prunas.eval.latency.timing import Timed
from prunas.pipeline.latency_file import load_table, save_table
from prunas.supernet.trace import trace
from tests.supernet.networks import IMAGE, Network

DEVICE = Device("abacus", 1, "beads", (("beads", "1.0"),))
SPACE = trace(Network(["Plain"]), IMAGE)
TABLE = LatencyTable(
    device=DEVICE,
    space=fingerprint(SPACE),
    batch=1,
    dtype="float32",
    candidates=(SPACE.full(), SPACE.smallest()),
    times=(Timed(2.0, 1.9, 2.1, 9), Timed(1.0, 0.9, 1.1, 9)),
)


def test_a_table_comes_back_and_nothing_else_is_left(tmp_path: Path) -> None:
    file = tmp_path / "tables" / "abacus.json"
    save_table(TABLE, file)
    assert load_table(file, SPACE, DEVICE) == TABLE
    assert [entry.name for entry in file.parent.iterdir()] == ["abacus.json"]


def test_an_earlier_table_survives_a_failure(tmp_path: Path) -> None:
    file = tmp_path / "abacus.json"
    file.mkdir()
    with pytest.raises(RunError, match=r"abacus\.json cannot be written"):
        save_table(TABLE, file)
    assert [entry.name for entry in tmp_path.iterdir()] == ["abacus.json"]


def test_what_is_no_table_of_this_machine(tmp_path: Path) -> None:
    file = tmp_path / "abacus.json"
    with pytest.raises(InputError, match=r"abacus\.json cannot be read \(No such file"):
        load_table(file, SPACE, DEVICE)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"cannot be read \(.*\); name another, or delete it"):
        load_table(file, SPACE, DEVICE)
    file.write_text("{}")
    with pytest.raises(InputError, match=r"abacus\.json: the text is not a latency table"):
        load_table(file, SPACE, DEVICE)
    save_table(TABLE, file)
    with pytest.raises(
        InputError, match=r"abacus\.json: the latency table was measured with beads"
    ):
        load_table(file, SPACE, replace(DEVICE, threads=4))
    with pytest.raises(InputError, match="another search space"):
        load_table(file, trace(Network(["Grouped"]), IMAGE), DEVICE)
    with pytest.raises(InputError, match="batches of 1 and not of 2"):
        load_table(file, SPACE, DEVICE, batch=2)
