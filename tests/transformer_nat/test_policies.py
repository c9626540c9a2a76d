"""Policies: what they see, the odds they start from, their gradient, and what they learn from."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunas.errors import InputError
from prunas.supernet.space import Candidate
from prunas.transformer_nat import (
    EVERY_OPERATOR,
    NAT_FULLY_CONCAT,
    NAT_PLUS,
    GraphConvolution,
    Lstm,
    released_graph_convolution,
)
from prunas.transformer_nat.baseline import (
    averaged,
    corrected,
    leave_one_out,
    published_average,
)
from prunas.transformer_nat.encoding import Encoded, encoded
from prunas.transformer_nat.graph import OperatorGraph
from prunas.transformer_nat.graph_convolution import Adjacency, directed, released, symmetric
from prunas.transformer_nat.learnt import Adam, Learnt, unpacked
from prunas.transformer_nat.operators import NULL, SKIP
from prunas.transformer_nat.policy import (
    Policy,
    cut,
    expected_gain,
    gradient,
    log_odds,
    offers,
    probabilities,
)
from prunas.transformer_nat.published_cells import PUBLISHED
from prunas.transformer_nat.skeleton import cell_graph, cifar_skeleton
from prunas.transformer_nat.transformation import transformations
from prunas.transformer_nat.transitions import keep_skip_null
from tests.transformer_nat.graphs import graph_of, graphs

SKELETON = cifar_skeleton(4, 3, size=8)
DARTS = cell_graph(PUBLISHED["DARTS_V2"], SKELETON)
SPACE = transformations(DARTS)
SMALL = GraphConvolution(NAT_PLUS, embedding=4, features=8, hidden=8, waves=2)
POLICIES: dict[str, Policy] = {"graph": SMALL, "lstm": Lstm(NAT_PLUS, embedding=4, hidden=8)}


@pytest.fixture(params=POLICIES)
def policy(request: pytest.FixtureRequest) -> Policy:
    return POLICIES[request.param]


def logits(policy: Policy, graph: Encoded, seed: int = 0) -> torch.Tensor:
    """With weights in the place of the last layer's small ones, so that differences show."""
    weights = np.random.default_rng(seed).standard_normal(len(policy.drawn(_rng())))
    return policy.logits(cut(torch.from_numpy(weights), policy.shapes), graph)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# -- what the policy sees --------------------------------------------------------------------------


def changed(graph: Encoded, edge: int) -> Encoded:
    operators = graph.operator.copy()
    operators[edge] = (operators[edge] + 1) % 4
    return replace(graph, operator=operators)


def sees_itself(adjacency: Adjacency, graph: Encoded, edge: int) -> bool:
    """Whether the logits of the node that an edge feeds depend on the operator that it carries."""
    policy = replace(SMALL, adjacency=adjacency, vocabulary=EVERY_OPERATOR, slots=3, own=False)
    own = graph.target == graph.target[edge]
    before, after = (logits(policy, each)[own] for each in (graph, changed(graph, edge)))
    return not torch.equal(before, after)


@settings(deadline=None, max_examples=25)
@given(graphs(), st.data())
def test_a_node_sees_its_own_operators_iff_it_sees_itself(
    graph: OperatorGraph, data: st.DataObject
) -> None:
    seen = encoded(graph, EVERY_OPERATOR)
    edge = data.draw(st.integers(0, len(graph.edges) - 1))
    assert sees_itself(directed, seen, edge)
    assert sees_itself(symmetric, seen, edge)
    assert not sees_itself(released, seen, edge)


def test_the_released_policy_is_blind_on_the_cell_of_darts() -> None:
    """In the normal cell no logit depends on any operator: no way there is two edges long."""
    policy = replace(released_graph_convolution(), features=32, hidden=16)
    graph = encoded(DARTS, NAT_PLUS)
    before = logits(policy, graph)
    for edge in range(8):  # the normal cell
        assert torch.equal(logits(policy, changed(graph, edge))[:8], before[:8])
    sighted = replace(policy, adjacency=directed)
    for edge in range(8):
        after = logits(sighted, changed(graph, edge))
        assert not torch.equal(after[:8], logits(sighted, graph)[:8])


def test_adjacencies() -> None:
    """in -> a twice, a -> out: rows are what a node takes from in, a and out."""
    graph = graph_of(("conv_1x1", "in", "a"), (SKIP, "in", "a"), ("conv_1x1", "a", "out"))
    seen = encoded(graph, NAT_PLUS)
    assert released(seen).tolist() == [[0, 0, 0], [2, 0, 0], [0, 1, 0]]
    assert directed(seen).tolist() == [[1, 0, 0], [2 / 3, 1 / 3, 0], [0, 1 / 2, 1 / 2]]
    degrees = np.array([3, 4, 2])  # of A + A^T + I
    both = np.array([[1, 2, 0], [2, 1, 1], [0, 1, 1]])
    assert np.allclose(symmetric(seen), both / np.sqrt(np.outer(degrees, degrees)))


