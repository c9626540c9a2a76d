"""Aging evolution: who is alive, who wins, and what a child is."""

import numpy as np

from prunas.search.aging import AgingEvolution
from prunas.search.method import Scored, State, given
from prunas.search.randomly import Randomly
from prunas.supernet.space import Candidate
from tests.search.toys import best_score, chain_space, feasible, played, toy_space, wide_open

PROBLEM = wide_open(toy_space([(1, 2, 3, 4, 5)] * 12, [(1, (g,)) for g in range(12)]))


def aged(method: AgingEvolution, scores: list[float]) -> tuple[State, list[Candidate]]:
    """A search that was given random candidates with these scores, and those candidates."""
    rng = np.random.default_rng(0)
    candidates = PROBLEM.space.sample(rng, len(scores))
    state = method.start(PROBLEM.space, PROBLEM, None, rng)
    rows = zip(candidates, scores, strict=True)
    return given(state, [Scored(*row) for row in rows]), candidates


def mothers(children: list[Candidate], candidates: list[Candidate]) -> list[int]:
    """For each child the candidate that it differs from in one gene."""
    differing = (np.array(children)[:, None] != np.array(candidates)).sum(axis=2)
    assert differing.min(axis=1).tolist() == [1] * len(children)
    return [int(index) for index in differing.argmin(axis=1)]


def test_it_beats_random_search_where_the_fittest_nearly_always_win() -> None:
    problem = feasible(chain_space(10, steps=16, channels=64), "macs=30%")
    for seed in range(3):
        aging = played(AgingEvolution(population=50, tournament=25), problem, seed, 500, 10)
        assert best_score(aging) > best_score(played(Randomly(), problem, seed, 500, 10))


def test_the_oldest_die_however_good_they_are() -> None:
    state, candidates = aged(AgingEvolution(population=4), [9.0, 8.0, 1.0, 2.0, 3.0, 4.0])
    _, children = AgingEvolution(population=4).ask(state, 60)
    assert set(mothers(children, candidates)) == {2, 3, 4, 5}


def test_the_best_of_three_drawn_with_replacement_has_the_child() -> None:
    """P(the best of 10 is among 3 draws) = 1 - 0.9^3; the second best: 0.9^3 - 0.8^3."""
    state, candidates = aged(AgingEvolution(), list(map(float, range(10))))
    shares = np.zeros(10)
    for seed in range(40):
        fresh = AgingEvolution().start(PROBLEM.space, PROBLEM, None, np.random.default_rng(seed))
        drawn = given(fresh, state.told)
        found = mothers(AgingEvolution().ask(drawn, 15)[1], candidates)
        shares += np.bincount(found, minlength=10) / 600
    assert np.abs(shares[9] - 0.271) < 0.06
    assert np.abs(shares[8] - 0.217) < 0.06
    assert shares[:3].sum() < 0.08  # 0.027


def test_the_first_candidates_are_random() -> None:
    state = AgingEvolution().start(PROBLEM.space, PROBLEM, None, np.random.default_rng(0))
    _, asked = AgingEvolution().ask(state, 10)
    differing = (np.array(asked)[:, None] != np.array(asked)).sum(axis=2)
    assert (differing[~np.eye(10, dtype=bool)] > 1).all()
