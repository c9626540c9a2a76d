"""The sandwich rule: the full network in every step, which teaches the others."""

from dataclasses import dataclass
from typing import final

import numpy as np

from prunas.supernet.schedules.schedule import Paths, Step
from prunas.supernet.space import Candidate


@final
@dataclass(frozen=True)
class Sandwich:
    """A step runs the full network, fixed candidates, and random ones that it teaches.

    So the last channels of every group are trained in every step. Yu and Huang, "Universally
    slimmable networks", ICCV 2019, section 3: the smallest candidate in every step, and two random
    ones of the whole space; BigNAS (Yu et al., ECCV 2020), section 3.1. Without the smallest, and
    with paths in a budget, it is a deviation: there the smallest one is mostly far from where the
    search looks.

    Attributes:
        full: the teacher.
        draw: the random candidates.
        paths: how many of them run in a step.
        always: run in every step.
    """

    full: Candidate
    draw: Paths
    paths: int = 1
    always: tuple[Candidate, ...] = ()

    def step(self, number: int, steps: int, rng: np.random.Generator) -> Step:
        return Step((*self.always, *self.draw(rng, self.paths)), teacher=self.full)
