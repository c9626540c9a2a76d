"""The ridge regression of targets on features that DI is the explained part of."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.linalg

from prunas.errors import InputError
from prunas.eval.criteria.discriminant.groups import Array
from prunas.eval.criteria.discriminant.scatter import Scatter

RIDGE_SHARE: Final = 1e-2  # of the mean feature variance; 1e-3 to 1e-1 rank alike


@dataclass(frozen=True, eq=False)
class RidgeFit:
    """The ridge regression of the targets on the features: `inverse` is B, `weights` is W."""

    scatter: Scatter
    ridge: float
    inverse: Array
    weights: Array


def relative_ridge(scatter: Scatter, share: float = RIDGE_SHARE) -> float:
    """`share` * trace(S) / d: a ridge in units of the mean scatter of a feature.

    1 where no feature varies: then DI is 0 whatever the ridge.
    """
    return share * float(np.trace(scatter.total)) / len(scatter.total) or 1.0


def fit(scatter: Scatter, *, ridge: float | None = None) -> RidgeFit:
    """Solve the ridge regression, from one Cholesky factorisation.

    Args:
        ridge: rho > 0; `relative_ridge(scatter)` if not given.

    Raises:
        InputError: the ridge is not positive, or lost beside entries of S in float64.
    """
    rho = relative_ridge(scatter) if ridge is None else ridge
    B = inverse(scatter.total, rho)
    return RidgeFit(scatter, rho, B, B @ scatter.cross)


def inverse(symmetric: Array, ridge: float) -> Array:
    """(symmetric + ridge I)^-1 by Cholesky."""
    if not ridge > 0:
        raise InputError(
            f"the ridge must be positive, not {ridge}; 1e-2 of the mean feature scatter is usual"
        )
    shifted = symmetric + ridge * np.eye(len(symmetric))
    try:
        factor, _ = scipy.linalg.cho_factor(shifted, lower=True)
    except np.linalg.LinAlgError:
        raise InputError(
            f"a ridge of {ridge:.3g} is lost beside entries of {np.abs(symmetric).max():.3g} in"
            " float64; give a larger one"
        ) from None
    # a third of the work of solving for the identity; fills the lower triangle only
    lower = np.tril(scipy.linalg.lapack.dpotri(factor, lower=True)[0])
    return np.asarray(lower + np.tril(lower, -1).T)