def test_graphs_as_arrays() -> None:
    seen = encoded(DARTS, NAT_PLUS)
    assert seen.inputs.tolist() == [0, 1, -1, -1, -1, -1] * 2  # anew in each cell
    assert seen.slot.tolist() == [0, 1] * 8
    assert seen.target.tolist() == [2, 2, 3, 3, 4, 4, 5, 5, 8, 8, 9, 9, 10, 10, 11, 11]
    assert seen.source.tolist() == [0, 1, 0, 1, 1, 0, 0, 2, 6, 7, 8, 7, 6, 8, 8, 7]
    assert [NAT_PLUS[index] for index in seen.operator] == list(DARTS.operators)
    # edges from the inputs of the reduction cell have stride 2
    assert seen.strided.tolist() == [0] * 8 + [1, 1, 0, 1, 1, 0, 0, 1]
    assert seen.depth.tolist() == [0, 0, 0.5, 0.5, 0.5, 1, 0, 0, 0.5, 1, 1, 1]


def test_equal_blocks_of_a_chain_look_different() -> None:
    names = ["in", *"abcdefgh", "out"]
    chain = graph_of(*[("conv_3x3", x, y) for x, y in pairwise(names)])
    seen = encoded(chain, NAT_PLUS)
    with_depth, without = (logits(replace(SMALL, waves=waves), seen) for waves in (2, 0))
    assert torch.allclose(without[3], without[4])
    assert not torch.allclose(with_depth[3], with_depth[4])


def test_a_policy_of_other_operators_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"does not know the operator conv_1x3_3x1; its vocabulary"
    ):
        encoded(cell_graph(PUBLISHED["NAONet"], SKELETON), NAT_PLUS)
    with pytest.raises(InputError, match="does not know the operator max_pool_5x5"):
        offers(
            transformations(graph_of(("conv_5x5", "in", "out"))),
            (*NAT_FULLY_CONCAT, "conv_5x5", "conv_1x1"),
            0.8,
        )


def test_graphs_that_the_policy_cannot_read() -> None:
    three = graph_of(*[("conv_1x1", "in", "out")] * 3)
    with pytest.raises(InputError, match="3 incoming edges and the policy reads 2; make it with"):
        logits(SMALL, encoded(three, NAT_PLUS))
    assert logits(replace(SMALL, slots=3), encoded(three, NAT_PLUS)).shape == (3, 14)
    inputs = tuple("xyz")
    many = graph_of(*[("conv_1x1", x, "out") for x in inputs], inputs=inputs)
    with pytest.raises(InputError, match="has 3 inputs and the policy knows 2"):
        logits(replace(SMALL, slots=3), encoded(many, NAT_PLUS))


# -- odds ------------------------------------------------------------------------------------------


def test_the_start_is_close_to_keep(policy: Policy) -> None:
    offered = offers(SPACE, NAT_PLUS, 0.8)
    odds = probabilities(policy, policy.drawn(_rng()), offered)
    assert np.abs(odds[:, 0] - 0.8).max() < 0.03
    assert np.allclose(odds.sum(axis=1), 1)
    counts = np.array([len(names) for names in SPACE.options])
    assert np.array_equal((odds > 0).sum(axis=1), counts)  # nothing that is not on offer
    others = odds[:, 1:].sum(axis=1) / (counts - 1)
    assert np.abs(odds[odds > 0].min() - others.min()) < 0.01


def test_odds_are_a_softmax_over_what_is_on_offer(policy: Policy) -> None:
    """By hand, edge by edge."""
    offered = offers(SPACE, NAT_PLUS, 0.7)
    weights = _rng(3).standard_normal(len(policy.drawn(_rng())))
    parts = cut(torch.from_numpy(weights), policy.shapes)
    raw = policy.logits(parts, offered.graph).numpy()
    odds = log_odds(policy, parts, offered).exp().numpy()
    for edge, names in enumerate(SPACE.options):
        others = [raw[edge, NAT_PLUS.index(name)] for name in names[1:]]
        keep = raw[edge, -1] + np.log(0.7 / 0.3 * len(others))
        exponentials = np.exp([keep, *others])
        expected = exponentials / exponentials.sum()
        assert np.allclose(odds[edge, : len(names)], expected)
        assert (odds[edge, len(names) :] == 0).all()


