"""The one supervisor of all workers: it hands out work, replaces who fails, and gives up in time.

Nothing here knows where workers run, or reads a clock of its own: see `Crew`.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from statistics import median
from types import TracebackType
from typing import Final, Generic, Protocol, Self, final

from prunas.errors import RunError
from prunas.search.executors.crew import (
    Answer,
    Crew,
    Given,
    Got,
    Lost,
    Ready,
    Refused,
    Result,
    Task,
)

_TRIES: Final = 3  # a task that three workers failed at is not given to a fourth
_LATEST: Final = 101  # finished tasks that say how long one usually takes
_IN_A_ROW: Final = 10  # failed tasks without a single success between them: it is not the tasks


@dataclass(frozen=True)
class Done(Generic[Given, Got]):
    """A task with its result, and the seconds that its worker took."""

    task: Given
    result: Got
    seconds: float


@dataclass(frozen=True)
class Failed(Generic[Given]):
    """A task that failed with three workers, for these reasons, and the seconds they took."""

    task: Given
    reasons: tuple[str, ...]
    seconds: float


class Executor(Protocol[Task, Result]):
    """Decides where work happens; what comes of it does not depend on that."""

    def submit(self, tasks: Iterable[Task]) -> None:
        """Take on tasks; workers begin with the earliest. Equal tasks are done once each."""
        ...

    def finished(self) -> list[Done[Task, Result] | Failed[Task]]:
        """Wait until a task is finished; all that are by then, as they came. [] if none is open.

        Raises:
            InputError: a worker found the input to be wrong.
            RunError: a worker found the run to be, or no worker can be built, or task after task
                fails.
        """
        ...


@dataclass(frozen=True)
class Patience:
    """How long a worker may take before it counts as hung.

    Attributes:
        start: seconds to be built.
        first: seconds for a task as long as none is finished.
        factor: afterwards, so many times what the latest finished tasks took in the median,
        least: but no less than these seconds.
    """

    start: float = 600.0
    first: float = 3600.0
    factor: float = 10.0
    least: float = 60.0

    def limit(self, usual: float | None) -> float:
        """Seconds for a task, where tasks usually take `usual`."""
        return self.first if usual is None else max(self.least, self.factor * usual)


PATIENT: Final = Patience()
"""With pieces of work that take much the same time, as evaluations do."""

ENDLESS: Final = Patience(first=math.inf, factor=0.0, least=math.inf)
"""With pieces of work that tell nothing of each other: a training may take a thousand times as long
as one that was nearly finished before. Only workers that are being built are timed."""


@dataclass(eq=False)
class _Piece(Generic[Task]):
    """A task on its way."""

    number: int
    task: Task
    reasons: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(eq=False)
class _Member(Generic[Task]):
    """A worker: since when it is being built, or does its piece."""

    since: float
    ready: bool = False
    piece: _Piece[Task] | None = None


def scored(result: float) -> str | None:
    """Why a score is refused, None if it is not."""
    return "its score is not a number" if math.isnan(result) else None


@final
class Supervisor(Generic[Task, Result]):
    """An executor over any crew; to be used in a `with` statement.

    A worker that dies, hangs, raises or gives a refused result is ended and replaced, and its task
    goes to another one, before those that nobody has begun. What an ended worker says later, and
    what is said twice, is ignored. Workers are built as there are tasks for them, as many as the
    crew wants at the time.

    Args:
        crew: where workers run.
        patience: when a worker counts as hung.
        refused: why a result is not accepted, None if it is.
    """

    def __init__(
        self,
        crew: Crew[Task, Result],
        *,
        patience: Patience = PATIENT,
        refused: Callable[[Result], str | None] = lambda result: None,
    ) -> None:
        self._crew = crew
        self._patience = patience
        self._refused = refused
        self._waiting: deque[_Piece[Task]] = deque()
        self._members: dict[int, _Member[Task]] = {}
        self._idle: dict[int, None] = {}  # in the order in which they became so
        self._busy: dict[int, None] = {}  # in the order in which they began: the first is overdue
        self._building: dict[int, None] = {}  # as well
        self._numbers = 0
        self._hired = 0
        self._latest: deque[float] = deque(maxlen=_LATEST)
        self._usual: float | None = None
        self._stillborn = 0
        self._failed_in_a_row = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._crew.close()

    def submit(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            self._waiting.append(_Piece(self._numbers, task))
            self._numbers += 1
        self._staff()

    def finished(self) -> list[Done[Task, Result] | Failed[Task]]:
        found: list[Done[Task, Result] | Failed[Task]] = []
        while not found and (self._waiting or self._busy):
            self._staff()
            for news in self._crew.heard(self._pause()):
                found += self._heard(news)
            found += self._overdue()
        self._staff()  # so that they go on while the caller looks at what is finished
        return found

    # -- workers -----------------------------------------------------------------------------------

    def _staff(self) -> None:
        """As many workers as are wanted and needed, and work for all that are idle."""
        needed = min(self._crew.wanted(), len(self._waiting) + len(self._busy))
        while len(self._members) < needed:
            self._members[self._hired] = _Member(self._crew.now())
            self._building[self._hired] = None
            self._crew.begin(self._hired)
            self._hired += 1
        while self._idle and self._waiting:
            worker = next(iter(self._idle))
            member, piece = self._members[worker], self._waiting.popleft()
            del self._idle[worker]
            self._busy[worker] = None
            member.piece, member.since = piece, self._crew.now()
            self._crew.give(worker, piece.number, piece.task)

    def _dismiss(self, worker: int) -> _Member[Task]:
        self._crew.end(worker)
        for place in (self._idle, self._busy, self._building):
            place.pop(worker, None)
        return self._members.pop(worker)

    def _pause(self) -> float:
        """Seconds until somebody may be overdue."""
        ends = [
            self._members[worker].since + limit
            for places, limit in self._limits()
            for worker in list(places)[:1]
        ]
        return max(0.0, min(ends, default=math.inf) - self._crew.now())

    def _limits(self) -> tuple[tuple[dict[int, None], float], ...]:
        return (
            (self._busy, self._patience.limit(self._usual)),
            (self._building, self._patience.start),
        )

    # -- news --------------------------------------------------------------------------------------

    def _heard(
        self, news: Ready | Answer[Result] | Lost | Refused
    ) -> Iterator[Done[Task, Result] | Failed[Task]]:
        if isinstance(news, Refused):
            raise news.error
        member = self._members.get(news.worker)
        if member is None:
            return  # it was given up before
        match news:
            case Ready(worker):
                member.ready = True
                self._stillborn = 0
                del self._building[worker]
                self._idle[worker] = None
            case Lost(worker, reason):
                yield from self._lost(worker, reason)
            case Answer(worker, number, result, seconds):
                piece = member.piece
                if piece is None or piece.number != number:
                    return  # said twice
                if (objection := self._refused(result)) is not None:
                    yield from self._lost(worker, objection)
                    return
                member.piece = None
                del self._busy[worker]
                self._idle[worker] = None
                self._latest.append(seconds)
                self._usual = median(self._latest)
                self._failed_in_a_row = 0
                yield Done(piece.task, result, seconds)

    def _overdue(self) -> Iterator[Failed[Task]]:
        for places, limit in self._limits():
            for worker in list(places):
                if self._crew.now() < self._members[worker].since + limit:
                    break
                yield from self._lost(worker, f"it took more than {limit:.3g} s")

    def _lost(self, worker: int, reason: str) -> Iterator[Failed[Task]]:
        """Give a worker up; its task fails if others were lost with it before.

        Where there is room for fewer workers now, a machine has left: that is nobody's failure.
        """
        departed = len(self._members) > self._crew.wanted()
        member = self._dismiss(worker)
        if not member.ready and not departed:
            self._stillborn += 1
            if self._stillborn >= _TRIES and not any(m.ready for m in self._members.values()):
                raise RunError(f"no worker can be built: {reason}")
        piece = member.piece
        if piece is None:
            return
        piece.seconds += self._crew.now() - member.since
        if not departed:
            piece.reasons.append(reason)
        if len(piece.reasons) < _TRIES:
            self._waiting.appendleft(piece)
            return
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= _IN_A_ROW:
            raise RunError(
                f"{_IN_A_ROW} tasks after one another failed with {_TRIES} workers each, the last"
                f" one because {reason}"
            )
        yield Failed(piece.task, tuple(piece.reasons), piece.seconds)


def as_finished(
    executor: Executor[Task, Result], tasks: Iterable[Task]
) -> Iterator[Done[Task, Result] | Failed[Task]]:
    """What comes of distinct tasks, each as soon as it is finished."""
    executor.submit(tasks)
    while outcomes := executor.finished():
        yield from outcomes


def in_order(
    executor: Executor[Task, Result], tasks: Iterable[Task]
) -> Iterator[Done[Task, Result] | Failed[Task]]:
    """What comes of distinct tasks, in their order; each as soon as all before it are finished."""
    asked = list(tasks)
    executor.submit(asked)
    known: dict[Task, Done[Task, Result] | Failed[Task]] = {}
    for task in asked:
        while task not in known:
            known |= {each.task: each for each in executor.finished()}
        yield known.pop(task)
