"""Workers that are only imagined, under a clock that waits for nobody.

The supervisor, the search and its archive are real; what takes time elsewhere is an entry in a
calendar. So a cluster of a thousand machines, and all that may happen to it, runs in a test.
"""

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final, Generic, final

from prunas.search.executors.crew import Answer, Got, Lost, News, Placed, Ready, Result, Task

FAR: Final = 1e9
"""Seconds that nobody waits for: a worker that hangs answers then."""


@dataclass(frozen=True)
class Fate(Generic[Got]):
    """What becomes of a piece of work: a result after some seconds, or the worker's end."""

    seconds: float
    result: Got | None
    """None: the worker dies."""


@final
class Simulated(Generic[Task, Result]):
    """A crew under a virtual clock.

    Args:
        fate: of a task with a worker.
        workers: how many there are, from each time on: ((0, 4), (60, 3)) loses one after a minute,
            whatever it is doing.
        building: seconds until a worker that has a place is ready.
        placing: seconds until it has one, for a cluster that others use as well.
        stopwatch: a clock that runs while the driver works; that time passes for workers too. By
            default the driver is infinitely fast.

    Attributes:
        useful: seconds that workers spent on work with a result that somebody waited for.
        available: seconds that there were workers, busy or not, since the first was begun.
    """

    def __init__(
        self,
        fate: Callable[[Task, int], Fate[Result]],
        workers: Sequence[tuple[float, int]],
        *,
        building: float = 0.0,
        placing: float = 0.0,
        stopwatch: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._fate = fate
        self._building = building
        self._placing = placing
        self._stopwatch = stopwatch
        self._mark = stopwatch()
        self._now = 0.0
        self._there = 0
        self._members: dict[int, None] = {}
        self._left: set[int] = set()
        self._order = count()
        self._calendar: list[tuple[float, int, News[Result] | int]] = []
        self.useful = 0.0
        self.available = 0.0
        for moment, there in workers:
            self._enter(moment, there)
        self._look(0.0)

    def now(self) -> float:
        return self._now + self._stopwatch() - self._mark

    def wanted(self) -> int:
        return self._there

    def begin(self, worker: int) -> bool:
        self._members[worker] = None
        placed = self.now() + self._placing
        if self._placing:
            self._enter(placed, Placed(worker))
        self._enter(placed + self._building, Ready(worker))
        return not self._placing

    def give(self, worker: int, number: int, task: Task) -> None:
        fate = self._fate(task, worker)
        after = self.now() + fate.seconds
        if fate.result is None:
            self._enter(after, Lost(worker, "it died"))
        else:
            self._enter(after, Answer(worker, number, fate.result, fate.seconds))

    def heard(self, patience: float) -> Sequence[News[Result]]:
        now = self.now()
        until = now + patience
        news: list[News[Result]] = []
        there = self._there
        while self._calendar and self._calendar[0][0] <= (now if news else until):
            now = max(now, self._calendar[0][0])
            news += self._look(now)
            if self._there != there:
                return news
        if not news:
            if math.isinf(until):
                raise RuntimeError("everybody waits, and nothing will ever happen")
            self._be(until)
        return news

    def end(self, worker: int) -> None:
        self._members.pop(worker, None)  # if it only hangs, it may still say something

    def close(self) -> None:
        self._members.clear()

    def _enter(self, moment: float, entry: News[Result] | int) -> None:
        heapq.heappush(self._calendar, (moment, next(self._order), entry))

    def _be(self, now: float) -> None:
        """Let it be this time."""
        self.available += self._there * (now - self._now)
        self._now, self._mark = now, self._stopwatch()

    def _look(self, now: float) -> list[News[Result]]:
        """Let it be this time, and cross out the first entry of the calendar."""
        self._be(now)
        _, _, entry = heapq.heappop(self._calendar)
        match entry:
            case int(there):
                self._there = there
                leaving = list(self._members)[there:]
                self._left.update(leaving)
                return [Lost(worker, "its machine left") for worker in leaving]
            case Placed(worker) | Ready(worker) if worker in self._left:
                return []
            case Lost(worker) | Answer(worker) if worker in self._left:
                return []
            case Answer(worker, _, _, seconds) if worker in self._members:
                self.useful += seconds
        return [entry]
