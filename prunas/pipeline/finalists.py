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
from prunas.search.budget import as_values
from prunas.search.costs import COSTS
from prunas.search.method import Scored
from prunas.search.prior import Prior, allocate
from prunas.supernet.space import Candidate

_ROUNDS: Final = 4
"""How many times as many as finalists are measured, at most, to find those that are in time."""


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

    Where the budget limits latency, which scores go by predictions of, only candidates enter that
    are inside when they are measured whole.

    Raises:
        InputError: no candidate inside the budget has a score.
        RunError: a training diverges, the disk is full, the device is too busy to be timed, or none
            of the candidates measured is fast enough.
    """
    request = job.request
    ranked = _measured(job, _ranked(job, scored))
    if request.finalists == 1:
        return [Finalist(ranked[0].candidate, ranked[0].score, None)]
    scores = {entry.candidate: entry.score for entry in ranked}
    anchors = _in_time(job, _anchors(job, prior))
    entrants = list(dict.fromkeys([*anchors, *scores]))[: request.finalists]
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


def _measured(job: Job, ranked: Sequence[Scored]) -> list[Scored]:
    """The best that are in time when measured: as many as can be finalists."""
    wanted = job.request.finalists
    if "latency" not in job.feasible.limits:
        return list(ranked[:wanted])
    found: list[Scored] = []
    for start in range(0, min(len(ranked), _ROUNDS * wanted), wanted):
        group = {entry.candidate: entry for entry in ranked[start : start + wanted]}
        found += [group[candidate] for candidate in _in_time(job, list(group))]
        if len(found) >= wanted:
            break
    if not found:
        count = min(len(ranked), _ROUNDS * wanted)
        limit = COSTS["latency"].written(job.feasible.limits["latency"])
        raise RunError(
            f"of the {count} best candidates none is within {limit} when it is measured whole,"
            " though all are predicted to be; ask for a little more, or for more evaluations"
        )
    return found[:wanted]


def _in_time(job: Job, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that are within the limit on latency, if there is one, when they are measured."""
    limit = job.feasible.limits.get("latency")
    if limit is None or job.stopwatch is None or not candidates:
        return list(candidates)
    with job.folder.stage("measure the best candidates"):
        times = job.stopwatch.times(candidates)
    pairs = zip(candidates, times, strict=True)
    return [candidate for candidate, time in pairs if 1e6 * time.milliseconds <= limit]


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
