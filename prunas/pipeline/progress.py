"""Progress bars with estimates, on the error stream; silent where nobody watches."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from prunas.pipeline.log import SILENT, Log


def plain_console(file: IO[str], width: int | None = None) -> Console:
    """A console that prints text as it is: names of files and layers may look like markup.

    Args:
        file: where to; styles are for terminals alone.
        width: in columns; None: that of the terminal.
    """
    return Console(
        file=file,
        width=width,
        color_system="auto" if file.isatty() else None,
        markup=False,
        emoji=False,
        highlight=False,
    )


@dataclass(frozen=True)
class Task:
    """One bar."""

    bars: Bars | None
    identity: TaskID

    def update(self, done: int, total: int) -> None:
        """`done` of `total` steps are done."""
        if self.bars is not None:
            self.bars.start()  # not before: work that turns out to be done shows no bar
            self.bars.update(self.identity, completed=done, total=total)


@dataclass(frozen=True)
class Progress:
    """Shows tasks one after the other.

    Attributes:
        visible: False shows nothing (`--json`, tests, libraries).
        log: is told the curves of the run.
    """

    visible: bool = False
    log: Log = SILENT

    @contextmanager
    def task(self, name: str) -> Iterator[Task]:
        if not self.visible:
            yield Task(None, TaskID(0))
            return
        columns = (
            TextColumn("{task.description:<14}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        bars = Bars(*columns, console=Console(stderr=True))
        try:
            yield Task(bars, bars.add_task(name, total=None))
        finally:
            if bars.live.is_started:
                bars.stop()

    def say(self, text: str) -> None:
        if self.visible:
            plain_console(sys.stderr).print(text)
