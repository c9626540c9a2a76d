"""What DI needs of the data: centered second moments, added up batch by batch."""

import warnings
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike

from prunas.errors import InputError
from prunas.eval.criteria.discriminant.groups import Array

_ROUNDED: Final = 1e-3
"""How far probabilities may be from 1 in sum: they may come in half precision."""


@dataclass(frozen=True, eq=False)
class Scatter:
    """Centered second moments of features and targets: all that DI needs of the data.

    Attributes:
        count: number of samples N.
        feature_mean: (d,) mean of every feature.
        target_mean: (q,) mean of every target column.
        total: (d, d) S = Xc^T Xc.
        cross: (d, q) Cx = Xc^T Yc.
        target_squares: (q,) ||Yc_j||^2 of every target column.
        probabilities: every row of targets is a label or probabilities: none is negative, and they
            sum to 1.
    """

    count: int
    feature_mean: Array
    target_mean: Array
    total: Array
    cross: Array
    target_squares: Array
    probabilities: bool = False

    @classmethod
    def of(cls, features: ArrayLike, targets: ArrayLike) -> Self:
        """The scatter of features (N, d) and targets (N, q), in float64.

        Raises:
            InputError: no sample, shapes that do not fit, NaN or infinite values.
        """
        X, Y = checked(features, targets)
        shares = bool((Y >= 0).all() and np.allclose(Y.sum(1), 1, rtol=0, atol=_ROUNDED))
        feature_mean, target_mean = X.mean(0), Y.mean(0)
        X, Y = X - feature_mean, Y - target_mean
        squares = (Y * Y).sum(0)
        return cls(len(X), feature_mean, target_mean, X.T @ X, X.T @ Y, squares, shares)

    @property
    def target_total(self) -> float:
        """TSS = ||Yc||^2, the largest value that DI can take."""
        return float(self.target_squares.sum())

    def add(self, features: ArrayLike, targets: ArrayLike) -> Self:
        """The scatter of these samples and the ones so far; errors as in `of`."""
        return self.merge(type(self).of(features, targets))

    def merge(self, other: "Scatter") -> Self:
        """The scatter of the samples of both.

        Centered parts are joined as S = S_1 + S_2 + n_1 n_2 / (n_1 + n_2) delta delta^T, delta the
        difference of the means (Chan, Golub & LeVeque 1983), which stays exact where X^T X minus
        N mu mu^T would cancel.

        Raises:
            InputError: another number of features or target columns.
        """
        if self.cross.shape != other.cross.shape:
            raise InputError(
                f"scatters of (features, targets) {self.cross.shape} and {other.cross.shape}"
                " cannot be merged; they describe different layers or label sets"
            )
        count = self.count + other.count
        weight = self.count * other.count / count
        dx, dy = other.feature_mean - self.feature_mean, other.target_mean - self.target_mean
        return type(self)(
            count,
            self.feature_mean + dx * (other.count / count),
            self.target_mean + dy * (other.count / count),
            self.total + other.total + weight * np.outer(dx, dx),
            self.cross + other.cross + weight * np.outer(dx, dy),
            self.target_squares + other.target_squares + weight * dy * dy,
            self.probabilities and other.probabilities,
        )

    def balanced(self) -> Self:
        """The scatter for one-hot targets divided by the square root of their class's count.

        Then Cx Cx^T is the classical between-class scatter sum_c N_c (mu_c - mu)(mu_c - mu)^T,
        every class weighs the same and TSS = classes - 1. Classes that never occur are dropped.
        For probabilities the count of a class is the sum of its column. Real targets have no
        classes to count, and their sums are those of their offset: they stay as they are.
        """
        if not self.probabilities:
            return self
        counts = self.count * self.target_mean
        seen = counts > 0
        scale = 1 / np.sqrt(counts[seen])
        return replace(
            self,
            target_mean=self.target_mean[seen] * scale,
            cross=self.cross[:, seen] * scale,
            target_squares=self.target_squares[seen] * scale**2,
            probabilities=False,
        )


def is_scarce(scatter: Scatter) -> bool:
    """Fewer than 5 samples a feature: DI nears TSS and drops near 0 whatever the features."""
    return scatter.count < 5 * len(scatter.total)


def warn_if_few(scatter: Scatter) -> None:
    if is_scarce(scatter):
        warnings.warn(
            f"{scatter.count} samples are few for {len(scatter.total)} features: below 5 a feature"
            " discriminant information saturates; give more images",
            stacklevel=3,
        )


def checked(features: ArrayLike, targets: ArrayLike) -> tuple[Array, Array]:
    X, Y = np.asarray(features, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if X.ndim != 2 or Y.ndim != 2 or len(X) != len(Y) or not len(X):
        raise InputError(
            f"features {X.shape} and targets {Y.shape} must be (samples, features) and"
            " (samples, columns) of the same one or more samples"
        )
    if not (np.isfinite(X).all() and np.isfinite(Y).all()):
        raise InputError("features or targets hold NaN or infinite values; check the network")
    return X, Y


def centered(features: ArrayLike, targets: ArrayLike) -> tuple[Array, Array]:
    X, Y = checked(features, targets)
    return X - X.mean(0), Y - Y.mean(0)
