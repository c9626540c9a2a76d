"""The allocation by worth per cost, against enumeration."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from prunas.errors import InputError
from prunas.eval.cost import Cost
from prunas.search.budget import Budget, Feasible, as_values
from prunas.search.costs import Values
from prunas.search.prior import Prior, allocate, leaning
from prunas.supernet.space import Candidate
from tests.search.toys import (
    chain_space,
    everything,
    feasible,
    prior_of,
    problems,
    space_with_blocks,
    toy_space,
)

SEEDS = st.integers(0, 2**32 - 1)


def total(candidate: Candidate, prior: Prior) -> float:
    return sum(worth[value] for worth, value in zip(prior.values, candidate, strict=True))


def best(problem: Feasible, prior: Prior) -> float:
    inside = problem.listed().tolist()
    return max(total(Candidate(row), prior) for row in inside)


@given(width=st.integers(2, 6), limit=st.floats(0.2, 1.0), seed=SEEDS)
def test_equal_costs_and_falling_gains_give_the_optimum(
    width: int, limit: float, seed: int
) -> None:
    """Every channel costs one unit, so the best candidate has the most worthy channels."""
    row = tuple(range(1, width + 1))
    space = toy_space([row] * 4, [(7, (gene,)) for gene in range(4)])
    problem = feasible(space, f"macs={max(int(limit * 4 * width), 4) * 7}")
    prior = prior_of(space, seed)
    assert total(allocate(prior.values, problem), prior) == pytest.approx(best(problem, prior))


@given(problem=problems(), seed=SEEDS)
def test_allocation_is_in_the_window(problem: Feasible, seed: int) -> None:
    found = allocate(prior_of(problem.space, seed).values, problem)
    assert problem.in_window(as_values([found])).all()


def test_allocation_beats_random_candidates() -> None:
    problem = feasible(chain_space(20), "macs=30%,params=60%")
    prior = prior_of(problem.space)
    at_random = problem.sample(np.random.default_rng(0), 200)
    assert total(allocate(prior.values, problem), prior) > max(total(c, prior) for c in at_random)


def test_separable_costs_come_near_the_optimum() -> None:
    """Steps of unequal size cannot be packed perfectly; the mean loss is below two per cent."""
    rng = np.random.default_rng(0)
    losses = []
    for seed in range(40):
        costs = [(int(cost), (gene,)) for gene, cost in enumerate(rng.integers(5, 50, 4))]
        space = toy_space([tuple(range(2, 13, 2))] * 4, costs)
        problem = feasible(space, f"macs={rng.uniform(0.3, 0.9):.2f}")
        prior = prior_of(space, seed)
        losses.append(1 - total(allocate(prior.values, problem), prior) / best(problem, prior))
    assert min(losses) >= 0
    assert float(np.mean(losses)) < 0.02
    assert max(losses) < 0.1


def test_products_of_widths_come_near_the_optimum() -> None:
    space = chain_space(4)
    problem = feasible(space, "macs=40%")
    for seed in range(5):
        prior = prior_of(space, seed)
        assert total(allocate(prior.values, problem), prior) >= 0.95 * best(problem, prior)


def test_worthless_channels_still_fill_the_budget() -> None:
    space = chain_space(4)
    problem = feasible(space, "macs=40%")
    found = allocate([[0.0] * 33] * 4, problem)
    assert problem.in_window(as_values([found])).all()


def test_generous_and_tightest_budgets() -> None:
    space = chain_space(3)
    prior = prior_of(space)
    assert allocate(prior.values, feasible(space, "macs=100%")) == space.full()
    least = int(feasible(space, "macs=1").cost.macs(everything(space)[:1])[0])
    assert allocate(prior.values, feasible(space, f"macs={least}")) == space.smallest()


def test_values_of_another_space_are_refused() -> None:
    problem = feasible(toy_space([(1, 4), (2, 3)], [(1, (0, 1))]), "macs=50%")
    with pytest.raises(InputError, match="3 genes and the space has 2"):
        allocate([[0.0] * 5] * 3, problem)
    with pytest.raises(InputError, match="3 channels of gene 'gene0', which has 4"):
        allocate([[0.0] * 4] * 2, problem)


def test_prior_refuses_what_does_not_fit_together() -> None:
    with pytest.raises(InputError, match="1 orders were given, but 2 values"):
        Prior(((0,),), ((0.0, 1.0), (0.0, 1.0)))
    with pytest.raises(InputError, match="2 channels and 2 values"):
        Prior(((0, 1),), ((0.0, 1.0),))
    with pytest.raises(InputError, match="decrease"):
        Prior(((0, 1),), ((0.0, 1.0, 0.5),))
    with pytest.raises(InputError, match="not finite numbers"):
        Prior(((0, 1),), ((0.0, float("nan"), 0.5),))
    with pytest.raises(InputError, match="not finite numbers"):
        Prior(((0, 1),), ((0.0, 1.0, float("inf")),))
    for order in ((0, 0), (1, 2), (-1, 0)):
        with pytest.raises(InputError, match="gene 0 does not name each of its 2 channels once"):
            Prior((order,), ((0.0, 1.0, 2.0),))


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_the_unit_of_worth_does_not_matter(unit: float) -> None:
    problem = feasible(chain_space(6), "macs=40%")
    values = prior_of(problem.space).values
    scaled = [[unit * worth for worth in row] for row in values]
    assert allocate(scaled, problem) == allocate(values, problem)


class Counted:
    """The real costs, and how often they were asked."""

    def __init__(self, cost: Cost) -> None:
        self.cost, self.calls = cost, 0

    def macs(self, candidates: Values, /) -> NDArray[np.int64]:
        self.calls += 1
        return self.cost.macs(candidates)

    def params(self, candidates: Values, /) -> NDArray[np.int64]:
        self.calls += 1
        return self.cost.params(candidates)


def test_prices_lead_to_the_budget_and_filling_only_rounds_off() -> None:
    """Filling up from the smallest candidate, step by step, would ask for thousands of costs."""
    space = chain_space(16, steps=32, channels=128)
    counted = Counted(Cost(space))
    problem = Feasible(space, Budget.parse("macs=60%"), counted)
    allocate(prior_of(space).values, problem)
    assert counted.calls < 1000


def test_shapes_lean_from_uniform_to_the_allocation() -> None:
    """Full widths 8 and 4, allocation 2 and 4: shares 1/4 and 1; halfway is their square root."""
    space = toy_space([tuple(range(1, 9)), tuple(range(1, 5))], [(1, (0, 1))])
    shapes = leaning(space, Candidate([2, 4]), np.array([0.0, 0.5, 1.0]))
    assert shapes.tolist() == [[1, 1], [0.5, 1], [0.25, 1]]


def test_shapes_try_blocks_that_the_allocation_leaves_out() -> None:
    space = space_with_blocks(1)
    allocation = Candidate([*space.full()[:-1], 0])
    shapes = leaning(space, allocation, np.array([0.0, 0.5, 1.0]))
    assert shapes[:, -1].tolist() == [1, 0.5, 0.25]
