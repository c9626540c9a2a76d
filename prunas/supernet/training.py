"""Train one set of weights for every candidate, as a schedule says: slices of it, step by step."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from typing import Final, Protocol, final

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


class Descent(Protocol):
    """How weights change in a step: the optimiser, and what is around it."""

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        ...

    def begin(self, step: int) -> None:
        """Before the forwards of a step; there are no gradients then."""
        ...

    def parts(self, images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor, float]]:
        """The batch in parts that run one after the other, each with its share of the images."""
        ...

    def autocast(self) -> AbstractContextManager[object]:
        """In which forwards run."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a part of the step's loss."""
        ...

    def finish(self, step: int, losses: Tensor) -> Tensor:
        """Change the weights; returns the losses of the whole batch, wherever it ran."""
        ...


@final
class PlainDescent:
    """One process, float32, whole batches.

    Args:
        optimizer: over the parameters of a source.
        rate: learning rate of every step, by its number.
        largest_gradient: the gradient of all parameters is scaled down to this norm.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        rate: Callable[[int], float],
        largest_gradient: float = math.inf,
    ) -> None:
        self._optimizer, self.rate_at = optimizer, rate
        self._largest_gradient = largest_gradient

    def begin(self, step: int) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate_at(step)
        self._optimizer.zero_grad()

    def parts(self, images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor, float]]:
        yield images, labels, 1.0

    def autocast(self) -> AbstractContextManager[object]:
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def finish(self, step: int, losses: Tensor) -> Tensor:
        if self._largest_gradient < math.inf:
            learnt = [p for group in self._optimizer.param_groups for p in group["params"]]
            clip_grad_norm_(learnt, self._largest_gradient)
        self._optimizer.step()
        return losses


def train_supernet(
    source: Elastic,
    batches: Iterable[tuple[Tensor, Tensor]],
    schedule: Schedule,
    *,
    steps: int,
    descent: Descent,
    label_smoothing: float,
    rng: np.random.Generator,
    first_step: int = 0,
    on_step: Callable[[int], None] | None = None,
    on_loss: Callable[[Tensor], None] | None = None,
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
        descent: over the parameters of the source.
        label_smoothing: of the cross entropy with labels.
        rng: of the schedule.
        first_step: number of the first step, where training goes on.
        on_step: called with the number of steps done.
        on_loss: called after every step, with the losses of the networks that it ran, (networks,),
            still on the device.

    Raises:
        RunError: the loss is not finite; the weights are then of no use.
    """
    source.network.train()
    losses: list[Tensor] = []
    for number, (images, labels) in zip(count(first_step), batches, strict=False):
        descent.begin(number)
        step = schedule.step(number, steps, rng)
        of_step = images.new_zeros(len(step.candidates))
        for some, their_labels, share in descent.parts(images, labels):
            found = _descended(source, step, some, their_labels, share, label_smoothing, descent)
            of_step += torch.stack(found)
        losses.append(descent.finish(number, of_step))
        if on_loss is not None:
            on_loss(losses[-1])
        if number % _STEPS_BETWEEN_CHECKS == 0:
            losses = _finite(losses, number, descent.rate_at(number))
        if on_step is not None:
            on_step(number + 1)
    _finite(losses, number, descent.rate_at(number))


def _descended(
    source: Elastic,
    step: Step,
    images: Tensor,
    labels: Tensor,
    share: float,
    smoothing: float,
    descent: Descent,
) -> list[Tensor]:
    """The losses of a step on a share of its images; their gradients are in the parameters."""

    def learning(candidate: Candidate, targets: Tensor, smoothing: float) -> Tensor:
        with source.running(candidate) as network:
            with descent.autocast():
                logits: Tensor = network(images)
            answers = logits.float()
            loss = share * F.cross_entropy(answers, targets, label_smoothing=smoothing)
            descent.backward(loss)
        losses.append(loss.detach())
        return answers.detach()

    losses: list[Tensor] = []
    targets = labels
    if step.teacher is not None:
        targets, smoothing = learning(step.teacher, labels, smoothing).softmax(1), 0.0
    for path in step.paths:
        learning(path, targets, smoothing)
    return losses


def _finite(losses: list[Tensor], step: int, rate: float) -> list[Tensor]:
    """An empty list, if all of `losses` are finite."""
    if losses and not bool(torch.isfinite(torch.cat(losses)).all()):
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
