"""Times that mean something: warm, interleaved, repeated until the spread is small, or refused.

Pieces of work that are compared run in rounds. In each round every piece is visited once, in random
order, so that what disturbs the machine for a while (another program, heat, a lower clock)
disturbs all of them alike. A visit is one run that is not timed, which brings the weights back
into the caches, and some that are; its time is their median. What is common to all pieces for a
while is taken out (`prunas.eval.latency.pace`). The time of a piece is then the median of its
visits, its spread their interquartile range. Rounds go on until

    interquartile range / median / sqrt(rounds) <= precision

for nine tenths of the pieces. Where the typical spread is too wide, or the pace wavers too much,
the device is busy with something else, and a median of what it does means nothing: that is said,
measured again, and after some attempts refused.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from prunas.errors import InputError, RunError
from prunas.eval.latency.pace import at_usual_pace

Clock = Callable[[], float]
"""Seconds since some moment."""

Work = Callable[[], object]
"""Does the work and returns when it is done."""

Told = Callable[[str], None]
"""Is told sentences while something runs."""

Values = NDArray[np.float64]

_MOST_RUNS: Final = 50  # in one visit
_SETTLED: Final = 0.9  # the share of the pieces that must be precise
_MILLI: Final = 1e3


@dataclass(frozen=True)
class Plan:
    """How carefully to time.

    Attributes:
        warm_up: runs of each piece before anything is timed.
        visit: seconds that one visit takes at least, unless that needs more than 50 runs.
        least: rounds at least.
        most: rounds at most.
        precision: when to stop before that, see the top of this file.
        seconds: no new round begins after so many seconds of one attempt, once there are `least`.
        widest: typical interquartile range, as a share of the median, above which the device is
            busy.
        wavering: the same of its pace.
        attempts: how often to measure a busy device anew before giving up.

    Raises:
        InputError: a number that is not positive, or fewer rounds at most than at least.
    """

    warm_up: int = 2
    visit: float = 0.02
    least: int = 7
    most: int = 25
    precision: float = 0.01
    seconds: float = 90.0
    widest: float = 0.1
    wavering: float = 0.5
    attempts: int = 3

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise InputError(f"{name}={value} of a timing plan is not positive")
        if self.most < self.least:
            raise InputError(
                f"a timing plan of at least {self.least} and at most {self.most} rounds is empty"
            )


@dataclass(frozen=True)
class Timed:
    """How long one piece of work takes, at the usual pace of the device.

    Attributes:
        milliseconds: median over rounds.
        low: first quartile.
        high: third quartile.
        rounds: how many there were.
    """

    milliseconds: float
    low: float
    high: float
    rounds: int

    @property
    def spread(self) -> float:
        """Interquartile range as a share of the median."""
        return (self.high - self.low) / self.milliseconds

    def scaled(self, factor: float) -> "Timed":
        """All times multiplied."""
        return Timed(factor * self.milliseconds, factor * self.low, factor * self.high, self.rounds)


def quiet(sentence: str) -> None:
    """Tells nobody."""


def timed(
    work: Sequence[Work],
    rng: np.random.Generator,
    *,
    plan: Plan | None = None,
    clock: Clock = perf_counter,
    told: Told = quiet,
) -> tuple[Timed, ...]:
    """Time pieces of work side by side.

    Args:
        work: what to compare; each piece must return when it is done, not when it was started.
        rng: the order within each round.
        plan: how carefully.
        clock: seconds.
        told: hears when the device is busy and everything is measured again.

    Raises:
        InputError: there is no work.
        RunError: the device is busy, at every attempt.
    """
    if not work:
        raise InputError("there is nothing to time; give one piece of work or more")
    chosen = plan or Plan()
    for _ in range(chosen.warm_up):
        for piece in work:
            piece()
    for attempt in range(1, chosen.attempts + 1):
        seconds, pace = _rounds(work, rng, chosen, clock)
        found = _summarised(seconds)
        spread = float(np.median([entry.spread for entry in found]))
        if spread <= chosen.widest and _spread(pace) <= chosen.wavering:
            return found
        told(
            f"the device is busy: {_seen(spread, pace, chosen)} (attempt {attempt} of"
            f" {chosen.attempts})"
        )
    raise RunError(
        f"the device is too busy to be timed, in {chosen.attempts} attempts:"
        f" {_seen(spread, pace, chosen)}; stop what else runs there, and measure again"
    )


def _seen(spread: float, pace: Values, plan: Plan) -> str:
    if spread > plan.widest:
        return (
            f"times of the same work spread by {spread:.0%} of their median, and at most"
            f" {plan.widest:.0%} is sound"
        )
    return f"its pace wavers by {_spread(pace):.0%}, and at most {plan.wavering:.0%} is sound"


def _spread(values: Values) -> float:
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return float((high - low) / middle)


def _rounds(
    work: Sequence[Work], rng: np.random.Generator, plan: Plan, clock: Clock
) -> tuple[Values, Values]:
    """(rounds, pieces) seconds at the usual pace, and the paces."""
    start = clock()
    runs = [_runs_of(piece, plan, clock) for piece in work]
    orders: list[NDArray[np.intp]] = []
    rows: list[list[float]] = []
    while True:
        orders.append(rng.permutation(len(work)))
        rows.append([_visit(work[index], runs[index], clock) for index in orders[-1].tolist()])
        if len(rows) < plan.least:
            continue
        seconds, pace = at_usual_pace(np.array(orders), np.array(rows))
        late = clock() - start > plan.seconds
        if late or len(rows) == plan.most or _settled(seconds, plan.precision):
            return seconds, pace


def _runs_of(piece: Work, plan: Plan, clock: Clock) -> int:
    """How many runs make a visit."""
    begin = clock()
    piece()
    once = max(clock() - begin, 1e-9)
    return min(_MOST_RUNS, max(1, round(plan.visit / once)))


def _visit(piece: Work, runs: int, clock: Clock) -> float:
    piece()
    seconds = []
    for _ in range(runs):
        begin = clock()
        piece()
        seconds.append(clock() - begin)
    return float(np.median(seconds))


def _settled(seconds: Values, precision: float) -> bool:
    low, middle, high = np.quantile(seconds, (0.25, 0.5, 0.75), axis=0)
    errors = (high - low) / middle / np.sqrt(len(seconds))
    return float(np.quantile(errors, _SETTLED)) <= precision


def _summarised(seconds: Values) -> tuple[Timed, ...]:
    low, middle, high = _MILLI * np.quantile(seconds, (0.25, 0.5, 0.75), axis=0)
    rows = zip(middle.tolist(), low.tolist(), high.tolist(), strict=True)
    return tuple(Timed(*row, rounds=len(seconds)) for row in rows)
