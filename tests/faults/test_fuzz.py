"""Some damaged files of every kind; benchmarks/faults.py damages as many as one likes."""

import sys
from pathlib import Path

import pytest

from tests.faults.fuzz import fuzz
from tests.faults.targets import targets

EACH = 15


def test_damaged_files_are_refused_or_read_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "tests.faults.trap", raising=False)
    (tmp_path / "files").mkdir()
    every = targets(tmp_path / "files")
    tally = fuzz(every, EACH, seed=1, place=tmp_path / "place")
    assert tally.wrong == []
    assert sum(tally.counts.values()) == EACH * len(every)
    assert {name for name, answer in tally.counts if answer == "refused"} >= {
        each.name for each in every if "log" not in each.name
    }
    assert "tests.faults.trap" not in sys.modules
