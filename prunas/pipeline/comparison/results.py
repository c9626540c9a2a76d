"""What the runs of a comparison show: regret, who is better than whom, ranks."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from prunas.eval.contest import (
    Array,
    Band,
    Duel,
    Ranks,
    best_so_far,
    duels,
    evaluations_to_reach,
    iqm_band,
    mean_band,
    ranked,
    resamples,
)
from prunas.pipeline.comparison.arena import Problem
from prunas.pipeline.comparison.contenders import RANDOM
from prunas.pipeline.comparison.request import Comparison
from prunas.pipeline.comparison.runs import Row

_PLOTTED: Final = 120  # points of a curve


@dataclass(frozen=True)
class Figure:
    """A statistic over seeds, with the ends of its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """One contender on one problem after some evaluations; regrets are shares of one.

    Attributes:
        contender: its name.
        space: of the problem.
        budget: of the problem.
        at: evaluations.
        seeds: number of runs.
        mean: mean regret.
        iqm: mean regret of the middle half of the runs.
        median: median regret.
        test: mean test regret of the candidate with the best score; known after all evaluations.
        made: evaluations that the runs really made by then, on average.
        seconds: of the method itself for a whole run, on average.
        to_random_mean: evaluations until regret is at the mean regret of random search after all
            evaluations, the median over seeds; None: never, or there is no random search.
        to_random_median: the same for random search's median regret.
    """

    contender: str
    space: str
    budget: str
    at: int
    seeds: int
    mean: Figure
    iqm: Figure
    median: float
    test: Figure | None
    made: float
    seconds: float
    to_random_mean: float | None
    to_random_median: float | None


@dataclass(frozen=True, eq=False)
class Contest:
    """All runs on one problem.

    Attributes:
        problem: where.
        names: the contenders.
        points: evaluations after which they are compared.
        regrets: (contenders, seeds, evaluations).
        test_regrets: (contenders, seeds) of the candidate with the best score.
        made: (contenders, seeds) evaluations.
        seconds: (contenders, seeds) of the methods themselves.
        sets: (seeds,) evaluation seeds.
    """

    problem: Problem
    names: tuple[str, ...]
    points: tuple[int, ...]
    regrets: Array
    test_regrets: Array
    made: Array
    seconds: Array
    sets: Array

    @cached_property
    def duels(self) -> dict[int, list[Duel]]:
        """All pairs after each number of evaluations."""
        return {
            at: duels(dict(zip(self.names, self.regrets[:, :, at - 1], strict=True)))
            for at in self.points
        }

    @cached_property
    def summaries(self) -> list[Summary]:
        return [
            each for index in range(len(self.names)) for each in self._summaries(index, self._draws)
        ]

    @cached_property
    def curves(self) -> tuple[list[int], list[Band]]:
        """Numbers of evaluations, evenly on a logarithmic axis, and mean regret at them."""
        whole = self.regrets.shape[2]
        numbers = np.unique(np.rint(np.geomspace(1, whole, _PLOTTED)).astype(int))
        bands = [mean_band(each[:, numbers - 1], self._draws) for each in self.regrets]
        return numbers.tolist(), bands

    @property
    def blocks(self) -> Array:
        """(evaluation seeds, contenders) mean regret after all evaluations."""
        last = self.regrets[:, :, -1]
        return np.stack([last[:, self.sets == each].mean(axis=1) for each in np.unique(self.sets)])

    @cached_property
    def _draws(self) -> Any:
        return resamples(self.regrets.shape[1], np.random.default_rng(0))

    @cached_property
    def _of_random(self) -> tuple[float, float] | None:
        """Mean and median regret of random search after all evaluations."""
        if RANDOM not in self.names:
            return None
        last = self.regrets[self.names.index(RANDOM), :, -1]
        return float(last.mean()), float(np.median(last))

    def _summaries(self, index: int, draws: Any) -> list[Summary]:
        regrets = self.regrets[index]
        places = np.array(self.points) - 1
        means = mean_band(regrets[:, places], draws)
        iqms = iqm_band(regrets[:, places], draws)
        test = _figure(mean_band(self.test_regrets[index][:, None], draws), 0)
        reached = [
            None if self._of_random is None else _median_reach(regrets, target)
            for target in self._of_random or (0.0, 0.0)
        ]
        return [
            Summary(
                self.names[index],
                self.problem.space,
                self.problem.budget,
                at,
                len(regrets),
                _figure(means, place),
                _figure(iqms, place),
                float(np.median(regrets[:, at - 1])),
                test if at == self.points[-1] else None,
                float(np.minimum(self.made[index], at).mean()),
                float(self.seconds[index].mean()),
                reached[0],
                reached[1],
            )
            for place, at in enumerate(self.points)
        ]


