"""What is particular to each search, beyond the laws of test_contract.py."""

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunas.eval.cost import Cost
from prunas.search.budget import Feasible, as_values
from prunas.search.evolution import Evolution
from prunas.search.genetics import crossed, deap_random, mutants, mutation_odds
from prunas.search.method import Scored, Search, State
from prunas.search.nsga2 import Nsga2, front
from prunas.search.prior import Prior, allocate
from prunas.search.randomly import Randomly
from prunas.search.uniform import Uniform, uniform_candidates
from prunas.supernet.space import Candidate
from tests.search.toys import (
    chain_space,
    everything,
    feasible,
    landscape,
    prior_of,
    space_with_blocks,
    toy_space,
)

SEEDS = st.integers(0, 2**32 - 1)
SPACE = chain_space(10, steps=16, channels=64)


def run(
    method: Search,
    problem: Feasible,
    seed: int,
    evaluations: int,
    batch: int,
    score: Callable[[Candidate], float] = landscape,
) -> State:
    state = method.start(problem.space, problem, None, np.random.default_rng(seed))
    for _ in range(evaluations // batch):
        state, asked = method.ask(state, batch)
        state = method.tell(state, [Scored(c, score(c)) for c in asked])
    return state


def best(state: State) -> float:
    return max(scored.score for scored in state.told)


def test_evolution_beats_random_search() -> None:
    problem = feasible(SPACE, "macs=30%")
    for seed in range(3):
        evolved = run(Evolution(population=30), problem, seed, 200, 20)
        at_random = run(Randomly(), problem, seed, 200, 20)
        assert best(evolved) > best(at_random)


def test_evolution_starts_from_the_allocation_and_the_uniform_network() -> None:
    problem = feasible(SPACE, "macs=30%")
    prior = prior_of(SPACE)
    method = Evolution(population=10)
    with_prior = method.start(SPACE, problem, prior, np.random.default_rng(0))
    _, asked = method.ask(with_prior, 10)
    allocation = allocate(prior.values, problem)
    assert asked[0] == allocation
    uniform = problem.repair(
        as_values(uniform_candidates(problem)[:1]), np.random.default_rng(0)
    ).tolist()
    shared = [sum(a == b for a, b in zip(allocation, c, strict=True)) for c in asked[2:]]
    assert max(shared[:4]) >= 5  # mutants of the allocation: most genes are as they were
    _, asked = method.ask(method.start(SPACE, problem, None, np.random.default_rng(0)), 10)
    assert np.abs(np.array(asked[0]) - uniform[0]).max() <= 64


def test_children_come_from_the_best() -> None:
    """With parents that agree in a gene, only mutation and repair can change it."""
    problem = feasible(toy_space([(1, 2, 3, 4)] * 12, [(1, (g,)) for g in range(12)]), "macs=36")
    method = Evolution(population=40, parents=2, rate=0.01)
    state = method.start(problem.space, problem, None, np.random.default_rng(0))
    state, asked = method.ask(state, 40)
    fit = {candidate: float(index < 2) for index, candidate in enumerate(asked)}
    state = method.tell(state, [Scored(candidate, fit[candidate]) for candidate in asked])
    _, children = method.ask(state, 20)
    parents = np.array(asked[:2])
    inherited = (np.array(children)[:, None] == parents[None]).any(axis=1).mean()
    strangers = (np.array(asked[2:])[:, None] == parents[None]).any(axis=1).mean()
    assert inherited > 0.8 > strangers


def test_single_questions_breed_mutants_and_crossovers() -> None:
    state = run(Evolution(population=5), feasible(SPACE, "macs=30%"), 0, 60, 1)
    assert len(state.told) == 60


@given(seed=SEEDS)
def test_mutants_change_to_another_choice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    space = toy_space([(1, 2), (3,), (4, 5, 6, 9)], [(1, (0, 1, 2))])
    parent = space.sample(rng, 1)[0]
    (child,) = mutants(space, [parent], np.ones(3), rng)
    assert space.candidate(child) == child
    assert child[0] != parent[0]
    assert child[1] == parent[1]
    assert child[2] != parent[2]
    assert mutants(space, [parent], np.zeros(3), rng) == [parent]


def test_mutation_is_uniform_over_the_other_choices() -> None:
    rng = np.random.default_rng(0)
    space = toy_space([(1, 2, 3, 4, 5)], [(1, (0,))])
    parents = [Candidate((3,))] * 4000
    drawn = np.ravel(mutants(space, parents, np.array([0.5]), rng))
    shares = np.bincount(drawn, minlength=6)[1:] / 4000
    assert np.allclose(shares, [0.125, 0.125, 0.5, 0.125, 0.125], atol=0.03)
    drawn = np.ravel(mutants(space, parents, np.array([1.0]), rng, least_shift=0))
    assert np.allclose(np.bincount(drawn, minlength=6)[1:] / 4000, 0.2, atol=0.03)


def test_every_mutant_has_odds_of_its_own() -> None:
    rng = np.random.default_rng(0)
    space = toy_space([(1, 2, 3, 4, 5)] * 3, [(1, (0, 1, 2))])
    found = np.array(mutants(space, [Candidate((3, 3, 3))] * 3, np.eye(3), rng))
    assert ((found != 3) == np.eye(3)).all()


@given(seed=SEEDS)
def test_crossover_takes_every_gene_from_a_parent(seed: int) -> None:
    left, right = Candidate(range(100)), Candidate(range(100, 200))
    (child,) = crossed([(left, right)], np.random.default_rng(seed))
    assert all(value in (index, index + 100) for index, value in enumerate(child))
    assert 20 < sum(value < 100 for value in child) < 80


def test_odds_follow_the_prior() -> None:
    space = toy_space([(1, 2, 4)] * 20, [(1, (0,))])
    assert mutation_odds(space, None, 0.1).tolist() == [0.1] * 20
    assert mutation_odds(space, None, 0.0).tolist() == [0.05] * 20
    worth = [(0.0, 0.0, 0.0, 0.0, 0.0)] * 10 + [(0.0, 1.0, 1.5, 2.0, 2.0)] * 10
    prior = Prior(((0, 1, 2, 3),) * 20, tuple(worth))
    odds = mutation_odds(space, prior, 0.1)
    assert odds[:10] == pytest.approx([0.05] * 10)
    assert odds[10:] == pytest.approx([0.15] * 10)
    flat = Prior(((0, 1, 2, 3),) * 20, (worth[0],) * 20)
    assert mutation_odds(space, flat, 0.1) == pytest.approx([0.1] * 20)
    assert mutation_odds(space, prior, 1.0).max() == 0.5


def test_deap_draws_from_the_callers_generator_only() -> None:
    random.seed(7)
    found = random.getstate()
    draws = []
    for seed in (1, 1, 2):
        with deap_random(np.random.default_rng(seed)):
            draws.append(random.random())
    assert draws[0] == draws[1] != draws[2]
    with pytest.raises(ZeroDivisionError), deap_random(np.random.default_rng(1)):
        random.random() / 0
    assert random.getstate() == found


def growing(candidate: Candidate) -> float:
    """The wider the better, less and less so, and more in some genes than in others."""
    return sum((1 + 5 * gene % 7) * math.sqrt(value) for gene, value in enumerate(candidate))


def test_nsga2_finds_a_better_front_than_random_candidates() -> None:
    """The hypervolume below score and above MACs, as a plain sum over the front."""
    problem = feasible(SPACE, "macs=90%")
    evolved = run(Nsga2(population=24), problem, 0, 240, 24, growing)
    rng = np.random.default_rng(0)
    at_random = [Scored(c, growing(c)) for c in problem.front_sample(rng, 240)]
    worst = min(s.score for s in (*evolved.told, *at_random))
    limit = problem.limits["macs"]

    def volume(scored: list[Scored]) -> float:
        points = front(scored, problem.cost)
        macs = problem.cost.macs(as_values([s.candidate for s in points])).tolist()
        widths = np.diff([*macs, limit])
        return float(sum(w * (s.score - worst) for w, s in zip(widths, points, strict=True)))

    assert volume(list(evolved.told)) > volume(at_random)
    costs = problem.shares(as_values(list(evolved.asked)))
    assert costs.min() < 0.1
    assert costs.max() > 0.9


@given(seed=SEEDS)
def test_front_is_what_nothing_dominates(seed: int) -> None:
    rng = np.random.default_rng(seed)
    space = chain_space(3)
    cost = Cost(space)
    scored = [Scored(c, float(rng.integers(5))) for c in dict.fromkeys(space.sample(rng, 20))]
    found = front([*scored, Scored(space.full(), float("nan"))], cost)
    macs = dict(zip(scored, cost.macs([s.candidate for s in scored]).tolist(), strict=True))
    expected = {s for s in scored if not any(dominates(o, s, macs) for o in scored)}
    assert set(found) == expected
    assert [macs[s] for s in found] == sorted(macs[s] for s in found)


def dominates(one: Scored, other: Scored, macs: dict[Scored, int]) -> bool:
    better = one.score > other.score or macs[one] < macs[other]
    return better and one.score >= other.score and macs[one] <= macs[other]


def test_front_of_nothing_is_empty() -> None:
    assert front([], Cost(SPACE)) == []


def test_uniform_candidates_keep_blocks_as_long_as_anything_fits() -> None:
    space = space_with_blocks()
    blocks = list(space.blocks)
    kept = [c for c in uniform_candidates(feasible(space, "macs=50%")) if c != space.smallest()]
    assert len(kept) > 3
    assert all(candidate[gene] == 1 for candidate in kept for gene in blocks)
    least = int(feasible(space, "macs=50%").cost.macs(as_values([space.smallest()]))[0])
    assert uniform_candidates(feasible(space, f"macs={least}")) == [space.smallest()]


@pytest.mark.parametrize("text", ["macs=100%", "macs=50%", "macs=20%", "macs=30%,params=40%"])
def test_uniform_candidates_are_all_there_are(text: str) -> None:
    """Against `SearchSpace.uniform` at a fine grid of ratios."""
    space = toy_space(
        [(3, 6, 9, 12), (8, 16), (1, 2, 3, 4, 5)], [(5, (0, 1)), (7, (1, 2)), (1, (2,))], [3, 2, 9]
    )
    problem = feasible(space, text)
    grid = [space.uniform(ratio) for ratio in np.linspace(1, 0.0005, 2000)]
    inside = [c for c in dict.fromkeys(grid) if problem.contains(as_values([c])).all()]
    assert uniform_candidates(problem) == inside
    assert len(inside) > 1


def test_uniform_asks_the_largest_first() -> None:
    problem = feasible(SPACE, "macs=50%")
    state = Uniform().start(SPACE, problem, None, np.random.default_rng(0))
    state, first = Uniform().ask(state, 1)
    assert first == [max(c for r in range(1, 17) if inside(problem, c := SPACE.uniform(r / 16)))]
    _, rest = Uniform().ask(state, 100)
    macs = problem.cost.macs(as_values(first + rest)).tolist()
    assert macs == sorted(macs, reverse=True)
    assert rest[-1] == SPACE.smallest()


def inside(problem: Feasible, candidate: Candidate) -> bool:
    return bool(problem.contains(as_values([candidate]))[0])


def test_random_search_asks_for_the_whole_window_of_a_small_space() -> None:
    problem = feasible(chain_space(3, steps=6), "macs=50%", 0.1)
    state = run(Randomly(), problem, 0, 300, 10)
    values = everything(problem.space)
    assert set(state.asked) == {tuple(row) for row in values[problem.in_window(values)].tolist()}
