"""AMC: its networks and updates against PyTorch, its walk, its wall and its schedule."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunas.search.amc import Agent, Amc, Walk, transitions, truncated
from prunas.search.budget import Feasible
from prunas.search.method import Scored, State
from prunas.search.mlp import Floats, Mlp
from prunas.search.prior import allocate
from tests.search.toys import chain_space, feasible, landscape, played, prior_of, problems

PROBLEM = feasible(chain_space(5, steps=8, channels=64), "macs=40%")
SMALL = Amc(warm_up=10, hidden=16, noise=0.3)


def in_torch(network: Mlp, parameters: Floats, rows: torch.Tensor) -> tuple[Any, list[Any]]:
    """The same network as PyTorch's operators, and its parameters."""
    wide, shapes, start = network.hidden, [], 0
    for shape in ((network.inputs, wide), (wide,), (wide, wide), (wide,), (wide,), (1,)):
        size = int(np.prod(shape))
        piece = torch.tensor(parameters[start : start + size].reshape(shape))
        shapes.append(piece.requires_grad_())
        start += size
    assert start == len(parameters)
    w1, b1, w2, b2, w3, b3 = shapes
    return torch.relu(torch.relu(rows @ w1 + b1) @ w2 + b2) @ w3 + b3, shapes


def flat(gradients: list[Any]) -> Floats:
    return np.concatenate([g.numpy().ravel() for g in gradients])


def test_networks_and_their_gradients() -> None:
    rng = np.random.default_rng(0)
    network = Mlp(4, 7)
    parameters, rows, slopes = network.drawn(rng), rng.random((9, 4)), rng.standard_normal(9)
    inputs = torch.tensor(rows, requires_grad=True)
    expected, parts = in_torch(network, parameters, inputs)
    outputs, cache = network.forward(parameters, rows)
    assert np.allclose(outputs, expected.detach().numpy(), rtol=1e-12)
    grads = torch.autograd.grad(expected @ torch.tensor(slopes), [*parts, inputs])
    assert np.allclose(network.backward(parameters, cache, slopes), flat(list(grads[:-1])))
    assert np.allclose(network.to_inputs(parameters, cache, slopes), grads[-1].numpy())


def warmed() -> State:
    state = played(SMALL, PROBLEM, 0, 40, 10)
    assert state.learnt["critic steps"] == state.learnt["actor steps"] == 30 * 5
    return state


def test_an_update_is_that_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Critic: squared error to the targets' value; actor: up the critic; targets: 1 % closer."""
    state = warmed()
    settings = replace(SMALL, critic_rate=0.01, actor_rate=0.01)
    agent = Agent(settings, *SMALL.networks(), state.learnt)
    replay, chosen = transitions(state, 100), np.arange(20)
    agent.parameters["actor target"] += np.float32(0.1)
    before = {name: array.copy() for name, array in agent.parameters.items()}
    gradients: dict[str, Floats] = {}
    monkeypatch.setattr(agent, "_ascend", gradients.__setitem__)
    agent.update(replay, chosen)
    actor, critic = SMALL.networks()
    states, following, actions, rewards, is_open = (
        torch.tensor(array[chosen])
        for array in (
            replay.states,
            replay.following,
            replay.actions,
            replay.rewards,
            replay.open,
        )
    )
    mean = rewards.mean()
    baseline = state.learnt["baseline"] + 0.5 * (float(mean) - state.learnt["baseline"])
    assert agent.baseline == pytest.approx(baseline)
    future = torch.sigmoid(in_torch(actor, before["actor target"], following)[0])
    value, _ = in_torch(critic, before["critic target"], torch.column_stack([following, future]))
    targets = (rewards - float(baseline) + is_open * value).detach()
    found, parts = in_torch(critic, before["critic"], torch.column_stack([states, actions]))
    loss = ((found - targets) ** 2).mean()
    expected = flat(list(torch.autograd.grad(-loss, parts)))
    assert np.allclose(gradients["critic"], expected, atol=1e-5)
    logits, parts = in_torch(actor, before["actor"], states)
    rows = torch.column_stack([states, torch.sigmoid(logits)])
    expected = flat(
        list(torch.autograd.grad(in_torch(critic, before["critic"], rows)[0].mean(), parts))
    )
    assert np.allclose(gradients["actor"], expected, atol=1e-6)
    moved = before["actor target"] + 0.01 * (before["actor"] - before["actor target"])
    assert np.allclose(agent.parameters["actor target"], moved, atol=1e-6)
    assert (replay.open.reshape(-1, 5) == [1, 1, 1, 1, 0]).all()
    assert np.array_equal(replay.following[:4], replay.states[1:5])


