"""Groups of features: their blocks in matrices, those of all groups in one array."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from prunas.errors import InputError

Array: TypeAlias = NDArray[np.float64]
Groups: TypeAlias = Sequence[NDArray[np.int64]]
"""Feature indices that stay or go together, one array a group; a group may be empty."""


def members_of(groups: Groups | None, width: int) -> NDArray[np.int64]:
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


def groups_of(groups: Groups | None, width: int) -> list[NDArray[np.int64]]:
    return [row[row < width] for row in members_of(groups, width)]


def blocks_of(matrix: Array, members: NDArray[np.int64]) -> Array:
    """(groups, size, size) diagonal blocks of `matrix`; the identity where a group is filled up."""
    real = members < len(matrix)
    places = np.where(real, members, 0)
    blocks = matrix[places[:, :, None], places[:, None, :]]
    filled = np.eye(members.shape[1]) * ~real[:, :, None]
    return np.asarray(np.where(real[:, :, None] & real[:, None, :], blocks, filled))


def rows_of(matrix: Array, members: NDArray[np.int64]) -> Array:
    """(groups, size, columns) rows of `matrix`; 0 where a group is filled up."""
    real = members < len(matrix)
    return np.asarray(matrix[np.where(real, members, 0)] * real[:, :, None])


def quadratic(blocks: Array, rows: Array) -> Array:
    """trace(rows^T blocks^-1 rows) of every group."""
    if blocks.shape[1] == 1:  # a division each, not a call into LAPACK each
        return np.asarray((rows * rows / blocks).sum((1, 2)))
    return np.asarray((rows * np.linalg.solve(blocks, rows)).sum((1, 2)))
