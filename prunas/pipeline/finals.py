"""Final training: the found network and the uniform one, by the same recipe and seeds."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final

import numpy as np

from prunas.errors import InputError
from prunas.eval.accuracy import accuracy
from prunas.eval.statistics import paired
from prunas.pipeline.alone import Purpose, Trained, Training, network_of, train_alone
from prunas.pipeline.artifact import require_replaceable, save
from prunas.pipeline.stages import Job, log_epoch, train_full
from prunas.pipeline.training import epochs_of
from prunas.pipeline.transformation_record import replacements_of
from prunas.transformer_nat.replacement import Replacement

_COMPARED: Final = {
    "found": "candidate",
    "uniform": "uniform_candidate",
    "smaller": "smaller_candidate",
}
"""Names of the networks that are trained, and where a search's result has their candidates."""


def train_finals(job: Job) -> dict[str, Any]:
    """Train what the search found beside the uniform network, and read the test set.

    Where resolutions are searched, the full network on smaller images is trained as well. All
    start from the shared weights, or from random ones of each seed if the request says
    `from_scratch`; they are taught by the full network, and see the same images in the same order
    for each seed. So is the found network with its operators replaced, if the run was transformed.
    Finished trainings are kept and not repeated. The found network, or the transformed one if
    there is one, of the seed with the best held-out accuracy becomes the artifact in model/.

    Returns:
        The "result" of run.json, which is written.

    Raises:
        InputError: the run has no search result yet.
        RunError: a training diverges, or the disk is full.
    """
    result = dict(job.folder.read().get("result") or {})
    if "candidate" not in result:
        raise InputError(f"{job.folder.path} has no found network yet; run its search first")
    require_replaceable(job.folder.model)
    known = {name: result[key] for name, key in _COMPARED.items() if key in result}
    trainings = {name: _trainings(job, candidate) for name, candidate in known.items()}
    best_name = "found"
    if changes := replacements_of(result):
        best_name = "transformed"
        trainings[best_name] = _trainings(job, result["candidate"], changes)
    every = [each for rows in trainings.values() for each in rows]
    with (
        job.folder.stage("train the found and the uniform network"),
        job.progress.task("final training") as task,
    ):
        total = len(set(every))
        found = iter(train_alone(job, every, lambda done: task.update(done, total)))
    trained = {name: list(islice(found, len(rows))) for name, rows in trainings.items()}
    full = accuracy(train_full(job), job.fixed(job.data.test))
    _save_best(job, trainings[best_name], trained[best_name])
    _tell(job, trainings, trained)
    result |= _compared(trained, full)
    entries = {**job.folder.read(), "result": result}
    result["seconds"] = round(sum(stage["seconds"] for stage in entries["stages"]), 3)
    job.folder.update({"result": result})
    return result


def save_found(job: Job, result: Mapping[str, Any]) -> None:
    """The found network goes to model/ as it was trained; what is on record is not repeated.

    Args:
        job: its final training is done.
        result: the "result" of run.json.

    Raises:
        InputError: a record is damaged.
    """
    trainings = _trainings(job, result["candidate"])[: len(result["seeds"])]
    _save_best(job, trainings, train_alone(job, trainings, lambda _: None))


def _save_best(job: Job, trainings: Sequence[Training], trained: Sequence[Trained]) -> None:
    """The network with the best held-out accuracy goes to model/."""
    best = max(range(len(trained)), key=lambda index: trained[index].held_out)
    save(network_of(job, trainings[best]), job.folder.model)


def _tell(
    job: Job,
    trainings: Mapping[str, Sequence[Training]],
    trained: Mapping[str, Sequence[Trained]],
) -> None:
    """Tell the log the curves of the final trainings, which are in their checkpoints."""
    for name, each in trainings.items():
        for training, result in zip(each, trained[name], strict=True):
            for epoch in epochs_of(job.folder.checkpoint(training.name)):
                log_epoch(job.progress.log, f"final {name} seed {training.seed}", epoch)
            job.progress.log.write(f"final/{name} test accuracy", _tested(result), training.seed)


def _trainings(
    job: Job, candidate: Sequence[int], changes: tuple[Replacement, ...] = ()
) -> list[Training]:
    recipe, seeds = job.request.final_recipe(), range(job.request.seeds)
    purpose: Purpose = "scratch" if job.request.from_scratch else "final"
    return [
        Training(job.space.candidate(candidate), recipe, seed, purpose, changes) for seed in seeds
    ]


def _compared(trained: Mapping[str, Sequence[Trained]], full: float) -> dict[str, Any]:
    tested = {name: [_tested(each) for each in rows] for name, rows in trained.items()}
    rows = [
        {"seed": seed, "full": full, **dict(zip(tested, accuracies, strict=True))}
        for seed, accuracies in enumerate(zip(*tested.values(), strict=True))
    ]
    means = {"full": full} | {name: float(np.mean(each)) for name, each in tested.items()}
    entries: dict[str, Any] = {"accuracy": means, "seeds": rows}
    if len(rows) > 1:
        entries["paired"] = _paired(tested["found"], tested["uniform"])
        if "transformed" in tested:
            entries["paired_transformed"] = _paired(tested["transformed"], tested["found"])
    return entries


def _paired(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    test = paired(ours, theirs)
    return {
        "mean": test.mean,
        "low": test.low,
        "high": test.high,
        "p_value": test.p_value,
        "n": test.n,
        "sentence": test.sentence_in_points,
    }


def _tested(trained: Trained) -> float:
    assert trained.test is not None, "final trainings are measured on the test set"
    return trained.test
