"""MetaPruning's and Single Path One-Shot's evolution: generations, and what is in one."""

import numpy as np
import pytest

from prunas.search.method import Scored, given
from prunas.search.published_evolution import METAPRUNING, SPOS, PublishedEvolution
from prunas.search.randomly import Randomly
from tests.search.toys import (
    best_score,
    chain_space,
    feasible,
    landscape,
    played,
    toy_space,
    wide_open,
)

PROBLEM = wide_open(toy_space([(1, 2, 3, 4, 5)] * 12, [(1, (g,)) for g in range(12)]))


@pytest.mark.parametrize("method", [METAPRUNING, SPOS])
def test_it_beats_random_search(method: PublishedEvolution) -> None:
    problem = feasible(chain_space(10, steps=16, channels=64), "macs=30%")
    for seed in range(3):
        evolved = played(method, problem, seed, 300, 25)
        assert best_score(evolved) > best_score(played(Randomly(), problem, seed, 300, 25))


def test_parents_are_the_best_of_all_time_at_the_last_boundary() -> None:
    """In batches of 7, so that no batch ends with a generation of 50."""
    state = METAPRUNING.start(PROBLEM.space, PROBLEM, None, np.random.default_rng(0))
    for _ in range(25):
        boundary = len(state.told) // 50 * 50
        ranked = sorted(state.told[:boundary], key=lambda scored: -scored.score)
        assert METAPRUNING.parents_of(state) == [scored.candidate for scored in ranked[:10]]
        state, asked = METAPRUNING.ask(state, 7)
        state = METAPRUNING.tell(state, [Scored(c, landscape(c)) for c in asked])


def test_half_a_generation_are_mutants_and_half_crossovers() -> None:
    """Where a mutant has no gene of its mother, and a crossover each from one of its parents."""
    method = PublishedEvolution(generation=20, parents=2, rate=1.0)
    start = method.start(PROBLEM.space, PROBLEM, None, np.random.default_rng(0))
    known = PROBLEM.space.sample(np.random.default_rng(1), 20)
    state = given(start, [Scored(c, float(index < 2)) for index, c in enumerate(known)])
    parents = np.array(known[:2])
    for batches in ((20,), (7, 7, 6), (30,)):
        asked = []
        current = state
        for n in batches:
            current, more = method.ask(current, n)
            asked += more
        same = np.array(asked)[:, None] == parents
        assert (~same).all(axis=2).any(axis=1)[:10].all()
        assert same.any(axis=1).all(axis=1).tolist()[:20] == [False] * 10 + [True] * 10
        assert (~same).all(axis=2).any(axis=1)[20:].all()


def test_single_path_one_shot_may_draw_the_present_choice() -> None:
    known = PROBLEM.space.sample(np.random.default_rng(1), 50)
    scored = [Scored(c, float(index < 2)) for index, c in enumerate(known)]
    kept = {}
    for least in (0, 1):
        method = PublishedEvolution(parents=2, rate=1.0, least_shift=least)
        start = method.start(PROBLEM.space, PROBLEM, None, np.random.default_rng(0))
        _, asked = method.ask(given(start, scored), 25)
        same = np.array(asked)[:, None] == np.array(known[:2])
        kept[least] = same.mean(axis=2).min(axis=1)
    assert (kept[1] == 0).all()
    assert 0.05 < kept[0].mean() < 0.3


def test_the_first_generation_is_random() -> None:
    method, at_random = METAPRUNING, Randomly()
    rng = np.random.default_rng
    asked = method.ask(method.start(PROBLEM.space, PROBLEM, None, rng(0)), 50)[1]
    assert asked == at_random.ask(at_random.start(PROBLEM.space, PROBLEM, None, rng(0)), 50)[1]
