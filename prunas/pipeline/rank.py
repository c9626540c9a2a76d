"""Do the scores of a run rank networks as training them does?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from prunas.errors import InputError, RunError
from prunas.eval.ranking import Agreement, Estimate, agreement, tau_difference
from prunas.pipeline.alone import Training, train_alone
from prunas.pipeline.recipe import Recipe
from prunas.pipeline.request import SOURCES
from prunas.pipeline.scores import evaluator
from prunas.pipeline.sources import train_source
from prunas.pipeline.stages import Job, sort_channels, train_full
from prunas.search.budget import as_values
from prunas.search.executors import Failed, in_order
from prunas.search.prior import Prior
from prunas.supernet.space import Candidate

MACS: Final = "MACs"
PRIOR: Final = "DI prior"

_LEAST: Final = 0.5  # of the budget: narrower networks are told apart by their size alone
_FEWEST: Final = 6
_ENOUGH: Final = 10  # networks in the window, below which nothing is said of it
_TOP_SHARE: Final = 0.2


@dataclass(frozen=True, eq=False)
class Ranking:
    """Networks trained alone, and what was predicted of them.

    Attributes:
        candidates: the networks.
        macs: multiply-accumulates of each.
        in_window: which of them make use of the budget, within its tolerance.
        trained: test accuracies in 0..1.
        predicted: what orders them, by name: sources, the prior, multiply-accumulates.
        epochs: that each was trained for.
    """

    candidates: tuple[Candidate, ...]
    macs: tuple[int, ...]
    in_window: tuple[bool, ...]
    trained: tuple[float, ...]
    predicted: Mapping[str, tuple[float, ...]]
    epochs: int

    @cached_property
    def overall(self) -> dict[str, Agreement]:
        """Agreement of every prediction with training, over all networks."""
        return self._agreements([True] * len(self.candidates))

    @cached_property
    def where_used(self) -> dict[str, Agreement]:
        """The same over those that make use of the budget, all of nearly the same size."""
        return self._agreements(self.in_window)

    @property
    def enough_in_window(self) -> bool:
        return sum(self.in_window) >= _ENOUGH

    def _agreements(self, mask: Sequence[bool]) -> dict[str, Agreement]:
        chosen = np.flatnonzero(mask)
        top = max(1, round(_TOP_SHARE * len(chosen)))
        true = np.array(self.trained)[chosen]
        return {
            name: agreement(np.array(values)[chosen], true, top=top, rng=np.random.default_rng(0))
            for name, values in self.predicted.items()
        }

    def to_json(self) -> dict[str, Any]:
        rows = [
            {
                "candidate": list(candidate),
                "macs": self.macs[i],
                "in_window": self.in_window[i],
                "trained": self.trained[i],
                "predicted": {name: values[i] for name, values in self.predicted.items()},
            }
            for i, candidate in enumerate(self.candidates)
        ]
        scopes = {"all": self.overall, "window": self.where_used if self.enough_in_window else {}}
        found = {
            scope: {name: asdict(each) for name, each in agreements.items()}
            for scope, agreements in scopes.items()
        }
        return {"epochs": self.epochs, "networks": rows, "agreement": found}


def findings(found: Ranking) -> list[str]:
    """What the figures say, in sentences."""
    scopes = [(found.overall, [True] * len(found.candidates), "over all networks")]
    if found.enough_in_window:
        scopes.append((found.where_used, list(found.in_window), "where the budget is used"))
    return [
        f"{_told(name, each.tau)} {where}{_beside(found, name, mask)}."
        for agreements, mask, where in scopes
        for name, each in agreements.items()
        if name != MACS
    ]


def _told(name: str, tau: Estimate) -> str:
    if tau.low > 0:
        return f"{name} orders networks as training does in part: Kendall's tau {tau}"
    if tau.high < 0:
        return f"{name} orders networks the wrong way round: Kendall's tau {tau}"
    return f"{name} cannot be told from a random order: Kendall's tau {tau}"


def _beside(found: Ranking, name: str, mask: Sequence[bool]) -> str:
    """How it compares with ordering the same networks by their multiply-accumulates."""
    chosen = np.flatnonzero(mask)
    one, other, true = (
        np.array(values)[chosen]
        for values in (found.predicted[name], found.predicted[MACS], found.trained)
    )
    more = tau_difference(one, other, true, rng=np.random.default_rng(0))
    if more.low > 0:
        return f", {more} above ordering them by {MACS}"
    if more.high < 0:
        return f", {more} below ordering them by {MACS}"
    return f"; no clear difference from ordering them by {MACS}, {more}"


def rank(job: Job, sources: Sequence[str], *, candidates: int, epochs: int) -> Ranking:
    """Train random candidates alone, and compare with what they were expected to reach.

    Half of them make use of the budget (its window), where multiply-accumulates tell nothing; half
    lie anywhere between half of the budget and the budget. Each is cut out of the full network,
    recalibrated, taught by it for `epochs`, and measured on the test set; scores are those of a
    search, on held-out images. Whatever is finished is kept.

    Args:
        job: of a run; its sources are trained if they are not yet.
        sources: whose scores to judge.
        candidates: how many to train.
        epochs: for each.

    Raises:
        InputError: too few candidates, an unknown source, or a space too small to draw them from.
        RunError: a training diverges, or the disk is full.
    """
    unknown = [name for name in sources if name not in SOURCES]
    if unknown:
        raise InputError(f"no weights source is called {unknown[0]!r}; choose {', '.join(SOURCES)}")
    if candidates < _FEWEST:
        raise InputError(
            f"{candidates} candidates have no order to speak of; rank {_FEWEST} or more"
        )
    drawn = _drawn(job, candidates)
    full, prior = sort_channels(job, train_full(job))
    predicted = {name: _scores(job, name, drawn, full, prior) for name in sources}
    values = as_values(drawn)
    macs = job.cost.macs(values).tolist()
    if prior is not None:
        predicted[PRIOR] = tuple(_worth(prior, candidate) for candidate in drawn)
    predicted[MACS] = tuple(map(float, macs))
    return Ranking(
        tuple(drawn),
        tuple(macs),
        tuple(job.feasible.in_window(values).tolist()),
        _trained(job, drawn, job.request.ranking_recipe(epochs)),
        predicted,
        epochs,
    )


def _drawn(job: Job, count: int) -> list[Candidate]:
    """Distinct candidates; the first ones of more are those of fewer."""
    rng = job.rng(5)
    draws: tuple[Callable[[], Candidate], ...] = (
        lambda: job.feasible.sample(rng, 1)[0],
        lambda: job.feasible.front_sample(rng, 1, least=_LEAST)[0],
    )
    found: dict[Candidate, None] = {}
    for attempt in range(20 * count):
        found.setdefault(draws[attempt % 2]())
        if len(found) == count:
            return list(found)
    raise InputError(
        f"only {len(found)} different networks are near this budget, and {count} were asked for;"
        " rank fewer, or offer more widths"
    )


def _scores(
    job: Job, name: str, drawn: Sequence[Candidate], full: Any, prior: Prior | None
) -> tuple[float, ...]:
    source = train_source(job, full, prior, name)
    with (
        job.folder.stage(f"score by {name}"),
        job.progress.task(f"scores, {name}") as task,
        evaluator(job, source, name) as executor,
    ):
        scores = []
        for done, outcome in enumerate(in_order(executor, drawn), 1):
            if isinstance(outcome, Failed):
                raise RunError(f"a network cannot be scored by {name}: {outcome.reasons[-1]}")
            scores.append(outcome.result)
            task.update(done, len(drawn))
    return tuple(scores)


def _trained(job: Job, drawn: Sequence[Candidate], recipe: Recipe) -> tuple[float, ...]:
    trainings = [Training(each, recipe, job.request.seed, "ranking") for each in drawn]
    with job.folder.stage("train networks to rank"), job.progress.task("networks") as task:
        results = train_alone(job, trainings, lambda done: task.update(done, len(trainings)))
    return tuple(result.test for result in results if result.test is not None)


def _worth(prior: Prior, candidate: Candidate) -> float:
    return sum(worth[value] for worth, value in zip(prior.values, candidate, strict=True))
