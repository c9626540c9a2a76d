"""Hill climbing: from where, and from whom its candidates come."""

import numpy as np

from prunas.search.budget import as_values
from prunas.search.hill_climbing import HillClimbing, summit
from prunas.search.method import Scored
from prunas.search.prior import allocate
from prunas.search.randomly import Randomly
from prunas.search.uniform import uniform_candidates
from prunas.supernet.space import Candidate
from tests.search.toys import (
    best_score,
    chain_space,
    feasible,
    played,
    prior_of,
    toy_space,
    wide_open,
)


def test_it_beats_random_search() -> None:
    problem = feasible(chain_space(10, steps=16, channels=64), "macs=30%")
    for seed in range(3):
        climbed = played(HillClimbing(), problem, seed, 200, 20)
        assert best_score(climbed) > best_score(played(Randomly(), problem, seed, 200, 20))


def test_it_starts_at_the_uniform_network_or_the_allocation() -> None:
    problem = feasible(chain_space(6, steps=16, channels=64), "macs=30%")
    prior = prior_of(problem.space)
    rng = np.random.default_rng(0)
    without = HillClimbing().start(problem.space, problem, None, rng)
    uniform = uniform_candidates(problem)[0]
    assert summit(without) == uniform
    _, asked = HillClimbing().ask(without, 8)
    (repaired,) = problem.repair(as_values([uniform]), np.random.default_rng(1)).tolist()
    assert np.abs(np.array(asked[0]) - repaired).max() <= 4  # one step: repair has no fixed order
    state = HillClimbing().start(problem.space, problem, prior, rng)
    assert summit(state) == allocate(prior.values, problem) == HillClimbing().ask(state, 3)[1][0]


def test_children_are_mutants_of_the_best() -> None:
    problem = wide_open(toy_space([(1, 2, 3, 4)] * 12, [(1, (g,)) for g in range(12)]))
    method = HillClimbing(rate=0.01)  # of 12 genes one changes in the mean
    state = method.start(problem.space, problem, None, np.random.default_rng(0))
    state, asked = method.ask(state, 10)
    state = method.tell(state, [Scored(c, float(i == 4)) for i, c in enumerate(asked)])
    _, children = method.ask(state, 200)
    changed = (np.array(children) != asked[4]).sum(axis=1)
    assert changed.min() == 1
    assert changed.mean() < 2.5
    assert changed.max() < 8


def test_the_earliest_of_equals_is_the_summit() -> None:
    problem = feasible(chain_space(4), "macs=50%")
    method = HillClimbing()
    state = method.start(problem.space, problem, None, np.random.default_rng(0))
    state, asked = method.ask(state, 4)
    scores = (float("nan"), 1.0, 1.0, 0.5)
    state = method.tell(state, [Scored(*row) for row in zip(asked, scores, strict=True)])
    assert summit(state) == Candidate(asked[1])
