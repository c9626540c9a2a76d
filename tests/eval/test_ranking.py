"""Agreement of orders, against scipy, counting, and values known by hand."""

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

import prunas
from prunas.eval.ranking import (
    agreement,
    kendall,
    precision_at,
    regret,
    spearman,
    tau_difference,
)

whole = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=12)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@given(whole)
def test_tau_and_rho_are_those_of_scipy(rows: list[tuple[int, int]]) -> None:
    x, y = np.array(rows, dtype=float).T
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert kendall(x, y) == spearman(x, y) == 0
        return
    assert kendall(x, y) == pytest.approx(scipy.stats.kendalltau(x, y).statistic)
    assert spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic)


@given(whole, st.integers(1, 3))
def test_precision_is_the_mean_over_all_ways_to_break_ties(
    rows: list[tuple[int, int]], top: int
) -> None:
    x, y = np.array(rows[:6], dtype=float).T

    def best(values: np.ndarray) -> list[set[int]]:
        sets = map(set, itertools.combinations(range(len(values)), top))
        return [s for s in sets if sum(values[list(s)]) == sum(sorted(values)[-top:])]

    overlaps = [len(a & b) / top for a in best(x) for b in best(y)]
    assert precision_at(x, y, top) == pytest.approx(np.mean(overlaps))


def test_golden_numbers() -> None:
    """Of six pairs of 1 2 3 4 and 2 1 3 4 one is discordant: tau = (5 - 1) / 6."""
    found = agreement([1, 2, 3, 4], [2, 1, 3, 4], top=2, rng=rng())
    assert found.tau.value == pytest.approx(4 / 6)
    assert found.spearman.value == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert found.precision.value == 1
    assert found.regret.value == 0
    assert (found.n, found.top) == (4, 2)
    worst = agreement([4, 3, 2, 1], [0.1, 0.2, 0.3, 0.4], top=1, rng=rng())
    assert (worst.tau.value, worst.precision.value) == (-1, 0)
    assert worst.regret.value == pytest.approx(0.3)


def test_regret_of_a_tie_is_its_mean() -> None:
    assert regret(np.array([1.0, 1, 0]), np.array([0.5, 0.7, 0.9])) == pytest.approx(0.3)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Of 100 samples of 40 with a rank correlation known from 20,000, 95 should; 85 would do."""
    source = np.random.default_rng(1)

    def drawn(n: int) -> tuple[np.ndarray, np.ndarray]:
        x = source.standard_normal(n)
        return x, x + source.standard_normal(n)

    truth = 0.5  # 2 / pi arcsin(rho), rho = 1 / sqrt(2)
    covered = 0
    for _ in range(60):
        found = agreement(*drawn(40), top=4, rng=source, resamples=200).tau
        covered += found.low <= truth <= found.high
    assert covered >= 51  # of 60; 57 expected, 85 % is four standard deviations below


def test_the_difference_is_zero_for_the_same_prediction() -> None:
    x, y = rng().standard_normal((2, 20))
    same = tau_difference(x, 3 * x + 1, y, rng=rng())
    assert (same.value, same.low, same.high) == (0, 0, 0)
    better = tau_difference(y, x, y, rng=rng())
    assert better.low > 0
    assert better.value == pytest.approx(1 - kendall(x, y))


def test_an_estimate_reads_as_a_number_with_its_interval() -> None:
    found = agreement([1, 2, 3], [1, 2, 3], top=1, rng=rng()).regret
    assert str(found).startswith("0.00 (0.00 to")


@pytest.mark.parametrize(
    ("predicted", "true", "top", "sentence"),
    [
        ([1, 2], [1, 2], 1, "2 scores and 2 results"),
        ([1, 2, 3], [1, 2], 1, "3 scores and 2 results"),
        ([1, 2, float("nan")], [1, 2, 3], 1, "NaN or infinite"),
        ([1, 2, 3], [1, float("inf"), 3], 1, "NaN or infinite"),
        ([1, 2, 3], [1, 2, 3], 4, "the best 4 of 3 networks"),
        ([1, 2, 3], [1, 2, 3], 0, "the best 0 of 3 networks"),
    ],
)
def test_what_cannot_be_compared(
    predicted: list[float], true: list[float], top: int, sentence: str
) -> None:
    with pytest.raises(prunas.InputError, match=sentence):
        agreement(predicted, true, top=top, rng=rng())
