"""The loop: what is evaluated is recorded first, and a resumed run is the same run."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunas.errors import InputError, RunError
from prunas.eval.cost import Cost
from prunas.search.archive import Archive
from prunas.search.budget import Budget
from prunas.search.evolution import Evolution
from prunas.search.executors import Done, Executor, Failed, Here, Supervisor
from prunas.search.executors.simulated import FAR, Fate, Simulated
from prunas.search.executors.supervisor import scored
from prunas.search.loop import Progress, run_search
from prunas.search.method import Scored
from prunas.search.randomly import Randomly
from prunas.supernet.space import Candidate
from tests.search.toys import chain_space, landscape, prior_of

SPACE = chain_space(5)


class Stopped(BaseException):
    """Ends a run from within, as Ctrl-C does."""


Evaluate = Callable[[Candidate], float]


def here(evaluate: Evaluate) -> Executor[Candidate, float]:
    return Supervisor(Here(lambda: evaluate), refused=scored)


def evaluator(
    calls: list[Candidate], *, stop_after: int | None = None
) -> Executor[Candidate, float]:
    """Scores by `landscape`, notes what it was asked, and stops in the middle if told to."""

    def evaluate(candidate: Candidate) -> float:
        if stop_after is not None and len(calls) >= stop_after:
            raise Stopped
        calls.append(candidate)
        return landscape(candidate)

    return here(evaluate)


def search(
    path: Path,
    executor: Executor[Candidate, float],
    *,
    evaluations: int = 30,
    batch: int = 7,
    in_flight: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[Scored]:
    with Archive(path, fingerprint="test") as archive:
        return run_search(
            Evolution(population=10, parents=4),
            SPACE,
            Budget.parse("macs=40%"),
            prior_of(SPACE),
            executor,
            archive,
            Cost(SPACE),
            evaluations=evaluations,
            batch=batch,
            in_flight=in_flight,
            rng=np.random.default_rng(3),
            on_progress=on_progress,
        )


def test_every_score_is_recorded_in_order(tmp_path: Path) -> None:
    calls: list[Candidate] = []
    done = search(tmp_path / "a", evaluator(calls))
    assert [scored.candidate for scored in done] == calls
    assert [scored.score for scored in done] == [landscape(candidate) for candidate in calls]
    with Archive(tmp_path / "a", fingerprint="test") as archive:
        rows = archive.rows()
    assert [Scored(row.candidate, row.score) for row in rows] == done
    assert [row.asked_at for row in rows] == [index // 7 for index in range(30)]
    assert [row.macs for row in rows] == Cost(SPACE).macs(calls).tolist()
    assert [row.params for row in rows] == Cost(SPACE).params(calls).tolist()
    assert all(row.seconds >= 0 for row in rows)


@pytest.mark.parametrize("stop_after", range(30))
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path, stop_after: int) -> None:
    whole = search(tmp_path / "whole", evaluator([]))
    first: list[Candidate] = []
    with pytest.raises(Stopped):
        search(tmp_path / "parts", evaluator(first, stop_after=stop_after))
    with Archive(tmp_path / "parts", fingerprint="test") as archive:
        assert len(archive) == stop_after
    second: list[Candidate] = []
    assert search(tmp_path / "parts", evaluator(second)) == whole
    assert first + second == [scored.candidate for scored in whole]


def test_a_longer_run_begins_like_a_shorter_one(tmp_path: Path) -> None:
    short = search(tmp_path / "grown", evaluator([]), evaluations=17)
    more: list[Candidate] = []
    grown = search(tmp_path / "grown", evaluator(more), evaluations=30)
    assert len(short) == 17
    assert grown[:17] == short
    assert len(more) == 13
    assert grown == search(tmp_path / "whole", evaluator([]), evaluations=30)


def test_progress_tells_what_was_replayed(tmp_path: Path) -> None:
    seen: list[Progress] = []
    search(tmp_path / "a", evaluator([]), evaluations=9)
    done = search(tmp_path / "a", evaluator([]), evaluations=12, on_progress=seen.append)
    assert [progress.done for progress in seen] == list(range(1, 13))
    assert {progress.total for progress in seen} == {12}
    assert [progress.replayed for progress in seen] == [True] * 9 + [False] * 3
    assert [progress.scored for progress in seen] == done


def test_a_score_is_on_disk_before_anybody_hears_of_it(tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        search(tmp_path / "a", evaluator([]), on_progress=stop)
    with Archive(tmp_path / "a", fingerprint="test") as archive:
        assert len(archive) == 1


def test_nan_scores_are_ranked_last_and_kept(tmp_path: Path) -> None:
    tried: list[Candidate] = []

    def evaluate(candidate: Candidate) -> float:
        tried.append(candidate)
        return math.nan if sum(candidate) % 3 == 0 else landscape(candidate)

    with pytest.warns(UserWarning, match="failed with 3 workers and counts as the worst"):
        first = search(tmp_path / "a", here(evaluate))
    failed = [scored.candidate for scored in first if math.isnan(scored.score)]
    assert failed
    assert failed == [each for each in dict.fromkeys(tried) if sum(each) % 3 == 0]
    assert all(tried.count(candidate) == 3 for candidate in failed)
    tried.clear()
    assert repr(search(tmp_path / "a", here(evaluate))) == repr(first)
    assert tried == []


def test_an_executor_that_ends_early_is_an_error(tmp_path: Path) -> None:
    class Idle:
        def submit(self, tasks: Iterable[Candidate]) -> None:
            """Forget them."""

        def finished(self) -> list[Done[Candidate, float] | Failed[Candidate]]:
            return []

    with pytest.raises(RunError, match="the executor gave no score for 7 candidates"):
        search(tmp_path / "a", Idle())


def test_an_exhausted_space_ends_the_run(tmp_path: Path) -> None:
    space = chain_space(2, steps=3)
    with Archive(tmp_path / "a", fingerprint="test") as archive:
        done = run_search(
            Randomly(),
            space,
            Budget.parse("macs=60%"),
            None,
            evaluator([]),
            archive,
            Cost(space),
            evaluations=100,
            batch=4,
            rng=np.random.default_rng(0),
        )
        assert 0 < len(done) == len(archive) < 9


@pytest.mark.parametrize(
    ("evaluations", "batch", "in_flight", "sentence"),
    [
        (0, 1, None, "must be at least 1"),
        (1, 0, None, "must be at least 1"),
        (9, 3, 2, "in_flight=2 is less than a batch of 3"),
    ],
)
def test_nothing_to_do_is_refused(
    tmp_path: Path, evaluations: int, batch: int, in_flight: int | None, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        search(
            tmp_path / "a",
            evaluator([]),
            evaluations=evaluations,
            batch=batch,
            in_flight=in_flight,
        )


# -- many workers ----------------------------------------------------------------------------------


def imagined(
    workers: int, seed: int, mishaps: float = 0.0
) -> tuple[Supervisor[Candidate, float], Simulated[Candidate, float]]:
    """Workers whose evaluations take all sorts of times, and that die, hang or say NaN at times."""
    rng = np.random.default_rng(seed)

    def fate(candidate: Candidate, worker: int) -> Fate[float]:
        seconds, luck = float(rng.lognormal(2, 1)), rng.random()
        if luck >= mishaps:
            return Fate(seconds, landscape(candidate))
        return (Fate(seconds, None), Fate(FAR, 9.0), Fate(seconds, math.nan))[int(rng.integers(3))]

    crew = Simulated(fate, [(0, workers), (50, workers + 1), (90, workers)], building=3.0)
    return Supervisor(crew, refused=scored), crew


@pytest.mark.parametrize("workers", [1, 2, 5, 16])
def test_the_number_of_workers_changes_nothing(tmp_path: Path, workers: int) -> None:
    """Nor do their mishaps: the same candidates, told and on record in the same order."""
    alone = search(tmp_path / "alone", evaluator([]))
    executor, _ = imagined(workers, seed=workers, mishaps=0.1)
    assert search(tmp_path / "many", executor) == alone
    rows = [archived(tmp_path / name) for name in ("alone", "many")]
    assert rows[0] == rows[1]


def archived(path: Path) -> list[tuple[Candidate, float, int]]:
    with Archive(path, fingerprint="test") as archive:
        return [(row.candidate, row.score, row.asked_at) for row in archive.rows()]


def dying_after(good: int) -> Executor[Candidate, float]:
    """A worker on a machine that breaks after so many evaluations: nothing succeeds any more."""
    left = iter(range(good))

    def fate(candidate: Candidate, worker: int) -> Fate[float]:
        return Fate(1.0, None if next(left, None) is None else landscape(candidate))

    return Supervisor(Simulated(fate, [(0, 1)]), refused=scored)


@pytest.mark.parametrize(("batch", "in_flight"), [(1, None), (7, None), (10, None), (2, 9)])
def test_a_broken_machine_leaves_no_candidate_failed(
    tmp_path: Path, batch: int, in_flight: int | None
) -> None:
    def run(name: str, executor: Executor[Candidate, float]) -> list[Scored]:
        return search(tmp_path / name, executor, batch=batch, in_flight=in_flight)

    whole = run("whole", evaluator([]))
    with pytest.raises(RunError, match="10 tasks after one another failed"):
        run("parts", dying_after(12))
    assert archived(tmp_path / "parts") == archived(tmp_path / "whole")[:12]
    assert run("parts", evaluator([])) == whole
    assert archived(tmp_path / "parts") == archived(tmp_path / "whole")


def test_candidates_that_fail_at_the_end_are_recorded_as_failed(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="counts as the worst") as told:
        done = search(tmp_path / "a", dying_after(12), evaluations=20, batch=4)
    assert len(told) == 8
    assert [math.isnan(score) for _, score, _ in archived(tmp_path / "a")] == 12 * [False] + 8 * [
        True
    ]
    assert [each.candidate for each in done] == [row[0] for row in archived(tmp_path / "a")]


def test_workers_wait_for_the_end_of_a_batch_but_not_in_flight(tmp_path: Path) -> None:
    executor, batches = imagined(5, seed=1)
    search(tmp_path / "batches", executor, evaluations=200, batch=5)
    executor, steady = imagined(5, seed=1)
    search(tmp_path / "steady", executor, evaluations=200, batch=1, in_flight=7)
    waiting, busy = batches.useful / batches.available, steady.useful / steady.available
    assert waiting < 0.6
    assert busy > 0.75  # it is not 1 as in the end the last ones are waited for


def test_in_flight_all_are_scored_and_told_as_they_arrive(tmp_path: Path) -> None:
    executor, _ = imagined(4, seed=5)
    done = search(tmp_path / "a", executor, batch=2, in_flight=9, evaluations=31)
    assert len(set(done)) == 31
    assert all(scored.score == landscape(scored.candidate) for scored in done)
    rows = archived(tmp_path / "a")
    assert [Scored(candidate, score) for candidate, score, _ in rows] == done
    steps = [step for *_, step in rows]
    assert sorted(steps) == sorted(step // 2 for step in range(31))
    assert steps != sorted(steps)  # some were faster than others


@pytest.mark.parametrize("kept", [1, 4, 5, 6, 13, 30])
def test_in_flight_what_is_recorded_is_told_again_in_that_order(tmp_path: Path, kept: int) -> None:
    """Up to where it was stopped it is the same search, whoever is faster the second time."""

    def stop(progress: Progress) -> None:
        if progress.done == kept:
            raise Stopped

    first, _ = imagined(4, seed=7)
    with pytest.raises(Stopped):
        search(tmp_path / "a", first, batch=2, in_flight=9, on_progress=stop)
    before = archived(tmp_path / "a")
    again, _ = imagined(3, seed=8)
    seen: list[Progress] = []
    done = search(tmp_path / "a", again, batch=2, in_flight=9, on_progress=seen.append)
    assert archived(tmp_path / "a")[: len(before)] == before
    assert [Scored(*row[:2]) for row in archived(tmp_path / "a")] == done
    assert sum(progress.replayed for progress in seen) == len(before)
    assert len(done) == 30


def test_in_flight_with_one_worker_is_as_if_each_was_asked_alone(tmp_path: Path) -> None:
    one = search(tmp_path / "a", evaluator([]), batch=1)
    assert search(tmp_path / "b", imagined(1, seed=0)[0], batch=1, in_flight=1) == one


def test_what_arrives_together_is_one_transaction(tmp_path: Path) -> None:
    crew: Simulated[Candidate, float] = Simulated(
        lambda candidate, worker: Fate(1.0, landscape(candidate)), [(0, 7)]
    )
    began: list[str] = []
    with Archive(tmp_path / "a", fingerprint="test") as archive:
        archive._connection.set_trace_callback(began.append)
        run_search(
            Randomly(),
            SPACE,
            Budget.parse("macs=60%"),
            None,
            Supervisor(crew),
            archive,
            Cost(SPACE),
            evaluations=14,
            batch=7,
            rng=np.random.default_rng(0),
        )
    assert sum(statement.startswith("BEGIN") for statement in began) == 2
    assert len(archived(tmp_path / "a")) == 14


@dataclass(frozen=True)
class Asking:
    """A search method that asks for the same every time."""

    wanted: list[Candidate]

    def start(self, *_: object) -> None: ...

    def ask(self, state: None, n: int) -> tuple[None, list[Candidate]]:
        return state, self.wanted

    def tell(self, state: None, scored: Sequence[Scored]) -> None: ...


SMALLEST = SPACE.smallest()


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ([SMALLEST, SMALLEST], "again before it was told its score"),
        ([SPACE.full()], r"asked for .*32.* outside the budget"),
        ([Candidate([999, *SMALLEST[1:]])], "no candidate: 999 is not a choice of gene"),
        ([Candidate(SMALLEST[1:])], "no candidate: the candidate has 4 values"),
    ],
)
def test_what_a_method_must_not_ask_for(
    tmp_path: Path, wanted: list[Candidate], sentence: str
) -> None:
    calls: list[Candidate] = []
    method: Any = Asking(wanted)
    budget, cost = Budget.parse("macs=40%"), Cost(SPACE)
    with Archive(tmp_path / "a.sqlite", fingerprint="run") as archive:
        with pytest.raises(RunError, match=sentence):
            run_search(
                method, SPACE, budget, None, evaluator(calls), archive, cost,
                evaluations=4, batch=2, rng=np.random.default_rng(0),
            )  # fmt: skip
        assert not archive.rows()
    assert not calls


def test_an_impossible_budget_is_refused(tmp_path: Path) -> None:
    with (
        Archive(tmp_path / "a", fingerprint="test") as archive,
        pytest.raises(InputError, match="no candidate has at most 1 macs"),
    ):
        run_search(
            Randomly(),
            SPACE,
            Budget((("macs", 1),)),
            None,
            evaluator([]),
            archive,
            Cost(SPACE),
            evaluations=5,
            batch=5,
            rng=np.random.default_rng(0),
        )
