"""Paired comparison against enumeration, scipy and hand-made numbers."""

from itertools import product

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from prunas.errors import InputError
from prunas.eval.statistics import Paired, Spread, paired, spread


def p_by_enumeration(differences: list[float]) -> float:
    """Share of all sign patterns whose rank sum is at least as far out, doubled."""
    real = [d for d in differences if d]
    ranks = scipy.stats.rankdata(np.abs(real)) if real else np.array([])
    observed = sum(rank for rank, d in zip(ranks, real, strict=True) if d > 0)
    sums = [np.dot(signs, ranks) for signs in product([0, 1], repeat=len(real))]
    low = np.mean([total <= observed for total in sums])
    high = np.mean([total >= observed for total in sums])
    return float(min(1, 2 * min(low, high)))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=8))
def test_p_value_is_exact_with_ties_and_zeros(differences: list[int]) -> None:
    floats = [0.1 * d for d in differences]
    found = paired(floats, np.zeros(len(floats))).p_value
    assert found == pytest.approx(p_by_enumeration([float(d) for d in differences]))


@pytest.mark.parametrize("n", [6, 20, 50, 51, 120])
def test_p_value_equals_scipy_without_ties(n: int) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.normal(0.2, size=n), rng.normal(size=n)
    method = "exact" if n <= 50 else "asymptotic"
    assert paired(a, b).p_value == pytest.approx(scipy.stats.wilcoxon(a, b, method=method).pvalue)


def test_interval_is_student_t() -> None:
    result = paired([3.0, 5.0, 7.0], [2.0, 3.0, 4.0])
    # differences 1, 2, 3: mean 2, deviation 1, t(0.975, 2) = 4.3027
    assert result.mean == 2
    assert result.low == pytest.approx(2 - 4.302653 / np.sqrt(3))
    assert result.high == pytest.approx(2 + 4.302653 / np.sqrt(3))
    assert result.n == 3


def test_rounding_does_not_break_ties() -> None:
    assert 0.97 - 0.96 > 0.03 - 0.02
    a, b = [0.97, 0.02, 0.6], [0.96, 0.03, 0.5]
    assert paired(a, b).p_value == pytest.approx(p_by_enumeration([1, -1, 10]))


@pytest.mark.parametrize("n", range(1, 9))
def test_fewer_than_six_pairs_are_never_significant_and_say_so(n: int) -> None:
    result = paired(np.ones(n), np.zeros(n))  # as clear as can be, and all tied
    assert result.p_value == pytest.approx(2 / 2**n) == result.smallest_p
    assert (result.p_value < 0.05) == (n >= 6)
    assert ("at least 6 are needed" in result.sentence) == (2 <= n < 6)


def test_sentences() -> None:
    assert paired([0.9], [0.8]).sentence == (
        "difference +0.1000 in one pair; repeat it, one pair has no spread"
    )
    assert Paired(0.012, 0.003, 0.021, 0.0117, 10).sentence == (
        "mean difference +0.0120 (95 % interval +0.0030 to +0.0210, Wilcoxon p = 0.012, 10 pairs)"
    )
    assert Paired(0.012, 0.003, 0.021, 0.0117, 10).sentence_in_points == (
        "mean difference +1.20 points (95 % interval +0.30 to +2.10, Wilcoxon p = 0.012, 10 pairs)"
    )
    assert Paired(0.012, 0.003, 0.021, 0.25, 3).sentence.endswith(
        "; 3 pairs cannot be significant whatever they show, the smallest p is 0.25:"
        " at least 6 are needed, better 10"
    )


def test_single_pair_has_no_interval() -> None:
    result = paired([1.0], [0.5])
    assert (result.mean, result.low, result.high, result.p_value) == (0.5, None, None, 1.0)


def test_equal_values_are_no_difference() -> None:
    assert paired([1.0, 2.0], [1.0, 2.0]) == Paired(0.0, 0.0, 0.0, 1.0, 2)


def test_swapping_the_sides_swaps_the_signs() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=9), rng.normal(size=9)
    ab, ba = paired(a, b), paired(b, a)
    assert ba.mean == -ab.mean
    assert ab.low is not None
    assert ba.high == pytest.approx(-ab.low)
    assert ab.p_value == pytest.approx(ba.p_value)


def test_spread() -> None:
    assert spread([1.0, 2.0, 3.0]) == Spread(2.0, 1.0, 1.0, 3.0, 3)
    assert spread([0.5]) == Spread(0.5, 0.0, 0.5, 0.5, 1)


@pytest.mark.parametrize("bad", [[], [1.0, float("nan")], [float("inf")], [[1.0]], 3.0])
def test_refuses_what_is_no_row_of_numbers(bad: ArrayLike) -> None:
    for ask in (lambda: spread(bad), lambda: paired(bad, [1.0]), lambda: paired([1.0], bad)):
        with pytest.raises(InputError, match="finite numbers in a row"):
            ask()


def test_refuses_unequal_numbers() -> None:
    with pytest.raises(InputError, match="2 values cannot be paired with 1"):
        paired([1.0, 2.0], [1.0])
