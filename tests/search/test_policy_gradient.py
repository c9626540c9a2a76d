"""The policy gradient: its estimate, its way onto the budget, and its schedule."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunas.search.budget import Feasible
from prunas.search.method import Scored, State
from prunas.search.policy_gradient import PolicyGradient, gradient, on_budget
from prunas.search.prior import allocate
from prunas.search.randomly import Randomly
from tests.search.toys import (
    best_score,
    chain_space,
    feasible,
    landscape,
    played,
    prior_of,
    problems,
)

PROBLEM = feasible(chain_space(6, steps=16, channels=64), "macs=30%")


def test_it_beats_random_search() -> None:
    problem = feasible(chain_space(10, steps=16, channels=64), "macs=30%")
    for seed in range(3):
        learnt = played(PolicyGradient(), problem, seed, 200, 10)
        assert best_score(learnt) > best_score(played(Randomly(), problem, seed, 200, 10))


def test_every_reward_is_compared_with_the_mean_of_the_others() -> None:
    """Against autograd of the surrogate loss, the baselines written out."""
    rng = np.random.default_rng(0)
    noise, mean, sigma, scores = rng.standard_normal((8, 5)), rng.random(5), 0.4, rng.random(8)
    drawn = torch.from_numpy(mean + sigma * noise)
    centre = torch.tensor(mean, requires_grad=True)
    chances = torch.distributions.Normal(centre, sigma).log_prob(drawn).sum(dim=1)
    baselines = [np.delete(scores, index).mean() for index in range(8)]
    (chances * torch.from_numpy(scores - baselines)).mean().backward()
    assert centre.grad is not None
    assert np.allclose(gradient(noise / sigma, scores), centre.grad.numpy(), rtol=1e-12)


def test_the_estimate_is_unbiased() -> None:
    """R(s) = -|s - a|^2 has the expected gradient -2 (mu - a)."""
    rng = np.random.default_rng(0)
    mean, best, sigma = np.array([1.0, -0.5, 0.0]), np.array([0.2, 0.5, 0.0]), 0.5
    noise = rng.standard_normal((4000, 8, 3))
    scores = -((mean + sigma * noise - best) ** 2).sum(axis=2)
    found = np.mean([gradient(n / sigma, r) for n, r in zip(noise, scores, strict=True)], axis=0)
    assert np.allclose(found, -2 * (mean - best), atol=0.08)


@given(problem=problems(), seed=st.integers(0, 2**32 - 1))
def test_ratios_are_the_last_that_fit(problem: Feasible, seed: int) -> None:
    """Against a walk over all tau at which a gene takes its next choice."""
    rng = np.random.default_rng(seed)
    wanted = rng.standard_normal((3, len(problem.last)))
    found = on_budget(problem, wanted)
    for row, places in zip(wanted, found, strict=True):
        steps = [
            (np.log(k / (last + 1 - k)) - s, gene)
            for gene, (s, last) in enumerate(zip(row, problem.last.tolist(), strict=True))
            for k in range(1, last + 1)
        ]
        expected = np.zeros_like(places)
        for _, gene in sorted(steps):
            trial = expected.copy()
            trial[gene] += 1
            if not problem.contains(problem.values(trial[None]))[0]:
                break
            expected = trial
        assert places.tolist() == expected.tolist()


def test_sigma_falls_geometrically() -> None:
    method = PolicyGradient(horizon=40)
    sigmas = [method.sigma(played(method, PROBLEM, 0, n, 10)) for n in (0, 20, 40, 60)]
    assert sigmas == pytest.approx([0.5, 0.05**0.5, 0.1, 0.1])


def test_an_update_waits_for_its_samples() -> None:
    method = PolicyGradient(samples=10)
    start = method.start(PROBLEM.space, PROBLEM, None, np.random.default_rng(0))
    state, asked = method.ask(start, 25)
    scored = [Scored(candidate, landscape(candidate)) for candidate in asked]
    early = method.tell(state, scored[:9])
    assert np.array_equal(early.learnt["mean"], np.zeros(6))
    once = method.tell(early, scored[9:10])
    assert np.abs(once.learnt["mean"]) == pytest.approx([0.05] * 6, rel=1e-3)  # Adam's first step
    one_by_one = state
    for each in scored:
        one_by_one = method.tell(one_by_one, [each])
    assert one_by_one == method.tell(state, scored)
    assert one_by_one.learnt["mean steps"] == 2
    assert len(one_by_one.learnt["waiting"]) == 5


def test_it_starts_at_the_allocation() -> None:
    """With sigma near zero everything drawn is the allocation, but for what repair fills up."""
    prior = prior_of(PROBLEM.space)
    best = allocate(prior.values, PROBLEM)
    method = PolicyGradient(widest=1e-9)
    state: State = method.start(PROBLEM.space, PROBLEM, prior, np.random.default_rng(0))
    mean = state.learnt["mean"]
    assert PROBLEM.values(on_budget(PROBLEM, mean[None]))[0].tolist() == list(best)
    assert method.ask(state, 1)[1] == [best]


def test_what_waits_for_a_score_is_the_slope_of_the_log_density() -> None:
    """(s - mu) / sigma^2 has the standard deviation 1 / sigma; of choices so fine none is known."""
    problem = feasible(chain_space(6, steps=256, channels=256), "macs=30%")
    for sigma in (0.5, 0.1):
        method = PolicyGradient(widest=sigma)
        start = method.start(problem.space, problem, None, np.random.default_rng(0))
        rows = method.ask(start, 60)[0].learnt["pending"]
        assert rows.shape[1] == 12
        assert rows[:, 6:].std() == pytest.approx(1 / sigma, rel=0.15)
