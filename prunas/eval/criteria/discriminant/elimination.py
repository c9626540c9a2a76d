"""Sequential elimination: what DI needs least goes first, and all else is judged anew."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from prunas.errors import InputError
from prunas.eval.criteria.discriminant.groups import (
    Array,
    Groups,
    blocks_of,
    members_of,
    quadratic,
    rows_of,
)
from prunas.eval.criteria.discriminant.ridge import RidgeFit, fit, inverse
from prunas.eval.criteria.discriminant.scatter import Scatter, warn_if_few

_FOLD: Final = 64  # columns of a downdate that are kept apart, so that most removals are cheap
_REFRESH: Final = 256  # features removed between factorisations: keeps downdates near 1e-12


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
    warn_if_few(scatter)
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

    def _start(self, B: Array) -> None:
        self._features = np.flatnonzero(self._alive)
        self._place = np.full(len(self._alive) + 1, len(self._features))
        self._place[self._features] = np.arange(len(self._features))
        self._inverse = B
        self._removed = np.zeros((len(B), _FOLD))
        self._filled = self._since = 0

    @property
    def is_stale(self) -> bool:
        return self._since >= _REFRESH and bool(self._alive.any())

    def refresh(self) -> None:
        """Factorise what is left anew."""
        left = np.flatnonzero(self._alive)
        self._start(inverse(self._total[np.ix_(left, left)], self._ridge))

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
        U = rows_of(self._removed[:, : self._filled], places)
        return np.asarray(blocks_of(self._inverse, places) - U @ U.transpose(0, 2, 1))


class _Path(Protocol):
    """Where the elimination stands in one layer."""

    def drops(self) -> Array:
        """(groups,) what DI loses if a group goes now; 0 for those that are gone."""
        ...

    def remove(self, group: int) -> None:
        """Take the features of a group out."""
        ...


def _path(solved: RidgeFit, groups: Groups) -> _Path:
    members = members_of(groups, len(solved.scatter.total))
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
        return quadratic(self._diagonal, rows_of(self._weights, self._members))

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
            change = rows_of(update, self._members)
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
