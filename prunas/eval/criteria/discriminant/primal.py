"""DI and what groups are worth, from d x d matrices: for fewer features than samples."""

import numpy as np

from prunas.eval.criteria.discriminant.groups import (
    Array,
    Groups,
    blocks_of,
    members_of,
    quadratic,
    rows_of,
)
from prunas.eval.criteria.discriminant.ridge import RidgeFit, fit, relative_ridge
from prunas.eval.criteria.discriminant.scatter import Scatter, warn_if_few


def discriminant_information(scatter: Scatter, *, ridge: float | None = None) -> float:
    """DI = <Cx, W>, in units of squared targets; divide by `scatter.target_total` for a share.

    Arguments and errors as in `fit`. Warns when there are fewer than 5 samples a feature.
    """
    warn_if_few(scatter)
    return float((scatter.cross * fit(scatter, ridge=ridge).weights).sum())


def leave_out(
    scatter: Scatter, groups: Groups | None = None, *, ridge: float | None = None
) -> Array:
    """What DI loses when one group alone is left out: trace(W_G^T B_GG^-1 W_G), shape (groups,).

    Of two equal features either one is worth 0 as long as the other stays, so do not cut by these
    values at one go; `eliminate` looks again after every removal.

    Args:
        groups: feature indices of each group; every feature on its own if not given.
        ridge: as in `fit`, which also says what is refused.
    """
    warn_if_few(scatter)
    return drops_of(fit(scatter, ridge=ridge), groups)


def drops_of(solved: RidgeFit, groups: Groups | None = None) -> Array:
    """`leave_out` of features that were fitted already, without a warning."""
    members = members_of(groups, len(solved.inverse))
    return quadratic(blocks_of(solved.inverse, members), rows_of(solved.weights, members))


def stand_alone(
    scatter: Scatter, groups: Groups | None = None, *, ridge: float | None = None
) -> Array:
    """DI of each group with no other feature beside it, shape (groups,); blind to redundancy.

    Arguments as in `leave_out`.
    """
    rho = relative_ridge(scatter) if ridge is None else ridge
    members = members_of(groups, len(scatter.total))
    A = scatter.total + rho * np.eye(len(scatter.total))
    return quadratic(blocks_of(A, members), rows_of(scatter.cross, members))


def differential(
    scatter: Scatter, groups: Groups | None = None, *, ridge: float | None = None
) -> Array:
    """Derivative of DI by a factor on a group's features, 2 rho ||W_G||^2, shape (groups,).

    At most twice `leave_out`. Depends on the scale of each feature, `leave_out` hardly does.
    Arguments as there.
    """
    solved = fit(scatter, ridge=ridge)
    rows = rows_of(solved.weights, members_of(groups, len(scatter.total)))
    return np.asarray(2 * solved.ridge * (rows * rows).sum((1, 2)))
