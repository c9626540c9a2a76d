"""The pace of a device, taken out of what is timed on it."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from prunas.errors import RunError
from prunas.eval.latency.pace import NEAR, at_usual_pace
from prunas.eval.latency.timing import Plan, timed

Values = NDArray[np.float64]


def visits(rounds: int, pieces: int, rng: np.random.Generator) -> NDArray[np.intp]:
    return np.array([rng.permutation(pieces) for _ in range(rounds)])


def slow(order: NDArray[np.intp], seconds: Values) -> tuple[Values, Values]:
    """Visit by visit, neighbour by neighbour."""
    rounds, pieces = order.shape
    who, took = order.ravel().tolist(), seconds.ravel().tolist()
    pace = [1.0] * len(who)
    for _ in range(5 if pieces > 1 else 0):
        visited = [[k for k, other in enumerate(who) if other == piece] for piece in range(pieces)]
        own = [middle([took[k] / pace[k] for k in each]) for each in visited]
        near = [range(max(0, k - NEAR), min(len(who), k + NEAR + 1)) for k in range(len(who))]
        pace = [
            middle([took[j] / own[who[j]] for j in around if who[j] != who[k]])
            for k, around in enumerate(near)
        ]
        pace = [each / middle(pace) for each in pace]
    usual = np.empty((rounds, pieces))
    for k, piece in enumerate(who):
        usual[k // pieces, piece] = took[k] / pace[k]
    return usual, np.array(pace).reshape(rounds, pieces)


def middle(values: Sequence[float]) -> float:
    return float(np.exp(np.median(np.log(values))))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 14), st.integers(0, 99))
def test_it_is_what_going_from_visit_to_visit_gives(rounds: int, pieces: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    order, seconds = visits(rounds, pieces, rng), rng.lognormal(size=(rounds, pieces))
    for fast, obvious in zip(at_usual_pace(order, seconds), slow(order, seconds), strict=True):
        assert fast == pytest.approx(obvious)


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 40), st.integers(0, 99))
def test_a_slow_spell_leaves_no_trace(pieces: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    order, own = visits(9, pieces, rng), rng.lognormal(size=pieces)
    pace = np.ones(9 * pieces)
    begin = int(rng.integers(pieces))
    pace[begin : begin + 2 * pieces] = 1.7  # two rounds of nine, from the middle of one on
    seconds = own[order] * pace.reshape(order.shape)
    usual, seen = at_usual_pace(order, seconds)
    assert np.median(usual, axis=0) == pytest.approx(own)
    low, high = np.quantile(usual, (0.25, 0.75), axis=0)
    assert high / low == pytest.approx(1)
    assert np.median(np.abs(seen.ravel() - pace)) == pytest.approx(0)


def test_noise_of_its_own_stays() -> None:
    rng = np.random.default_rng(0)
    order = visits(25, 64, rng)
    noise = np.exp(0.1 * rng.standard_normal(order.shape))
    usual, pace = at_usual_pace(order, noise)
    before, after = (np.ptp(np.quantile(x, (0.25, 0.75))) for x in (noise, usual))
    assert before < after < 1.15 * before
    assert np.ptp(np.quantile(pace, (0.25, 0.75))) < 0.5 * before


def test_nothing_shows_the_pace_of_a_single_piece() -> None:
    rng = np.random.default_rng(0)
    order, seconds = visits(5, 1, rng), rng.lognormal(size=(5, 1))
    usual, pace = at_usual_pace(order, seconds)
    assert usual == pytest.approx(seconds)
    assert (pace == 1).all()


class Shared:
    """A device that takes turns: a while at its own pace, a while at another."""

    def __init__(self, pace: Callable[[float], float]) -> None:
        self.now = 0.0
        self.pace = pace

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> Callable[[], None]:
        def done() -> None:
            self.now += seconds * self.pace(self.now)

        return done


PLAN = Plan(visit=1e-9, least=9, most=25)


def test_times_on_a_device_that_is_shared() -> None:
    """Slower by a half for a third of the time: in the median it is not."""
    device = Shared(lambda now: 1.5 if now % 12 > 8 else 1.0)
    own = np.linspace(0.01, 0.1, 12)
    work = [device.work(each) for each in own]
    found = timed(work, np.random.default_rng(0), plan=PLAN, clock=device)
    assert [each.milliseconds for each in found] == pytest.approx(1000 * own)
    assert np.median([each.spread for each in found]) < 0.01


def test_a_device_of_which_nobody_knows_the_pace() -> None:
    device, told = Shared(lambda now: 2.0 if now % 1 > 0.5 else 1.0), list[str]()
    work = [device.work(0.01) for _ in range(12)]
    with pytest.raises(RunError, match=r"3 attempts: its pace wavers by \d+%, and at most 50% is"):
        timed(work, np.random.default_rng(0), plan=PLAN, clock=device, told=told.append)
    assert len(told) == 3
    assert "the device is busy: its pace wavers" in told[0]
