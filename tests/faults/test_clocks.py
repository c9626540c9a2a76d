"""Clocks that go back: nothing in prunas asks for the time of day, so nothing can notice."""

import ast
from pathlib import Path

import pytest

import prunas

TIME_OF_DAY = {
    "time.time",
    "time.time_ns",
    "time.localtime",
    "time.gmtime",
    "time.ctime",
    "time.asctime",
    "time.strftime",
    "time.clock_gettime",
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.datetime.today",
    "datetime.date.today",
    "os.path.getmtime",
    "os.path.getctime",
    "os.path.getatime",
}
OF_FILES = ("st_mtime", "st_ctime", "st_atime", "st_birthtime")


def asked(source: str) -> list[str]:
    """What of the above a module uses, by whichever name it has imported it."""
    tree = ast.parse(source)
    names = imported(tree)
    uses = [node for node in ast.walk(tree) if isinstance(node, ast.Name | ast.Attribute)]
    files = [
        use.attr for use in uses if isinstance(use, ast.Attribute) and use.attr.startswith(OF_FILES)
    ]
    return files + [name for use in uses if (name := full_name(use, names)) in TIME_OF_DAY]


def imported(tree: ast.Module) -> dict[str, str]:
    """The full name of everything that is imported, by its name in the module."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                top = each.name.split(".")[0]
                found |= {each.asname: each.name} if each.asname else {top: top}
        elif isinstance(node, ast.ImportFrom):
            for each in node.names:
                found[each.asname or each.name] = f"{node.module}.{each.name}"
    return found


def full_name(use: ast.expr, names: dict[str, str]) -> str:
    if isinstance(use, ast.Attribute):
        return f"{full_name(use.value, names)}.{use.attr}"
    return names.get(use.id, "") if isinstance(use, ast.Name) else ""


@pytest.mark.parametrize(
    "source",
    [
        "import time\nstart = time.time()",
        "import time as clock\nstart = clock.time_ns()",
        "from time import time\nstart = time()",
        "from time import monotonic, time as now\ntake(now)",
        "def late():\n    from datetime import datetime\n    return datetime.now()",
        "import datetime\ndatetime.datetime.now(datetime.timezone.utc)",
        "from datetime import date as day\nday.today()",
        "import os\nos.path.getmtime('file')",
        "from os import path\npath.getmtime('file')",
        "from os.path import getmtime\ngetmtime('file')",
        "Path('file').stat().st_mtime_ns",
    ],
)
def test_every_way_to_ask_for_the_time_of_day_is_seen(source: str) -> None:
    assert asked(source)


@pytest.mark.parametrize(
    "source",
    [
        "from time import monotonic, perf_counter\nperf_counter() - monotonic()",
        "crew.now()",
        "time = 3\ntime + 1",
        "row.time",
    ],
)
def test_what_merely_looks_like_it_is_not_held_against_a_module(source: str) -> None:
    assert not asked(source)


def test_no_module_asks_for_the_time_of_day() -> None:
    """Durations are of `perf_counter` and `monotonic`, which never go back; order is of numbers."""
    sources = list(Path(prunas.__file__).parent.rglob("*.py"))
    assert len(sources) > 100
    asking = {str(file): asked(file.read_text(encoding="utf-8")) for file in sources}
    assert {file: uses for file, uses in asking.items() if uses} == {}
