"""The last round of a search: its best candidates are trained for a while, and then compared.

Scores on shared weights rank candidates roughly (Kendall tau 0.54 to full training in a pilot, and
the best of 24 was under-scored altogether; benchmarks/RESULTS.md). A few epochs of training alone
tell more, and cost little for a few. Published evolutions stop at the scores (MetaPruning, SPOS);
`finalists=1` does that too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from prunas.errors import InputError, RunError
from prunas.pipeline.alone import Purpose, Training, train_alone
from prunas.pipeline.stages import Job
from prunas.search.budget import Budget, Feasible, as_candidates, as_values
from prunas.search.costs import COSTS
from prunas.search.method import Scored
from prunas.search.prior import Prior, allocate
from prunas.supernet.space import Candidate

_ROUNDS: Final = 4
"""How often candidates are measured, at most, to find as many finalists that are in time."""

_MORE: Final = 0.01
"""So much narrower candidates become with each further round."""


@dataclass(frozen=True)
class Finalist:
    """A candidate of the last round.

    Attributes:
        candidate: the network.
        score: on the shared weights; None for one that the search never scored.
        held_out: accuracy in 0..1 on the held-out images after the round's training; None where
            there was no round.
    """

    candidate: Candidate
    score: float | None
    held_out: float | None


def last_round(job: Job, scored: Sequence[Scored], prior: Prior | None) -> list[Finalist]:
    """The finalists, the best one first.

    They are the best scores inside the budget (of equals the cheapest) and, besides, the uniform
    network, the full one on smaller images if they are searched, and the prior's allocation, whose
    shapes the shared weights may not do justice. They
    are compared by held-out accuracy after `finalist_epochs` of training, which begins where the
    final one will begin: what trains best from random weights is another question than what
    does with those of the source (measured: benchmarks/RESULTS.md). Of equals the better
    score wins. The test set is not touched.

    Where the budget limits latency, which the search goes by predictions of, only candidates enter
    that are inside when they are measured whole. In place of one that is not, the next best enters;
    failing that, it is made narrower by what its time is above its prediction, which the search
    has then not scored.

    Raises:
        InputError: no candidate inside the budget has a score.
        RunError: a training diverges, the disk is full, the device is too busy to be timed, or no
            candidate is fast enough.
    """
    request = job.request
    ranked = _ranked(job, scored)
    scores = {entry.candidate: entry.score for entry in ranked}
    best = _best(job, ranked)
    if request.finalists == 1:
        return [Finalist(best[0], scores.get(best[0]), None)]
    anchors, _ = _in_time(job, _anchors(job, prior))
    entrants = list(dict.fromkeys([*anchors, *best]))[: request.finalists]
    recipe = request.finalist_recipe()
    purpose: Purpose = "scratch-finalist" if request.from_scratch else "finalist"
    trainings = [Training(each, recipe, request.seed, purpose) for each in entrants]
    with job.folder.stage("train the finalists"), job.progress.task("finalists") as task:
        results = train_alone(job, trainings, lambda done: task.update(done, len(trainings)))
    finalists = [
        Finalist(candidate, scores.get(candidate), result.held_out)
        for candidate, result in zip(entrants, results, strict=True)
    ]
    return sorted(finalists, key=_merit, reverse=True)


def _merit(finalist: Finalist) -> tuple[float, float]:
    score = -1.0 if finalist.score is None else finalist.score
    return finalist.held_out or 0.0, score


def _anchors(job: Job, prior: Prior | None) -> list[Candidate]:
    known = [job.uniform, job.smaller_input]
    known += [] if prior is None else [allocate(prior.values, job.feasible)]
    return [candidate for candidate in known if candidate is not None]


def _best(job: Job, ranked: Sequence[Scored]) -> list[Candidate]:
    """The best scores, as many as can be finalists; where latency is limited, `_in_time`."""
    best = [entry.candidate for entry in ranked]
    wanted, limit = job.request.finalists, job.feasible.limits.get("latency")
    if limit is None or job.stopwatch is None:
        return best[:wanted]
    found: list[Candidate] = []
    narrowed: list[Candidate] = []
    open_ones, ratios, next_best = best[:wanted], list[float](), wanted
    for attempt in range(_ROUNDS):
        inside, slow = _in_time(job, open_ones)
        found += [candidate for candidate in inside if candidate in best]
        narrowed += [candidate for candidate in inside if candidate not in best]
        missing = wanted - len(found) - len(narrowed)
        if missing <= 0 or not slow:
            break
        ratios += slow.values()
        factor = float(np.median(ratios)) + _MORE * attempt
        others, next_best = best[next_best : next_best + missing], next_best + missing
        open_ones = [*others, *_narrowed(job, list(slow), factor)]
    if not found + narrowed:
        raise RunError(
            f"none of the {min(wanted, len(best))} best candidates is within"
            f" {COSTS['latency'].written(limit)} when it is measured whole, nor made narrower, nor"
            " those after them, though all are predicted to be; ask for a little more"
        )
    return [*found, *narrowed][:wanted]


def _in_time(
    job: Job, candidates: Sequence[Candidate]
) -> tuple[list[Candidate], dict[Candidate, float]]:
    """Those that are within the limit when measured; the others, with measured / predicted."""
    limit = job.feasible.limits.get("latency")
    if limit is None or job.stopwatch is None or not candidates:
        return list(candidates), {}
    with job.folder.stage("measure the best candidates"):
        times = job.stopwatch.times(candidates)
    measured = [1e6 * time.milliseconds for time in times]
    predicted = job.prices.latency(as_values(candidates)).tolist()
    rows = list(zip(candidates, measured, predicted, strict=True))
    inside = [candidate for candidate, time, _ in rows if time <= limit]
    return inside, {each: time / price for each, time, price in rows if time > limit}


def _narrowed(job: Job, candidates: Sequence[Candidate], factor: float) -> list[Candidate]:
    """Made so much cheaper that they are in time if predictions are short by this factor."""
    limits = dict(job.feasible.limits)
    limits["latency"] = max(1, int(limits["latency"] / factor))
    try:
        tighter = Feasible(job.space, Budget(tuple(limits.items())), job.prices)
    except InputError:  # nothing is as cheap as that
        return []
    return as_candidates(tighter.repair(as_values(candidates), job.rng(7)))


def _ranked(job: Job, scored: Sequence[Scored]) -> list[Scored]:
    """Those inside the budget with a score, the best first; of equals the cheapest."""
    values = as_values([entry.candidate for entry in scored])
    inside = job.feasible.contains(values)
    macs = job.cost.macs(values).tolist()
    found = [
        (entry, price)
        for entry, price, ok in zip(scored, macs, inside, strict=True)
        if ok and np.isfinite(entry.score)
    ]
    if not found:
        raise InputError("no candidate inside the budget has a score; search longer")
    found.sort(key=lambda pair: (-pair[0].score, pair[1], pair[0].candidate))
    return [entry for entry, _ in found]
