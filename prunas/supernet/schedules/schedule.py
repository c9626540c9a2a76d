"""What the steps of a supernet's training run: which candidates, taught by whom."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, final

import numpy as np

from prunas.supernet.space import Candidate

Paths = Callable[[np.random.Generator, int], Sequence[Candidate]]
"""Draws so many candidates."""


@final
@dataclass(frozen=True)
class Step:
    """Candidates that run on the same images; their gradients are added for one update.

    All learn from the labels y; or, where there is a teacher, it alone does, and its answers are
    what the others learn (in-place distillation):

        L = sum_s CE(path_s, y)
        L = CE(teacher, y) + sum_s CE(path_s, softmax(stop_gradient(teacher)))

    Attributes:
        paths: candidates, in the order in which they run.
        teacher: runs before them.
    """

    paths: tuple[Candidate, ...]
    teacher: Candidate | None = None

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """All that run."""
        return self.paths if self.teacher is None else (self.teacher, *self.paths)


class Schedule(Protocol):
    """A way to train shared weights. To add one, write this and a row in `SCHEDULES`.

    Laws: a schedule is immutable, and a step depends on its number, on how many there are and on
    `rng` alone, so that a training that was stopped goes on as if it had not been; every candidate
    is one of the space; given steps enough, every choice that its paths can take runs.
    """

    def step(self, number: int, steps: int, rng: np.random.Generator) -> Step:
        """What step `number` of `steps` runs, counted from 0."""
        ...