@pytest.mark.parametrize("entropy", [0.0, 0.1])
def test_the_gradient_is_that_of_the_expected_gain(policy: Policy, entropy: float) -> None:
    """Against finite differences of the formula, written out anew."""
    rng = _rng(1)
    offered = offers(SPACE, NAT_PLUS, 0.8)
    weights = rng.standard_normal(len(policy.drawn(_rng()))) * 0.3
    draws, gains = SPACE.sample(rng, 3), rng.standard_normal(3)

    def wanted(at: np.ndarray) -> float:
        odds = probabilities(policy, at, offered)
        chosen = [[odds[e, p] for e, p in enumerate(draw)] for draw in draws]
        drawn = gains @ np.log(chosen).sum(axis=1) / 3
        return float(drawn - entropy * sum(p * np.log(p) for p in odds.ravel() if p > 0))

    slope = gradient(
        policy, weights, offered, lambda odds: expected_gain(odds, draws, gains, entropy=entropy)
    )
    direction = rng.standard_normal(len(weights))
    step = 1e-5
    numeric = (wanted(weights + step * direction) - wanted(weights - step * direction)) / (2 * step)
    assert slope @ direction == pytest.approx(numeric, rel=1e-5)


# -- baselines -------------------------------------------------------------------------------------


def test_the_running_mean_settles_at_the_reward_and_the_published_one_at_half() -> None:
    average, published = (0.0, 0.0), 0.0
    for _ in range(3000):
        average = averaged(average, 1.0, 0.99)
        published = published_average(published, 1.0)
    assert average[0] == pytest.approx(1, abs=1e-9)
    assert published == pytest.approx(0.5, abs=1e-9)


def test_the_running_mean_is_right_from_the_first_reward_on() -> None:
    average = averaged((0.0, 0.0), 3.0, 0.99)
    assert corrected(average, 0.0) == pytest.approx(3)
    average = averaged(average, 5.0, 0.99)
    assert corrected(average, 0.0) == pytest.approx((0.99 * 3 + 5) / 1.99)
    assert corrected((0.0, 0.0), 7.0) == 7


def test_the_mean_of_the_others() -> None:
    rewards = np.array([1.0, 2.0, 6.0])
    assert leave_one_out(rewards).tolist() == [4, 3.5, 1.5]
    assert (rewards - leave_one_out(rewards)).sum() == pytest.approx(0)


def test_the_baseline_leaves_the_gradient_as_it_is(policy: Policy) -> None:
    """Exactly, over all pairs of draws of a small space: E[(R - b) grad log pi] = grad E[R]."""
    graph = graph_of(("conv_1x1", "in", "out"), (SKIP, "in", "out"))
    space = transformations(graph, keep_skip_null)
    offered = offers(space, NAT_PLUS, 0.6)
    weights = _rng(2).standard_normal(len(policy.drawn(_rng()))) * 0.3
    every = [Candidate((a, b)) for a in range(3) for b in range(2)]
    rewards = {each: float(value) for each, value in zip(every, _rng(4).random(6), strict=True)}
    odds = probabilities(policy, weights, offered)
    chance = {each: odds[0, each[0]] * odds[1, each[1]] for each in every}
    expected = np.zeros(len(weights))
    for first in every:
        for second in every:
            pair = [first, second]
            values = np.array([rewards[each] for each in pair])
            gains = values - leave_one_out(values)
            slope = gradient(
                policy,
                weights,
                offered,
                lambda odds, d=pair, g=gains: expected_gain(odds, d, g, entropy=0.0),  # type: ignore[misc]
            )
            expected += chance[first] * chance[second] * slope

    def mean_reward(odds: torch.Tensor) -> torch.Tensor:
        terms = [(odds[0, a] + odds[1, b]).exp() * rewards[Candidate((a, b))] for a, b in every]
        return torch.stack(terms).sum()

    assert np.allclose(expected, gradient(policy, weights, offered, mean_reward), atol=1e-12)


# -- updates ---------------------------------------------------------------------------------------


def test_adam_is_that_of_torch() -> None:
    settings_ = Adam(rate=0.01, decays=(0.5, 0.999), weight_decay=5e-4)
    start = _rng().standard_normal(5)
    learnt = Learnt.fresh("x", NAT_PLUS, start)
    parameter = torch.tensor(start, requires_grad=True)
    theirs = torch.optim.Adam([parameter], lr=0.01, betas=(0.5, 0.999), weight_decay=5e-4)
    for seed in range(4):
        slope = _rng(seed).standard_normal(5)
        learnt = learnt.stepped(slope, settings_)
        parameter.grad = torch.tensor(-slope)
        theirs.step()
    assert np.allclose(unpacked(learnt.weights), parameter.detach().numpy(), atol=1e-9)
    assert learnt.steps == 4


def test_what_was_learnt_is_a_value() -> None:
    learnt = Learnt.fresh("x", NAT_PLUS, np.array([0.1, -1e-300]))
    assert Learnt.from_data(learnt.to_data()) == learnt
    assert hash(learnt) == hash(replace(learnt))
    assert replace(learnt, drawn=(Candidate([1]),)) != learnt
    assert NULL in learnt.vocabulary
