"""DI and what groups are worth, from N x N matrices: for more features than samples."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prunas.errors import InputError
from prunas.eval.criteria.discriminant.groups import Array, Groups, groups_of
from prunas.eval.criteria.discriminant.ridge import inverse
from prunas.eval.criteria.discriminant.scatter import centered, checked


def dual_discriminant_information(
    features: ArrayLike, targets: ArrayLike, *, ridge: float
) -> float:
    """DI from N x N matrices, for more features than samples: trace(K M Ky).

    K = Xc Xc^T, M = (K + rho I)^-1, Ky = Yc Yc^T. Loses digits when rho is far below the
    eigenvalues of K. Targets are taken as they are; divide one-hot columns by the square root of
    their sum for what `Scatter.balanced` does.

    Raises:
        InputError: as in `Scatter.of` and `fit`.
    """
    X, Y = centered(features, targets)
    return _from_gram(X @ X.T, Y, ridge)


def kernel_discriminant_information(gram: ArrayLike, targets: ArrayLike, *, ridge: float) -> float:
    """DI of the features that a kernel stands for: trace((Kc + rho I)^-1 Kc Ky), Kc = H K H.

    Equals `dual_discriminant_information` for the linear kernel K = X X^T. As in the authors' code
    for kernel DI (KDI); their ridge is 1e-3, with a Gaussian kernel on standardised features.

    Args:
        gram: (N, N) K, symmetric and positive semi-definite.
        targets: (N, q).
        ridge: rho > 0.

    Raises:
        InputError: shapes that do not fit, NaN or infinite values, a ridge that is not positive.
    """
    K, Y = checked(gram, targets)
    if K.shape[0] != K.shape[1]:
        raise InputError(f"a kernel matrix of shape {K.shape} is not square; give (N, N)")
    return _from_gram(doubly_centered(K), Y - Y.mean(0), ridge)


def doubly_centered(gram: ArrayLike) -> Array:
    """H K H with H = I - 11^T / N: the Gram matrix of centered features."""
    K = np.asarray(gram, dtype=np.float64)
    return np.asarray(K - K.mean(0) - K.mean(1)[:, None] + K.mean())


def _from_gram(K: Array, Y: Array, ridge: float) -> float:
    return float((Y * (K @ (inverse(K, ridge) @ Y))).sum())


def dual_leave_out(
    features: ArrayLike, targets: ArrayLike, groups: Groups | None = None, *, ridge: float
) -> Array:
    """`leave_out` from N x N matrices, or smaller: W = Xc^T M Yc, and for the features Xg

        rho trace(W_G^T (I - Xg^T M Xg)^-1 W_G)             of at most N features,
        rho trace(Yc^T M (I - K_G M)^-1 K_G M Yc)           of more, K_G = Xg Xg^T.

    Nothing of size d x d is made, so that groups may be whole maps. Arguments and errors as in
    `dual_discriminant_information` and `leave_out`.
    """
    solved = _Dual.of(features, targets, ridge)
    return np.array([solved.drop(group) for group in groups_of(groups, solved.X.shape[1])])


def dual_differential(
    features: ArrayLike, targets: ArrayLike, groups: Groups | None = None, *, ridge: float
) -> Array:
    """`differential` from N x N matrices: 2 rho ||W_G||^2, W = Xc^T M Yc.

    Divided by rho, this is the score in the code of Hou & Kung (flattened maps, rho = 0.1).
    Arguments and errors as in `dual_leave_out`.
    """
    solved = _Dual.of(features, targets, ridge)
    weights = ((solved.X[:, group].T @ solved.MY) for group in groups_of(groups, solved.X.shape[1]))
    return np.array([2 * ridge * float((w * w).sum()) for w in weights])


def dual_stand_alone(
    features: ArrayLike, targets: ArrayLike, groups: Groups | None = None, *, ridge: float
) -> Array:
    """`stand_alone` where a group may have more features than there are samples.

    Arguments and errors as in `dual_leave_out`.
    """
    X, Y = centered(features, targets)
    return np.array([_smaller_form(X[:, g], Y, ridge) for g in groups_of(groups, X.shape[1])])


@dataclass(frozen=True, eq=False)
class _Dual:
    """Centered features and targets, M = (Xc Xc^T + rho I)^-1, and M Yc."""

    X: Array
    M: Array
    MY: Array
    ridge: float

    @classmethod
    def of(cls, features: ArrayLike, targets: ArrayLike, ridge: float) -> "_Dual":
        X, Y = centered(features, targets)
        M = inverse(X @ X.T, ridge)
        return cls(X, M, M @ Y, ridge)

    def drop(self, group: NDArray[np.int64]) -> float:
        X = self.X[:, group]
        if len(group) <= len(X):
            W = X.T @ self.MY
            block = np.eye(len(group)) - X.T @ (self.M @ X)
            return self.ridge * float((W * np.linalg.solve(block, W)).sum())
        K = X @ X.T
        inner = np.linalg.solve(np.eye(len(X)) - K @ self.M, K @ self.MY)
        return self.ridge * float((self.MY * inner).sum())


def _smaller_form(X: Array, Y: Array, ridge: float) -> float:
    """DI of centered features from the smaller one of its two matrices."""
    if X.shape[1] <= len(X):
        cross = X.T @ Y
        return float((cross * (inverse(X.T @ X, ridge) @ cross)).sum())
    return _from_gram(X @ X.T, Y, ridge)
