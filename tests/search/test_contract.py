"""The laws of every search, on every search. A new one is one row in `METHODS`."""

import json
import math
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch

from prunas.errors import InputError
from prunas.search import SEARCHES
from prunas.search.aging import AgingEvolution
from prunas.search.amc import Amc
from prunas.search.budget import Feasible, as_values
from prunas.search.di_greedy import DiGreedy
from prunas.search.evolution import Evolution
from prunas.search.hill_climbing import HillClimbing
from prunas.search.method import Scored, Search, State, given, state_from_json, state_to_json
from prunas.search.netadapt import NetAdapt
from prunas.search.nsga2 import Nsga2
from prunas.search.policy_gradient import PolicyGradient
from prunas.search.prior import Prior, allocate
from prunas.search.published_evolution import PublishedEvolution
from prunas.search.randomly import Randomly
from prunas.search.regression import Regression
from prunas.search.reinforce import Reinforce
from prunas.search.uniform import Uniform
from prunas.supernet.space import Candidate
from tests.search.toys import chain_space, feasible, landscape, prior_of, toy_space
from tests.telling import assert_kinds_of_numbers_make_no_difference

METHODS: dict[str, Search] = {
    "uniform": Uniform(),
    "random": Randomly(),
    "evolution": Evolution(population=12, parents=4),
    "regression": Regression(breeder=Evolution(population=12, parents=4), brood=5, trees=8),
    "nsga2": Nsga2(population=12),
    "hill-climbing": HillClimbing(),
    "aging-evolution": AgingEvolution(population=5),
    "metapruning": PublishedEvolution(generation=8, parents=4),
    "spos": PublishedEvolution(generation=8, parents=4, least_shift=0),
    "reinforce": Reinforce(),
    "policy-gradient": PolicyGradient(samples=4),
    "amc": Amc(warm_up=10, hidden=8),
    "netadapt": NetAdapt(),
    "di-greedy": DiGreedy(),
}
PRIORS: dict[str, Callable[[Feasible], Prior | None]] = {
    "no prior": lambda problem: None,
    "prior": lambda problem: prior_of(problem.space),
}
BATCHES = (12, 7, 1, 5, 1, 6)


