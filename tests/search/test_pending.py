"""Rows of candidates between question and score, and scores as rewards."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from prunas.errors import InputError
from prunas.search.learnt import Learnt
from prunas.search.method import Scored, begin, given, state_from_json, state_to_json
from prunas.search.pending import recalled, remembered, rewards
from tests.search.toys import chain_space, feasible

PROBLEM = feasible(chain_space(4), "macs=50%")


def test_rows_come_back_once_and_in_the_order_asked_for() -> None:
    rng = np.random.default_rng(0)
    first, second, third, stranger = list(dict.fromkeys(PROBLEM.sample(rng, 50)))[:4]
    start = replace(begin(PROBLEM, None, rng), learnt=Learnt({"mean": [0.0, 0.0]}))
    state = remembered(start, {first: np.array([1.0, 2.0])})
    state = remembered(state, {second: np.array([3.0, 4.0]), third: np.array([5.0, 6.0])})
    state = state_from_json(state_to_json(state), start)
    state, rows = recalled(state, [Scored(c, 0.0) for c in (third, stranger, first)])
    assert [None if row is None else row.tolist() for row in rows] == [[5, 6], None, [1, 2]]
    state, rows = recalled(state, [Scored(c, 0.0) for c in (third, second)])
    assert rows[0] is None
    assert rows[1] is not None
    assert rows[1].tolist() == [3, 4]
    assert len(state.learnt["pending"]) == 0


def test_texts_that_are_no_states() -> None:
    start = begin(PROBLEM, None, np.random.default_rng(0))
    whole = json.loads(state_to_json(start))
    spoilt = json.dumps({**whole, "told": [[7, 1.0]]})
    for text in ("nonsense", "[]", "{}", "[" * 99_999, spoilt):
        with pytest.raises(InputError, match="the text is not a saved search"):
            state_from_json(text, start)


def test_nothing_remembered_nothing_recalled() -> None:
    state = begin(PROBLEM, None, np.random.default_rng(0))
    (candidate,) = PROBLEM.sample(np.random.default_rng(0), 1)
    assert recalled(remembered(state, {}), [Scored(candidate, 1.0)])[1] == [None]


def test_scores_that_are_not_finite_count_as_the_worst_finite_one() -> None:
    state = begin(PROBLEM, None, np.random.default_rng(0))
    candidates = list(dict.fromkeys(PROBLEM.sample(np.random.default_rng(0), 50)))
    scores = (0.5, -math.inf, math.inf, 2.0, -1.0)
    told = [Scored(*row) for row in zip(candidates, scores, strict=False)]
    assert rewards(given(state, told)).tolist() == [0.5, -1.0, -1.0, 2.0, -1.0]
    assert rewards(given(state, told[1:3])).tolist() == [0.0, 0.0]
    assert rewards(state).tolist() == []
