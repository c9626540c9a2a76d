"""Who evaluates and trains the candidates of a run: this process, others, or a cluster."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import torch

from prunas.errors import InputError
from prunas.search.executors import (
    ENDLESS,
    PATIENT,
    Crew,
    Here,
    OnRay,
    Patience,
    Processes,
    Recipe,
    Supervisor,
)

Task = TypeVar("Task")
Result = TypeVar("Result")

EXECUTORS: Final = ("here", "processes", "ray")


@dataclass(frozen=True)
class Workers:
    """What a user asks of an executor; results do not depend on it.

    Attributes:
        kind: one of `EXECUTORS`.
        count: how many workers; None: as many as a cluster has room for.
        address: of a Ray cluster; None begins one on this machine.
        accelerators: GPUs for each worker; 0.25 puts four on each.
        limit: seconds after which an evaluation counts as hung; None: ten times what they usually
            take, a minute at least.
        work_limit: seconds after which any other piece of work does: a training, a criterion, a
            run of a comparison; None: never, as one may take a thousand times as long as another.

    Raises:
        InputError: they do not go together.
    """

    kind: str = "here"
    count: int | None = None
    address: str | None = None
    accelerators: float = 0.0
    limit: float | None = None
    work_limit: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in EXECUTORS:
            raise InputError(f"no executor is called {self.kind!r}; choose {', '.join(EXECUTORS)}")
        if self.count is not None and self.count < 1:
            raise InputError(f"{self.count} workers evaluate nothing; give 1 or more")
        if self.kind == "here" and (self.count or 1) > 1:
            raise InputError(
                f"one process cannot be {self.count} workers; give --executor processes or ray"
            )
        if self.kind == "processes" and self.count is None:
            raise InputError("say how many processes: --workers 2, for example")
        if self.address is not None and self.kind != "ray":
            raise InputError(f"only Ray has an address; leave out --address {self.address}")
        part, whole = 0 <= self.accelerators <= 1, self.accelerators > 1
        if not part and not (whole and self.accelerators.is_integer()):
            raise InputError(
                f"a worker cannot have {self.accelerators:g} GPUs; give a part of one, or 1, 2, ..."
            )
        if self.accelerators and self.kind == "here":
            raise InputError("GPUs are shared out among workers; give --workers as well")
        for limit in (self.limit, self.work_limit):
            self._require_limit(limit)

    def _require_limit(self, limit: float | None) -> None:
        if limit is None:
            return
        if not limit > 0:
            raise InputError(f"--limit {limit:g} leaves no time to do anything; give more seconds")
        if self.kind == "here":
            raise InputError("this process cannot time itself out; give --workers with --limit")

    @property
    def elsewhere(self) -> bool:
        """Whether work leaves this process."""
        return self.kind != "here"

    @property
    def patience(self) -> Patience:
        """With evaluations."""
        return PATIENT if self.limit is None else _at_most(self.limit)

    @property
    def work_patience(self) -> Patience:
        """With any other work."""
        return ENDLESS if self.work_limit is None else _at_most(self.work_limit)

    def executor(
        self,
        recipe: Recipe[Task, Result],
        *,
        patience: Patience,
        threads: int = 1,
        refused: Callable[[Result], str | None] = lambda result: None,
    ) -> Supervisor[Task, Result]:
        """An executor of these workers, to be used in a `with` statement.

        Args:
            recipe: builds a worker.
            patience: when a worker counts as hung; one of those above, as a rule.
            threads: of each worker that is not this process.
            refused: why a result is not accepted, None if it is.

        Raises:
            InputError: there is no Ray, no cluster at the address, or no such accelerator.
        """
        return Supervisor(self._crew(recipe, threads), patience=patience, refused=refused)

    def _crew(self, recipe: Recipe[Task, Result], threads: int) -> Crew[Task, Result]:
        if self.kind == "here":
            return Here(recipe)
        if self.kind == "processes":
            assert self.count is not None, "processes are counted"
            shares = _shares(self.count, self.accelerators) if self.accelerators else None
            return Processes(recipe, self.count, threads=threads, accelerators=shares)
        return OnRay(
            recipe,
            self.count,
            address=self.address,
            processors=threads,
            accelerators=self.accelerators,
        )


HERE: Final = Workers()


def _at_most(seconds: float) -> Patience:
    return Patience(first=seconds, factor=0.0, least=seconds)


def _shares(count: int, each: float) -> list[str]:
    """What every one of `count` processes sees of the accelerators.

    Raises:
        InputError: there are not so many.
    """
    there = _visible()
    if each < 1:
        together = int(1 / each + 1e-9)
        shares = [name for name in there for _ in range(together)]
    else:
        whole = int(each)
        last = len(there) - whole + 1
        shares = [",".join(there[at : at + whole]) for at in range(0, last, whole)]
    if len(shares) < count:
        raise InputError(
            f"{count} workers with {each:g} GPUs each do not fit on the {len(there)} that torch can"
            " use here; ask for less"
        )
    return shares[:count]


def _visible() -> list[str]:
    """The names of the accelerators that this process may use."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return named.split(",")[:count] if named else [str(index) for index in range(count)]
