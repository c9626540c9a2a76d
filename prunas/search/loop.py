"""The loop: ask, evaluate, record, tell. It is written here and nowhere else."""

import heapq
import math
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from prunas.errors import InputError, RunError
from prunas.search.archive import Archive, Evaluation
from prunas.search.budget import Budget, Feasible, as_values
from prunas.search.costs import Costs
from prunas.search.executors.supervisor import Done, Executor, Failed
from prunas.search.method import Scored, Search
from prunas.search.prior import Prior
from prunas.supernet.space import Candidate, SearchSpace


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
    executor: Executor[Candidate, float],
    archive: Archive,
    cost: Costs,
    *,
    evaluations: int,
    batch: int,
    in_flight: int | None = None,
    rng: np.random.Generator,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[Scored]:
    """Search until `evaluations` candidates are scored or no further one is found.

    A batch of candidates is asked for, evaluated, and told in the order asked, then the next one:
    the search is the same wherever and in whatever order the executor evaluates them. That leaves
    workers idle at the end of every batch. With more candidates in flight than a batch, scores are
    told as they arrive, so many as a batch has at a time, and as many are asked for anew; no worker
    waits, and the search depends on which evaluations are faster.

    To resume, call it again with the same arguments, a generator of the same seed and the same
    archive: the search runs through the same questions, the archive answers those that it knows, in
    the order in which it learnt them, and the search goes on as if never interrupted. More
    `evaluations` than before continue the same search. Nothing recorded is lost, whatever is
    raised. A candidate that could not be scored is told as NaN. It is recorded so, with a warning,
    when a later one has a score or the search is at its end: if all fail, that is no failure of
    theirs, and a resumed run scores them again.

    Args:
        method: the search.
        space: the candidates.
        budget: what they may cost.
        prior: what is known of them, or None.
        executor: gives their scores.
        archive: where scores are recorded before the method is told, and failures once it is clear
            that they are the candidates'.
        cost: prices of the candidates.
        evaluations: how many candidates to score, those already in the archive included.
        batch: how many to ask for at once; the search depends on it.
        in_flight: how many may be asked and not told, at most; None: a batch.
        rng: decides.
        on_progress: called after every score.

    Returns:
        The candidates with their scores, in the order told.

    Raises:
        InputError: the budget cannot be met, or the executor finds the input to be wrong.
        RunError: the executor can score nothing, a score cannot be recorded, or the method asks for
            what is no candidate, outside the budget, or asked for already.
        ValueError: `evaluations` or `batch` is not positive, or less than a batch is in flight.
    """
    most = batch if in_flight is None else in_flight
    if min(evaluations, batch) < 1:
        raise ValueError(f"evaluations={evaluations} and batch={batch} must be at least 1")
    if most < batch:
        raise ValueError(f"in_flight={in_flight} is less than a batch of {batch}")
    feasible = Feasible(space, budget, cost)
    state = method.start(space, feasible, prior, rng)
    desk = _Desk(executor, archive, cost, in_order=most == batch)
    done: list[Scored] = []
    more, scored = True, 0
    while True:
        while more and desk.open + batch <= most:
            # always a whole batch, so that a longer run begins like a shorter one
            state, asked = method.ask(state, batch)
            _require_feasible(asked, feasible)
            desk.submit(asked[: evaluations - desk.asked])
            more = bool(asked) and desk.asked < evaluations
        for entry, replayed in desk.arriving(batch):
            scored += 1
            if on_progress is not None:
                on_progress(Progress(scored, evaluations, entry, replayed))
        latest = desk.take(batch)
        if not latest:
            desk.record()
            return done
        state = method.tell(state, latest)
        done += latest


def _require_feasible(asked: Sequence[Candidate], feasible: Feasible) -> None:
    """Refuse what a search method must not ask for, before anything of it is evaluated."""
    try:
        known = [feasible.space.candidate(each) for each in asked]
    except InputError as error:
        raise RunError(f"the search method asked for what is no candidate: {error}") from None
    if not known:
        return
    outside = ~feasible.contains(as_values(known))
    if outside.any():
        raise RunError(
            f"the search method asked for {known[outside.argmax()]}, which is outside the budget;"
            " it may ask for what `Feasible` gives or repairs"
        )


@dataclass(frozen=True)
class _Asked:
    """What is known of a candidate before its score: which one it is, its step, its prices."""

    number: int
    step: int
    macs: int
    params: int


