"""The processes of one run: the first does the work, the others train with it when it says so.

Everything but training happens in the first process, which alone writes into the run's folder.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import torch

from prunas.errors import RunError
from prunas.interruption import STOPPED
from prunas.pipeline.ranks import ALONE, Ranks, begun, ended

if TYPE_CHECKING:
    from prunas.pipeline.stages import Job

JobOf = Callable[[Path, torch.device], "Job"]


@final
@dataclass(frozen=True)
class _Order:
    """Call `follow(job, *arguments)`, a function of a module, for the job in this folder."""

    follow: Callable[..., None]
    arguments: tuple[Any, ...]
    folder: Path
    device: str


@final
class Crew:
    """All processes, seen from one of them."""

    def __init__(self, ranks: Ranks = ALONE) -> None:
        self.ranks = ranks
        self._apart = False

    @contextmanager
    def leading(
        self, folder: Path, device: torch.device, follow: Callable[..., None], *arguments: object
    ) -> Iterator[None]:
        """The others call `follow(job, *arguments)` while the first process is inside."""
        if self.ranks.count == 1:
            yield
            return
        self._apart = True  # whoever fails in here leaves the others where they cannot be told
        self.ranks.told(_Order(follow, arguments, folder, device.type))
        yield
        self._apart = False

    def follow(self, job_of: JobOf) -> None:
        """Do what the first process says, until it ends.

        Raises:
            SystemExit: with the exit code of the first process.
            RunError: it has ended without a word.
        """
        jobs: dict[tuple[Path, str], Job] = {}
        with suppress(KeyboardInterrupt):  # of which the first process speaks
            while True:
                order: _Order | int = self.ranks.told(-1)
                if isinstance(order, int):
                    ended()
                    raise SystemExit(order)
                key = order.folder, order.device
                if key not in jobs:
                    jobs[key] = job_of(order.folder, torch.device(order.device))
                order.follow(jobs[key], *order.arguments)
        raise SystemExit(STOPPED)

    def dismiss(self, code: int) -> None:
        """The others end as the first process does."""
        if self.ranks.count == 1 or self._apart:
            return
        with suppress(RunError):  # some of them are gone already
            self.ranks.told(code)
            ended()


NOBODY: Final = Crew()


@cache
def launched() -> Crew:
    """The processes that `torchrun` or `accelerate launch` has begun.

    Raises:
        InputError: accelerate is not installed, or a variable says what no launcher does.
        RunError: the processes do not find each other.
    """
    return Crew(begun())
