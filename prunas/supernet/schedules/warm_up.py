"""Warm-up of widths: full ones first."""

from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Final, final

import numpy as np

from prunas.errors import InputError
from prunas.supernet.schedules.schedule import Schedule, Step
from prunas.supernet.space import Candidate, Gene, SearchSpace

# Of 120 epochs 60 at full width, then ten in which narrower scales are let in one by one: the
# recipe of CanyonWind/Single-Path-One-Shot-NAS-MXNet, with which joint training of operators and
# widths converges that diverges without.
FULL_WIDTH: Final = Fraction(60, 120)
OPENED: Final = Fraction(70, 120)


@final
@dataclass(frozen=True, eq=False)
class WarmUp:
    """Another schedule with all widths full at first; then they open from the widest down.

    Operators and all else are drawn from the first step on. While n of a gene's k widths are open,
    a path of which the other schedule takes the d-th widest (d = 0 .. k - 1) has the floor(d n / k)
    -th widest, so that what is even over all widths is even over those that are open. A path that
    becomes its own teacher does not run.

    Attributes:
        schedule: the other one.
        space: the candidates.

    Raises:
        InputError: the space has no widths.
    """

    schedule: Schedule
    space: SearchSpace

    def __post_init__(self) -> None:
        if not any(gene.kind == "width" for gene in self.space.genes):
            raise InputError(
                "there are no widths here that could be warmed up; leave the warm-up out of the"
                " schedule, or search width too"
            )

    def step(self, number: int, steps: int, rng: np.random.Generator) -> Step:
        step = self.schedule.step(number, steps, rng)
        share = (Fraction(number, steps) - FULL_WIDTH) / (OPENED - FULL_WIDTH)
        if share >= 1:
            return step
        paths = (self._widened(path, max(Fraction(0), share)) for path in step.paths)
        return Step(tuple(path for path in paths if path != step.teacher), step.teacher)

    def _widened(self, path: Candidate, share: Fraction) -> Candidate:
        pairs = zip(self.space.genes, path, strict=True)
        return Candidate(
            _wider(gene, value, share) if gene.kind == "width" else value for gene, value in pairs
        )


def _wider(gene: Gene, value: int, share: Fraction) -> int:
    last = len(gene.choices) - 1
    opened = 1 + ceil(share * last)
    distance = last - bisect_left(gene.choices, value)
    return gene.choices[last - distance * opened // (last + 1)]
