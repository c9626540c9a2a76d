"""Search led by a regression: what it learns from, and what it chooses."""

import numpy as np
import pytest
from scipy.stats import pearsonr

from prunas.search.budget import as_values
from prunas.search.evolution import Evolution
from prunas.search.method import Scored, State, given
from prunas.search.prior import allocate
from prunas.search.regression import Regression
from tests.search.toys import chain_space, feasible, landscape, prior_of

PROBLEM = feasible(chain_space(8, steps=12, channels=48), "macs=30%", 0.1)
METHOD = Regression(breeder=Evolution(population=20))


def played(method: Regression | Evolution, seed: int, evaluations: int) -> State:
    state = method.start(PROBLEM.space, PROBLEM, None, np.random.default_rng(seed))
    while len(state.told) < evaluations:
        state, asked = method.ask(state, 10)
        state = method.tell(state, [Scored(c, landscape(c)) for c in asked])
    return state


def best(state: State) -> float:
    return max(entry.score for entry in state.told)


def test_it_is_ahead_of_the_evolution_that_breeds_for_it() -> None:
    """On a smooth landscape, after a hundred scores, in the mean over seeds."""
    breeder = Evolution(population=20)
    led = [best(played(METHOD, seed, 100)) for seed in range(6)]
    blind = [best(played(breeder, seed, 100)) for seed in range(6)]
    assert np.mean(led) > np.mean(blind)


def test_what_it_asks_scores_above_what_is_bred() -> None:
    """The children chosen are better than the brood that they were chosen from."""
    state = played(METHOD, 0, 60)
    _, asked = METHOD.ask(state, 10)
    rng = np.random.default_rng(1)
    bred = PROBLEM.repair(as_values(METHOD.breeder.children(state, rng, 300)), rng)
    brood = [landscape(tuple(row)) for row in bred.tolist()]  # type: ignore[arg-type]
    chosen = [landscape(candidate) for candidate in asked]
    assert np.mean(chosen) > np.mean(brood)


def test_committees_differ_so_a_batch_does_not_repeat_a_choice() -> None:
    """One committee of all trees gives one order; small ones give several first choices."""
    state = played(METHOD, 0, 60)
    pool = as_values(PROBLEM.sample(np.random.default_rng(2), 200))
    scores = np.array([entry.score for entry in state.told])
    small = METHOD.expected(state, scores, pool, np.random.default_rng(3), 20)
    whole = Regression(committee=2000).expected(state, scores, pool, np.random.default_rng(3), 20)
    assert small.shape == whole.shape == (20, 200)
    assert len(set(small.argmax(axis=1).tolist())) > len(set(whole.argmax(axis=1).tolist()))
    assert min(pearsonr(whole[0], row).statistic for row in whole) > 0.99
    truth = np.array([landscape(tuple(row)) for row in pool.tolist()])  # type: ignore[arg-type]
    assert pearsonr(whole.mean(axis=0), truth).statistic > 0.7


def test_trees_reproduce_what_was_told() -> None:
    """Fully grown on all scores, each tree gives a told candidate its own score."""
    state = played(METHOD, 0, 40)
    known = as_values([entry.candidate for entry in state.told])
    scores = np.array([entry.score for entry in state.told])
    found = METHOD.expected(state, scores, known, np.random.default_rng(0), 3)
    assert np.allclose(found, scores)


def test_a_prior_is_a_feature_and_its_allocation_comes_first() -> None:
    prior = prior_of(PROBLEM.space)
    state = METHOD.start(PROBLEM.space, PROBLEM, prior, np.random.default_rng(0))
    first = list(dict.fromkeys(PROBLEM.sample(np.random.default_rng(3), 25)))
    state = given(state, [Scored(c, landscape(c)) for c in first])
    state, asked = METHOD.ask(state, 5)
    assert asked[0] == allocate(prior.values, PROBLEM)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), 0.5])
def test_scores_that_teach_nothing_leave_the_breeder_alone(score: float) -> None:
    state = METHOD.start(PROBLEM.space, PROBLEM, None, np.random.default_rng(0))
    for _ in range(5):
        state, asked = METHOD.ask(state, 8)
        assert len(asked) == 8
        state = METHOD.tell(state, [Scored(candidate, score) for candidate in asked])
    assert METHOD.ask(state, 8) == METHOD.breeder.ask(state, 8)
