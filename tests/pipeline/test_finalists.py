"""The last round: who takes part, who wins, and what it does not look at."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import prunas
from prunas.pipeline import alone, finalists
from prunas.pipeline.alone import Trained, Training
from prunas.pipeline.finalists import last_round
from prunas.pipeline.progress import Progress
from prunas.pipeline.request import Request
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.stages import Job
from prunas.search.method import Scored
from prunas.search.prior import Prior, allocate
from prunas.supernet.cut import cut
from prunas.supernet.space import Candidate


@pytest.fixture
def job(tmp_path: Path) -> Job:
    request = Request("test_resnet", "digits", "macs=40%", finalists=5, finalist_epochs=2)
    return Job(
        RunFolder.create(tmp_path / "run", request, resume=False), torch.device("cpu"), Progress()
    )


def _scored(job: Job, n: int = 8) -> list[Scored]:
    """Candidates inside the budget, each a little better than the one before."""
    drawn = job.feasible.sample(np.random.default_rng(0), n)
    return [Scored(candidate, (index + 1) / 16) for index, candidate in enumerate(drawn)]


def _prior(job: Job) -> Prior:
    widths = job.space.widths
    return Prior(
        tuple(tuple(range(width)) for width in widths),
        tuple(tuple(np.linspace(0, 1 + gene, width + 1)) for gene, width in enumerate(widths)),
    )


def _training_gives(
    monkeypatch: pytest.MonkeyPatch, accuracy: Callable[[Candidate], float]
) -> list[Training]:
    asked: list[Training] = []

    def train(job: Job, trainings: Sequence[Training], on_done: object) -> list[Trained]:
        asked.extend(trainings)
        return [Trained(accuracy(each.candidate), None) for each in trainings]

    monkeypatch.setattr(finalists, "train_alone", train)
    return asked


def test_the_best_scores_and_the_anchors_take_part(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored, prior = _scored(job), _prior(job)
    asked = _training_gives(monkeypatch, lambda candidate: 0.5)
    last_round(job, scored, prior)
    best = [entry.candidate for entry in scored[:-4:-1]]
    allocation = allocate(prior.values, job.feasible)
    assert [each.candidate for each in asked] == [job.uniform, allocation, *best]
    assert {each.recipe for each in asked} == {job.request.finalist_recipe()}
    assert {each.purpose for each in asked} == {"finalist"}


def test_finalists_begin_where_the_final_training_begins(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From scratch, for a third of the final training unless said otherwise, at its rate."""
    asked = _training_gives(monkeypatch, lambda candidate: 0.5)
    request = replace(job.request, from_scratch=True, finalist_epochs=None, final_epochs=24)
    job.folder.update({"request": request.to_json()})
    last_round(replace(job), _scored(job), None)
    assert {each.purpose for each in asked} == {"scratch-finalist"}
    assert {each.recipe for each in asked} == {replace(request.final_recipe(), epochs=8)}
    given = replace(request, finalist_epochs=3)
    assert given.finalist_recipe().epochs == 3
    assert replace(request, from_scratch=False).finalist_recipe().epochs == 5
    assert replace(request, final_epochs=2).finalist_recipe().epochs == 1


def test_a_finalist_from_scratch_has_weights_of_its_seed(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("train", "train_full", "sort_channels"):  # none of them matters here
        monkeypatch.setattr(alone, name, lambda first, *a, **k: (first, None))
    recipe = job.request.finalist_recipe()
    network = alone.network_of(job, Training(job.uniform, recipe, 7, "scratch-finalist"))
    blank = cut(job.untrained(7), job.space, job.uniform)
    held = dict(network.named_parameters())
    assert all(torch.equal(held[name], weight) for name, weight in blank.named_parameters())


def test_the_best_after_training_wins(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    scored = _scored(job)
    third = scored[-3].candidate
    _training_gives(monkeypatch, lambda candidate: 0.9 if candidate == third else 0.8)
    found = last_round(job, scored, None)
    assert (found[0].candidate, found[0].held_out) == (third, 0.9)
    assert found[0].score == scored[-3].score
    assert [each.held_out for each in found] == [0.9, 0.8, 0.8, 0.8, 0.8]


def test_of_equals_the_better_score_wins_and_none_is_the_worst(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = _scored(job)
    _training_gives(monkeypatch, lambda candidate: 0.8)
    found = last_round(job, scored, None)
    assert [each.score for each in found] == [8 / 16, 7 / 16, 6 / 16, 5 / 16, None]
    assert found[-1].candidate == job.uniform


def test_a_single_finalist_is_taken_by_score_without_training(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.folder.update({"request": {**job.request.to_json(), "finalists": 1}})
    again = Job(job.folder, job.device, job.progress)
    asked = _training_gives(monkeypatch, lambda candidate: 0.5)
    scored = _scored(again)
    (found,) = last_round(again, scored, _prior(again))
    assert (found.candidate, found.score, found.held_out) == (scored[-1].candidate, 8 / 16, None)
    assert not asked


def test_of_equal_scores_the_cheapest_comes_first(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates = job.feasible.front_sample(np.random.default_rng(0), 9)
    asked = _training_gives(monkeypatch, lambda candidate: 0.5)
    last_round(job, [Scored(candidate, 0.5) for candidate in candidates], None)
    macs = job.cost.macs([each.candidate for each in asked[1:]]).tolist()
    assert macs == sorted(job.cost.macs(candidates).tolist())[:4]


def test_candidates_outside_the_budget_or_without_a_score_take_no_part(job: Job) -> None:
    outside = Scored(job.space.full(), 0.99)
    unknown = Scored(_scored(job)[0].candidate, float("-inf"))
    with pytest.raises(prunas.InputError, match="no candidate inside the budget has a score"):
        last_round(job, [outside, unknown], None)
