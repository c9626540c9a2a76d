"""NetAdapt and the greedy allocation of Hou & Kung: their steps, against plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunas.search.budget import Feasible, Positions
from prunas.search.di_greedy import DiGreedy
from prunas.search.greedy import advanced, completions, exchanges, present_network
from prunas.search.hill_climbing import summit
from prunas.search.method import Scored, State
from prunas.search.netadapt import NetAdapt
from prunas.search.prior import Prior
from prunas.search.randomly import Randomly
from tests.search.toys import (
    best_score,
    chain_space,
    feasible,
    landscape,
    played,
    prior_of,
    problems,
    toy_space,
    wide_open,
)

SEEDS = st.integers(0, 2**32 - 1)
PROBLEM = feasible(chain_space(6, steps=16, channels=64), "macs=60%")


def begun(method: NetAdapt | DiGreedy, problem: Feasible, prior: Prior | None = None) -> State:
    return method.start(problem.space, problem, prior, np.random.default_rng(0))


@pytest.mark.parametrize("method", [NetAdapt(), DiGreedy()])
def test_it_beats_random_search(method: NetAdapt | DiGreedy) -> None:
    problem = feasible(chain_space(10, steps=16, channels=64), "macs=30%")
    for seed in range(3):
        greedy = played(method, problem, seed, 200, 10)
        assert best_score(greedy) > best_score(played(Randomly(), problem, seed, 200, 10))


@pytest.mark.parametrize("method", [NetAdapt(), DiGreedy(reduction=0.05)])
def test_it_goes_on_from_the_best_proposal_until_the_budget(method: NetAdapt | DiGreedy) -> None:
    """Written out: all proposals of an iteration are scored, the best network is shrunk next."""
    state, present, iteration = begun(method, PROBLEM), PROBLEM.last, 0
    while not PROBLEM.contains(PROBLEM.values(present[None]))[0]:
        proposals = method.step(state, present, iteration)
        completed = completions(PROBLEM, proposals)
        fresh = [c for c in dict.fromkeys(completed) if c not in state.asked]
        if fresh:
            state, asked = method.ask(state, len(fresh))
            assert asked == fresh
            assert np.array_equal(present_network(state), present)
            state = method.tell(state, [Scored(c, landscape(c)) for c in asked])
        scores = {scored.candidate: scored.score for scored in state.told}
        present = proposals[int(np.argmax([scores[c] for c in completed]))]
        iteration += 1
    assert iteration > 5
    state, completed = advanced(state, method.step)
    assert completed == []
    assert np.array_equal(present_network(state), present)
    assert state.learnt["iteration"] == iteration


@given(problem=problems(), seed=SEEDS, iteration=st.integers(0, 30))
def test_netadapt_shrinks_as_little_as_meets_the_reduction(
    problem: Feasible, seed: int, iteration: int
) -> None:
    rng = np.random.default_rng(seed)
    present = rng.integers(problem.last + 1)
    load = problem.load(present[None])[0]
    expected = []
    for gene, place in enumerate(present):
        for shrunk in range(place - 1, -1, -1):
            row = present.copy()
            row[gene] = shrunk
            if problem.load(row[None])[0] <= load - 0.025 * 0.96**iteration:
                expected.append(row.tolist())
                break
    state = begun(NetAdapt(), problem)
    assert NetAdapt().step(state, present, iteration).tolist() == expected


def test_di_greedy_extrapolates_from_a_tenth_of_the_width() -> None:
    """MACs 300 a + 100 b: a step of 5 % of 40,000 is 20/3 channels of a and 20 of b."""
    space = toy_space([tuple(range(1, 101))] * 2, [(300, (0,)), (100, (1,))])
    problem = feasible(space, "macs=50%")
    state = begun(DiGreedy(), problem)
    rows = DiGreedy(reduction=0.05).step(state, problem.last, 0)
    values = problem.values(rows).tolist()
    assert sorted(values) == [[93, 100], [100, 80]]  # widths are whole: 7 channels, not 20/3
    low = problem.positions(np.array([[10, 50]]))[0]
    assert problem.values(DiGreedy().step(state, low, 0)).tolist() == [[10, 48]]  # a is frozen


def test_every_step_takes_one_choice_at_least() -> None:
    state = begun(DiGreedy(), PROBLEM)
    rows = DiGreedy(reduction=1e-9).step(state, PROBLEM.last, 0)
    assert sorted((PROBLEM.last - rows).tolist()) == sorted(np.eye(6).tolist())


@pytest.mark.parametrize("informed", [True, False])
def test_di_greedy_tries_the_least_lost_worth_for_cost_first(informed: bool) -> None:
    prior = prior_of(PROBLEM.space) if informed else None
    state = begun(DiGreedy(), PROBLEM, prior)
    present = PROBLEM.last
    rows = DiGreedy(reduction=0.05).step(state, present, 0)
    assert len(rows) == 6

    def rate(row: Positions) -> float:
        gene = int(np.flatnonzero(row != present)[0])
        full, less = (int(PROBLEM.values(each[None])[0, gene]) for each in (present, row))
        worth = (full - less) / 64
        if prior is not None:
            worth = prior.values[gene][full] - prior.values[gene][less]
        return float(worth / (PROBLEM.load(present[None]) - PROBLEM.load(row[None]))[0])

    rates = [rate(row) for row in rows]
    assert rates == sorted(rates)
    assert len(set(rates)) > 1


def one_step_down(centre: Positions, row: Positions) -> bool:
    """Whether one gene has its next smaller choice and at most one other gene changed: it grew."""
    changes = (row - centre)[row != centre]
    return sorted(changes.tolist())[0] == -1 and (changes < 0).sum() == 1 and len(changes) <= 2


def test_exchanges_shrink_one_gene_and_grow_another() -> None:
    problem = wide_open(toy_space([(1, 2, 3, 4, 5)] * 6, [(1, (g,)) for g in range(6)]))
    state = played(Randomly(), problem, 0, 30, 10)
    found = exchanges(state, 1)(np.random.default_rng(0), 200)
    centre = problem.positions(np.array([summit(state)]))[0]
    rows = problem.positions(np.array(list(found)))
    moved = rows[(rows != centre).any(axis=1)]
    down = [one_step_down(centre, row) for row in moved if (row < centre).any()]
    assert all(down)
    assert len(down) > 50


def test_on_the_budget_it_exchanges() -> None:
    """The full network is inside this budget, so nothing has to shrink."""
    problem = wide_open(toy_space([(1, 2, 3, 4, 5)] * 12, [(1, (g,)) for g in range(12)]))
    state = played(NetAdapt(), problem, 0, 20, 5)
    _, asked = NetAdapt().ask(state, 10)
    differing = (np.array(asked)[:, None] != np.array(state.asked)).sum(axis=2)
    assert differing.min(axis=1).max() <= 2
