"""One run of one contender: the same start points as all others, then its own questions."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np

from prunas.errors import InputError
from prunas.pipeline.comparison.arena import Arena
from prunas.pipeline.comparison.contenders import Contender, of_name
from prunas.pipeline.comparison.request import Comparison
from prunas.search.method import Scored, State, given
from prunas.search.randomly import Randomly
from prunas.supernet.space import Candidate

Improvement = tuple[int, int | list[int], float]
"""Number of the evaluation, from 1; candidate, by its number in a table or its values; score."""


@dataclass(frozen=True)
class Cell:
    """Which run: who, where, and with which seed."""

    contender: str
    space: str
    budget: str
    seed: int


@dataclass(frozen=True)
class Row:
    """What is kept of a run.

    Attributes:
        cell: which run.
        evaluation_seed: the set of scores that it saw.
        curve: where the best score so far grew.
        evaluations: distinct candidates scored, start points included.
        seconds: that the method itself took, without evaluations.
        test: test score of the candidate with the best score.
    """

    cell: Cell
    evaluation_seed: int
    curve: tuple[Improvement, ...]
    evaluations: int
    seconds: float
    test: float

    def to_json(self) -> dict[str, Any]:
        rest = ("evaluation_seed", "curve", "evaluations", "seconds", "test")
        return {**asdict(self.cell), **{name: getattr(self, name) for name in rest}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Row":
        """Read what `to_json` wrote; raises KeyError, TypeError or ValueError if it is not that."""
        cell = Cell(
            str(data["contender"]), str(data["space"]), str(data["budget"]), int(data["seed"])
        )
        curve = tuple((int(number), place, float(score)) for number, place, score in data["curve"])
        return cls(
            cell,
            int(data["evaluation_seed"]),
            curve,
            int(data["evaluations"]),
            float(data["seconds"]),
            float(data["test"]),
        )


def cells_of(request: Comparison, spaces: Sequence[tuple[str, str]]) -> list[Cell]:
    """All runs; those of a (space, budget) together, the contenders of a seed side by side."""
    return [
        Cell(contender.name, space, budget, seed)
        for space, budget in spaces
        for seed in request.seeds
        for contender in request.contenders
    ]


def play(cell: Cell, request: Comparison, arena: Arena) -> Row:
    """Run a contender.

    Which start points it is given depends on space, budget and seed alone; the method's own
    random numbers depend on the seed and the contender.
    """
    problem = arena.problem
    evaluation_seed = problem.evaluation_seed(cell.seed)
    start = start_points(request.start, cell, arena)
    known = [
        Scored(candidate, score)
        for candidate, score in zip(start, _scores(arena, start, evaluation_seed), strict=True)
    ]
    done, seconds = _search(of_name(cell.contender), known, cell, request, arena)
    curve = improvements(done)
    best = done[curve[-1][0] - 1].candidate if curve else done[0].candidate
    return Row(
        cell,
        evaluation_seed,
        tuple((number, arena.recorded(entry.candidate), entry.score) for number, entry in curve),
        len(done),
        round(seconds, 6),
        arena.test_score(best, evaluation_seed),
    )


def start_points(count: int, cell: Cell, arena: Arena) -> list[Candidate]:
    """The first candidates of the window that random search draws from this seed."""
    if count == 0:
        return []
    rng = _generator(cell.seed, "start", cell.space, cell.budget)
    method = Randomly()
    _, drawn = method.ask(method.start(arena.feasible.space, arena.feasible, None, rng), count)
    return drawn


def improvements(done: Sequence[Scored]) -> list[tuple[int, Scored]]:
    """The evaluations, numbered from 1, that were better than all before."""
    result: list[tuple[int, Scored]] = []
    best = -math.inf
    for number, entry in enumerate(done, 1):
        if entry.score > best:  # false for NaN
            best = entry.score
            result.append((number, entry))
    return result


def _search(
    contender: Contender, known: Sequence[Scored], cell: Cell, request: Comparison, arena: Arena
) -> tuple[list[Scored], float]:
    """Everything scored, in order, and the seconds that the method took."""
    began = perf_counter()
    state = given(_begun(contender, cell, arena), known)
    spent = perf_counter() - began
    method, done = contender.search, list(known)
    evaluation_seed = arena.problem.evaluation_seed(cell.seed)
    while len(done) < request.evaluations:
        began = perf_counter()
        # always a whole batch, so that a longer run begins like a shorter one
        state, asked = method.ask(state, request.batch)
        spent += perf_counter() - began
        if not asked:
            break
        wanted = asked[: request.evaluations - len(done)]
        scores = _scores(arena, wanted, evaluation_seed)
        latest = [Scored(*pair) for pair in zip(wanted, scores, strict=True)]
        began = perf_counter()
        state = method.tell(state, latest)
        spent += perf_counter() - began
        done += latest
    if not done:
        raise InputError(
            f"{contender.name} proposes no candidate on {cell.space} at {cell.budget}; leave it out"
        )
    return done, spent


def _begun(contender: Contender, cell: Cell, arena: Arena) -> State:
    feasible = arena.feasible
    prior = None
    if contender.prior is not None:
        prior = arena.prior(contender.prior, arena.problem.evaluation_seed(cell.seed))
    rng = _generator(cell.seed, "method", contender.name)
    return contender.search.start(feasible.space, feasible, prior, rng)


def _scores(arena: Arena, candidates: Sequence[Candidate], evaluation_seed: int) -> list[float]:
    return arena.scores(candidates, evaluation_seed) if candidates else []


def _generator(seed: int, *words: str) -> np.random.Generator:
    """A stream of its own for each seed and each list of words, in any process."""
    digest = hashlib.sha256("\n".join(words).encode("utf-8", "surrogateescape")).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])
