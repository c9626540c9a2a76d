"""What an executor supervises: workers that are built once and do one piece of work at a time."""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from prunas.errors import InputError, RunError

Task = TypeVar("Task")
Result = TypeVar("Result")
Given = TypeVar("Given", contravariant=True)
Got = TypeVar("Got", covariant=True)
Value = TypeVar("Value")

Work: TypeAlias = Callable[[Task], Result]
"""What a worker does with each task."""

Recipe: TypeAlias = Callable[[], Work[Task, Result]]
"""Builds, once for each worker, what its work needs (network, weights, data), and gives the work.

It travels to workers elsewhere, so it is a function of a module, or a `functools.partial` of one
with small arguments such as the path of a run; tasks and results travel as well.
"""


@dataclass(frozen=True)
class Placed:
    """There is room for a worker now, which begins to be built."""

    worker: int


@dataclass(frozen=True)
class Ready:
    """A worker is built."""

    worker: int


@dataclass(frozen=True)
class Answer(Generic[Got]):
    """A worker has done a piece of work, which took it so many seconds."""

    worker: int
    number: int
    result: Got
    seconds: float


@dataclass(frozen=True)
class Lost:
    """A worker ended, or raised what is no mistake of the user; either way it is given up."""

    worker: int
    reason: str


@dataclass(frozen=True)
class Refused:
    """A worker found the input or the run to be wrong: nobody else would do better."""

    error: InputError | RunError


News: TypeAlias = Placed | Ready | Answer[Got] | Lost | Refused


class Crew(Protocol[Given, Got]):
    """Where workers run: all that differs between one process, many, and a cluster.

    Workers have numbers, which the caller gives and never gives twice.
    """

    def now(self) -> float:
        """Seconds of a clock that never goes back."""
        ...

    def wanted(self) -> int:
        """How many workers there should be now; it may change at any time."""
        ...

    def begin(self, worker: int) -> bool:
        """Have a worker built; it is `Ready` later.

        Returns:
            Whether that has begun; if not, it waits for room, and is `Placed` first.

        Raises:
            RunError: it cannot be begun.
        """
        ...

    def give(self, worker: int, number: int, task: Given) -> None:
        """Have a worker that is ready do a piece of work, which its answer names by its number."""
        ...

    def heard(self, patience: float) -> Sequence[News[Got]]:
        """What has happened, in that order: as soon as there is something, or nothing in time.

        Args:
            patience: seconds to wait at most; a crew may look up earlier.
        """
        ...

    def end(self, worker: int) -> None:
        """End a worker, whatever it is doing; one that has ended already is no error."""
        ...

    def close(self) -> None:
        """End all workers, and whatever was begun for them."""
        ...


@dataclass(frozen=True)
class Returned(Generic[Got]):
    """A function gave a value, after so many seconds."""

    value: Got
    seconds: float


@dataclass(frozen=True)
class Raised:
    """A function raised; `error` if it is one for the user."""

    reason: str
    error: InputError | RunError | None


def attempt(function: Callable[..., Value], *arguments: Any) -> Returned[Value] | Raised:
    """Call a function in a worker; what it raises is news, not the end of the worker's process."""
    began = perf_counter()
    try:
        value = function(*arguments)
    except (InputError, RunError) as error:
        return Raised(str(error), error)
    except Exception as error:  # noqa: BLE001  (whatever it is, the supervisor decides)
        return Raised(_sentence(error), None)
    return Returned(value, perf_counter() - began)


def build(
    recipe: Recipe[Task, Result],
) -> tuple[Work[Task, Result] | None, Returned[None] | Raised]:
    """The work of a worker, if it can be built, and what the supervisor is told of it."""
    found = attempt(recipe)
    if isinstance(found, Raised):
        return None, found
    return found.value, Returned(None, found.seconds)


def _sentence(error: Exception) -> str:
    """What was raised and where, in a line."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(frame.filename).name}:{frame.lineno}, in {frame.name}"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]} ({place})"


def as_news(worker: int, number: int | None, found: Returned[Any] | Raised) -> News[Any]:
    """What came of building a worker (without a number), or of the work with this number."""
    if isinstance(found, Raised):
        return Lost(worker, found.reason) if found.error is None else Refused(found.error)
    return Ready(worker) if number is None else Answer(worker, number, found.value, found.seconds)
