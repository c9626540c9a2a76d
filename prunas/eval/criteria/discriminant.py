"""Discriminant information (DI): how well a ridge regression on features explains the labels.

With features X (N x d), targets Y (N x q), Xc and Yc their centered forms, and a ridge rho > 0,

    S = Xc^T Xc,  Cx = Xc^T Yc,  B = (S + rho I)^-1,  W = B Cx,
    DI = trace(Cx^T B Cx) = <Cx, W>.

0 <= DI <= TSS = ||Yc||^2, DI never falls when a feature is added and falls when rho grows. As
rho -> 0, DI / TSS is the explained share R^2 of the targets. What leaving the features G out would
cost needs no second factorisation:

    DI - DI_without_G = trace(W_G^T B_GG^-1 W_G),   for one feature j: ||W_j||^2 / B_jj.

DI is due to Hou & Kung (arXiv 2005.13796; ICPR 2020). The closed forms for leaving features out
and the sequential elimination are ours, derived by block inversion of S + rho I, and tested
against recomputing DI from nothing. As in the authors' code S is a sum over samples; our ridge is
relative to its trace, so that it need not be retuned for every N (they use 1e-4 or 0.1).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, Self, TypeAlias

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from prunas.errors import InputError

Array: TypeAlias = NDArray[np.float64]
Groups: TypeAlias = Sequence[NDArray[np.int64]]
"""Feature indices that stay or go together, one array a group; a group may be empty."""

RIDGE_SHARE: Final = 1e-2  # of the mean feature variance; 1e-3 to 1e-1 rank alike
_ROUNDED: Final = (
    1e-3  # how far probabilities may be from 1 in sum: they may come in half precision
)
_FOLD: Final = 64  # columns of a downdate that are kept apart, so that most removals are cheap
_REFRESH: Final = 256  # features removed between factorisations: keeps downdates near 1e-12


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
        X, Y = _checked(features, targets)
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


@dataclass(frozen=True, eq=False)
class RidgeFit:
    """The ridge regression of the targets on the features: `inverse` is B, `weights` is W."""

    scatter: Scatter
    ridge: float
    inverse: Array
    weights: Array


@dataclass(frozen=True)
class Elimination:
    """The path of removing one group of features after the other.

    Attributes:
        order: the groups, the first removed (least important) first.
        drops: what removing each of them cost when its turn came, in the same order; >= 0. The
            sum of the last k is what the k groups kept longest are worth together.
    """

    order: tuple[int, ...]
    drops: tuple[float, ...]


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
    inverse = _inverse(scatter.total, rho)
    return RidgeFit(scatter, rho, inverse, inverse @ scatter.cross)


def discriminant_information(scatter: Scatter, *, ridge: float | None = None) -> float:
    """DI = <Cx, W>, in units of squared targets; divide by `scatter.target_total` for a share.

    Arguments and errors as in `fit`. Warns when there are fewer than 5 samples a feature.
    """
    _warn_if_few(scatter)
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
    _warn_if_few(scatter)
    return drops_of(fit(scatter, ridge=ridge), groups)


def drops_of(solved: RidgeFit, groups: Groups | None = None) -> Array:
    """`leave_out` of features that were fitted already, without a warning."""
    members = _members(groups, len(solved.inverse))
    return _quadratic(_blocks(solved.inverse, members), _rows(solved.weights, members))


def stand_alone(
    scatter: Scatter, groups: Groups | None = None, *, ridge: float | None = None
) -> Array:
    """DI of each group with no other feature beside it, shape (groups,); blind to redundancy.

    Arguments as in `leave_out`.
    """
    rho = relative_ridge(scatter) if ridge is None else ridge
    members = _members(groups, len(scatter.total))
    A = scatter.total + rho * np.eye(len(scatter.total))
    return _quadratic(_blocks(A, members), _rows(scatter.cross, members))


def differential(
    scatter: Scatter, groups: Groups | None = None, *, ridge: float | None = None
) -> Array:
    """Derivative of DI by a factor on a group's features, 2 rho ||W_G||^2, shape (groups,).

    At most twice `leave_out`. Depends on the scale of each feature, `leave_out` hardly does.
    Arguments as there.
    """
    solved = fit(scatter, ridge=ridge)
    rows = _rows(solved.weights, _members(groups, len(scatter.total)))
    return np.asarray(2 * solved.ridge * (rows * rows).sum((1, 2)))


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
    X, Y = _centered(features, targets)
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
    K, Y = _checked(gram, targets)
    if K.shape[0] != K.shape[1]:
        raise InputError(f"a kernel matrix of shape {K.shape} is not square; give (N, N)")
    return _from_gram(doubly_centered(K), Y - Y.mean(0), ridge)


def doubly_centered(gram: ArrayLike) -> Array:
    """H K H with H = I - 11^T / N: the Gram matrix of centered features."""
    K = np.asarray(gram, dtype=np.float64)
    return np.asarray(K - K.mean(0) - K.mean(1)[:, None] + K.mean())


def _from_gram(K: Array, Y: Array, ridge: float) -> float:
    return float((Y * (K @ (_inverse(K, ridge) @ Y))).sum())


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
    return np.array([solved.drop(group) for group in _groups(groups, solved.X.shape[1])])


def dual_differential(
    features: ArrayLike, targets: ArrayLike, groups: Groups | None = None, *, ridge: float
) -> Array:
    """`differential` from N x N matrices: 2 rho ||W_G||^2, W = Xc^T M Yc.

    Divided by rho, this is the score in the code of Hou & Kung (flattened maps, rho = 0.1).
    Arguments and errors as in `dual_leave_out`.
    """
    solved = _Dual.of(features, targets, ridge)
    weights = ((solved.X[:, group].T @ solved.MY) for group in _groups(groups, solved.X.shape[1]))
    return np.array([2 * ridge * float((w * w).sum()) for w in weights])


def dual_stand_alone(
    features: ArrayLike, targets: ArrayLike, groups: Groups | None = None, *, ridge: float
) -> Array:
    """`stand_alone` where a group may have more features than there are samples.

    Arguments and errors as in `dual_leave_out`.
    """
    X, Y = _centered(features, targets)
    return np.array([_smaller_form(X[:, g], Y, ridge) for g in _groups(groups, X.shape[1])])


@dataclass(frozen=True, eq=False)
class _Dual:
    """Centered features and targets, M = (Xc Xc^T + rho I)^-1, and M Yc."""

    X: Array
    M: Array
    MY: Array
    ridge: float

    @classmethod
    def of(cls, features: ArrayLike, targets: ArrayLike, ridge: float) -> "_Dual":
        X, Y = _centered(features, targets)
        M = _inverse(X @ X.T, ridge)
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
        return float((cross * (_inverse(X.T @ X, ridge) @ cross)).sum())
    return _from_gram(X @ X.T, Y, ridge)


def eliminate(
    scatter: Scatter, groups: Groups | None = None, *, ridge: float | None = None
) -> Elimination:
    """Remove the groups one after the other, always the one whose loss lowers DI least.

    Redundant features are told apart: of twins one goes at no cost, and then the other counts for
    both. Features in no group stay to the end. Drops are in units of DI; together they are the DI
    of all groups, given the features that stay. O(d^3) altogether. Ties go to the lower index.

    Args:
        groups: feature indices of each group; every feature on its own if not given.
        ridge: as in `fit`, which also says what is refused.
    """
    _warn_if_few(scatter)
    width = len(scatter.total)
    singles = [np.array([feature]) for feature in range(width)]
    path = _path(fit(scatter, ridge=ridge), singles if groups is None else groups)
    return _eliminate([path], [1.0])


def eliminate_jointly(
    fits: Sequence[RidgeFit], groups: Sequence[Groups], *, scales: Sequence[float] | None = None
) -> Elimination:
    """Remove groups that several layers see, always the one with the least sum of scaled drops.

    Group i is `groups[l][i]` in layer l, and leaves all of them together.

    Args:
        fits: the ridge regression of every layer.
        groups: for each layer the feature indices of every group, as many groups in each.
        scales: what a unit of DI counts in each layer; 1 / TSS if not given, so that drops are
            sums over the layers of shares of TSS.

    Raises:
        InputError: layers that disagree on the number of groups, or no layer.
    """
    if len(fits) != len(groups) or len({len(seen) for seen in groups}) != 1:
        raise InputError(
            f"{len(fits)} layers came with groups of {[len(seen) for seen in groups]};"
            " every layer needs its features of every group, none of them if it does not see it"
        )
    paths = [_path(solved, seen) for solved, seen in zip(fits, groups, strict=True)]
    if scales is None:
        scales = [1 / (solved.scatter.target_total or 1.0) for solved in fits]
    return _eliminate(paths, scales)


def is_scarce(scatter: Scatter) -> bool:
    """Fewer than 5 samples a feature: DI nears TSS and drops near 0 whatever the features."""
    return scatter.count < 5 * len(scatter.total)


class _Remaining:
    """B of the ridge regression on the features that are left.

    B of these is `_inverse - U U^T`, U the columns that `_removed` collects; removing G adds
    u = b L^-T, with b the columns G of B and L the Cholesky factor of B_GG. Delaying the products
    makes a removal O(64 d) instead of O(d^2). Both hold the features that were left at the last
    factorisation.
    """

    def __init__(self, solved: RidgeFit) -> None:
        self._total, self._ridge = solved.scatter.total, solved.ridge
        self._cross = _narrowed(solved.scatter.cross)
        self._alive = np.ones(len(self._total), dtype=bool)
        self._start(solved.inverse)

    def _start(self, inverse: Array) -> None:
        self._features = np.flatnonzero(self._alive)
        self._place = np.full(len(self._alive) + 1, len(self._features))
        self._place[self._features] = np.arange(len(self._features))
        self._inverse = inverse
        self._removed = np.zeros((len(inverse), _FOLD))
        self._filled = self._since = 0

    @property
    def is_stale(self) -> bool:
        return self._since >= _REFRESH and bool(self._alive.any())

    def refresh(self) -> None:
        """Factorise what is left anew."""
        left = np.flatnonzero(self._alive)
        self._start(_inverse(self._total[np.ix_(left, left)], self._ridge))

    def weights(self) -> Array:
        """(d, q) W, with rows of 0 for removed features. Only after a refresh."""
        result = np.zeros_like(self._cross)
        result[self._features] = self._inverse @ self._cross[self._features]
        return result

    def take(self, gone: NDArray[np.int64]) -> tuple[Array, Array]:
        """Remove features, and give (d, features) u and L: B falls by u u^T, W by u L^-1 W_G."""
        if self._filled + len(gone) > self._removed.shape[1]:
            self._fold(len(gone))
        places = self._place[gone]
        U = self._removed[:, : self._filled]
        columns = self._inverse[places].T - U @ U[places].T
        if len(gone) == 1:
            factor = np.sqrt(columns[places])
            update = columns / factor
        else:
            factor = np.linalg.cholesky(columns[places])
            update = np.linalg.solve(factor, columns.T).T
        self._removed[:, self._filled : self._filled + len(gone)] = update
        self._filled += len(gone)
        self._since += len(gone)
        self._alive[gone] = False
        change = np.zeros((len(self._alive), len(gone)))
        change[self._features] = update
        return change, factor

    def _fold(self, room: int) -> None:
        U = self._removed[:, : self._filled]
        self._inverse = self._inverse - U @ U.T
        self._removed = np.zeros((len(U), max(_FOLD, room)))
        self._filled = 0

    def diagonal(self) -> Array:
        """(d,) the diagonal of B; 1 for removed features. Only after a refresh."""
        result = np.ones(len(self._alive))
        result[self._features] = self._inverse.diagonal()
        return result

    def blocks(self, members: NDArray[np.int64]) -> Array:
        """B_GG of every group."""
        places = self._place[members]
        U = _rows(self._removed[:, : self._filled], places)
        return np.asarray(_blocks(self._inverse, places) - U @ U.transpose(0, 2, 1))


class _Path(Protocol):
    """Where the elimination stands in one layer."""

    def drops(self) -> Array:
        """(groups,) what DI loses if a group goes now; 0 for those that are gone."""
        ...

    def remove(self, group: int) -> None:
        """Take the features of a group out."""
        ...


def _path(solved: RidgeFit, groups: Groups) -> _Path:
    members = _members(groups, len(solved.scatter.total))
    real = members[members < len(solved.scatter.total)]
    alone = members.shape[1] <= 1 and len(np.unique(real)) == len(real)
    return _SinglesPath(solved, members) if alone else _BlocksPath(solved, members)


class _SinglesPath:
    """Groups of at most one feature each: the diagonal of B and ||W_j||^2 are all that drops need.

    W is `_weights - U S`, U and S the columns and rows that `_updates` and `_shifts` collect; a
    removal takes u s from it, and u_j (2 W_j s - u_j ||s||^2) from ||W_j||^2. So W is read once a
    removal and written once in 64, which is what takes the time where targets are many.
    """

    def __init__(self, solved: RidgeFit, members: NDArray[np.int64]) -> None:
        self._none = len(solved.inverse)
        self._feature = members.min(1, initial=self._none)
        self._gone = np.zeros(self._none, dtype=bool)
        self._left = _Remaining(solved)
        self._start()

    def _start(self) -> None:
        self._diagonal = self._left.diagonal()
        self._weights = self._left.weights()
        self._updates = np.zeros((self._none, _FOLD))
        self._shifts = np.zeros((_FOLD, self._weights.shape[1]))
        self._filled = 0
        self._squares = np.einsum("ij,ij->i", self._weights, self._weights)

    def drops(self) -> Array:
        return np.asarray(np.append(self._squares / self._diagonal, 0.0)[self._feature])

    def remove(self, group: int) -> None:
        if self._left.is_stale:
            self._left.refresh()
            self._start()
        feature = self._feature[group]
        if feature < self._none:
            if self._filled == _FOLD:
                self._fold()
            U, S = self._updates[:, : self._filled], self._shifts[: self._filled]
            change, root = self._left.take(feature[None])
            u = change[:, 0]
            s = (self._weights[feature] - U[feature] @ S) / root[0, 0]
            along = self._weights @ s - U @ (S @ s)
            self._squares = np.maximum(self._squares - u * (2 * along - u * (s @ s)), 0)
            self._gone[feature] = True
            self._squares[self._gone] = 0
            self._updates[:, self._filled], self._shifts[self._filled] = u, s
            self._filled += 1
            self._diagonal -= u**2
            self._diagonal[feature] = 1.0

    def _fold(self) -> None:
        """Write W, and take its squares anew, so that rounding does not add up in them."""
        self._weights -= self._updates @ self._shifts
        self._weights[self._gone] = 0
        self._squares = np.einsum("ij,ij->i", self._weights, self._weights)
        self._filled = 0


class _BlocksPath:
    """Groups of several features: the diagonal blocks B_GG are kept up to date."""

    def __init__(self, solved: RidgeFit, members: NDArray[np.int64]) -> None:
        self._left = _Remaining(solved)
        self._members = members
        self._groups_with = _groups_with(members, len(solved.inverse))
        self._alive = np.ones(len(solved.inverse) + 1, dtype=bool)
        self._start()

    def _start(self) -> None:
        self._diagonal = self._left.blocks(self._members)
        self._weights = self._left.weights()

    def drops(self) -> Array:
        return _quadratic(self._diagonal, _rows(self._weights, self._members))

    def remove(self, group: int) -> None:
        if self._left.is_stale:
            self._left.refresh()
            self._start()
        gone = self._members[group]
        gone = gone[gone < len(self._alive) - 1]
        if len(gone):
            update, factor = self._left.take(gone)
            self._weights -= update @ np.linalg.solve(factor, self._weights[gone])
            self._weights[gone] = 0
            change = _rows(update, self._members)
            self._diagonal = self._diagonal - change @ change.transpose(0, 2, 1)
            self._alive[gone] = False
            self._forget(gone)

    def _forget(self, gone: NDArray[np.int64]) -> None:
        """Groups lose the features that are gone, and their blocks these rows and columns."""
        touched = np.unique(np.concatenate([self._groups_with[feature] for feature in gone]))
        members = self._members[touched]
        members[~self._alive[members]] = len(self._alive) - 1
        self._members[touched] = members
        self._diagonal[touched] = self._left.blocks(members)


def _groups_with(members: NDArray[np.int64], width: int) -> list[NDArray[np.int64]]:
    """For every feature the groups that it belongs to."""
    group, place = np.nonzero(members < width)
    features = members[group, place]
    order = np.argsort(features, kind="stable")
    return np.split(group[order], np.cumsum(np.bincount(features, minlength=width))[:-1])


def _narrowed(cross: Array) -> Array:
    """At most d columns with the same Cx Cx^T: all that DI needs, and less work if q > d."""
    d, q = cross.shape
    return cross if q <= d else np.asarray(np.linalg.qr(cross.T)[1].T)


def _eliminate(paths: Sequence[_Path], scales: Sequence[float]) -> Elimination:
    left = np.ones(len(paths[0].drops()), dtype=bool)
    order, drops = [], []
    while left.any():
        cost = sum(scale * path.drops() for path, scale in zip(paths, scales, strict=True))
        group = int(np.where(left, cost, np.inf).argmin())
        order.append(group)
        drops.append(float(np.asarray(cost)[group]))
        left[group] = False
        for path in paths:
            path.remove(group)
    return Elimination(tuple(order), tuple(drops))


def _inverse(symmetric: Array, ridge: float) -> Array:
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


def _members(groups: Groups | None, width: int) -> NDArray[np.int64]:
    """(groups, largest group) feature indices; `width` fills up the smaller groups."""
    if groups is None:
        return np.arange(width)[:, None]
    members = np.full((len(groups), max(map(len, groups), default=0)), width, dtype=np.int64)
    for row, group in zip(members, groups, strict=True):
        row[: len(group)] = group
    real = np.concatenate([np.asarray(group, dtype=np.int64) for group in groups])
    if real.size and (real.min() < 0 or real.max() >= width):
        raise InputError(f"groups name features {real.min()} to {real.max()} of 0..{width - 1}")
    return members


def _groups(groups: Groups | None, width: int) -> list[NDArray[np.int64]]:
    return [row[row < width] for row in _members(groups, width)]


def _blocks(matrix: Array, members: NDArray[np.int64]) -> Array:
    """(groups, size, size) diagonal blocks of `matrix`; the identity where a group is filled up."""
    real = members < len(matrix)
    places = np.where(real, members, 0)
    blocks = matrix[places[:, :, None], places[:, None, :]]
    filled = np.eye(members.shape[1]) * ~real[:, :, None]
    return np.asarray(np.where(real[:, :, None] & real[:, None, :], blocks, filled))


def _rows(matrix: Array, members: NDArray[np.int64]) -> Array:
    """(groups, size, columns) rows of `matrix`; 0 where a group is filled up."""
    real = members < len(matrix)
    return np.asarray(matrix[np.where(real, members, 0)] * real[:, :, None])


def _quadratic(blocks: Array, rows: Array) -> Array:
    """trace(rows^T blocks^-1 rows) of every group."""
    if blocks.shape[1] == 1:  # a division each, not a call into LAPACK each
        return np.asarray((rows * rows / blocks).sum((1, 2)))
    return np.asarray((rows * np.linalg.solve(blocks, rows)).sum((1, 2)))


def _checked(features: ArrayLike, targets: ArrayLike) -> tuple[Array, Array]:
    X, Y = np.asarray(features, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if X.ndim != 2 or Y.ndim != 2 or len(X) != len(Y) or not len(X):
        raise InputError(
            f"features {X.shape} and targets {Y.shape} must be (samples, features) and"
            " (samples, columns) of the same one or more samples"
        )
    if not (np.isfinite(X).all() and np.isfinite(Y).all()):
        raise InputError("features or targets hold NaN or infinite values; check the network")
    return X, Y


def _centered(features: ArrayLike, targets: ArrayLike) -> tuple[Array, Array]:
    X, Y = _checked(features, targets)
    return X - X.mean(0), Y - Y.mean(0)


def _warn_if_few(scatter: Scatter) -> None:
    if is_scarce(scatter):
        warnings.warn(
            f"{scatter.count} samples are few for {len(scatter.total)} features: below 5 a feature"
            " discriminant information saturates; give more images",
            stacklevel=3,
        )
