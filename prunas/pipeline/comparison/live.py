"""An arena of a run: candidates are evaluated on its weights, each only once for all contenders."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import numpy as np

from prunas.errors import InputError
from prunas.eval.scoring import scorer
from prunas.pipeline.comparison.arena import Problem, require_choice
from prunas.pipeline.comparison.contenders import DAIS, DI
from prunas.pipeline.comparison.indicators import indicator_prior
from prunas.pipeline.comparison.request import Comparison
from prunas.pipeline.scores import evaluator
from prunas.pipeline.sources import train_source
from prunas.pipeline.stages import Job, sort_channels, train_full
from prunas.search.archive import Archive, Evaluation
from prunas.search.budget import Budget, Feasible, as_values
from prunas.search.executors import Executor, Failed, in_order, settled
from prunas.search.prior import Prior
from prunas.supernet.space import Candidate

_IMAGES: Final = 4096  # at most, that indicators are learnt on
_DRAWN: Final = 64  # candidates, to see whether a window too large to count holds more than one

Score = Callable[[Sequence[Candidate]], Iterable[float]]


@dataclass(frozen=True, eq=False)
class Weights:
    """What gives candidates of a run their scores.

    Attributes:
        held_out: scores on the images that searches may see.
        test: scores on the test images.
        known: priors by name.
        archive: every held-out score so far.
        tested: every test score so far.
    """

    held_out: Score
    test: Score
    known: Mapping[str, Prior]
    archive: Archive
    tested: dict[Candidate, float]


@dataclass(frozen=True, eq=False)
class RunArena:
    """The space of a run under one budget.

    Args:
        job: of the run.
        text: the budget as it was asked.
        budget: the same.
        weights: None as long as nothing is to be scored.
    """

    job: Job
    text: str
    budget: Budget
    weights: Weights | None = None

    @cached_property
    def feasible(self) -> Feasible:
        return Feasible(self.job.space, self.budget, self.job.cost)

    @cached_property
    def problem(self) -> Problem:
        """Its figures.

        Raises:
            InputError: there is nothing to search.
        """
        name, feasible = space_name(self.job), self.feasible
        listed = feasible.listed()
        window = int(feasible.in_window(listed).sum()) if len(listed) else None
        drawn = feasible.sample(np.random.default_rng(0), _DRAWN) if window is None else []
        require_choice(name, self.text, len(set(drawn)) if window is None else window)
        return Problem(name, self.text, dict(feasible.limits), window, 1, None, None)

    def prior(self, name: str, evaluation_seed: int) -> Prior:
        return self._weights.known[name]

    def scores(self, candidates: Sequence[Candidate], evaluation_seed: int) -> list[float]:
        archive = self._weights.archive
        unknown = [each for each in candidates if archive.score_of(each) is None]
        if unknown:
            self._evaluate(unknown)
        return [score for each in candidates if (score := archive.score_of(each)) is not None]

    def test_score(self, candidate: Candidate, evaluation_seed: int) -> float:
        weights = self._weights
        if candidate not in weights.tested:
            (weights.tested[candidate],) = weights.test([candidate])
        return weights.tested[candidate]

    def recorded(self, candidate: Candidate) -> int | list[int]:
        return list(candidate)

    @property
    def _weights(self) -> Weights:
        assert self.weights is not None, "nothing is scored before the weights are there"
        return self.weights

    def _evaluate(self, candidates: Sequence[Candidate]) -> None:
        weights, values = self._weights, as_values(candidates)
        prices = zip(
            self.job.cost.macs(values).tolist(), self.job.cost.params(values).tolist(), strict=True
        )
        arriving = iter(weights.held_out(candidates))
        for candidate, (macs, params) in zip(candidates, prices, strict=True):
            began = perf_counter()
            score = next(arriving)
            seconds = perf_counter() - began
            weights.archive.record(Evaluation(candidate, score, macs, params, seconds, 0))


def space_name(job: Job) -> str:
    return f"{Path(job.request.model).name} on {Path(job.data.name).stem}"


def run_identity(job: Job) -> dict[str, Any]:
    """What tells a run from another whose scores differ."""
    return {
        "name": space_name(job),
        "run": job.request.fingerprint(),
        "source": job.request.source,
    }


def require_prior(request: Comparison, job: Job) -> None:
    """Refuse contenders that ask for the prior of a run that has none.

    Raises:
        InputError: there is such a contender.
    """
    wanting = [each.name for each in request.contenders if each.prior == DI]
    if wanting and not job.request.prior:
        raise InputError(
            f"{job.folder.path} was made without a prior, which {wanting[0]} needs; leave it out"
        )


@contextmanager
def scoring(
    job: Job, archive: Path, tested: Mapping[Candidate, float], priors: Collection[str]
) -> Iterator[Weights]:
    """The weights of a run, trained if they are not yet, and an archive of their scores."""
    full, prior = sort_channels(job, train_full(job))
    source = train_source(job, full, prior)
    known = {} if prior is None else {DI: prior}
    if DAIS in priors:
        known[DAIS] = indicator_prior(
            full, job.space, job.fixed(job.data.train, _IMAGES), device=job.device
        )
    calibration = job.fixed(job.data.train, job.request.calibration)
    with (
        Archive(archive, fingerprint=job.request.fingerprint()) as opened,
        evaluator(job, source, job.request.source) as executor,
    ):
        yield Weights(
            partial(_scores, executor),
            scorer(source, calibration, job.fixed(job.data.test)),
            known,
            opened,
            dict(tested),
        )


def _scores(
    executor: Executor[Candidate, float], candidates: Sequence[Candidate]
) -> Iterator[float]:
    """NaN for one that cannot be scored."""
    for outcome in settled(in_order(executor, candidates)):
        yield math.nan if isinstance(outcome, Failed) else outcome.result
