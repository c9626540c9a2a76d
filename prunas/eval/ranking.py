"""Does a score rank networks as training them does? Agreement of two orders, with intervals."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from prunas.errors import InputError

RESAMPLES: Final = 2000
_LEVEL: Final = 0.05

Values = NDArray[np.float64]
Measure = Callable[[Values, Values], float]


@dataclass(frozen=True)
class Estimate:
    """A number, with the ends of its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Agreement:
    """How well predicted scores order networks.

    Attributes:
        tau: Kendall's tau-b.
        spearman: Spearman's rho.
        precision: share of the truly best `top` networks among the predicted best `top`.
        regret: the best true value less that of the network predicted best, in their unit.
        top: how many count as the best.
        n: number of networks.
    """

    tau: Estimate
    spearman: Estimate
    precision: Estimate
    regret: Estimate
    top: int
    n: int


def agreement(
    predicted: ArrayLike,
    true: ArrayLike,
    *,
    top: int,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Agreement:
    """Compare predicted scores of networks with what training them gives.

    Intervals are percentiles over resampled networks (Efron 1979). They describe these
    networks trained once: the noise of a training is in the true values, and lowers agreement.

    Args:
        predicted: (n,) scores; only their order counts.
        true: (n,) what they should predict, the higher the better.
        top: how many of the best to look for.
        rng: draws the resamples.
        resamples: how many.

    Raises:
        InputError: fewer than three networks, unequal numbers, values that are not finite, or a
            `top` outside 1..n.
    """
    x, y = _pair(predicted, true)
    if not 1 <= top <= len(x):
        raise InputError(f"the best {top} of {len(x)} networks cannot be compared; ask for fewer")
    draws = rng.integers(len(x), size=(resamples, len(x)))

    def estimate(measure: Measure) -> Estimate:
        return _estimated(measure(x, y), [measure(x[d], y[d]) for d in draws])

    return Agreement(
        estimate(kendall),
        estimate(spearman),
        estimate(lambda p, t: precision_at(p, t, top)),
        estimate(regret),
        top,
        len(x),
    )


def tau_difference(
    one: ArrayLike, two: ArrayLike, true: ArrayLike, *, rng: np.random.Generator
) -> Estimate:
    """Kendall's tau of one prediction less that of another, of the same networks."""
    x, y = _pair(one, true)
    z, _ = _pair(two, true)
    draws = rng.integers(len(x), size=(RESAMPLES, len(x)))
    values = [kendall(x[d], y[d]) - kendall(z[d], y[d]) for d in draws]
    return _estimated(kendall(x, y) - kendall(z, y), values)


def kendall(x: Values, y: Values) -> float:
    """tau-b = (concordant - discordant) / sqrt((n0 - ties in x)(n0 - ties in y)).

    0 where one of them is constant: it orders nothing.
    """
    a, b = np.sign(x[:, None] - x), np.sign(y[:, None] - y)
    scale = np.sqrt(float((a * a).sum()) * float((b * b).sum()))
    return float((a * b).sum()) / scale if scale else 0.0


def spearman(x: Values, y: Values) -> float:
    """Correlation of average ranks; 0 where one of them is constant."""
    a, b = (scipy.stats.rankdata(v) - (len(v) + 1) / 2 for v in (x, y))
    scale = np.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale else 0.0


def precision_at(predicted: Values, true: Values, top: int) -> float:
    """Expected overlap of both best sets / top, equal values at the edge sharing its places."""
    return float(_chances(predicted, top) @ _chances(true, top)) / top


def _chances(values: Values, top: int) -> Values:
    """Chance of each to be among the best `top` when ties are broken at random."""
    edge = np.sort(values)[-top]
    above, level = values > edge, values == edge
    return np.asarray(above + level * ((top - above.sum()) / level.sum()))


def regret(predicted: Values, true: Values) -> float:
    """The best true value less the mean true value of those predicted best."""
    return float(true.max() - true[predicted == predicted.max()].mean())


def _estimated(value: float, resampled: list[float]) -> Estimate:
    low, high = np.quantile(resampled, [_LEVEL / 2, 1 - _LEVEL / 2])
    return Estimate(value, float(low), float(high))


def _pair(predicted: ArrayLike, true: ArrayLike) -> tuple[Values, Values]:
    x, y = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or len(x) < 3:
        raise InputError(
            f"{x.size} scores and {y.size} results do not make an order to compare; give as many"
            " of each, three or more"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError("a score or a result is NaN or infinite; leave that network out")
    return x, y
