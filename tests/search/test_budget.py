"""Budgets and feasible sets, against enumeration."""

import itertools
from dataclasses import replace
from itertools import pairwise
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from prunas.errors import InputError
from prunas.eval.cost import Cost
from prunas.search.budget import Budget, Feasible, Positions, as_values
from prunas.search.costs import Values
from prunas.search.enumeration import product
from prunas.supernet.blocks import Alternatives
from prunas.supernet.space import Candidate, SearchSpace
from tests.search.toys import chain_space, everything, feasible, problems, toy_space

SEEDS = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("macs=0.4", (("macs", 0.4),)),
        ("macs=.4", (("macs", 0.4),)),
        ("macs=40%", (("macs", 0.4),)),
        ("macs=33.3%", (("macs", 0.333),)),
        ("macs=1", (("macs", 1.0),)),
        ("macs=100%", (("macs", 1.0),)),
        ("macs=120M,params=2.5M", (("macs", 120_000_000), ("params", 2_500_000))),
        (" macs = 1.5g , params = 3k ", (("macs", 1_500_000_000), ("params", 3000))),
        ("macs=1e8", (("macs", 100_000_000),)),
        ("params=2500000", (("params", 2_500_000),)),
        ("latency=5ms", (("latency", 5_000_000),)),
        ("latency = 1.5 MS", (("latency", 1_500_000),)),
        ("latency=800us", (("latency", 800_000),)),
        ("latency=800µs,macs=40%", (("latency", 800_000), ("macs", 0.4))),
        ("latency=2s", (("latency", 2_000_000_000),)),
        ("latency=90ns", (("latency", 90),)),
        ("latency=60%", (("latency", 0.6),)),
    ],
)
def test_parse(text: str, limits: tuple[tuple[str, int | float], ...]) -> None:
    parsed = Budget.parse(text)
    assert parsed == Budget(limits)
    assert [type(bound) for _, bound in parsed.limits] == [type(bound) for _, bound in limits]


def test_bounds_may_be_numbers_of_numpy() -> None:
    share, count = cast(float, np.float32(0.4)), cast(int, np.int64(9))
    theirs = Budget((("macs", share), ("params", count)))
    assert theirs == Budget((("macs", 0.4), ("params", 9)))
    assert [type(bound) for _, bound in theirs.limits] == [float, int]


