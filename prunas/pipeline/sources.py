"""Where the weights of candidates come from in a run: made, trained, kept."""

import copy
import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from prunas.errors import InputError, RunError
from prunas.pipeline.files import replacing, writing
from prunas.pipeline.recipe import Recipe, optimizer_for
from prunas.pipeline.request import WHOLE_FRONT, Request
from prunas.pipeline.seeding import seeded
from prunas.pipeline.splits import Batch
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
from prunas.supernet.training import stratified, train_supernet


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


# A generated weight is a product of what is learnt, so its gradient grows with it: one of 24
# trainings of the study diverged, and does not with this norm, which few of its steps exceed
# (benchmarks/RESULTS.md).
_LARGEST_GRADIENT: Final = 10.0


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

    Kept after every epoch; goes on where it was stopped, to the result of an uninterrupted run.

    Args:
        job: says how to train.
        network: with its channels in order.
        prior: of the search; paths lean towards it.
        name: one of `SOURCES`; that of the request if None.

    Raises:
        InputError: kept weights are damaged, or of another run, network or grid.
        RunError: the loss diverges; the weights of the last good epoch are kept.
    """
    name = name or job.request.source
    source = made_source(job.request, name, copy.deepcopy(network), job.space)
    file, unfinished = job.folder.checkpoint(name), job.folder.checkpoint(f"{name}-training")
    owner = job.request.fingerprint()
    if file.exists():
        load_source(source, file, owner=owner)
        return source
    recipe = job.request.supernet_recipe()
    optimizer = _optimizer(source, recipe)
    first = _load_training(source, optimizer, unfinished, owner) if unfinished.exists() else 0
    steps_of_epoch = max(1, len(job.data.train) // recipe.batch_size)
    steps = recipe.epochs * steps_of_epoch
    schedule = _schedule(job, prior)
    with job.folder.stage("train the shared weights"), job.progress.task(name) as task:
        for epoch in range(first, recipe.epochs):
            dropout = np.random.default_rng([job.request.seed, 4, epoch])
            with (
                _good_weights_kept(unfinished, epoch),
                seeded(int(dropout.integers(2**62)), job.device),
            ):
                train_supernet(
                    source,
                    _epoch(job, epoch, recipe.batch_size),
                    schedule,
                    steps=steps,
                    optimizer=optimizer,
                    rate=lambda step: recipe.rate_at(step, steps),
                    label_smoothing=recipe.label_smoothing,
                    rng=np.random.default_rng([job.request.seed, 1, epoch]),
                    largest_gradient=_LARGEST_GRADIENT if name != "supernet" else math.inf,
                    first_step=epoch * steps_of_epoch,
                    on_step=lambda done: task.update(done, steps),
                )
            if epoch + 1 < recipe.epochs:
                _save_training(source, optimizer, unfinished, owner, epoch + 1)
        save_source(source, file, owner=owner)
        with writing(unfinished):
            unfinished.unlink(missing_ok=True)
    return source


def _optimizer(source: Elastic, recipe: Recipe) -> torch.optim.Optimizer:
    """Momentum is there from the start, zero: what no path has used yet has none in torch, whose
    fused steps take either none for all parameters or one for each."""
    optimizer = optimizer_for(source.learnt, recipe)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}
    return optimizer


def _schedule(job: Job, prior: Prior | None) -> Schedule:
    request = job.request
    paths = paths_in_budget(job.feasible, prior, whole_front=request.search in WHOLE_FRONT)
    setting = Setting(job.space, paths, paths=request.paths, seed=request.seed)
    return schedule_of(request.schedule, setting)


def _epoch(job: Job, epoch: int, batch_size: int) -> Iterator[Batch]:
    yield from job.data.train.batches(
        batch_size,
        shuffle=np.random.default_rng([job.request.seed, 2, epoch]),
        augment=True,
        device=job.device,
        channels_last=True,
    )


@contextmanager
def _good_weights_kept(file: Path, epoch: int) -> Iterator[None]:
    """Says of a failure where the weights of the last good epoch are."""
    try:
        yield
    except RunError as error:
        if not file.exists():
            raise
        raise RunError(f"{error}; the weights after epoch {epoch} are kept in {file}") from None


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


# -- files -----------------------------------------------------------------------------------------


def save_source(source: Elastic, file: Path, *, owner: str = "") -> None:
    """Write all that a weights source has learnt, aside and then renamed.

    Args:
        source: a supernet or a PruningNet.
        file: a .safetensors file.
        owner: the run that it belongs to.
    """
    _write(file, source.learnt.state_dict(), {"owner": owner, "space": _digest(source.space)})


def load_source(source: Elastic, file: Path, *, owner: str = "") -> None:
    """Load what `save_source` wrote into a source of the same kind.

    Raises:
        InputError: the file is missing or damaged, of another run, of another network or grid of
            widths, or of another kind of source.
    """
    tensors, notes = _read(file)
    _require_kin(source, file, notes, owner)
    held = source.learnt.state_dict()
    wrong = [n for n, t in held.items() if n not in tensors or tensors[n].shape != t.shape]
    if wrong or len(tensors) > len(held):
        name = wrong[0] if wrong else next(n for n in tensors if n not in held)
        raise InputError(
            f"{file} holds another kind of weights source ({name} does not fit); make the source"
            " as it was made when the file was written"
        )
    source.learnt.load_state_dict(tensors)


def _save_training(
    source: Elastic, optimizer: torch.optim.Optimizer, file: Path, owner: str, epochs: int
) -> None:
    tensors = {f"learnt/{name}": tensor for name, tensor in source.learnt.state_dict().items()}
    for name, parameter in source.learnt.named_parameters():
        if parameter in optimizer.state:  # absent where nothing is learnt
            tensors[f"momentum/{name}"] = optimizer.state[parameter]["momentum_buffer"]
    notes = {"owner": owner, "space": _digest(source.space), "epochs": str(epochs)}
    _write(file, tensors, notes)


def _load_training(
    source: Elastic, optimizer: torch.optim.Optimizer, file: Path, owner: str
) -> int:
    """The number of epochs that were done."""
    tensors, notes = _read(file)
    _require_kin(source, file, notes, owner)
    start = len("learnt/")
    source.learnt.load_state_dict(
        {name[start:]: t for name, t in tensors.items() if name.startswith("learnt/")}
    )
    for name, parameter in source.learnt.named_parameters():
        if f"momentum/{name}" in tensors:
            momentum = torch.empty_like(parameter).copy_(tensors[f"momentum/{name}"])
            optimizer.state[parameter] = {"momentum_buffer": momentum.detach()}
    return int(notes["epochs"])


def _require_kin(source: Elastic, file: Path, notes: Mapping[str, str], owner: str) -> None:
    if notes.get("owner", "") != owner:
        raise InputError(f"{file} belongs to another run; delete it to make it again")
    if notes.get("space") != _digest(source.space):
        raise InputError(
            f"{file} holds the weights of another network or of another grid of widths; give those"
            " that it was made for, or train it again"
        )


def _digest(space: SearchSpace) -> str:
    return hashlib.sha256(space.to_json().encode()).hexdigest()[:16]


def _write(file: Path, tensors: Mapping[str, Tensor], notes: dict[str, str]) -> None:
    plain = {
        name: t.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, t in tensors.items()
    }
    with replacing(file) as aside:
        save_file(plain, aside, notes)


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not file.exists():
        raise InputError(f"there is no weights file {file}")
    try:
        with safetensors.safe_open(file, "pt") as opened:
            names = opened.keys()
            return {name: opened.get_tensor(name) for name in names}, opened.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{file} cannot be read ({error}); delete it to redo it") from None
