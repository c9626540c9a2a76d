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

from prunas.errors import InputError, RunError
from prunas.search.executors.crew import (
    Answer,
    Crew,
    Given,
    Got,
    Lost,
    Placed,
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

        Results that have arrived beside an error come first: the next call raises it.

        Raises:
            InputError: a worker found the input to be wrong.
            RunError: a worker found the run to be, or no worker can be built, or task after task
                fails: then it is not the tasks, and those before should not count as failed either
                (see `settled`).
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
    """A worker: since when it is being built, does its piece, or waits for a place."""

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
        self._stillborn: list[str] = []  # why workers could not be built while none was ready
        self._hired_before = 0  # workers begun before the first of these was lost
        self._failed: list[str] = []  # why tasks did, since one succeeded
        self._error: InputError | RunError | None = None

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
        while not found and self._going_on():
            found += self._all_heard()
            self._staff()  # so that they go on while the caller looks at what is finished
        if self._error is None:
            return found
        results = [each for each in found if isinstance(each, Done)]
        if not results:
            raise self._error
        return [*results]

    def _going_on(self) -> bool:
        return self._error is None and bool(self._waiting or self._busy)

    # -- workers -----------------------------------------------------------------------------------

    def _staff(self) -> None:
        """As many workers as are wanted and needed, and work for all that are idle."""
        if self._error is not None:
            return
        try:
            self._hire()
        except RunError as error:
            self._error = error
            return
        self._hand_out()

    def _hire(self) -> None:
        needed = min(self._crew.wanted(), len(self._waiting) + len(self._busy))
        while len(self._members) < needed and not self._in_doubt():
            self._members[self._hired] = _Member(self._crew.now())
            if self._crew.begin(self._hired):
                self._building[self._hired] = None
            self._hired += 1

    def _in_doubt(self) -> bool:
        """Whether it is still open if workers can be built at all: those on their way will tell."""
        return len(self._stillborn) >= _TRIES and self._others_coming()

    def _others_coming(self) -> bool:
        """Whether somebody is being built who was begun before any of the others was lost."""
        return any(worker < self._hired_before for worker in self._building)

    def _hand_out(self) -> None:
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

    def _all_heard(self) -> list[Done[Task, Result] | Failed[Task]]:
        """What is finished by the next news; an error in them is kept for later.

        Whether to give up is decided when all news are known.
        """
        found: list[Done[Task, Result] | Failed[Task]] = []
        for news in self._crew.heard(self._pause()):
            if isinstance(news, Refused):
                self._error = self._error or news.error
            else:
                found += self._heard(news)
        found += self._overdue()
        if self._error is None and (reason := self._hopeless()) is not None:
            self._error = RunError(reason)
        return found

    def _hopeless(self) -> str | None:
        """Why there is no point in going on, None if there is."""
        if len(self._failed) >= _IN_A_ROW:
            return (
                f"{_IN_A_ROW} tasks after one another failed with {_TRIES} workers each, the last"
                f" one because {self._failed[-1]}"
            )
        if len(self._stillborn) >= _TRIES and not self._others_coming():
            return f"no worker can be built: {self._stillborn[-1]}"
        return None

    def _heard(
        self, news: Placed | Ready | Answer[Result] | Lost
    ) -> Iterator[Done[Task, Result] | Failed[Task]]:
        member = self._members.get(news.worker)
        if member is None:
            return  # it was given up before
        match news:
            case Placed(worker):
                member.since = self._crew.now()
                self._building[worker] = None
            case Ready(worker):
                member.ready = True
                self._stillborn = []
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
                self._failed = []
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
        if not departed and not any(each.ready for each in (member, *self._members.values())):
            self._hired_before = self._hired_before if self._stillborn else self._hired
            self._stillborn.append(reason)
        piece = member.piece
        if piece is None:
            return
        piece.seconds += self._crew.now() - member.since
        if not departed:
            piece.reasons.append(reason)
        if len(piece.reasons) < _TRIES:
            self._waiting.appendleft(piece)
            return
        self._failed.append(reason)
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


def settled(
    outcomes: Iterable[Done[Task, Result] | Failed[Task]],
) -> Iterator[Done[Task, Result] | Failed[Task]]:
    """The same; failed tasks when a later one has succeeded, or at the end.

    So if task after task fails, and an error ends it, none of them was ever said to have failed.
    """
    held: list[Done[Task, Result] | Failed[Task]] = []
    for outcome in outcomes:
        held.append(outcome)
        if isinstance(outcome, Done):
            yield from held
            held = []
    yield from held
