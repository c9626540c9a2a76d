"""Train one set of weights for every candidate, as a schedule says: slices of it, step by step."""

import math
from collections.abc import Callable, Iterable
from itertools import count
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_

from prunas.errors import RunError
from prunas.supernet.elastic import Elastic
from prunas.supernet.schedules.schedule import Schedule, Step
from prunas.supernet.space import Candidate, SearchSpace

_STEPS_BETWEEN_CHECKS: Final = 16  # reading a loss waits for the accelerator, so not every step


def train_supernet(
    source: Elastic,
    batches: Iterable[tuple[Tensor, Tensor]],
    schedule: Schedule,
    *,
    steps: int,
    optimizer: torch.optim.Optimizer,
    rate: Callable[[int], float],
    label_smoothing: float,
    rng: np.random.Generator,
    largest_gradient: float = math.inf,
    first_step: int = 0,
    on_step: Callable[[int], None] | None = None,
    on_loss: Callable[[float], None] | None = None,
) -> None:
    """Train a weights source in place.

    In every step the candidates that the schedule names run on the same images, each on batch
    statistics of its own; their gradients are added, and the weights change once (`Step` has the
    loss). What none of them uses has no gradient, so neither weight decay nor momentum moves it.

    Args:
        source: the shared or generated weights; left in training mode of its network.
        batches: (images, labels); training ends with them.
        schedule: what runs.
        steps: of the whole training, from step 0 on.
        optimizer: over the parameters of the source.
        rate: learning rate of every step, by its number.
        label_smoothing: of the cross entropy with labels.
        rng: of the schedule.
        largest_gradient: the gradient of all parameters is scaled down to this norm.
        first_step: number of the first step, where training goes on.
        on_step: called with the number of steps done.
        on_loss: called at the end, with the mean loss over all networks that were run.

    Raises:
        RunError: the loss is not finite; the weights are then of no use.
    """
    source.network.train()
    learnt = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    losses: list[Tensor] = []
    every: list[Tensor] = []
    for number, (images, labels) in zip(count(first_step), batches, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = rate(number)
        optimizer.zero_grad()
        step = schedule.step(number, steps, rng)
        losses += _descended(source, step, images, labels, label_smoothing)
        if largest_gradient < math.inf:
            clip_grad_norm_(learnt, largest_gradient)
        optimizer.step()
        if number % _STEPS_BETWEEN_CHECKS == 0:
            every += losses
            losses = _finite(losses, number, rate(number))
        if on_step is not None:
            on_step(number + 1)
    every += losses
    _finite(losses, number, rate(number))
    if on_loss is not None:
        on_loss(float(torch.stack(every).mean()))


def _descended(
    source: Elastic, step: Step, images: Tensor, labels: Tensor, smoothing: float
) -> list[Tensor]:
    """The losses of a step, whose gradients are in the parameters."""
    losses = []
    targets = labels
    if step.teacher is not None:
        logits, loss = _learning(source, step.teacher, images, labels, smoothing)
        losses.append(loss)
        targets, smoothing = logits.softmax(1), 0.0
    for path in step.paths:
        losses.append(_learning(source, path, images, targets, smoothing)[1])
    return losses


def _learning(
    source: Elastic, candidate: Candidate, images: Tensor, targets: Tensor, smoothing: float
) -> tuple[Tensor, Tensor]:
    """What a candidate answers, and its loss, whose gradient is added to the parameters'."""
    with source.running(candidate) as network:
        logits = network(images)
        loss = F.cross_entropy(logits, targets, label_smoothing=smoothing)
        loss.backward()
    return logits.detach(), loss.detach()


def _finite(losses: list[Tensor], step: int, rate: float) -> list[Tensor]:
    """An empty list, if all of `losses` are finite."""
    if losses and not bool(torch.isfinite(torch.stack(losses)).all()):
        raise RunError(
            f"the loss of the shared weights is not finite at step {step} with learning rate"
            f" {rate:.3g}; train them with a lower learning rate"
        )
    return []


def stratified(
    space: SearchSpace,
    rng: np.random.Generator,
    n: int,
    *,
    spread: float = 3.0,
    shapes: NDArray[np.float64] | None = None,
) -> list[Candidate]:
    """`n` random candidates that together cover every gene evenly (a Latin hypercube).

    In candidate i gene g takes the share shapes[i, g] * spread^(u - 1) of its full width, u in
    [0, 1); the unit interval is cut into n equal parts and every candidate takes another part, so
    that wide and narrow choices are equally often trained in each step. No gene departs from its
    shape by more than `spread`: a network is as good as its narrowest place, and paths with one
    layer at a sixteenth teach the shared weights little (measured: benchmarks/RESULTS.md). A
    block is kept where its share is a half or more; of alternatives every one is as likely. Meant
    to be moved into a budget.

    Args:
        space: the candidates.
        rng: decides.
        n: how many.
        spread: the largest share is so many times the smallest.
        shapes: (n, genes) relative widths to draw around, in (0, 1]; None: 1 for all.
    """
    around = np.ones((n, len(space.genes))) if shapes is None else shapes
    columns = []
    for index, (gene, shape) in enumerate(zip(space.genes, around.T, strict=True)):
        u = (rng.permutation(n) + rng.random(n)) / n
        choices = np.array(gene.choices)
        if index in space.alternatives:
            columns.append(choices[(u * len(choices)).astype(np.int64)])
            continue
        wanted = choices[-1] * shape * spread ** (u - 1)
        if gene.choices[0] == 0:
            wanted = wanted.round()
        places = np.searchsorted(choices, wanted, side="right") - 1
        columns.append(choices[np.maximum(places, 0)])
    return [Candidate(row) for row in np.column_stack(columns).tolist()]
