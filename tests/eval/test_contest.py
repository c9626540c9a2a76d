"""Statistics of a comparison against scipy, slow loops and hand-made numbers."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from prunas.errors import InputError
from prunas.eval.contest import (
    Array,
    Band,
    Duel,
    best_so_far,
    chance_of_more,
    critical_difference,
    duels,
    evaluations_to_reach,
    holm,
    iqm_band,
    mean_band,
    ranked,
    resamples,
)
from prunas.eval.statistics import paired

# Demsar 2006, table 5a: q at 0.05 for k = 2..8 methods
NEMENYI = (1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031)


# -- curves


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(1, 15))
def test_a_curve_is_made_again_from_its_improvements(scores: list[int], length: int) -> None:
    steps = [i for i, s in enumerate(scores) if s > max(scores[:i], default=-1)]
    found = best_so_far([i + 1 for i in steps], [scores[i] for i in steps], length)
    assert found.tolist() == [max(scores[: t + 1]) for t in range(length)]


def test_before_the_first_score_nothing_is_right() -> None:
    assert best_so_far([3], [0.5], 4).tolist() == [0, 0, 0.5, 0.5]
    assert best_so_far([], [], 2).tolist() == [0, 0]


def test_evaluations_to_reach() -> None:
    regrets = np.array([[3.0, 2, 1, 0], [3, 3, 3, 3], [1, 1, 1, 1], [0.3 - 0.2 + 0.9, 0, 0, 0]])
    assert evaluations_to_reach(regrets, 1.0).tolist() == [3, np.inf, 1, 1]


# -- bands


def mean(rows: Array) -> Array:
    return np.asarray(rows.mean(axis=0))


def middle_mean(rows: Array) -> Array:
    return np.asarray(scipy.stats.trim_mean(rows, 0.25, axis=0))


@pytest.mark.parametrize(("band", "measure"), [(mean_band, mean), (iqm_band, middle_mean)])
def test_a_band_is_that_of_the_resampled_values(
    band: Callable[[Array, Any], Band], measure: Callable[[Array], Array]
) -> None:
    """The slow form draws the values themselves."""
    values = np.random.default_rng(1).random((13, 3))
    draws = resamples(13, np.random.default_rng(2), 400)
    slow = [measure(np.repeat(values, counts, axis=0)) for counts in draws]
    low, high = np.quantile(slow, [0.025, 0.975], axis=0)
    found = band(values, draws)
    np.testing.assert_allclose(found.value, measure(values))
    np.testing.assert_allclose(found.low, low)
    np.testing.assert_allclose(found.high, high)


def test_resamples_are_as_many_as_the_seeds_and_the_same_again() -> None:
    draws = resamples(10, np.random.default_rng(0))
    assert draws.shape == (2000, 10)
    assert (draws.sum(axis=1) == 10).all()
    assert (draws == resamples(10, np.random.default_rng(0))).all()
    assert (draws != resamples(10, np.random.default_rng(1))).any()


def test_one_seed_has_no_spread() -> None:
    draws = resamples(1, np.random.default_rng(0))
    for band in (mean_band(np.array([[2.0]]), draws), iqm_band(np.array([[2.0]]), draws)):
        assert band.value == band.low == band.high == [2.0]


# -- pairs


def test_holm_by_hand() -> None:
    # sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.04; never falling
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_rejects_as_the_procedure_does(p_values: list[float]) -> None:
    """Holm's own words: go up from the smallest, stop at the first that is not below its level."""
    adjusted = holm(p_values)
    for level in (0.05, 0.3):
        rejected = set()
        for step, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
            if p_values[index] * (len(p_values) - step) >= level:
                break
            rejected.add(index)
        assert {i for i, p in enumerate(adjusted) if p < level} == rejected


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=9),
    st.lists(st.integers(0, 5), min_size=1, max_size=9),
)
def test_chance_by_all_pairs(x: list[int], y: list[int]) -> None:
    pairs = list(product(x, y))
    slow = sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs)
    assert chance_of_more(x, y) == pytest.approx(slow)
    u = scipy.stats.mannwhitneyu(x, y).statistic
    assert chance_of_more(x, y) == pytest.approx(u / (len(x) * len(y)))


