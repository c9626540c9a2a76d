"""The loop: what is evaluated is recorded first, and a resumed run is the same run."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from prunas.errors import InputError, RunError
from prunas.eval.cost import Cost
from prunas.search.archive import Archive
from prunas.search.budget import Budget
from prunas.search.evolution import Evolution
from prunas.search.loop import Evaluate, Progress, run_search
from prunas.search.method import Scored
from prunas.search.randomly import Randomly
from prunas.supernet.space import Candidate
from tests.search.toys import chain_space, landscape, prior_of

SPACE = chain_space(5)


class Stopped(BaseException):
    """Ends a run from within, as Ctrl-C does."""


def evaluator(calls: list[Candidate], *, stop_after: int | None = None) -> Evaluate:
    """Scores by `landscape`, notes what it was asked, and stops in the middle if told to."""

    def evaluate(candidates: Sequence[Candidate]) -> Iterator[float]:
        for candidate in candidates:
            if stop_after is not None and len(calls) >= stop_after:
                raise Stopped
            calls.append(candidate)
            yield landscape(candidate)

    return evaluate


def search(
    path: Path,
    evaluate: Evaluate,
    *,
    evaluations: int = 30,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[Scored]:
    with Archive(path, fingerprint="test") as archive:
        return run_search(
            Evolution(population=10, parents=4),
            SPACE,
            Budget.parse("macs=40%"),
            prior_of(SPACE),
            evaluate,
            archive,
            Cost(SPACE),
            evaluations=evaluations,
            batch=7,
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
    def evaluate(candidates: Sequence[Candidate]) -> Iterator[float]:
        return (math.nan if sum(c) % 3 == 0 else landscape(c) for c in candidates)

    first = search(tmp_path / "a", evaluate)
    assert any(math.isnan(scored.score) for scored in first)
    assert repr(search(tmp_path / "a", evaluate)) == repr(first)


def test_an_evaluator_that_ends_early_is_an_error(tmp_path: Path) -> None:
    def evaluate(candidates: Sequence[Candidate]) -> Iterator[float]:
        return iter([0.5] * (len(candidates) - 1))

    with pytest.raises(RunError, match="ended before it gave a score"):
        search(tmp_path / "a", evaluate)
    with Archive(tmp_path / "a", fingerprint="test") as archive:
        assert len(archive) == 6


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


@pytest.mark.parametrize(("evaluations", "batch"), [(0, 1), (1, 0)])
def test_nothing_to_do_is_refused(tmp_path: Path, evaluations: int, batch: int) -> None:
    with (
        Archive(tmp_path / "a", fingerprint="test") as archive,
        pytest.raises(ValueError, match="must be at least 1"),
    ):
        run_search(
            Randomly(),
            SPACE,
            Budget.parse("macs=60%"),
            None,
            evaluator([]),
            archive,
            Cost(SPACE),
            evaluations=evaluations,
            batch=batch,
            rng=np.random.default_rng(0),
        )


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
