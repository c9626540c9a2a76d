"""Scores of a run's candidates, wherever they are computed."""

import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from prunas.errors import InputError
from prunas.eval.scoring import WeightsSource, scorer
from prunas.pipeline.progress import Progress
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.sources import train_source
from prunas.pipeline.stages import Job, sort_channels, train_full
from prunas.search.executors import Recipe, Supervisor
from prunas.search.executors.supervisor import scored
from prunas.supernet.space import Candidate

Score = Callable[[Candidate], float]


def evaluator(job: Job, source: WeightsSource, name: str) -> Supervisor[Candidate, float]:
    """An executor that scores candidates with the job's workers; to be used in a `with` statement.

    Args:
        job: its stages up to the weights source are finished.
        source: for work in this process; other workers load the same from the run's folder.
        name: of the source.
    """
    recipe: Recipe[Candidate, float]
    if job.workers.elsewhere:
        folder = str(job.folder.path.resolve())
        recipe = partial(score_of_run, folder, str(job.device), name)
    else:
        recipe = partial(_score, job, source)
    return job.workers.executor(recipe, patience=job.workers.patience, refused=scored)


def score_of_run(folder: str, device: str, name: str) -> Score:
    """What scores the candidates of a run in a worker: the recipe of one.

    Network, weights and data are read once from the run's folder, where stages that are finished
    have left them.

    Raises:
        InputError: the folder is not there, or damaged.
    """
    job = job_of_worker(folder, device)
    network, prior = sort_channels(job, train_full(job))
    return _score(job, train_source(job, network, prior, name))


def job_of_worker(folder: str, device: str) -> Job:
    """The job of a run for a process that works for the one whose run it is.

    Raises:
        InputError: the folder is not there, or damaged.
    """
    run = RunFolder(Path(folder), owned=False)
    try:
        run.read()
    except InputError as error:
        raise InputError(
            f"a worker on {socket.gethostname()} cannot work on the run: {error}; a run that"
            " several machines work on lies on a disk that they share, under the same path"
        ) from None
    return Job(run, torch.device(device), Progress())


def _score(job: Job, source: WeightsSource) -> Score:
    calibration = job.fixed(job.data.train, job.request.calibration)
    held_out = job.fixed(job.data.held_out, job.request.scoring)
    score = scorer(source, calibration, held_out)
    return lambda candidate: next(score([candidate]))
