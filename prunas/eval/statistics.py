"""Is one network better than another, or was it luck? Paired comparison over repeated runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from prunas.errors import InputError

LEVEL: Final = 0.05  # below it a two-sided p-value counts as a difference
_EXACT: Final = 50  # pairs up to which the signed-rank distribution is counted out
_DECIMALS: Final = 12  # differences closer than that are ties: they only differ by rounding


@dataclass(frozen=True)
class Paired:
    """Comparison of paired values a_i and b_i, in their unit.

    Attributes:
        mean: mean difference a - b.
        low: lower end of its 95 % confidence interval; None for a single pair, which has none.
        high: upper end.
        p_value: two-sided Wilcoxon signed-rank test.
        n: number of pairs.
    """

    mean: float
    low: float | None
    high: float | None
    p_value: float
    n: int

    @property
    def smallest_p(self) -> float:
        """The smallest p-value that n pairs can give at all: 2 / 2^n."""
        return 2.0 ** (1 - self.n)

    @property
    def sentence(self) -> str:
        """The comparison in a sentence, with a warning where n pairs cannot decide anything."""
        return self._told("{:+.4f}".format, "")

    @property
    def sentence_in_points(self) -> str:
        """The same for shares (accuracies), in percentage points."""
        return self._told(lambda share: f"{100 * share:+.2f}", " points")

    def _told(self, number: Callable[[float], str], unit: str) -> str:
        mean = number(self.mean) + unit
        if self.low is None or self.high is None:
            return f"difference {mean} in one pair; repeat it, one pair has no spread"
        found = (
            f"mean difference {mean} (95 % interval {number(self.low)} to {number(self.high)},"
            f" Wilcoxon p = {self.p_value:.2g}, {self.n} pairs)"
        )
        if self.smallest_p >= LEVEL:
            return (
                f"{found}; {self.n} pairs cannot be significant whatever they show, the smallest"
                f" p is {self.smallest_p:.2g}: at least 6 are needed, better 10"
            )
        return found


@dataclass(frozen=True)
class Spread:
    """How values of repeated runs lie: mean, sample standard deviation, ends and number."""

    mean: float
    deviation: float
    lowest: float
    highest: float
    n: int


def paired(a: ArrayLike, b: ArrayLike) -> Paired:
    """Compare a_i with b_i, measured under the same conditions i (seed, data split).

    The interval is mean +- t_{0.975, n-1} s / sqrt(n) of the differences; the p-value that of
    Wilcoxon's signed-rank test, zeros left out and ties ranked by their average. Up to 50
    differences it is exact, with ties too, so that no p-value is smaller than n pairs allow (the
    normal approximation gives 0.043 for five equal differences, where 0.0625 is the smallest).

    Raises:
        InputError: no pairs, unequal numbers, NaN or infinite values.
    """
    first, second = _values(a), _values(b)
    if len(first) != len(second):
        raise InputError(f"{len(first)} values cannot be paired with {len(second)}")
    differences = first - second
    n, mean = len(differences), float(differences.mean())
    p_value = _signed_rank(differences)
    if n == 1:
        return Paired(mean, None, None, p_value, n)
    reach = scipy.stats.t.ppf(1 - LEVEL / 2, n - 1) * differences.std(ddof=1) / np.sqrt(n)
    return Paired(mean, float(mean - reach), float(mean + reach), p_value, n)


def spread(values: ArrayLike) -> Spread:
    """Mean, sample standard deviation (0 for one value), smallest and largest of `values`.

    Raises:
        InputError: no values, or NaN or infinite ones.
    """
    x = _values(values)
    deviation = float(x.std(ddof=1)) if len(x) > 1 else 0.0
    return Spread(float(x.mean()), deviation, float(x.min()), float(x.max()), len(x))


def _values(values: ArrayLike) -> NDArray[np.float64]:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
        raise InputError(f"statistics need one or more finite numbers in a row, not {values!r}")
    return x


def _signed_rank(differences: NDArray[np.float64]) -> float:
    """Two-sided p-value of the signed-rank test."""
    rounded = np.round(differences, _DECIMALS)
    rounded = rounded[rounded != 0]
    if len(rounded) > _EXACT:
        return float(scipy.stats.wilcoxon(rounded, method="asymptotic").pvalue)
    ranks = np.rint(2 * scipy.stats.rankdata(np.abs(rounded))).astype(int)  # ties have halves
    positive = int(ranks[rounded > 0].sum())
    chances = _sum_of_ranks(ranks)
    tail = min(chances[: positive + 1].sum(), chances[positive:].sum())
    return float(min(1.0, 2 * tail))


def _sum_of_ranks(ranks: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float64]:
    """Chance of every sum of a random half of `ranks`: each is in with chance 1/2."""
    chances = np.zeros(int(np.sum(ranks)) + 1)
    chances[0] = 1
    for rank in ranks:
        without = chances.copy()
        chances[rank:] += without[: len(without) - rank]
        chances /= 2
    return chances
