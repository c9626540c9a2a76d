"""When a training is written down."""

from dataclasses import dataclass
from time import perf_counter
from typing import final

from prunas.errors import InputError


@final
@dataclass(frozen=True)
class Every:
    """How often a training is written down between the ends of its epochs.

    Attributes:
        seconds: after so many since the last time.
        steps: or after so many steps; None: time alone decides.
    """

    seconds: float = 600.0
    steps: int | None = None

    def __post_init__(self) -> None:
        if not self.seconds >= 0 or (self.steps is not None and self.steps < 1):
            raise InputError(
                f"checkpoints cannot be written every {self.seconds} seconds or {self.steps}"
                " steps; give seconds from 0, and steps from 1"
            )


@final
class Pace:
    """Whether it is time, as `Every` says."""

    def __init__(self, every: Every) -> None:
        self._every, self._steps, self._since = every, 0, perf_counter()

    def due(self) -> bool:
        """To be asked after every step."""
        self._steps += 1
        by_steps = self._every.steps is not None and self._steps >= self._every.steps
        if not by_steps and perf_counter() - self._since < self._every.seconds:
            return False
        self.rest()
        return True

    def rest(self) -> None:
        """It has just been done."""
        self._steps, self._since = 0, perf_counter()
