"""Candidates trained alone: cut out, and taught by the full network."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, final

from torch import nn

from prunas.errors import InputError, RunError
from prunas.eval.accuracy import accuracy
from prunas.eval.recalibration import recalibrate_
from prunas.pipeline.processes import cores as _cores
from prunas.pipeline.processes import threads
from prunas.pipeline.recipe import Recipe
from prunas.pipeline.scores import job_of_worker
from prunas.pipeline.sealed import read_sealed, write_sealed
from prunas.pipeline.small_images import Size
from prunas.pipeline.sources import train_source
from prunas.pipeline.stages import Job, sort_channels, train_full
from prunas.pipeline.training import train
from prunas.pipeline.workers import Workers
from prunas.search.executors import Failed, Work, as_finished
from prunas.search.prior import Prior
from prunas.supernet.cut import cut
from prunas.supernet.resolution import seeing, side_of
from prunas.supernet.space import Candidate
from prunas.transformer_nat.replacement import Replacement, replaced

Purpose = Literal["finalist", "scratch-finalist", "final", "scratch", "ranking"]


_KEPT: Final = frozenset({"final", "scratch"})
"""Purposes of which the trained weights are wanted."""


@final
@dataclass(frozen=True)
class Training:
    """What decides the result of training a candidate alone.

    Attributes:
        candidate: the network.
        recipe: how it is trained.
        seed: of the order of the images and of dropout.
        purpose: a "finalist" is compared by its held-out accuracy; the weights of a "final" one
            are kept, and it is measured on the test set; so is one from "scratch", which begins
            from random weights of its seed (as does a "scratch-finalist"), and one of a "ranking",
            which begins from the full network's weights: those of no source that is to be judged.
        replacements: of operators of the candidate (`prunas transform`).
    """

    candidate: Candidate
    recipe: Recipe
    seed: int
    purpose: Purpose
    replacements: tuple[Replacement, ...] = ()

    @property
    def name(self) -> str:
        """Differs when anything differs."""
        decisive = {**asdict(self), "recipe": self.recipe.decisive()}
        if not self.replacements:  # as names were before there were any
            del decisive["replacements"]
        digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
        return f"{self.purpose}-{digest[:12]}"


@final
@dataclass(frozen=True)
class Trained:
    """Accuracies in 0..1 of a candidate trained alone; of the test set not for finalists."""

    held_out: float
    test: float | None


def train_alone(
    job: Job, trainings: Sequence[Training], on_done: Callable[[int], None]
) -> list[Trained]:
    """Results in the order of `trainings`; those on record are not repeated.

    Most begin from the weights that they were scored with (see `Training`). They see the same
    images in the same order if their seeds are equal. On CPUs they run in several processes; the
    result does not depend on how many.

    Args:
        job: its weights source is trained already.
        trainings: what to train; equal ones are trained once.
        on_done: called with the number finished.

    Raises:
        RunError: a training diverges, or the disk is full.
    """
    distinct = list(dict.fromkeys(trainings))
    open_ones = [each for each in distinct if not _record(job, each).exists()]
    for done, _ in enumerate(_run(job, distinct, open_ones), len(distinct) - len(open_ones) + 1):
        on_done(done)
    return [_recorded(_record(job, each)) for each in trainings]


def network_of(job: Job, training: Training) -> nn.Module:
    """The trained network, in eval mode; a checkpoint that there is of it is taken up.

    It takes images of the side that its candidate sees.
    """
    teacher, prior = sort_channels(job, train_full(job))
    network = _begun(job, training, teacher, prior)
    with seeing(network, side_of(job.space, training.candidate)):
        # statistics of its own to start from: a short training would keep the full network's
        recalibrate_(network, job.fixed(job.data.train, job.request.calibration))
        with job.leading(follow_alone, training):
            file = job.folder.checkpoint(training.name) if training.purpose in _KEPT else None
            _trained(job, network, training, teacher, file)
    return told(network, job.sees(training.candidate))


def follow_alone(job: Job, training: Training) -> None:
    """The part of another process in `network_of`; weights come from the first one."""
    network, teacher = cut(job.untrained(0), job.space, training.candidate), job.untrained(0)
    if training.replacements:
        network = replaced(network, training.replacements, fresh=None)
    with seeing(network, side_of(job.space, training.candidate)):
        _trained(job, network, training, teacher, None)


def _trained(
    job: Job, network: nn.Module, training: Training, teacher: nn.Module, checkpoint: Path | None
) -> None:
    train(
        network,
        job.data.train,
        training.recipe,
        seed=training.seed,
        teacher=teacher,
        device=job.device,
        checkpoint=checkpoint,
        every=job.request.every(),
        ranks=job.crew.ranks,
    )


def told(network: nn.Module, size: Size) -> nn.Module:
    """The network, with a note of the images that it takes, which its artifact keeps."""
    origin: Any = network.prunas_origin
    network.prunas_origin = {**origin, "sees": list(size)}  # type: ignore[assignment]
    return network


def _begun(job: Job, training: Training, full: nn.Module, prior: Prior | None) -> nn.Module:
    network = _candidate(job, training, full, prior)
    if not training.replacements:
        return network
    random = training.purpose in ("scratch", "scratch-finalist")
    return replaced(network, training.replacements, fresh=training.seed if random else None)


def _candidate(job: Job, training: Training, full: nn.Module, prior: Prior | None) -> nn.Module:
    if training.purpose == "ranking":
        return cut(full, job.space, training.candidate)
    if training.purpose in ("scratch", "scratch-finalist"):
        return cut(job.untrained(training.seed), job.space, training.candidate)
    return train_source(job, full, prior).alone(training.candidate)


def _record(job: Job, training: Training) -> Path:
    return job.folder.checkpoint(training.name).with_suffix(".json")


def _train(job: Job, training: Training) -> None:
    network = network_of(job, training)
    tested = training.purpose not in ("finalist", "scratch-finalist")
    with seeing(network, side_of(job.space, training.candidate)):
        held_out = accuracy(network, job.fixed(job.data.held_out))
        test = accuracy(network, job.fixed(job.data.test)) if tested else None
    write_sealed(_record(job, training), asdict(Trained(held_out, test)))


def _recorded(file: Path) -> Trained:
    """What `_train` wrote.

    Raises:
        InputError: the file is damaged.
    """
    try:
        found = read_sealed(file)
        held_out, test = float(found["held_out"]), found["test"]
        return Trained(held_out, None if test is None else float(test))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} cannot be read ({error}); delete it to redo it") from None


# -- workers ---------------------------------------------------------------------------------------


def _run(job: Job, whole: Sequence[Training], open_ones: Sequence[Training]) -> Iterator[None]:
    """Train those that are open, yielding after each."""
    if job.crew.ranks.count > 1:  # all processes train one after the other, together
        for each in open_ones:
            _train(job, each)
            yield
        return
    available = _cores()
    # two processes of one thread finish more training than one process of two threads; the number
    # of threads changes the last bits, so it must not depend on what an interruption left to do
    count = max(1, available // max(1, len(whole)))
    workers = job.workers
    if not workers.elsewhere and job.device.type == "cpu" and min(available, len(open_ones)) > 1:
        workers = Workers("processes", min(available, len(open_ones)))
    if not workers.elsewhere or not open_ones:
        with threads(count):
            for each in open_ones:
                _train(job, each)
                yield
        return
    recipe = partial(trainer_of_run, str(job.folder.path.resolve()), str(job.device))
    with workers.executor(recipe, patience=workers.work_patience, threads=count) as executor:
        for outcome in as_finished(executor, open_ones):
            if isinstance(outcome, Failed):
                raise RunError(
                    f"a network cannot be trained: {outcome.reasons[-1]}; what is finished is kept"
                )
            yield


def trainer_of_run(folder: str, device: str) -> Work[Training, None]:
    """What trains the candidates of a run in a worker, and keeps them in its folder.

    Raises:
        InputError: the folder is not there, or damaged.
    """
    return partial(_train, job_of_worker(folder, device))
