"""Scores that were there before a search began."""

import numpy as np
import pytest

from prunas.search.method import Scored, given
from prunas.search.randomly import Randomly
from tests.search.toys import chain_space, feasible

PROBLEM = feasible(chain_space(4), "macs=50%")


def test_given_candidates_are_known_and_not_proposed() -> None:
    rng = np.random.default_rng(0)
    scored = [Scored(c, 0.5) for c in dict.fromkeys(PROBLEM.sample(rng, 30))]
    state = Randomly().start(PROBLEM.space, PROBLEM, None, rng)
    state = given(state, scored)
    assert state.told == tuple(scored)
    _, asked = Randomly().ask(state, 20)
    assert not {each.candidate for each in scored} & set(asked)


def test_only_before_the_first_question() -> None:
    state = Randomly().start(PROBLEM.space, PROBLEM, None, np.random.default_rng(0))
    state, asked = Randomly().ask(state, 1)
    with pytest.raises(ValueError, match="1 candidates were asked already"):
        given(state, [Scored(asked[0], 1.0)])