def test_shares_become_absolute_where_the_full_cost_is_known() -> None:
    stated = Budget.parse("latency=33.3%,macs=40%,params=9", tolerance=0.1)
    known = stated.absolute({"latency": 1_000_000, "params": 50})
    assert known == Budget((("latency", 333_000), ("macs", 0.4), ("params", 9)), tolerance=0.1)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "write it as name=value"),
        ("0.4", "write it as name=value, such as macs=40%"),
        ("macs=0.4,", "write it as name=value"),
        ("flops=0.4", "write macs= instead"),
        ("FLOPs=2G", "halve the figure"),
        ("watts=3", "known are macs, params, memory, latency"),
        ("latency=3", "latency=3 has no unit; write latency=3ms, or a share"),
        ("latency=5M", "is not a positive number; write 0.4, 40%, 5ms or 800us"),
        ("latency=0.4ns", "is not a whole number of nanoseconds"),
        ("latency=0ms", "give a share"),
        ("macs=5ms", "is not a positive number; write 0.4, 40%, 2500000 or 2.5M"),
        ("macs=", "is not a positive number"),
        ("macs=nan", "is not a positive number"),
        ("macs=inf", "is not a positive number"),
        ("macs=-0.4", "is not a positive number"),
        ("macs=-3M", "is not a positive number"),
        ("macs=1,5M", "write it as name=value"),
        ("macs=4T", "is not a positive number"),
        ("macs=1e400", "more than 18 digits; give a share such as macs=40%"),
        ("latency=1e99999999999999999999s", "more than 18 digits"),
        ("latency=1e17s", "more than 18 digits"),
        ("macs=1e-40", "macs=1e-40 is too small a budget for any network; give a share"),
        ("macs=1e-99999999999999999999", "is too small a budget"),
        ("macs=1.5", "is not a whole number"),
        ("macs=0.0001K", "is not a whole number"),
        ("macs=0", "give a share"),
        ("macs=0M", "give a share"),
        ("macs=0%", "give a share"),
        ("macs=140%", "give a share"),
        ("macs=0.4,macs=0.5", "more than once"),
    ],
)
def test_parse_refuses(text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Budget.parse(text)


@pytest.mark.parametrize(
    ("limits", "tolerance", "sentence"),
    [
        ((), 0.02, "limits nothing"),
        ((("macs", 0.4),), 1.0, "tolerance"),
        ((("macs", 0.4),), -0.1, "tolerance"),
        ((("macs", float("nan")),), 0.02, "not a budget"),
        ((("macs", 1.5),), 0.02, "not a budget"),
        ((("macs", -1),), 0.02, "not a budget"),
        ((("flops", 0.5),), 0.02, "write macs="),
        ((("macs", 10**400),), 0.02, "more than 18 digits"),
        ((("macs", True),), 0.02, "macs=True is not a budget"),
        ((("macs", "40%"),), 0.02, "macs=40% is not a budget"),
        ((("macs", np.bool_(True)),), 0.02, "macs=True is not a budget"),
        ((("macs", np.float32(1.5)),), 0.02, "macs=1.5 is not a budget"),
    ],
)
def test_budget_refuses(
    limits: tuple[tuple[str, int | float], ...], tolerance: float, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        Budget(limits, tolerance)


def test_shares_are_rounded_down_as_written() -> None:
    space = toy_space([(1, 100)], [(1, (0,))], [3])
    # 0.29 * 100 is 28.999999999999996 in floating point, and 0.29 of 100 is 29
    assert dict(feasible(space, "macs=0.29,params=0.33").limits) == {"macs": 29, "params": 99}
    assert dict(feasible(space, "macs=1,params=500").limits) == {"macs": 100, "params": 500}


def test_unreachable_budget_names_asked_smallest_and_full() -> None:
    space = toy_space([(3, 10), (2, 5)], [(100, (0, 1))])
    with pytest.raises(InputError, match=r"at most 599 macs.* 600, .* 5,000; .*macs=600 or more"):
        feasible(space, "macs=599")
    with pytest.raises(InputError, match="params"):
        feasible(space, "macs=90%,params=4")


def test_budget_of_the_smallest_candidate_gives_exactly_that() -> None:
    space = chain_space(12)
    least = int(Cost(space).macs([space.smallest()])[0])
    tight = feasible(space, f"macs={least}")
    rng = np.random.default_rng(0)
    full = np.array([space.full()])
    assert set(tight.sample(rng, 20)) == {space.smallest()}
    assert tight.repair(full, rng).tolist() == [list(space.smallest())]


@pytest.mark.parametrize("text", ["macs=100%", "macs=90G"])
def test_generous_budget_gives_the_full_network_or_near_it(text: str) -> None:
    space = chain_space(5)
    generous = feasible(space, text, 0.1)
    sampled = as_values(generous.sample(np.random.default_rng(0), 50))
    cost = Cost(space)
    assert (cost.macs(sampled) >= 0.9 * cost.macs([space.full()])).all()
    assert 1 < len(set(map(tuple, sampled.tolist()))) < 50
    assert generous.in_window(np.array([space.full()])).all()
    assert not generous.in_window(np.array([space.smallest()])).any()


def oracle_inside(problem: Feasible, candidate: Candidate) -> bool:
    prices = {"macs": problem.cost.macs, "params": problem.cost.params}
    values = as_values([candidate])
    return all(prices[name](values)[0] <= limit for name, limit in problem.limits.items())


def oracle_in_window(problem: Feasible, candidate: Candidate) -> bool:
    """The definition, one candidate and one gene at a time."""
    if not oracle_inside(problem, candidate):
        return False
    prices = {"macs": problem.cost.macs, "params": problem.cost.params}
    for name, limit in problem.limits.items():
        usable = min(limit, int(prices[name](as_values([problem.space.full()]))[0]))
        price = int(prices[name](as_values([candidate]))[0])
        if price >= (1 - problem.budget.tolerance) * usable:
            return True
    return not any(
        oracle_inside(problem, larger) for larger in neighbours(problem.space, candidate)
    )


def neighbours(space: SearchSpace, candidate: Candidate) -> list[Candidate]:
    """Each gene in turn at its next larger choice."""
    result = []
    for index, gene in enumerate(space.genes):
        following = dict(pairwise(gene.choices))
        if candidate[index] in following:
            step = (following[candidate[index]],)
            result.append(Candidate((*candidate[:index], *step, *candidate[index + 1 :])))
    return result


@given(problem=problems())
def test_contains_and_window_match_their_definitions(problem: Feasible) -> None:
    values = everything(problem.space)
    rows = [Candidate(row) for row in values.tolist()]
    inside = [oracle_inside(problem, row) for row in rows]
    assert problem.contains(values).tolist() == inside
    assert problem.in_window(values).tolist() == [oracle_in_window(problem, row) for row in rows]
    assert problem.listed().tolist() == values[inside].tolist()


@given(problem=problems(), seed=SEEDS)
def test_samples_are_in_the_window(problem: Feasible, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.1, 10, (20, len(problem.space.genes)))
    sampled = problem.sample(rng, 20) + problem.sample(rng, 20, weights=weights[0])
    sampled += problem.sample(rng, 20, weights=weights)
    assert len(sampled) == 60
    assert {problem.space.candidate(candidate) for candidate in sampled} == set(sampled)
    assert problem.in_window(as_values(sampled)).all()


@given(problem=problems(), seed=SEEDS)
def test_front_samples_are_within_the_limits(problem: Feasible, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.1, 10, (20, len(problem.space.genes)))
    sampled = problem.front_sample(rng, 20) + problem.front_sample(rng, 20, weights=weights)
    assert len(sampled) == 40
    assert problem.contains(as_values(sampled)).all()


@given(problem=problems(), seed=SEEDS)
def test_repair_and_reduce(problem: Feasible, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = everything(problem.space)
    before = values.copy()
    repaired, reduced = problem.repair(values, rng), problem.reduce(values, rng)
    assert np.array_equal(values, before)
    assert problem.in_window(repaired).all()
    assert problem.contains(reduced).all()
    in_window, inside = problem.in_window(values), problem.contains(values)
    assert np.array_equal(repaired[in_window], values[in_window])
    assert np.array_equal(reduced[inside], values[inside])
    assert (reduced <= values).all()
    for row in repaired.tolist():
        problem.space.candidate(row)


def test_values_between_choices_count_as_the_smaller_one() -> None:
    problem = feasible(toy_space([(2, 4, 8), (2, 4, 8)], [(1, (0,)), (1, (1,))]), "macs=12")
    repaired = problem.repair(np.array([[9, 5], [1, 8]]), np.random.default_rng(0))
    assert repaired[0].tolist() == [8, 4]  # as it stands it fits
    assert repaired[1].tolist() == [4, 8]  # 2, 8 lies below the window, and one gene can grow


def test_repair_keeps_the_shape_of_a_candidate() -> None:
    """A candidate of twice the budget comes back with its genes in about the same proportion."""
    space = chain_space(10, steps=32, channels=64)
    problem = feasible(space, "macs=30%")
    rng = np.random.default_rng(1)
    wide = np.where(np.arange(10) % 2 == 0, 64, 32)[None]
    repaired = problem.repair(np.repeat(wide, 20, axis=0), rng)
    ratios = repaired[:, ::2].mean(axis=1) / repaired[:, 1::2].mean(axis=1)
    assert np.allclose(ratios, 2, atol=0.4)


@settings(max_examples=20)
@given(seed=SEEDS)
def test_samples_cover_a_small_window(seed: int) -> None:
    """All of it whose genes differ by less than the factor that samples are drawn within."""
    problem = feasible(
        toy_space([(1, 2, 3, 4, 5)] * 3, [(3, (0, 1)), (5, (1, 2)), (1, (2,))]), "macs=50%"
    )
    values = everything(problem.space)
    rows = values[maximal(problem, values)]
    window = {tuple(row) for row in rows[rows.max(axis=1) < 4 * rows.min(axis=1)].tolist()}
    assert len(window) > 5
    sampled = set(problem.sample(np.random.default_rng(seed), 1000))
    assert len(window & sampled) >= 0.8 * len(window)


def maximal(problem: Feasible, values: Values) -> list[bool]:
    rows = [Candidate(row) for row in values.tolist()]
    return [
        oracle_inside(problem, row)
        and not any(oracle_inside(problem, larger) for larger in neighbours(problem.space, row))
        for row in rows
    ]


@pytest.mark.parametrize("text", ["macs=3%", "macs=40%", "macs=90%"])
def test_samples_are_diverse_and_use_the_budget(text: str) -> None:
    space = chain_space(20, steps=16, channels=64)
    problem = feasible(space, text)
    sampled = problem.sample(np.random.default_rng(0), 200)
    values = as_values(sampled)
    assert len(set(sampled)) >= 190  # nearly equal preferences may meet in one candidate
    assert (problem.shares(values) > 0.97).all()
    assert (values.max(axis=0) >= 1.3 * values.min(axis=0)).all()


def test_front_samples_spread_over_all_costs() -> None:
    problem = feasible(chain_space(20), "macs=80%")
    shares = problem.shares(as_values(problem.front_sample(np.random.default_rng(0), 400)))
    counts, _ = np.histogram(shares, bins=5, range=(0, 1))
    assert (counts > 40).all()


def test_large_spaces_are_not_listed() -> None:
    assert feasible(chain_space(6), "macs=50%").listed().shape == (0, 6)
    assert feasible(chain_space(6), "macs=50%").window().shape == (0, 6)
    assert len(feasible(chain_space(4), "macs=50%").listed()) > 0


def test_shares_are_costs_over_limits() -> None:
    problem = feasible(toy_space([(1, 2, 10)], [(5, (0,))], [2]), "macs=25,params=8")
    assert problem.shares(np.array([[1], [2]])).tolist() == [[0.2, 0.25], [0.4, 0.5]]


@given(problem=problems(), seed=SEEDS, rows=st.sampled_from([1, 3, 200]))
def test_the_last_point_of_a_path_that_fits(problem: Feasible, seed: int, rows: int) -> None:
    """Against all the points of the path; few rows are sectioned more finely than many."""
    rng = np.random.default_rng(seed)
    slopes = rng.uniform(0, 3, (rows, len(problem.last)))

    def path(places: NDArray[np.float64]) -> Positions:
        return np.minimum(slopes * places, problem.last).astype(np.int64)

    last = rng.uniform(0, 9)
    found = problem.last_inside(path, np.zeros((rows, 1)), np.full((rows, 1), last))
    for row, ends in zip(slopes[:3], found[:3], strict=True):
        steps = [k / s for s, most in zip(row, problem.last, strict=True) for k in range(most + 1)]
        grid = np.array(sorted({0.0, *(s for s in steps if s <= last)}))
        points = np.minimum(row * (grid[:, None] + 1e-9), problem.last).astype(np.int64)
        inside = points[problem.contains(problem.values(points))]
        assert ends.tolist() == inside[-1].tolist()


def test_filling_stops_where_the_window_begins() -> None:
    """Each gene adds up to 9 to a smallest cost of 3; the window is 15..30."""
    space = toy_space([tuple(range(1, 11))] * 3, [(1, (g,)) for g in range(3)])
    problem = feasible(space, "macs=30", 0.5)
    for seed in range(5):
        (row,) = problem.repair(as_values([space.smallest()]), np.random.default_rng(seed))
        assert sorted(row.tolist()) == [1, 10, 10]


# -- latency, which may fall when a width grows ----------------------------------------------------


class Jagged:
    """Latency that is a tenth shorter where a width fills fours, beside the usual costs."""

    def __init__(self, space: SearchSpace) -> None:
        self.macs, self.params = Cost(space).macs, Cost(space).params

    def latency(self, candidates: Values) -> Values:
        sizes = np.where(candidates % 4 == 0, 0.9, 1.0) * candidates
        prices: Values = np.rint(1000 + 100 * sizes.sum(axis=1)).astype(np.int64)
        return prices


@given(st.integers(0, 2**31), st.sampled_from([0.3, 0.5, 0.8]), st.integers(2, 6))
def test_candidates_keep_a_limit_on_latency(seed: int, share: float, genes: int) -> None:
    space, rng = chain_space(genes), np.random.default_rng(seed)
    problem = Feasible(space, Budget((("latency", share),)), Jagged(space))
    drawn = as_values(problem.sample(rng, 20))
    repaired = problem.repair(as_values(space.sample(rng, 20)), rng)
    for values in (drawn, repaired):
        assert all(oracle_in_latency_window(problem, row) for row in values)
        assert problem.in_window(values).all()


def oracle_in_latency_window(problem: Feasible, row: Values) -> bool:
    """Near the limit, or no gene can take its next larger choice."""
    limit = problem.limits["latency"]
    jagged = Jagged(problem.space)
    price = int(jagged.latency(row[None])[0])
    if price > limit or price >= (1 - problem.budget.tolerance) * limit:
        return price <= limit
    for index, gene in enumerate(problem.space.genes):
        larger = [choice for choice in gene.choices if choice > row[index]]
        grown = row.copy()
        grown[index] = larger[0] if larger else row[index]
        if larger and jagged.latency(grown[None])[0] <= limit:
            return False
    return True


# -- alternatives ----------------------------------------------------------------------------------


class Tabled:
    """Each gene's choices cost what a table says: `prices[gene][choice]` is (macs, params)."""

    def __init__(self, prices: list[list[tuple[int, int]]]) -> None:
        self.prices = [np.array(rows, dtype=np.int64) for rows in prices]

    def _summed(self, candidates: Values, cost: int) -> Values:
        columns = [rows[candidates[:, gene], cost] for gene, rows in enumerate(self.prices)]
        prices: Values = np.sum(columns, axis=0, dtype=np.int64)
        return prices

    def macs(self, candidates: Values) -> Values:
        return self._summed(candidates, 0)

    def params(self, candidates: Values) -> Values:
        return self._summed(candidates, 1)


def blocks_of(prices: list[list[tuple[int, int]]]) -> SearchSpace:
    """A space of choice blocks and nothing else."""
    choices = [tuple(range(len(rows))) for rows in prices]
    named = {g: Alternatives(f"block{g}", tuple(map(str, row))) for g, row in enumerate(choices)}
    return replace(toy_space(choices, [(1, (0,))]), alternatives=named)


priced_blocks = st.lists(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=2, max_size=4),
    min_size=1,
    max_size=4,
)


@given(priced_blocks, st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31))
def test_several_limits_are_refused_where_no_alternatives_keep_them(
    prices: list[list[tuple[int, int]]], macs: int, params: int, seed: int
) -> None:
    space, cost = blocks_of(prices), Tabled(prices)
    every = everything(space)
    inside = (cost.macs(every) <= macs) & (cost.params(every) <= params)
    budget = Budget((("macs", macs), ("params", params)))
    if not inside.any():
        with pytest.raises(InputError, match="no candidate"):
            Feasible(space, budget, cost)
        return
    problem, rng = Feasible(space, budget, cost), np.random.default_rng(seed)
    allowed = set(map(tuple, every[inside].tolist()))
    assert problem.cheapest in allowed
    assert set(problem.sample(rng, 5)) <= allowed
    assert set(map(tuple, problem.repair(every[:5], rng).tolist())) <= allowed
    assert set(map(tuple, problem.listed().tolist())) == allowed


def test_limits_that_can_be_kept_one_at_a_time_only() -> None:
    prices = [[(1, 9), (9, 1)]]
    with pytest.raises(InputError, match=r"keeps all of them: .* 1 macs and 9 params|9 macs and 1"):
        Feasible(blocks_of(prices), Budget((("macs", 5), ("params", 5))), Tabled(prices))


def test_many_blocks_begin_where_both_limits_are_kept() -> None:
    prices = [[(1, 20), (8, 8), (30, 1)]] * 30  # 3**30 ways: the middle ones are what is inside
    problem = Feasible(blocks_of(prices), Budget((("macs", 260), ("params", 260))), Tabled(prices))
    assert problem.cheapest == Candidate([1] * 30)
    with pytest.raises(InputError, match="keeps all of them"):
        Feasible(blocks_of(prices), Budget((("macs", 200), ("params", 200))), Tabled(prices))


@given(st.lists(st.integers(1, 3), min_size=1, max_size=6))
def test_enumeration_is_the_product_of_all_choices(counts: list[int]) -> None:
    rows = [tuple(range(5, 5 + count)) for count in counts]
    assert product(rows).tolist() == [list(way) for way in itertools.product(*rows)]


def test_small_spaces_of_very_many_genes_are_listed() -> None:
    row = [(8,)] * 70 + [(4, 8)] * 3
    problem = feasible(toy_space(row, [(1, (70, 71, 72))]), "macs=50%")
    assert len(problem.listed()) == 7
