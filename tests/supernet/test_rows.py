"""Distinct rows against numpy's own, also where rows do not fit into one number."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunas.supernet import rows
from prunas.supernet.rows import Table, distinct_rows


def are_those_of_numpy(table: Table) -> None:
    first, inverse, counts = distinct_rows(table)
    expected = np.unique(table, axis=0, return_counts=True)
    order = np.lexsort(table[first].T[::-1])
    assert np.array_equal(table[first][order], expected[0])
    assert np.array_equal(counts[order], expected[1])
    assert np.array_equal(table[first][inverse], table)
    assert all((table[:position] != table[position]).any(axis=1).all() for position in first)


@given(
    bound=st.sampled_from([2, 5, 2**20, 2**40]),
    count=st.integers(0, 30),
    columns=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_random_tables(bound: int, count: int, columns: int, seed: int) -> None:
    are_those_of_numpy(np.random.default_rng(seed).integers(bound, size=(count, columns)))


def test_a_hash_that_fails_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_hashed", lambda table: np.zeros(len(table), dtype=np.uint64))
    table = np.array([[2**40, 1], [1, 2**40], [2**40, 1]])
    are_those_of_numpy(table)