@given(problem=problems(), seed=st.integers(0, 2**32 - 1))
def test_the_wall_keeps_every_episode_inside(problem: Feasible, seed: int) -> None:
    """And no lower than it must: the next larger choice would leave nothing for the rest."""
    rng = np.random.default_rng(seed)
    wanted = rng.random((20, len(problem.last)))
    wanted[:5] = 1
    found = Walk(problem).episodes(20, lambda gene, features: wanted[:, gene])
    assert problem.contains(problem.values(found)).all()
    meant = np.minimum(wanted * (problem.last + 1), problem.last).astype(np.int64)
    assert (found <= meant).all()
    for row, gene in np.argwhere(found < meant):
        above = np.where(np.arange(len(problem.last)) <= gene, found[row], 0)
        above[gene] += 1
        assert not problem.contains(problem.values(above[None]))[0]


def test_transitions_see_what_the_walk_saw() -> None:
    seen: list[Floats] = []

    def act(gene: int, features: Floats) -> Floats:
        seen.append(features)
        return np.random.default_rng(gene).random(len(features))

    walk = Walk(PROBLEM)
    found = walk.episodes(3, act)
    again = [walk.features(found, gene) for gene in range(5)]
    assert np.array_equal(seen, again)
    assert np.min(seen) >= 0
    assert np.max(seen) <= 1


def test_rewards_of_an_episode_have_one_standard_deviation() -> None:
    replay = transitions(warmed(), 100)
    sums = replay.rewards.reshape(-1, 5).sum(axis=1)
    assert sums.mean() == pytest.approx(0, abs=1e-5)
    assert sums.std() == pytest.approx(1, rel=1e-5)
    assert len(transitions(warmed(), 7).actions) == 7 * 5


def test_nothing_is_learnt_from_random_episodes_alone() -> None:
    start = SMALL.start(PROBLEM.space, PROBLEM, None, np.random.default_rng(0))
    state, asked = SMALL.ask(start, 14)
    scored = [Scored(c, landscape(c)) for c in asked]
    state = SMALL.tell(state, scored[:10])
    assert state.learnt == start.learnt
    assert SMALL.tell(state, scored[10:]).learnt["actor steps"] == 4 * 5


def test_noise_falls_after_the_random_episodes() -> None:
    method = Amc(warm_up=20, hidden=4)
    sigmas = [method.sigma(played(method, PROBLEM, 0, n, 10)) for n in (10, 20, 30, 100)]
    assert sigmas == pytest.approx([0.5, 0.5, 0.5 * 0.95**10, 0.02])


def test_noise_is_a_truncated_normal() -> None:
    rng = np.random.default_rng(0)
    drawn = truncated(np.full(20_000, 0.1), 0.2, rng)
    assert 0 <= drawn.min() < drawn.max() <= 1
    plain = 0.1 + 0.2 * rng.standard_normal(40_000)
    plain = plain[(plain >= 0) & (plain <= 1)]
    assert np.allclose(
        np.quantile(drawn, [0.1, 0.5, 0.9]), np.quantile(plain, [0.1, 0.5, 0.9]), atol=0.01
    )


def test_it_learns() -> None:
    problem = feasible(chain_space(6, steps=16, channels=64), "macs=30%")
    for seed in range(2):
        told = played(Amc(warm_up=50, hidden=32), problem, seed, 200, 10).told
        scores = [scored.score for scored in told]
        assert np.mean(scores[150:]) > np.mean(scores[:50]) + 5


def test_random_episodes_are_around_the_allocation() -> None:
    prior = prior_of(PROBLEM.space)
    best = np.array(allocate(prior.values, PROBLEM))
    method, distances = Amc(noise=0.08), []
    for each in (prior, None):
        state = method.start(PROBLEM.space, PROBLEM, each, np.random.default_rng(0))
        asked = np.array([c for c in method.ask(state, 12)[1] if c != tuple(best)])
        distances.append(np.abs(asked - best).mean())
    assert distances[0] < distances[1] / 2
