"""Distinct rows of tables."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.int64]

_HASH_SEED: Final = 20190


def distinct_rows(table: Table) -> tuple[Table, Table, Table]:
    """Where each distinct row comes first, which of them each row is, and how often each occurs.

    `np.unique` over an axis compares bytes. One number for each row is sorted ten times faster:
    the row as digits, or, where that is too large, a hash; a hash that fails is noticed.

    Args:
        table: (rows, columns) natural numbers; at least one column.

    Returns:
        (distinct,), (rows,) and (distinct,) numbers, so that `table[first][inverse]` is the table.
    """
    base, columns = int(table.max(initial=0)) + 1, table.shape[1]
    fits = base**columns < 2**63
    keys = table @ base ** np.arange(columns)[::-1] if fits else _hashed(table)
    first, inverse, counts = _distinct(keys, axis=None)
    if fits or np.array_equal(table[first[inverse]], table):
        return first, inverse, counts
    return _distinct(table, axis=0)


def _hashed(table: Table) -> NDArray[np.uint64]:
    draw = np.random.default_rng(_HASH_SEED)
    odd = draw.integers(0, 2**63, size=table.shape[1], dtype=np.uint64) * np.uint64(2)
    mixed = table.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * (odd + np.uint64(1))
    total: NDArray[np.uint64] = mixed.sum(axis=1)
    return total


def _distinct(values: NDArray[Any], axis: int | None) -> tuple[Table, Table, Table]:
    _, first, inverse, counts = np.unique(
        values, return_index=True, return_inverse=True, return_counts=True, axis=axis
    )
    return first, inverse.reshape(-1), counts