def test_rounding_makes_no_winner() -> None:
    assert chance_of_more([0.3 - 0.1], [0.2]) == 0.5


def test_duels_are_all_pairs_corrected_together() -> None:
    rng = np.random.default_rng(0)
    regrets = {name: rng.random(12) + shift for name, shift in (("a", 0), ("b", 0.1), ("c", 2))}
    found = duels(regrets)
    assert [(each.one, each.other) for each in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    plain = [paired(regrets[each.one], regrets[each.other]).p_value for each in found]
    assert [each.adjusted for each in found] == holm(plain)
    assert [each.regret.p_value for each in found] == plain
    assert [each.verdict for each in found] == ["no evidence", "better", "better"]
    assert found[1].chance == 1  # less regret is better
    backwards = duels(dict(reversed(regrets.items())))
    assert [each.verdict for each in backwards] == ["worse", "worse", "no evidence"]


@pytest.mark.parametrize(
    ("adjusted", "chance", "verdict"),
    [
        (0.049, 0.64, "better"),
        (0.05, 0.9, "no evidence"),
        (0.01, 0.63, "no evidence"),
        (0.01, 0.37, "no evidence"),
        (0.01, 0.36, "worse"),
        (0.2, 0.1, "no evidence"),
    ],
)
def test_the_rule(adjusted: float, chance: float, verdict: str) -> None:
    assert Duel("a", "b", paired([1.0], [2.0]), adjusted, chance).verdict == verdict


# -- ranks


@settings(max_examples=50, deadline=None)
@given(st.integers(3, 6), st.integers(2, 9), st.integers(0, 999))
def test_friedman_equals_scipy(k: int, blocks: int, seed: int) -> None:
    regrets = np.random.default_rng(seed).integers(0, 4, (blocks, k)).astype(float)
    if (regrets == regrets[:, :1]).all():
        return  # scipy divides by zero
    found = ranked("abcdef"[:k], regrets)
    expected = scipy.stats.friedmanchisquare(*regrets.T).statistic
    assert found.statistic == pytest.approx(expected, abs=1e-9)
    if np.isfinite(found.f):
        f = (blocks - 1) * expected / (blocks * (k - 1) - expected)
        assert found.f == pytest.approx(f, abs=1e-9)
        assert found.p_value == pytest.approx(scipy.stats.f.sf(f, k - 1, (k - 1) * (blocks - 1)))


def test_ranks_by_hand() -> None:
    found = ranked(["a", "b", "c"], np.array([[1.0, 2, 3], [1, 3, 3], [2, 1, 3], [0, 1, 2]]))
    assert found.average == (1.25, 1.875, 2.875)  # b: 2, 2.5, 1, 2; c: 3, 2.5, 3, 3
    assert found.ordered == [("a", 1.25), ("b", 1.875), ("c", 2.875)]
    assert found.blocks == 4


def test_blocks_that_agree_wholly_leave_no_doubt() -> None:
    found = ranked(["a", "b"], np.array([[1.0, 2], [1, 2], [1, 2]]))
    assert (found.f, found.p_value) == (np.inf, 0)
    level = ranked(["a", "b"], np.ones((3, 2)))
    assert (level.statistic, level.p_value) == (0, 1)


def test_nemenyi_by_the_table() -> None:
    for k, q in enumerate(NEMENYI, 2):
        expected = q * np.sqrt(k * (k + 1) / (6 * 10))
        assert critical_difference(k, 10) == pytest.approx(expected, rel=6e-4)


def test_groups_are_the_largest_that_are_not_told_apart() -> None:
    regrets = np.tile([0.0, 1, 2, 3, 4], (30, 1))
    found = ranked("abcde", regrets)
    assert 1 < found.difference < 2  # 2.728 * sqrt(30 / 180) = 1.11
    assert found.alike == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert ranked("abcde", regrets[:2]).alike == [(0, 4)]
    clear = ranked("ab", np.tile([0.0, 1], (30, 1)))
    assert clear.alike == []


@pytest.mark.parametrize("shape", [(1, 3), (3, 1)])
def test_too_little_to_rank(shape: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="cannot be ranked"):
        ranked(["x"] * shape[1], np.ones(shape))
