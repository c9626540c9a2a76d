"""Single paths, which learn from the labels."""

from dataclasses import dataclass
from typing import final

import numpy as np

from prunas.supernet.schedules.schedule import Paths, Step


@final
@dataclass(frozen=True)
class SinglePath:
    """A step runs one random candidate, or a few, on the labels alone.

    Guo et al., "Single path one-shot", ECCV 2020, section 3.2, where paths are uniform over the
    space (`SearchSpace.sample`). Its released code draws them within bounds of cost, up to 500
    times; with a `draw` that moves them there they are in a budget at once.

    Attributes:
        draw: the candidates.
        paths: how many run in a step.
    """

    draw: Paths
    paths: int = 1

    def step(self, number: int, steps: int, rng: np.random.Generator) -> Step:
        return Step(tuple(self.draw(rng, self.paths)))