@dataclass(frozen=True, eq=False)
class Results:
    """Everything that a comparison found.

    Attributes:
        request: what was compared.
        contests: one for each space and budget.
        agreement: what `prunas rank` found of the run, if it is one.
    """

    request: Comparison
    contests: tuple[Contest, ...]
    agreement: Mapping[str, Any] | None = None

    @property
    def summaries(self) -> list[Summary]:
        return [each for contest in self.contests for each in contest.summaries]

    @cached_property
    def ranks(self) -> Ranks | None:
        """Over all problems and evaluation seeds; None where there are fewer than two of these."""
        blocks = np.concatenate([contest.blocks for contest in self.contests])
        return ranked(self.contests[0].names, blocks) if len(blocks) > 1 else None

    def to_json(self) -> dict[str, Any]:
        ranks = self.ranks
        return {
            "problems": [asdict(contest.problem) for contest in self.contests],
            "summaries": [asdict(each) for each in self.summaries],
            "pairs": pair_rows(self),
            "ranks": None if ranks is None else _finite(asdict(ranks)),
        }


def pair_rows(results: Results) -> list[dict[str, Any]]:
    """One flat row for each pair, problem and number of evaluations."""
    return [
        {
            "space": contest.problem.space,
            "budget": contest.problem.budget,
            "at": at,
            "one": duel.one,
            "other": duel.other,
            "regret_difference": duel.regret.mean,
            "low": duel.regret.low,
            "high": duel.regret.high,
            "seeds": duel.regret.n,
            "p_value": duel.regret.p_value,
            "p_holm": duel.adjusted,
            "chance": duel.chance,
            "verdict": duel.verdict,
        }
        for contest in results.contests
        for at, pairs in contest.duels.items()
        for duel in pairs
    ]


def contest_of(problem: Problem, request: Comparison, rows: Sequence[Row]) -> Contest:
    """The runs of a problem as arrays.

    Args:
        problem: where. What is the best there is taken from the runs where it is not known.
        request: which runs there are.
        rows: all of them.
    """
    found = {(row.cell.contender, row.cell.seed): row for row in rows}
    names = tuple(contender.name for contender in request.contenders)
    grid = [[found[name, seed] for seed in request.seeds] for name in names]
    sets = np.array([problem.evaluation_seed(seed) for seed in request.seeds])
    best, best_test = _best(problem, rows)
    curves = np.array([[_curve(row, request.evaluations) for row in line] for line in grid])
    tests = np.array([[row.test for row in line] for line in grid])
    return Contest(
        problem,
        names,
        tuple(request.points),
        np.array(best)[sets][:, None] - curves,
        np.array(best_test)[sets] - tests,
        np.array([[float(row.evaluations) for row in line] for line in grid]),
        np.array([[row.seconds for row in line] for line in grid]),
        sets,
    )


def _best(problem: Problem, rows: Sequence[Row]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if problem.best is not None and problem.best_test is not None:
        return problem.best, problem.best_test
    best = max((row.curve[-1][2] for row in rows if row.curve), default=0.0)
    return (best,), (max(row.test for row in rows),)


def _curve(row: Row, length: int) -> Array:
    return best_so_far([each[0] for each in row.curve], [each[2] for each in row.curve], length)


def _median_reach(regrets: Array, target: float) -> float | None:
    median = float(np.median(evaluations_to_reach(regrets, target)))
    return median if np.isfinite(median) else None


def _figure(band: Band, place: int) -> Figure:
    return Figure(*(float(part[place]) for part in (band.value, band.low, band.high)))


def _finite(entries: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: None stands for it."""
    return {name: None if each == np.inf else each for name, each in entries.items()}
