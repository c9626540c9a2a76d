"""Where the weights of candidates come from in a run: made, trained, kept."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from torch import nn

from prunas.errors import RunError
from prunas.pipeline.files import writing
from prunas.pipeline.request import WHOLE_FRONT, Request
from prunas.pipeline.source_files import load_source, save_source
from prunas.pipeline.source_training import learn
from prunas.pipeline.stages import Job
from prunas.pruningnet.forms import lean_net, published_net, require_memory
from prunas.pruningnet.layers import generated_layers
from prunas.search.budget import Feasible, as_candidates, as_values
from prunas.search.prior import Prior, allocate, leaning
from prunas.supernet.elastic import Elastic, Supernet
from prunas.supernet.kernel_transform import KernelTransform
from prunas.supernet.schedules.schedule import Paths, Schedule
from prunas.supernet.schedules.table import Setting, schedule_of
from prunas.supernet.space import Candidate, SearchSpace
from prunas.supernet.training import stratified


def made_source(request: Request, name: str, network: nn.Module, space: SearchSpace) -> Elastic:
    """An untrained weights source, one of `SOURCES`.

    Raises:
        InputError: no weight of the network can be generated, or there is not the memory for it;
            or no kernel can be transformed.
    """
    if name == "supernet":
        kernels = KernelTransform(network, space) if request.kernel_transform else None
        return Supernet(network, space, kernels)
    form = lean_net if name == "pruningnet" else published_net
    return form(network, space, small_memory=request.small_memory, seed=request.seed)


def require_source(job: Job) -> None:
    """Refuse, before anything long begins, a run whose weights cannot be made, or trained.

    Raises:
        InputError: as in `made_source` and `schedule_of`.
    """
    _schedule(job, None)
    if job.request.kernel_transform:
        KernelTransform(job.blank, job.space)
    if job.request.source == "pruningnet-published":
        require_memory(job.blank, job.space)
    elif job.request.source == "pruningnet":
        generated_layers(job.blank, job.space)


def train_source(
    job: Job, network: nn.Module, prior: Prior | None, name: str | None = None
) -> Elastic:
    """Weights for every candidate, from the sorted full network, which is not changed.

    Kept after every epoch and at times in between; goes on where it was stopped, to the result of
    an uninterrupted run.

    Args:
        job: says how to train.
        network: with its channels in order.
        prior: of the search; paths lean towards it.
        name: one of `SOURCES`; that of the request if None.

    Raises:
        InputError: kept weights are damaged, or of another run, network or grid.
        RunError: the loss diverges; the last good weights are kept.
    """
    name = name or job.request.source
    source = made_source(job.request, name, copy.deepcopy(network), job.space)
    file, unfinished = job.folder.checkpoint(name), job.folder.checkpoint(f"{name}-training")
    owner = job.request.fingerprint()
    if file.exists():
        _tell(job, name, load_source(source, file, owner=owner))
        _forget(unfinished)  # a kill may have come between the two
        return source
    with (
        job.folder.stage("train the shared weights"),
        job.progress.task(name) as task,
        job.leading(follow_source, name),
    ):
        job.crew.ranks.hand_out(network)
        with _good_weights_kept(unfinished):
            losses = learn(
                job,
                source,
                _schedule(job, prior),
                unfinished,
                task.update,
                lambda losses: _tell(job, name, losses),
            )
        save_source(source, file, owner=owner, losses=losses)
        _forget(unfinished)
    return source


def _forget(unfinished: Path) -> None:
    with writing(unfinished):
        unfinished.unlink(missing_ok=True)


def follow_source(job: Job, name: str) -> None:
    """The part of another process in `train_source`; weights and paths come from the first one."""
    network = job.untrained(0)
    job.crew.ranks.hand_out(network)
    source = made_source(job.request, name, network, job.space)
    learn(job, source)


def _tell(job: Job, name: str, losses: Sequence[float]) -> None:
    for epoch, loss in enumerate(losses):
        job.progress.log.write(f"{name}/loss", loss, epoch)


@contextmanager
def _good_weights_kept(file: Path) -> Iterator[None]:
    """Says of a failure where the last good weights are."""
    try:
        yield
    except RunError as error:
        if not file.exists():
            raise
        raise RunError(f"{error}; the last good weights are kept in {file}") from None


def _schedule(job: Job, prior: Prior | None) -> Schedule:
    request = job.request
    paths = paths_in_budget(job.feasible, prior, whole_front=request.search in WHOLE_FRONT)
    setting = Setting(job.space, paths, paths=request.paths, seed=request.seed)
    return schedule_of(request.schedule, setting)


def paths_in_budget(feasible: Feasible, prior: Prior | None, *, whole_front: bool = False) -> Paths:
    """Draws the paths of training where the search will look.

    That is stratified widths, moved into the budget's window where they are outside it; for a
    search of the whole front, candidates of any cost within the limits.

    With a prior, paths lie between the uniform shape and the prior's allocation, evenly: weights
    that never ran in the shapes where a search begins make those shapes look bad (measured:
    benchmarks/RESULTS.md).
    """
    space = feasible.space
    allocation = space.full() if prior is None else allocate(prior.values, feasible)

    def paths(rng: np.random.Generator, n: int) -> list[Candidate]:
        shapes = leaning(space, allocation, (rng.permutation(n) + rng.random(n)) / n)
        if whole_front:
            return feasible.front_sample(rng, n, weights=shapes)
        drawn = as_values(stratified(space, rng, n, shapes=shapes))
        return as_candidates(feasible.repair(drawn, rng))

    return paths
