"""Train one set of weights for every candidate: single paths over prefix slices."""

import math
from collections.abc import Callable, Iterable, Sequence
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
from prunas.supernet.space import Candidate, SearchSpace

Paths = Callable[[np.random.Generator, int], Sequence[Candidate]]
"""Draws the candidates of one step."""

_STEPS_BETWEEN_CHECKS: Final = 16  # reading a loss waits for the accelerator, so not every step


def train_supernet(
    source: Elastic,
    batches: Iterable[tuple[Tensor, Tensor]],
    paths: Paths,
    *,
    paths_per_step: int,
    sandwich: bool,
    optimizer: torch.optim.Optimizer,
    rate: Callable[[int], float],
    label_smoothing: float,
    rng: np.random.Generator,
    largest_gradient: float = math.inf,
    first_step: int = 0,
    on_step: Callable[[int], None] | None = None,
    on_loss: Callable[[float], None] | None = None,
) -> None:
    """Train a weights source in place; every step runs a few candidates on the same images.

    With `sandwich`, each step also runs the full network, whose answers teach the others,

        L = CE(full, y) + sum_s CE(softmax(stop_gradient(full)), path_s),

    so that the last channels of every group are trained in every step (US-Nets, Yu and Huang,
    ICCV 2019, section 3; BigNAS, section 3.1). Deviation: the smallest candidate is not run each
    time, because paths are drawn where the search will look, and it is mostly not there. Without
    it, every path learns from the labels alone (SPOS, section 3.2).

    Args:
        source: the shared or generated weights; left in training mode of its network.
        batches: (images, labels); training ends with them.
        paths: draws the random candidates of a step.
        paths_per_step: how many.
        optimizer: over the parameters of the source.
        rate: learning rate of every step, by its number.
        label_smoothing: of the cross entropy with labels.
        rng: decides the paths.
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
    for step, (images, labels) in zip(count(first_step), batches, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.zero_grad()
        targets = labels
        if sandwich:
            with source.running(source.space.full()) as network:
                logits = network(images)
                loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
                loss.backward()
            targets = logits.detach().softmax(1)
            losses.append(loss.detach())
        for candidate in paths(rng, paths_per_step):
            smoothing = 0.0 if sandwich else label_smoothing
            with source.running(candidate) as path:
                loss = F.cross_entropy(path(images), targets, label_smoothing=smoothing)
                loss.backward()
            losses.append(loss.detach())
        if largest_gradient < math.inf:
            clip_grad_norm_(learnt, largest_gradient)
        optimizer.step()
        if step % _STEPS_BETWEEN_CHECKS == 0:
            every += losses
            losses = _finite(losses, step, rate(step))
        if on_step is not None:
            on_step(step + 1)
    every += losses
    _finite(losses, step, rate(step))
    if on_loss is not None:
        on_loss(float(torch.stack(every).mean()))


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
