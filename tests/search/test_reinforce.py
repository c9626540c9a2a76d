"""REINFORCE: its policy and its updates, against autograd and PyTorch's Adam."""

from dataclasses import replace

import numpy as np
import torch

from prunas.search.budget import as_values
from prunas.search.method import Scored
from prunas.search.prior import allocate
from prunas.search.randomly import Randomly
from prunas.search.reinforce import Reinforce, probabilities
from tests.search.toys import (
    best_score,
    chain_space,
    feasible,
    landscape,
    played,
    prior_of,
    toy_space,
)

SPACE = toy_space([(1, 2, 3, 4, 5), (2, 4, 6), (3,), (1, 8)], [(1, (g,)) for g in range(4)])


def test_it_beats_random_search_at_a_higher_rate() -> None:
    """NATS-Bench's rate is made for some thousand updates."""
    problem = feasible(chain_space(10, steps=16, channels=64), "macs=30%")
    for seed in range(3):
        learnt = played(Reinforce(rate=0.2), problem, seed, 500, 10)
        assert best_score(learnt) > best_score(played(Randomly(), problem, seed, 500, 10))


def test_updates_are_those_of_pytorch() -> None:
    """Logits, one by one, of a written-out REINFORCE with what the search drew."""
    problem = feasible(chain_space(5, steps=6, channels=60), "macs=40%")
    method = Reinforce(rate=0.1)
    state = method.start(problem.space, problem, None, np.random.default_rng(0))
    logits = torch.nn.Parameter(torch.tensor(state.learnt["logits"]))
    adam = torch.optim.Adam([logits], lr=0.1)
    total = weight = 0.0
    for _ in range(15):
        state, asked = method.ask(state, 1)
        slopes = state.learnt["pending"][0, 5:].reshape(5, 6)
        chosen = slopes.argmax(axis=1)  # only the drawn choice has a positive slope
        reward = landscape(asked[0])
        total, weight = 0.9 * total + 0.1 * reward, 0.9 * weight + 0.1
        chances = torch.log_softmax(logits, dim=1)[torch.arange(5), torch.from_numpy(chosen)]
        adam.zero_grad()
        (-chances.sum() * (reward - total / weight)).backward()
        adam.step()
        state = method.tell(state, [Scored(asked[0], reward)])
        assert np.allclose(state.learnt["logits"], logits.detach().numpy(), atol=1e-12)
    assert abs(state.learnt["logits"]).max() > 0.1


def test_choices_that_a_gene_does_not_have_are_never_drawn() -> None:
    problem = feasible(SPACE, "macs=90%", 0.3)
    state = Reinforce().start(SPACE, problem, None, np.random.default_rng(0))
    odds = probabilities(state)
    counts = [5, 3, 1, 2]
    for row, count in zip(odds, counts, strict=True):
        assert np.allclose(row[:count], 1 / count, atol=2e-3)
        assert (row[count:] == 0).all()


def test_the_policy_starts_at_the_allocation() -> None:
    problem = feasible(SPACE, "macs=60%", 0.3)
    prior = prior_of(SPACE)
    state = Reinforce().start(SPACE, problem, prior, np.random.default_rng(0))
    best = problem.positions(as_values([allocate(prior.values, problem)]))[0]
    odds = probabilities(state)[np.arange(4), best]
    assert np.allclose(odds, [0.5, 0.5, 1.0, 0.5], atol=3e-3)


def test_draws_follow_the_policy() -> None:
    """Of a policy that is certain of three genes, everything drawn has these three."""
    space = toy_space([(1, 2, 3, 4, 5)] * 6, [(1, (g,)) for g in range(6)])
    problem = feasible(space, "macs=100%", 0.99)
    state = Reinforce().start(space, problem, None, np.random.default_rng(0))
    logits = np.zeros((6, 5))
    logits[[0, 2, 4], [1, 4, 0]] = 50
    state = replace(state, learnt=state.learnt.changed(logits=logits))
    drawn = np.array(Reinforce().ask(state, 60)[1])
    assert (drawn[:, [0, 2, 4]] == [2, 5, 1]).all()
    assert len(np.unique(drawn[:, 1])) == 5


def test_candidates_that_it_did_not_draw_only_move_the_average() -> None:
    problem = feasible(chain_space(5, steps=6, channels=60), "macs=40%")
    prior = prior_of(problem.space)
    state = Reinforce().start(problem.space, problem, prior, np.random.default_rng(0))
    state, asked = Reinforce().ask(state, 1)
    told = Reinforce().tell(state, [Scored(asked[0], 2.0)])
    assert np.array_equal(told.learnt["logits"], state.learnt["logits"])
    assert np.allclose(told.learnt["rewards"], [0.2, 0.1])
