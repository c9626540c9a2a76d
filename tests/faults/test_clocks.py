"""Clocks that go back: nothing in prunas asks for the time of day, so nothing can notice."""

import re
from pathlib import Path

import prunas

TIME_OF_DAY = re.compile(
    r"\b(time\.time\b|time_ns|datetime\.(now|utcnow|today)|date\.today|getmtime|getctime|st_mtime"
    r"|st_ctime|localtime|gmtime)"
)


def test_no_module_asks_for_the_time_of_day() -> None:
    """Durations are of `perf_counter` and `monotonic`, which never go back; order is of numbers."""
    assert TIME_OF_DAY.search("import time; time.time()")
    sources = list(Path(prunas.__file__).parent.rglob("*.py"))
    assert len(sources) > 100
    asking = [file for file in sources if TIME_OF_DAY.search(file.read_text(encoding="utf-8"))]
    assert asking == []