@dataclass(frozen=True)
class _Arrival:
    """An evaluation, its place in the archive if that is known, and what went wrong if it did."""

    evaluation: Evaluation
    place: int | None
    trouble: str | None


@final
class _Desk:
    """Candidates between being asked for and being told.

    Attributes:
        asked: how many have come so far.
        open: how many of them are not yet taken.
    """

    def __init__(
        self,
        executor: Executor[Candidate, float],
        archive: Archive,
        cost: Costs,
        *,
        in_order: bool,
    ) -> None:
        self._executor = executor
        self._archive = archive
        self._cost = cost
        self._in_order = in_order
        self._known = {row.candidate: (place, row) for place, row in enumerate(archive.rows())}
        self._replayed: list[tuple[int, Scored]] = []  # a heap: the earliest recorded is first
        self._about: dict[Candidate, _Asked] = {}
        self._arrived: deque[Scored] = deque()
        self._unrecorded: list[_Arrival] = []  # that failed, with no success since
        self._steps = 0
        self.asked = 0
        self.open = 0

    def submit(self, candidates: Sequence[Candidate]) -> None:
        """Have the candidates of one step scored."""
        if not candidates:
            return
        values = as_values(candidates)
        macs_of, params_of = self._cost.macs(values), self._cost.params(values)
        prices = zip(macs_of.tolist(), params_of.tolist(), strict=True)
        for candidate, (macs, params) in zip(candidates, prices, strict=True):
            if candidate in self._about:
                raise RunError(
                    f"the search method asked for {candidate} again before it was told its score"
                )
            self._about[candidate] = _Asked(self.asked, self._steps, macs, params)
            self.asked += 1
            self.open += 1
            if candidate in self._known:
                place, row = self._known[candidate]
                heapq.heappush(self._replayed, (place, Scored(candidate, row.score)))
        self._executor.submit([each for each in candidates if each not in self._known])
        self._steps += 1

    def arriving(self, count: int) -> Iterator[tuple[Scored, bool]]:
        """Scores as they are known, until `count` wait to be taken, and if from the archive."""
        while len(self._arrived) < min(count, self.open):
            replayed = bool(self._replayed)
            latest = [heapq.heappop(self._replayed)[1]] if replayed else self._evaluated()
            for scored in latest:
                self._arrived.append(scored)
                yield scored, replayed

    def take(self, count: int) -> list[Scored]:
        """The first `count` that arrived; in the order asked, if that is what was wanted."""
        taken = [self._arrived.popleft() for _ in range(min(count, len(self._arrived)))]
        if self._in_order:
            taken.sort(key=lambda scored: self._about[scored.candidate].number)
        for scored in taken:
            del self._about[scored.candidate]
        self.open -= len(taken)
        return taken

    def record(self) -> None:
        """Have the archive keep whatever has arrived."""
        arrivals, self._unrecorded = self._unrecorded, []
        if len(arrivals) == 1:
            self._keep(arrivals[0])
        elif arrivals:
            with self._archive.together():
                for each in arrivals:
                    self._keep(each)

    def _evaluated(self) -> list[Scored]:
        """What the executor has finished; recorded, unless all of it failed."""
        outcomes = self._executor.finished()
        if not outcomes:
            raise RunError(f"the executor gave no score for {self.open} candidates")
        latest = [self._arrival(each) for each in outcomes]
        self._unrecorded += latest
        if any(isinstance(each, Done) for each in outcomes):
            self.record()
        return [Scored(each.evaluation.candidate, each.evaluation.score) for each in latest]

    def _arrival(self, outcome: Done[Candidate, float] | Failed[Candidate]) -> _Arrival:
        candidate, about = outcome.task, self._about[outcome.task]
        score, trouble = math.nan, None
        if isinstance(outcome, Failed):
            trouble = (
                f"a candidate failed with {len(outcome.reasons)} workers and counts as the worst:"
                f" {candidate}, the last time because {outcome.reasons[-1]}"
            )
        else:
            score = float(outcome.result)
        return _Arrival(
            Evaluation(candidate, score, about.macs, about.params, outcome.seconds, about.step),
            about.number + 1 if self._in_order else None,
            trouble,
        )

    def _keep(self, arrival: _Arrival) -> None:
        if arrival.trouble is not None:
            warnings.warn(arrival.trouble, stacklevel=2)
        self._archive.record(arrival.evaluation, place=arrival.place)
