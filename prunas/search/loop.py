"""The loop: ask, evaluate, record, tell. It is written here and nowhere else."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from time import perf_counter

import numpy as np

from prunas.errors import RunError
from prunas.search.archive import Archive, Evaluation
from prunas.search.budget import Budget, Feasible, as_values
from prunas.search.costs import Costs
from prunas.search.method import Scored, Search
from prunas.search.prior import Prior
from prunas.supernet.space import Candidate, SearchSpace

Evaluate = Callable[[Sequence[Candidate]], Iterable[float]]
"""Scores candidates in their order, one at a time, so that each is recorded as it arrives."""


@dataclass(frozen=True)
class Progress:
    """One more candidate has a score.

    Attributes:
        done: candidates scored so far.
        total: candidates asked for.
        scored: the latest one.
        replayed: it came from the archive and took no time.
    """

    done: int
    total: int
    scored: Scored
    replayed: bool


def run_search(
    method: Search,
    space: SearchSpace,
    budget: Budget,
    prior: Prior | None,
    evaluate: Evaluate,
    archive: Archive,
    cost: Costs,
    *,
    evaluations: int,
    batch: int,
    rng: np.random.Generator,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[Scored]:
    """Search until `evaluations` candidates are scored or no further one is found.

    To resume, call it again with the same arguments, a generator of the same seed and the same
    archive: the search runs through the same questions, the archive answers those that it knows,
    and the result is that of a run never interrupted. More `evaluations` than before continue the
    same search. Nothing recorded is lost, whatever is raised.

    Args:
        method: the search.
        space: the candidates.
        budget: what they may cost.
        prior: what is known of them, or None.
        evaluate: gives their scores.
        archive: where scores are recorded before the method is told.
        cost: prices of the candidates.
        evaluations: how many candidates to score, those already in the archive included.
        batch: how many to ask for at once; the search depends on it.
        rng: decides.
        on_progress: called after every score.

    Returns:
        The candidates in the order asked, with their scores.

    Raises:
        InputError: the budget cannot be met.
        RunError: the evaluator gives too few scores, or a score cannot be recorded.
        ValueError: `evaluations` or `batch` is not positive.
    """
    if min(evaluations, batch) < 1:
        raise ValueError(f"evaluations={evaluations} and batch={batch} must be at least 1")
    state = method.start(space, Feasible(space, budget, cost), prior, rng)
    done: list[Scored] = []
    for step in count():
        # always a whole batch, so that a longer run begins like a shorter one
        state, asked = method.ask(state, batch)
        wanted = asked[: evaluations - len(done)]
        latest: list[Scored] = []
        for scored, replayed in _scores(wanted, evaluate, archive, cost, step):
            latest.append(scored)
            if on_progress is not None:
                on_progress(Progress(len(done) + len(latest), evaluations, scored, replayed))
        state = method.tell(state, latest)
        done += latest
        if not asked or len(done) >= evaluations:
            break
    return done


def _scores(
    candidates: Sequence[Candidate], evaluate: Evaluate, archive: Archive, cost: Costs, step: int
) -> Iterator[tuple[Scored, bool]]:
    """Each candidate with its score, once that is recorded, and whether it was known before."""
    unknown = [c for c in candidates if archive.score_of(c) is None]
    if not candidates:
        return
    values = as_values(candidates)
    prices = zip(cost.macs(values).tolist(), cost.params(values).tolist(), strict=True)
    arriving = iter(evaluate(unknown)) if unknown else iter(())
    for candidate, (macs, params) in zip(candidates, prices, strict=True):
        known = archive.score_of(candidate)
        if known is None:
            began = perf_counter()
            score = _next_score(arriving, candidate)
            seconds = perf_counter() - began
            archive.record(Evaluation(candidate, score, macs, params, seconds, step))
            yield Scored(candidate, score), False
        else:
            yield Scored(candidate, known), True


def _next_score(arriving: Iterator[float], candidate: Candidate) -> float:
    score = next(arriving, None)
    if score is None:
        raise RunError(f"the evaluator ended before it gave a score for {candidate}")
    return float(score)
