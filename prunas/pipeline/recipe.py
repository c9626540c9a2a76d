"""How a network is trained, in one immutable value, and the optimiser that follows from it."""

import math
from dataclasses import asdict, dataclass
from typing import Final, final

import torch
from torch import nn

from prunas.errors import InputError
from prunas.pipeline.precision import require_precision

_FREE: Final = frozenset({"compile"})
"""Changes rounding alone, as another device does."""


@final
@dataclass(frozen=True)
class Recipe:
    """How to train.

    The learning rate rises linearly from 0 over the first `warmup` share of the steps, then
    falls to 0 along half a cosine. Weight decay spares biases and normalisation (all tensors of
    one dimension). With a teacher the loss is

        (1 - w) CE(student, labels) + w T^2 KL(softmax(teacher / T) || softmax(student / T)),

    w = `distillation`, T = `temperature` (Hinton, Vinyals and Dean, 2015, section 2).

    Attributes:
        batch_size: images in a step, over all processes and parts.
        precision: one of `PRECISIONS`.
        accumulate: a batch runs in so many parts, one after the other, and their gradients are
            added up: the gradient of the batch, in the memory of a part. Batch norms see the
            parts.
        ema: decay d of an average of the weights, which is then the result (Polyak and
            Juditsky, 1992): after step t, from 0, a <- a + (1 - d_t) (w - a) with
            d_t = min(d, (1 + t) / (10 + t)), so that short trainings forget their beginning too.
            Other floating-point tensors (running statistics) are averaged with it. 0: no average.
        compile: the network runs through `torch.compile`.
    """

    epochs: int
    batch_size: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    label_smoothing: float = 0.1
    warmup: float = 0.1
    distillation: float = 0.5
    temperature: float = 2.0
    augment: bool = True
    precision: str = "auto"
    accumulate: int = 1
    ema: float = 0.0
    compile: bool = False

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("epochs", self.epochs, 1, math.inf),
            ("batch_size", self.batch_size, 1, math.inf),
            ("learning_rate", self.learning_rate, 0, math.inf),
            ("momentum", self.momentum, 0, 1),
            ("weight_decay", self.weight_decay, 0, math.inf),
            ("label_smoothing", self.label_smoothing, 0, 1),
            ("warmup", self.warmup, 0, 1),
            ("distillation", self.distillation, 0, 1),
            ("temperature", self.temperature, 1e-6, math.inf),
            ("accumulate", self.accumulate, 1, self.batch_size),
            ("ema", self.ema, 0, 1 - 1e-9),
        ):
            if not low <= value <= high or value == math.inf:
                upto = "upwards" if high == math.inf else f"to {high:.9g}"
                raise InputError(f"{name}={value} of the recipe; choose from {low:g} {upto}")
        require_precision(self.precision)

    def rate_at(self, step: int, steps: int) -> float:
        """The learning rate of step 0 .. steps - 1."""
        rising = self.warmup * steps
        if step < rising:
            return self.learning_rate * (step + 1) / (rising + 1)
        share = (step - rising) / max(1.0, steps - rising)
        return self.learning_rate * (1 + math.cos(math.pi * share)) / 2

    def decisive(self) -> dict[str, object]:
        """What decides the result; equal for recipes that train the same."""
        return {name: value for name, value in asdict(self).items() if name not in _FREE}


def optimizer_for(network: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD over the trainable parameters as `Recipe` says; the learning rate is yet to be set.

    Momentum is there from the start, zero, which makes the same steps. Where torch makes it in
    the first one, its fused steps take it for all parameters or for none, though a path may not
    reach all; and leave it unfilled where a scale of float16 makes them skip that step.
    """
    parameters = [each for each in network.parameters() if each.requires_grad]
    groups = [
        {
            "params": [each for each in parameters if each.ndim > 1],
            "weight_decay": recipe.weight_decay,
        },
        {"params": [each for each in parameters if each.ndim <= 1], "weight_decay": 0.0},
    ]
    momentum = recipe.momentum
    optimizer = torch.optim.SGD(
        groups, lr=0.0, momentum=momentum, nesterov=momentum > 0, fused=True
    )
    for parameter in parameters if momentum else ():
        optimizer.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}
    return optimizer
