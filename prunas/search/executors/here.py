"""Work in the process that asks for it."""

from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Generic, final

from prunas.search.executors.crew import News, Recipe, Result, Task, Work, as_news, attempt, build


@final
class Here(Generic[Task, Result]):
    """A crew of one: the caller. It cannot outlive a hang or a death, and has no need to travel."""

    def __init__(self, recipe: Recipe[Task, Result]) -> None:
        self._recipe = recipe
        self._steps: deque[Callable[[], News[Result]]] = deque()
        self._work: Work[Task, Result] | None = None

    def now(self) -> float:
        return monotonic()

    def wanted(self) -> int:
        return 1

    def begin(self, worker: int) -> bool:
        def step() -> News[Result]:
            self._work = None  # what a failed worker held makes room
            self._work, found = build(self._recipe)
            return as_news(worker, None, found)

        self._steps.append(step)
        return True

    def give(self, worker: int, number: int, task: Task) -> None:
        work = self._work
        assert work is not None, "a worker is built before it is given work"
        self._steps.append(lambda: as_news(worker, number, attempt(work, task)))

    def heard(self, patience: float) -> Sequence[News[Result]]:
        return [self._steps.popleft()()] if self._steps else []

    def end(self, worker: int) -> None:
        self._steps.clear()

    def close(self) -> None:
        self._steps.clear()
        self._work = None
