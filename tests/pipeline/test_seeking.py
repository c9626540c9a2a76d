"""Looking for transformations while weights change: what is asked when, and of what."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunas.errors import InputError
from prunas.pipeline.progress import Progress
from prunas.pipeline.seeking import Seeking, Settings, entrants
from prunas.pipeline.transformers import METHODS, seeker
from prunas.supernet.space import Candidate
from prunas.transformer_nat import TransformationSpace, traced_transformations, transformations
from prunas.transformer_nat.method import Scored
from tests.transformer_nat.graphs import graph_of
from tests.transformer_nat.traced_networks import IMAGE, NETWORKS

MOVES = traced_transformations(NETWORKS["inverted"](), IMAGE).moves
CELL = transformations(
    graph_of(("sep_conv_3x3", "in", "a"), ("conv_3x3", "a", "out"), ("max_pool_3x3", "in", "out"))
)


@dataclass
class Made:
    """Weights that are no weights: a score for each transformation, and a diary."""

    value: Callable[[Candidate], float]
    done: int = 0
    diary: list[tuple[str, object]] = field(default_factory=list)

    def train(self, epochs: int) -> None:
        if self.done < epochs:
            self.done = epochs
            self.diary.append(("train", epochs))

    def score(self, positions: Candidate) -> float:
        self.diary.append(("score", positions))
        return self.value(positions)


def seeking(
    weights: Made,
    moves: TransformationSpace = MOVES,
    scores: dict[int, dict[Candidate, float]] | None = None,
    **changes: object,
) -> Seeking:
    settings = Settings(**{"epochs": 3, "evaluations": 24, **changes})  # type: ignore[arg-type]
    known = {} if scores is None else scores
    return Seeking(moves, weights, settings, known, lambda: None, Progress())


def frugal(positions: Candidate) -> float:
    return -MOVES.cost(positions).macs / 1e5


def test_a_policy_asks_in_the_course_of_training() -> None:
    weights = Made(frugal)
    seeking(weights).ranked()
    kinds = [kind for kind, _ in weights.diary]
    rounds = "".join(kind[0] for kind in kinds).split("t")[1:]
    assert len(rounds) == 3
    assert all(4 <= len(each) <= 6 for each in rounds[:2])
    assert len(rounds[2]) > 6
    assert weights.diary[1] == ("score", MOVES.source)  # anew after each epoch
    after = [weights.diary[i + 1] for i, kind in enumerate(kinds) if kind == "train"]
    assert after == [("score", MOVES.source)] * 3


@pytest.mark.parametrize("method", ["random", "greedy", "evolution"])
def test_methods_that_learn_nothing_ask_once_all_is_trained(method: str) -> None:
    weights = Made(frugal)
    ranked = seeking(weights, method=method).ranked()
    assert weights.diary[0] == ("train", 3)
    assert all(kind == "score" for kind, _ in weights.diary[1:])
    assert len(ranked) > 10
    assert MOVES.source in [row.candidate for row in ranked]


def test_without_training_there_is_one_round() -> None:
    weights = Made(frugal)
    seeking(weights, epochs=0).ranked()
    assert weights.done == 0
    assert len(weights.diary) > 15
    assert {kind for kind, _ in weights.diary} == {"score"}


@pytest.mark.parametrize("method", METHODS)
def test_no_network_is_scored_twice_on_the_same_weights(method: str) -> None:
    weights = Made(frugal)
    ranked = seeking(weights, method=method, epochs=1, evaluations=40).ranked()
    asked = [what for kind, what in weights.diary if kind == "score"]
    assert len(set(asked)) == len(asked)
    operators = {_living(each) for each in asked if isinstance(each, Candidate)}
    assert len(operators) == len(asked)
    assert [row.score for row in ranked] == sorted((r.score for r in ranked), reverse=True)
    assert ranked[0].score >= frugal(MOVES.source)


def _living(positions: Candidate) -> tuple[object, ...]:
    names = MOVES.operators(positions)
    return tuple((index, names[index]) for index in MOVES.graph.live(names))


@given(
    epochs=st.integers(0, 30),
    evaluations=st.integers(1, 200),
    method=st.sampled_from(["policy", "random"]),
)
def test_rounds_are_spread_over_the_training(epochs: int, evaluations: int, method: str) -> None:
    """Four at most; half of all scores, or more, are on the trained weights.

    Those are what is asked for at last, and what a policy proposes then.
    """
    work = seeking(Made(frugal), method=method, epochs=epochs, evaluations=evaluations)
    plan = work._plan(learns=method == "policy")
    ends = [end for end, _ in plan]
    assert ends == sorted(set(ends))
    assert ends[-1] == epochs
    assert 1 <= len(plan) <= (4 if method == "policy" else 1)
    assert len(plan) == 1 or ends[0] >= 1
    proposals = evaluations - sum(count for _, count in plan)
    assert 0 <= proposals <= (10 if method == "policy" else 0)
    assert min(count for _, count in plan) >= 1
    assert proposals <= plan[-1][1]
    assert 2 * (plan[-1][1] + proposals) >= evaluations


@pytest.mark.parametrize("evaluations", [1, 2, 12, 40])
@pytest.mark.parametrize("method", METHODS)
def test_no_more_is_scored_than_was_asked_for(method: str, evaluations: int) -> None:
    """What a policy proposes in the end counts, and so does the source where nobody asks for it."""
    weights = Made(frugal)
    ranked = seeking(weights, method=method, evaluations=evaluations).ranked()
    scored = [what for kind, what in weights.diary if kind == "score"]
    assert MOVES.source in scored
    assert MOVES.source in [row.candidate for row in ranked]
    assert len(scored) <= evaluations


@pytest.mark.parametrize("thrift", [0.0, 0.1, 1.0])
def test_work_saved_is_worth_accuracy(thrift: float) -> None:
    def value(positions: Candidate) -> float:
        return 0.9 - 0.05 * sum(place > 0 for place in positions)

    ranked = seeking(Made(value), method="random", thrift=thrift, evaluations=60).ranked()
    whole = MOVES.cost(MOVES.source).macs
    worth = [r.score + thrift * (1 - MOVES.cost(r.candidate).macs / whole) for r in ranked]
    assert worth == pytest.approx(sorted(worth, reverse=True), abs=1e-12)
    assert all(row.score == value(row.candidate) for row in ranked)
    assert (ranked[0].candidate == MOVES.source) == (thrift < 1)


def test_methods_are_told_what_a_network_is_worth() -> None:
    """Greedy removal stops at once where nothing helps, and goes on where it saves work."""

    def value(positions: Candidate) -> float:
        return 0.9 - 0.01 * sum(place > 0 for place in positions)

    asked = {
        thrift: len(seeking(Made(value), method="greedy", thrift=thrift, evaluations=99).ranked())
        for thrift in (0.0, 1.0)
    }
    neighbours = sum(len(names) - 1 for names in MOVES.options)
    assert asked[0.0] <= 1 + neighbours < asked[1.0]


@given(
    scores=st.lists(st.integers(0, 10), min_size=1, max_size=30),
    finalists=st.integers(1, 6),
    thrift=st.sampled_from([0.0, 0.2, 1.0]),
    unfit=st.sets(st.integers(0, 30)),
)
def test_entrants_are_each_worth_most_at_their_thrift(
    scores: list[int], finalists: int, thrift: float, unfit: set[int]
) -> None:
    drawn = MOVES.sample(np.random.default_rng(1), 60)
    candidates = list(dict.fromkeys([MOVES.source, *drawn]))[: len(scores)]
    ranked = [Scored(each, score / 10) for each, score in zip(candidates, scores, strict=False)]
    refused = {candidates[place] for place in unfit if 0 < place < len(candidates)}
    settings = Settings(finalists=finalists, thrift=thrift)
    found = entrants(MOVES, ranked, settings, lambda positions: positions not in refused)
    assert found[0] == ranked[0]
    left = [row for row in ranked[1:] if row.candidate not in refused]
    assert len(found) == 1 + min(finalists - 1, len(left))
    whole = MOVES.cost(MOVES.source).macs
    for step, row in enumerate(found[1:]):
        price = thrift * 2.0 ** ((finalists - 2) / 2 - step)
        values = {r: r.score + price * (1 - MOVES.cost(r.candidate).macs / whole) for r in left}
        assert values[row] == pytest.approx(max(values.values()), abs=1e-12)
        left.remove(row)


def test_equal_scores_the_cheaper_first() -> None:
    ranked = seeking(Made(lambda _: 0.5), method="random").ranked()
    costs = [MOVES.cost(row.candidate).macs for row in ranked]
    assert costs == sorted(costs)
    assert ranked[-1].candidate == MOVES.source


def test_equal_scores_of_what_has_no_weights_the_cheaper_first() -> None:
    pools = transformations(graph_of(("max_pool_5x5", "in", "out"), ("skip_connect", "in", "out")))
    ranked = seeking(Made(lambda _: 0.5), pools, method="random", epochs=0).ranked()
    costs = [pools.cost(row.candidate).published_macs for row in ranked]
    assert costs == sorted(costs)
    assert len(set(costs)) > 2


def test_what_is_on_record_is_not_measured_again() -> None:
    scores: dict[int, dict[Candidate, float]] = {}
    first = seeking(Made(frugal), scores=scores).ranked()
    again = Made(lambda _: pytest.fail("it is on record"))
    assert seeking(again, scores=scores).ranked() == first
    scores.pop(1)
    trained_on = Made(frugal, done=3)
    with pytest.raises(InputError, match="lacks scores on weights that were trained on since"):
        seeking(trained_on, scores=scores).ranked()


def test_what_cuts_an_output_off_has_no_score() -> None:
    weights = Made(lambda _: 0.5)
    ranked = seeking(weights, CELL, method="evolution", epochs=1, evaluations=60).ranked()
    assert all(CELL.connected(row.candidate) for row in ranked)
    asked = [what for kind, what in weights.diary if kind == "score"]
    assert all(CELL.connected(each) for each in asked if isinstance(each, Candidate))
    failed = Made(lambda positions: math.nan if sum(positions) else 0.5)
    assert [r.candidate for r in seeking(failed).ranked()] == [MOVES.source]


def test_a_seeker_forgets_scores_and_not_what_it_learnt() -> None:
    found = seeker("policy", MOVES, np.random.default_rng(0))
    asked = found.ask(8)
    found.tell([Scored(each, frugal(each)) for each in asked])
    found.anew()
    assert found.learns
    assert found.ask(1) == [MOVES.source]
    assert found.proposals()[0] == MOVES.source
    with pytest.raises(InputError, match="is called 'magic'; choose policy, lstm, random, greedy"):
        seeker("magic", MOVES, np.random.default_rng(0))
