"""Which of several methods is better, and how sure is that? Regret, bands, pairs and ranks.

Values are arrays whose axis of seeds comes first; of regret less is better.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, Literal

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from prunas.errors import InputError
from prunas.eval.statistics import LEVEL, Paired, paired

RESAMPLES: Final = 2000
CLEAR: Final = 0.64  # the chance of being better above which a difference is of use (Cohen's 0.5)
_ROUNDING: Final = 1e-12

Array = NDArray[np.float64]
Verdict = Literal["better", "worse", "no evidence"]


# -- curves ----------------------------------------------------------------------------------------


def best_so_far(numbers: Sequence[int], scores: Sequence[float], length: int) -> Array:
    """(length,) the best score after 1, 2, ... evaluations, from the improvements alone.

    Args:
        numbers: of the evaluations that improved, counted from 1, ascending.
        scores: what they scored.
        length: of the curve. Before the first improvement it is 0: nothing is right.
    """
    edges = np.minimum(np.array([*numbers, length + 1]) - 1, length)
    return np.repeat(np.array([0.0, *scores]), np.diff(edges, prepend=0))


def evaluations_to_reach(regrets: Array, target: float) -> Array:
    """(seeds,) after how many evaluations regret is `target` or less; infinite if it never is.

    Args:
        regrets: (seeds, evaluations).
        target: a regret.
    """
    reached = regrets <= target + _ROUNDING
    return np.where(reached.any(axis=1), reached.argmax(axis=1) + 1.0, np.inf)


# -- bands -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Band:
    """A statistic over seeds at every point of a curve, with its 95 % bootstrap interval."""

    value: Array
    low: Array
    high: Array


def resamples(seeds: int, rng: np.random.Generator, count: int = RESAMPLES) -> NDArray[np.int64]:
    """(count, seeds) how often each seed is drawn, with replacement.

    The same draws for all methods keep them paired.
    """
    return np.asarray(rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=count))


def mean_band(values: Array, draws: NDArray[np.int64]) -> Band:
    """The mean of (seeds, points) values; percentiles over resampled seeds (Efron 1979)."""
    return _banded(values.mean(axis=0), draws @ values / len(values))


def iqm_band(values: Array, draws: NDArray[np.int64]) -> Band:
    """The mean of the middle half (Agarwal et al. 2021): a quarter is cut off at either end."""
    order = np.argsort(values, axis=0, kind="stable")
    columns = [(values[row, point], row) for point, row in enumerate(order.T)]
    plain = np.ones((1, len(values)), dtype=np.int64)
    value = [_middle_mean(ordered, plain[:, row])[0] for ordered, row in columns]
    resampled = [_middle_mean(ordered, draws[:, row]) for ordered, row in columns]
    return _banded(np.array(value), np.stack(resampled, axis=1))


def _middle_mean(ordered: Array, counts: NDArray[np.int64]) -> Array:
    """(draws,) `scipy.stats.trim_mean(.., 0.25)` of values that occur `counts` times."""
    n = counts.shape[1]
    cut = n // 4
    ends = np.clip(np.cumsum(counts, axis=1), cut, n - cut)
    return np.asarray(np.diff(ends, axis=1, prepend=cut) @ ordered / (n - 2 * cut))


def _banded(value: Array, resampled: Array) -> Band:
    low, high = np.quantile(resampled, [LEVEL / 2, 1 - LEVEL / 2], axis=0)
    return Band(value, low, high)


# -- pairs -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Duel:
    """Two methods on the same seeds.

    Attributes:
        one: the first.
        other: the second.
        regret: of the first less that of the second, seed by seed.
        adjusted: the p-value, corrected for the number of pairs.
        chance: that a run of the first is better than one of the second, a tie being half.
    """

    one: str
    other: str
    regret: Paired
    adjusted: float
    chance: float

    @property
    def verdict(self) -> Verdict:
        """Of the first; the rule was fixed before any result was seen."""
        if self.adjusted < LEVEL and self.chance >= CLEAR:
            return "better"
        if self.adjusted < LEVEL and 1 - self.chance >= CLEAR:
            return "worse"
        return "no evidence"


def duels(regrets: Mapping[str, Array]) -> list[Duel]:
    """Every pair of methods, their p-values corrected together.

    Args:
        regrets: (seeds,) by method, of the same seeds in the same order.
    """
    pairs = list(combinations(regrets, 2))
    compared = [paired(regrets[one], regrets[other]) for one, other in pairs]
    adjusted = holm([each.p_value for each in compared])
    return [
        Duel(one, other, each, p, chance_of_more(-regrets[one], -regrets[other]))
        for (one, other), each, p in zip(pairs, compared, adjusted, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of which any below 0.05 makes one false claim in 20 at most (Holm 1979).

    The i-th smallest of m is multiplied by m - i + 1, and is no less than those before it.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    result = np.empty(len(p))
    result[order] = np.minimum(stepped, 1.0)
    return [float(each) for each in result]


def chance_of_more(x: ArrayLike, y: ArrayLike) -> float:
    """A = P(X > Y) + P(X = Y) / 2 over all pairs, Mann-Whitney's U / (n m) (Vargha, Delaney 2000).

    Values that differ by rounding alone are equal.
    """
    a, b = np.round(np.asarray(x), 12), np.sort(np.round(np.asarray(y), 12))
    below, not_above = (np.searchsorted(b, a, side=side) for side in ("left", "right"))
    return float((below + not_above).sum() / (2 * len(a) * len(b)))


# -- ranks over many problems ----------------------------------------------------------------------


@dataclass(frozen=True)
class Ranks:
    """Methods ordered over blocks, each block a problem (Demsar 2006).

    Attributes:
        names: the methods.
        average: average rank of each, 1 the best.
        blocks: number of problems.
        statistic: Friedman's chi square, corrected for ties.
        f: Iman and Davenport's form of it; infinite where all blocks agree.
        p_value: of that.
        difference: Nemenyi's critical difference of two average ranks, at 0.05.
    """

    names: tuple[str, ...]
    average: tuple[float, ...]
    blocks: int
    statistic: float
    f: float
    p_value: float
    difference: float

    @property
    def ordered(self) -> list[tuple[str, float]]:
        """Methods and their average ranks, the best first."""
        return sorted(zip(self.names, self.average, strict=True), key=lambda row: row[1])

    @property
    def alike(self) -> list[tuple[int, int]]:
        """First and last place in `ordered` of each largest group that is within the difference."""
        ranks = [rank for _, rank in self.ordered]
        reach = [
            max(last for last in range(len(ranks)) if ranks[last] - rank <= self.difference)
            for rank in ranks
        ]
        groups = list(enumerate(reach))
        return [
            (first, last)
            for first, last in groups
            if last > first and (first == 0 or reach[first - 1] < last)
        ]


def ranked(names: Sequence[str], regrets: Array) -> Ranks:
    """Friedman's test with Nemenyi's critical difference.

    Args:
        names: k methods, two or more.
        regrets: (blocks, k), two blocks or more.

    Raises:
        InputError: fewer methods or blocks.
    """
    blocks, k = regrets.shape
    if k < 2 or blocks < 2:
        raise InputError(f"{k} methods on {blocks} problems cannot be ranked; 2 of each are needed")
    ranks = scipy.stats.rankdata(np.round(regrets, 12), axis=1)
    average = ranks.mean(axis=0)
    # sum of squares between methods / within blocks: equals the textbook form without ties
    within = float(((ranks - (k + 1) / 2) ** 2).sum()) / (blocks * (k - 1))
    between = blocks * float(((average - (k + 1) / 2) ** 2).sum())
    statistic = between / within if within else 0.0
    room = blocks * (k - 1) - statistic
    f = (blocks - 1) * statistic / room if room > _ROUNDING else np.inf
    p_value = float(scipy.stats.f.sf(f, k - 1, (k - 1) * (blocks - 1)))
    return Ranks(
        tuple(names),
        tuple(map(float, average)),
        blocks,
        statistic,
        float(f),
        p_value,
        critical_difference(k, blocks),
    )


def critical_difference(k: int, blocks: int) -> float:
    """Nemenyi's q sqrt(k (k + 1) / (6 N)), q the studentised range of k at 0.05 over sqrt(2)."""
    q = scipy.stats.studentized_range.ppf(1 - LEVEL, k, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(k * (k + 1) / (6 * blocks)))
