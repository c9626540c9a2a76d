"""Progress bars with estimates, on the error stream; silent where nobody watches."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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
            TextColumn("{task.description:<14}"),
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
            Console(stderr=True, highlight=False).print(text)
