"""What learns in a training: weights, momentum, average, scale; and what one step does to it."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from prunas.errors import InputError
from prunas.pipeline.averaging import Average
from prunas.pipeline.precision import Mixed
from prunas.pipeline.ranks import ALONE, Ranks
from prunas.pipeline.recipe import Recipe, optimizer_for
from prunas.pipeline.seeding import seed_torch


@final
class Learner:
    """A module in training, the weights of the first process in all; a `Descent`.

    What a step changes is all in `tensors` and `scale`. What else it depends on is its number: the
    learning rate, the decay of the average, and the seed that torch's generators get at its
    beginning. So a training that is taken up after any step goes on as if it had not stopped.

    Args:
        module: holds what learns; on its device already.
        recipe: how.
        images: in a batch.
        steps: of the whole training.
        seeds: of the training; with the number of a step, and of the process, that of the step.
        device: of the module.
        ranks: the processes that train together.
        largest_gradient: the gradient of all parameters is scaled down to this norm.

    Raises:
        InputError: a batch has too few images for so many processes and parts.
    """

    def __init__(
        self,
        module: nn.Module,
        recipe: Recipe,
        *,
        images: int,
        steps: int,
        seeds: tuple[int, ...],
        device: torch.device,
        ranks: Ranks = ALONE,
        largest_gradient: float = math.inf,
    ) -> None:
        ranks.require_share(images, recipe.accumulate)
        ranks.hand_out(module)
        self.module, self.recipe, self.steps = module, recipe, steps
        self._images, self.share = images, ranks.share(recipe.accumulate)
        self._seeds, self._device, self._ranks = seeds, device, ranks
        self._largest_gradient = largest_gradient
        self._mixed = Mixed(recipe.precision, device)
        self._optimizer = optimizer_for(module, recipe)
        self._learning = [p for group in self._optimizer.param_groups for p in group["params"]]
        self._average = Average(module, recipe.ema) if recipe.ema else None

    # -- a step --------------------------------------------------------------------------------

    def begin(self, step: int) -> None:
        """Before the forwards of a step, counted from 0."""
        # the 1 at the end: zeros there would not count, and other streams begin with the same words
        rng = np.random.default_rng([*self._seeds, step, self._ranks.index, 1])
        seed_torch(int(rng.integers(2**62)), self._device)
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate_at(step)
        self._optimizer.zero_grad()

    def rate_at(self, step: int) -> float:
        return self.recipe.rate_at(step, self.steps)

    def parts(self, images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor, float]]:
        """What this process has of a batch in `Recipe.accumulate` parts.

        Each comes with its share of the images of the whole batch, over all processes.
        """
        sizes = [len(piece) for piece in self.share.pieces(self._images)]
        for some, their_labels in zip(images.split(sizes), labels.split(sizes), strict=True):
            yield some, their_labels, len(some) / self._images

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """In which forwards run.

        Raises:
            InputError: a batch norm sees one value a channel, which has no variance.
        """
        try:
            with self._mixed.autocast():
                yield
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise InputError(
                f"in {self.recipe.accumulate} parts of a batch of {self._images} images a batch"
                " norm sees a single value a channel; take larger batches or fewer parts"
            ) from None

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a part of the step's loss."""
        self._mixed.backward(loss)

    def finish(self, step: int, measures: Tensor) -> Tensor:
        """Descend along the gradient of all processes.

        Args:
            step: its number.
            measures: (n,), any parts of sums.

        Returns:
            Their sums over the processes.
        """
        summed = self._ranks.summed(self._learning, measures)
        if self._largest_gradient < math.inf:
            self._mixed.unscale(self._optimizer)
            clip_grad_norm_(self._learning, self._largest_gradient)
        self._mixed.step(self._optimizer)
        if self._average is not None:
            self._average.update(step)
        return summed

    def conclude(self) -> None:
        """After the last step: no gradients are left behind, and averaged weights take over."""
        self._optimizer.zero_grad()
        if self._average is not None:
            self._average.hand_over()

    # -- keeping -------------------------------------------------------------------------------

    @property
    def scale(self) -> str:
        return self._mixed.to_json()

    def tensors(self) -> dict[str, Tensor]:
        """Everything but the scale that steps have changed, by name; not copies."""
        named = {f"network.{name}": t for name, t in self.module.state_dict().items()}
        for name, parameter in self.module.named_parameters():
            if parameter in self._optimizer.state:
                named[f"momentum.{name}"] = self._optimizer.state[parameter]["momentum_buffer"]
        if self._average is not None:
            named |= {f"average.{name}": t for name, t in self._average.tensors().items()}
        return named

    def load(self, tensors: Mapping[str, Tensor], scale: str) -> None:
        """Go on from what `tensors` and `scale` gave."""
        with torch.no_grad():
            for name, tensor in self.module.state_dict().items():
                tensor.copy_(tensors[f"network.{name}"])
        for name, parameter in self.module.named_parameters():
            if parameter in self._optimizer.state:
                momentum = self._optimizer.state[parameter]["momentum_buffer"]
                momentum.copy_(tensors[f"momentum.{name}"])
        if self._average is not None:
            self._average.load(_within(tensors, "average."))
        self._mixed.load_json(scale)


def _within(tensors: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