@pytest.fixture(params=METHODS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def method(name: str) -> Search:
    return METHODS[name]


@pytest.fixture(params=PRIORS)
def start(request: pytest.FixtureRequest, method: Search) -> State:
    problem = feasible(chain_space(6, steps=16, channels=32), "macs=40%,params=80%")
    prior = PRIORS[request.param](problem)
    return method.start(problem.space, problem, prior, np.random.default_rng(5))


def test_every_search_on_offer_is_under_test() -> None:
    offered = {name: type(method) for name, method in SEARCHES.items()}
    assert offered == {name: type(method) for name, method in METHODS.items()}


def scored(candidates: list[Candidate]) -> list[Scored]:
    return [Scored(candidate, landscape(candidate)) for candidate in candidates]


def play(method: Search, state: State, batches: tuple[int, ...] = BATCHES) -> State:
    for n in batches:
        state, asked = method.ask(state, n)
        state = method.tell(state, scored(asked))
    return state


def test_no_repeats_all_inside_all_counted(method: Search, start: State) -> None:
    state = start
    for n in BATCHES:
        before = state.asked
        state, asked = method.ask(state, n)
        assert len(asked) <= n
        assert state.asked == (*before, *asked)
        assert not set(before) & set(asked)
        if asked:
            assert start.feasible.contains(as_values(asked)).all()
        assert {start.feasible.space.candidate(candidate) for candidate in asked} == set(asked)
        state = method.tell(state, scored(asked))
    assert len(set(state.asked)) == len(state.asked) == len(state.told)
    assert len(state.asked) == (9 if method == Uniform() else sum(BATCHES))


def test_searches_on_the_budget_stay_in_its_window(start: State, method: Search, name: str) -> None:
    state = play(method, start)
    if name not in ("uniform", "nsga2"):
        assert start.feasible.in_window(as_values(list(state.asked))).all()


def test_same_seed_same_search(method: Search, start: State) -> None:
    problem, prior = start.feasible, start.prior
    again = method.start(problem.space, problem, prior, np.random.default_rng(5))
    assert again == start
    assert play(method, start) == play(method, again)


def test_another_seed_another_search(method: Search, start: State) -> None:
    problem, prior = start.feasible, start.prior
    other = method.start(problem.space, problem, prior, np.random.default_rng(6))
    assert other != start
    if method != Uniform():
        assert play(method, other).asked != play(method, start).asked


def test_one_generator_gives_independent_searches(method: Search, start: State) -> None:
    rng = np.random.default_rng(5)
    problem, prior = start.feasible, start.prior
    first, second = (method.start(problem.space, problem, prior, rng) for _ in range(2))
    assert first == start
    assert second != first


def test_ask_is_a_function_of_the_state(method: Search, start: State) -> None:
    state = play(method, start)
    copy = replace(state)
    assert method.ask(state, 5) == method.ask(state, 5)
    assert state == copy


def test_saved_and_read_equals_uninterrupted(method: Search, start: State) -> None:
    """At every point of the run, also between ask and tell."""
    whole = play(method, start)
    state = start
    for n in BATCHES:
        state, asked = method.ask(through_json(state, start), n)
        state = method.tell(through_json(state, start), scored(asked))
    assert state == whole


def through_json(state: State, start: State) -> State:
    text = state_to_json(state)
    assert "NaN" not in text
    assert "Infinity" not in text
    read = state_from_json(text, start)
    assert read == state
    assert read.feasible is start.feasible
    return read


def test_scores_that_are_not_finite_do_not_stop_a_search(method: Search, start: State) -> None:
    state, scores = start, [float("nan"), float("-inf"), float("inf"), 0.5]
    for n in BATCHES:
        state, asked = method.ask(state, n)
        rows = [Scored(c, scores[index % 4]) for index, c in enumerate(asked)]
        state = through_json(method.tell(state, rows), start)
    assert len(state.told) == len(state.asked)
    assert {entry.score for entry in state.told} == {-math.inf, 0.5}


@pytest.mark.parametrize("size", [1e150, 1e200, 1e308])
def test_huge_scores_do_not_stop_a_search(method: Search, start: State, size: float) -> None:
    state = start
    for n in BATCHES:
        state, asked = method.ask(state, n)
        rows = [Scored(c, size * (-1) ** index) for index, c in enumerate(asked)]
        state = through_json(method.tell(state, rows), start)
    assert len(state.told) == len(state.asked)


@pytest.mark.parametrize("number", [np.float32, np.int64, np.array, torch.tensor])
def test_scores_may_be_numbers_of_numpy_and_torch(
    method: Search, start: State, number: Callable[[int], Any]
) -> None:
    assert_kinds_of_numbers_make_no_difference(
        method, start, number, scored=Scored, to_json=state_to_json
    )


@pytest.mark.parametrize("score", [None, "0.5", torch.zeros(2), 10**400])
def test_scores_are_numbers(method: Search, start: State, score: Any) -> None:
    state, asked = method.ask(start, 1)
    with pytest.raises(InputError, match=r"the score .* is no number; tell one number for each"):
        method.tell(state, [Scored(asked[0], score)])


def test_the_random_stream_moves_on(method: Search, start: State) -> None:
    """Of greedy searches behind their first proposals, which nothing random decides."""
    state, _ = method.ask(start, 20)
    assert (state.stream == start.stream) == (method == Uniform())


def test_asking_again_before_telling(method: Search, start: State) -> None:
    state = start
    for _ in range(4):
        state, _ = method.ask(state, 8)
    assert len(set(state.asked)) == len(state.asked)


def test_told_as_they_arrive(method: Search, start: State) -> None:
    """Some are always on their way, and the latest asked may be the first told."""
    state, waiting = start, list[Candidate]()
    rng = np.random.default_rng(1)
    for _ in range(20):
        state, asked = method.ask(state, 2)
        waiting += asked
        while len(waiting) > 7:
            place = int(rng.integers(len(waiting)))
            state = method.tell(through_json(state, start), scored([waiting.pop(place)]))
    assert len(set(state.asked)) == len(state.asked) == len(state.told) + len(waiting)
    assert start.feasible.contains(as_values(list(state.asked))).all()


def test_an_exhausted_space_ends(method: Search, name: str) -> None:
    problem = feasible(toy_space([(1, 2, 3), (1, 2, 4)], [(3, (0, 1))]), "macs=60%", 0.3)
    state = method.start(problem.space, problem, None, np.random.default_rng(0))
    for _ in range(20):
        state, asked = method.ask(state, 2)
        state = method.tell(state, scored(asked))
    assert asked == []
    inside = problem.listed()
    window = inside[problem.in_window(inside)]
    if name != "uniform":
        every = inside if name == "nsga2" else window
        assert set(state.asked) == {tuple(row) for row in every.tolist()}


def test_a_narrow_window_of_a_space_of_thousands_ends(method: Search, name: str) -> None:
    """Where sampling finds nothing new, what is left of the window is listed."""
    problem = feasible(chain_space(6, steps=6), "macs=10%", 0.001)
    window = {tuple(row) for row in problem.window().tolist()}
    assert 50 < len(window) < 200
    state = method.start(problem.space, problem, None, np.random.default_rng(0))
    for _ in range(12):
        state, asked = method.ask(state, 50)
        state = method.tell(state, scored(asked))
    if name not in ("uniform", "nsga2"):
        assert asked == []
        assert set(state.asked) == window


def test_a_budget_with_one_candidate(method: Search) -> None:
    space = toy_space([(1, 2, 3)] * 3, [(3, (0, 1, 2))])
    problem = feasible(space, "macs=3")
    state = method.start(space, problem, prior_of(space), np.random.default_rng(0))
    state, asked = method.ask(state, 4)
    assert asked == [space.smallest()]
    assert method.ask(state, 4)[1] == []


def test_given_scores_are_known(method: Search, start: State) -> None:
    """Candidates scored before are never proposed, and the search goes on from them."""
    known = list(dict.fromkeys(start.feasible.sample(np.random.default_rng(3), 20)))
    state = play(method, given(start, scored(known)))
    assert set(state.asked[: len(known)]) == set(known)
    assert len(set(state.asked)) == len(state.asked) == len(state.told)


def test_the_allocation_is_asked_first(method: Search, start: State, name: str) -> None:
    """Also where other scores were given, and not again where its own one was."""
    if start.prior is None or name in ("uniform", "random"):
        return
    best = allocate(start.prior.values, start.feasible)
    known = [c for c in start.feasible.sample(np.random.default_rng(3), 60) if c != best]
    others = given(start, scored(list(dict.fromkeys(known))))
    assert [method.ask(state, 1)[1] for state in (start, others)] == [[best]] * 2
    assert best in method.ask(others, 5)[1]
    known_best = given(start, scored([best]))
    assert best not in method.ask(known_best, 5)[1]


def test_only_asked_candidates_can_be_told(method: Search, start: State) -> None:
    state, asked = method.ask(start, 2)
    state = method.tell(state, scored(asked[:1]))
    with pytest.raises(ValueError, match="told before"):
        method.tell(state, scored(asked[:1]))
    with pytest.raises(ValueError, match="never asked"):
        method.tell(start, scored(asked))


def test_global_generators_are_left_as_found(method: Search, start: State) -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - it is this global generator that must stay untouched
    torch.manual_seed(1)
    found = global_states()
    first = play(method, start)
    assert global_states() == found
    random.seed(2)
    assert play(method, start) == first


def global_states() -> tuple[object, ...]:
    legacy = np.random.get_state(legacy=False)  # noqa: NPY002
    return random.getstate(), str(legacy), torch.get_rng_state().tolist()


def damages(asked: list[Any], learnt: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Parts of a saved state, and what else may stand in their place."""
    strange = {"shape": [2, 1], "values": [0, 0]}
    needed = learnt.keys() - {"pending", "waiting", "baseline"}
    return {
        "asked twice": {"asked": [*asked, asked[0]]},
        "a value that is none": {"asked": [[3] * 6, *asked[1:]]},
        "a value and a half": {"asked": [[1.5] * 6, *asked[1:]]},
        "values of another space": {"asked": [asked[0][1:], *asked[1:]]},
        "a number that was asked": {"asked": [1.5, *asked[1:]]},
        "a text that was asked": {"asked": ["abcdef", *asked[1:]]},
        "told from the end": {"told": [[-1, 0.5]]},
        "told twice": {"told": [[0, 0.5], [0, 0.6]]},
        "told of yes": {"told": [[True, 0.5]]},
        "told yes": {"told": [[0, True]]},
        "told in words": {"told": [[0, "0.5"]]},
        "an empty stream": {"stream": {}},
        "no stream": {"stream": None},
        "no more learnt": {"learnt": ""},
        "what it never learns": {"learnt": {**learnt, "strange": strange}},
        **{f"no {name}": {"learnt": without(learnt, name)} for name in needed},
        **{f"another {name}": {"learnt": {**learnt, name: strange}} for name in learnt},
        **{
            f"no finite {name}": {"learnt": {**learnt, name: spoiled(learnt[name])}}
            for name in learnt
            if learnt[name]["values"]
        },
    }


def without(learnt: dict[str, Any], name: str) -> dict[str, Any]:
    return {other: array for other, array in learnt.items() if other != name}


def spoiled(array: dict[str, Any]) -> dict[str, Any]:
    return {**array, "values": [math.nan] * len(array["values"])}


def test_damaged_states_cannot_be_read(method: Search, start: State) -> None:
    state, _ = method.ask(play(method, start), 2)
    data = json.loads(state_to_json(state))
    for changes in damages(data["asked"], data["learnt"]).values():
        with pytest.raises(InputError, match=r"not a saved search of this method.* \(.+\)$"):
            state_from_json(json.dumps({**data, **changes}), start)


def test_a_state_is_about_one_space(method: Search, start: State) -> None:
    problem = feasible(chain_space(5, steps=16, channels=32), "macs=40%,params=80%")
    prior = None if start.prior is None else prior_of(problem.space)
    other = method.start(problem.space, problem, prior, np.random.default_rng(5))
    with pytest.raises(InputError, match="not a saved search of this method on this space"):
        state_from_json(state_to_json(play(method, start)), other)


def test_a_state_is_read_whatever_the_search_has_done_since(method: Search, start: State) -> None:
    state = play(method, start)
    assert state_from_json(state_to_json(start), state) == start
    assert state_from_json(state_to_json(state), state) == state


LEARNING = ("reinforce", "policy-gradient", "amc", "netadapt")


def test_what_was_learnt_is_of_one_method(method: Search, start: State, name: str) -> None:
    text = state_to_json(play(method, start))
    for other in set(LEARNING) - {name, "netadapt" if name == "di-greedy" else ""}:
        problem, rng = start.feasible, np.random.default_rng(5)
        theirs = METHODS[other].start(problem.space, problem, start.prior, rng)
        with pytest.raises(InputError, match="another method or space: it has"):
            state_from_json(text, theirs)


WHOLE: dict[str, dict[str, int]] = {
    "evolution": {"population": 1, "parents": 2},
    "regression": {"brood": 1, "trees": 1, "committee": 1},
    "nsga2": {"population": 4},
    "aging-evolution": {"population": 1, "tournament": 1},
    "metapruning": {"generation": 1, "parents": 2, "least_shift": 0},
    "policy-gradient": {"samples": 2, "horizon": 1},
    "amc": {"warm_up": 0, "hidden": 1, "batch": 1, "replay": 1},
}
"""The least of what is counted."""

REAL: dict[str, dict[str, tuple[float, ...]]] = {
    "evolution": {"rate": (0, 1)},
    "hill-climbing": {"rate": (0, 1)},
    "metapruning": {"rate": (0, 1)},
    "reinforce": {"rate": (0, 9), "decay": (0, 0.99)},
    "policy-gradient": {"rate": (0, 9), "widest": (1e-3, 9), "narrowest": (1e-3, 9)},
    "amc": {
        **dict.fromkeys(("actor_rate", "critic_rate"), (0.0, 0.1)),
        **dict.fromkeys(("noise", "least_noise"), (0, 9)),
        **dict.fromkeys(("follow", "decay", "average"), (0, 1)),
    },
    "netadapt": {"reduction": (1e-18, 1), "decay": (1e-18, 1)},
    "di-greedy": {"reduction": (1e-18, 1)},
}
"""The ends of what is measured."""


def test_settings_at_their_ends_make_a_search(name: str) -> None:
    problem = feasible(chain_space(3, steps=4), "macs=40%,params=80%")
    least = {setting: (value,) for setting, value in WHOLE.get(name, {}).items()}
    for setting, values in {**least, **REAL.get(name, {})}.items():
        for value in values:
            method = replace(cast(Any, METHODS[name]), **{setting: value})
            state = method.start(problem.space, problem, None, np.random.default_rng(5))
            assert len(play(method, state, (3, 5, 2)).told) > 0


def test_settings_that_make_no_sense(name: str) -> None:
    method = cast(Any, METHODS[name])
    for setting, least in WHOLE.get(name, {}).items():
        for value in (least - 1, -1, 5.5, "5", True, None):
            with pytest.raises(InputError, match=rf"{setting}=.* must be a whole number, {least}"):
                replace(method, **{setting: value})
    for setting, (_, most) in REAL.get(name, {}).items():
        beyond = math.inf if most in (9, 0.1) else 1.01
        for other in (-0.1, math.nan, beyond, "0.5", True, None):
            with pytest.raises(InputError, match=rf"{setting}=.* must be a number in "):
                replace(method, **{setting: other})


PROGRAM = """
import json, numpy as np
from tests.search.test_contract import METHODS, play
from tests.search.toys import chain_space, feasible, prior_of
problem = feasible(chain_space(6, steps=16), "macs=40%")
starts = {
    name: method.start(problem.space, problem, prior_of(problem.space), np.random.default_rng(5))
    for name, method in METHODS.items()
}
print(json.dumps({name: play(METHODS[name], start).asked[:] for name, start in starts.items()}))
"""


def test_another_process_finds_the_same() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"PYTHONHASHSEED": "123", "PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    problem = feasible(chain_space(6, steps=16), "macs=40%")
    for name, asked in json.loads(answer).items():
        method, prior = METHODS[name], prior_of(problem.space)
        start = method.start(problem.space, problem, prior, np.random.default_rng(5))
        assert play(method, start).asked == tuple(map(tuple, asked))
