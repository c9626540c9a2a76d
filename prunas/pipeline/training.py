"""Training a network: plain SGD, optionally taught by another network."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunas.errors import InputError, RunError
from prunas.json_text import parsed
from prunas.pipeline.seeding import seeded
from prunas.pipeline.splits import Batch, Split
from prunas.pipeline.tensor_file import read_tensors, write_tensors

_STEPS_BETWEEN_CHECKS = 16  # reading a loss waits for the accelerator, so not at every step


@final
@dataclass(frozen=True)
class Recipe:
    """How to train.

    The learning rate rises linearly from 0 over the first `warmup` share of the steps, then
    falls to 0 along half a cosine. Weight decay spares biases and normalisation (all tensors of
    one dimension). With a teacher the loss is

        (1 - w) CE(student, labels) + w T^2 KL(softmax(teacher / T) || softmax(student / T)),

    w = `distillation`, T = `temperature` (Hinton, Vinyals and Dean, 2015, section 2).
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
        ):
            if not low <= value <= high:
                raise InputError(f"{name}={value} of the recipe; choose from {low:g} to {high:g}")

    def rate_at(self, step: int, steps: int) -> float:
        """The learning rate of step 0 .. steps - 1."""
        rising = self.warmup * steps
        if step < rising:
            return self.learning_rate * (step + 1) / (rising + 1)
        share = (step - rising) / max(1.0, steps - rising)
        return self.learning_rate * (1 + math.cos(math.pi * share)) / 2


@final
@dataclass(frozen=True)
class Epoch:
    """Means over one epoch's training batches; `seconds` does not count in comparisons."""

    index: int
    loss: float
    accuracy: float
    learning_rate: float
    seconds: float = field(compare=False)


def train(
    network: nn.Module,
    split: Split,
    recipe: Recipe,
    *,
    seed: int,
    teacher: nn.Module | None = None,
    device: torch.device | str = "cpu",
    on_step: Callable[[int, int], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    checkpoint: Path | None = None,
) -> list[Epoch]:
    """Train `network` in place on `device` and leave it in eval mode.

    Tensors are kept in channels-last memory, float32, with bfloat16 autocast on CUDA. All
    randomness comes from `seed`, a stream of its own for every epoch, and torch's global
    generators are left as found. With `checkpoint` the state is written after every epoch, and a
    call that finds the file goes on from it to the result of an uninterrupted run.

    Args:
        on_step: called with (steps done, steps in all).
        on_epoch: called with every epoch, those in the checkpoint first.
        checkpoint: a .safetensors file: weights, momentum and the epochs so far.

    Raises:
        RunError: the loss is no longer finite, or the checkpoint cannot be written.
        InputError: the checkpoint is of another network, recipe or seed, or unreadable.
    """
    run = _Run(network, split, recipe, seed, torch.device(device))
    epochs = run.resume(checkpoint) if checkpoint and checkpoint.exists() else []
    tell = on_epoch or _ignore
    for epoch in epochs:
        tell(epoch)
    with _teaching(teacher, run.device) as taught:
        for index in range(len(epochs), recipe.epochs):
            epochs.append(run.epoch(index, taught, on_step or _ignore))
            tell(epochs[-1])
            if checkpoint:
                run.save(checkpoint, epochs)
    run.optimizer.zero_grad()  # gradients are not left behind
    network.eval()
    return epochs


def _ignore(*_: object) -> None:
    """The default `on_step` and `on_epoch`."""


@contextmanager
def _teaching(teacher: nn.Module | None, device: torch.device) -> Iterator[nn.Module | None]:
    """The teacher on `device` in eval mode; its modes are restored afterwards."""
    if teacher is None:
        yield None
        return
    modes = [(module, module.training) for module in teacher.modules()]
    teacher.to(device).eval()
    try:
        yield teacher
    finally:
        for module, mode in modes:
            module.training = mode


@final
class _Run:
    """The moving parts of one training run."""

    def __init__(
        self, network: nn.Module, split: Split, recipe: Recipe, seed: int, device: torch.device
    ) -> None:
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.split, self.recipe, self.seed, self.device = split, recipe, seed, device
        self.steps_per_epoch = max(1, len(split) // recipe.batch_size)
        self.optimizer = optimizer_for(network, recipe)

    def epoch(
        self, index: int, teacher: nn.Module | None, on_step: Callable[[int, int], None]
    ) -> Epoch:
        started = perf_counter()
        self.network.train()
        order = np.random.default_rng([self.seed, index])
        dropout = np.random.default_rng([self.seed, index, 1])
        meter = _Meter()
        steps = self.steps_per_epoch * self.recipe.epochs
        first, rate = index * self.steps_per_epoch, 0.0
        batches = self.split.batches(
            self.recipe.batch_size,
            shuffle=order,
            augment=self.recipe.augment,
            device=self.device,
            channels_last=True,
        )
        with seeded(int(dropout.integers(2**62)), self.device):
            for step, batch in enumerate(batches, first):
                rate = self.recipe.rate_at(step, steps)
                meter.add(step, rate, *self._step(batch, rate, teacher))
                on_step(step + 1, steps)
        loss, accuracy = meter.means()
        return Epoch(index, loss, accuracy, rate, perf_counter() - started)

    def _step(self, batch: Batch, rate: float, teacher: nn.Module | None) -> tuple[Tensor, Tensor]:
        """One descent; returns the loss and the share of right answers, still on the device."""
        pictures, labels = batch
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            outputs = self.network(pictures)
            soft = _answers(teacher, pictures)
        loss = _loss(outputs.float(), labels, soft, self.recipe)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach(), (outputs.detach().argmax(1) == labels).float().mean()

    def save(self, path: Path, epochs: list[Epoch]) -> None:
        """Write weights, momentum and epochs aside, then rename: a crash leaves the old file."""
        notes = {"run": self._identity(), "epochs": json.dumps([asdict(e) for e in epochs])}
        write_tensors(path, self._tensors(), notes)

    def resume(self, path: Path) -> list[Epoch]:
        saved, notes = read_tensors(path)
        if notes.get("run") != self._identity():
            raise InputError(
                f"the checkpoint {path} is of another network, recipe, data or seed;"
                " give another file, or delete it to start again"
            )
        try:
            epochs = [Epoch(**each) for each in parsed(notes["epochs"])]
            self._restore(saved)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"the checkpoint {path} cannot be read ({error}); delete it to start again"
            ) from None
        return epochs

    def _identity(self) -> str:
        """What must be the same for a checkpoint to go on to the same result."""
        shapes = {name: list(tensor.shape) for name, tensor in self.network.state_dict().items()}
        run = {"recipe": asdict(self.recipe), "seed": self.seed, "pictures": len(self.split)}
        return json.dumps({**run, "network": shapes}, sort_keys=True)

    def _tensors(self) -> dict[str, Tensor]:
        """All that training goes on from."""
        named = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            if parameter in self.optimizer.state:  # absent where no gradient has reached it
                named[f"momentum.{name}"] = self.optimizer.state[parameter]["momentum_buffer"]
        return named

    def _restore(self, saved: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in self.network.state_dict().items():
                tensor.copy_(saved[f"network.{name}"])
        for name, parameter in self.network.named_parameters():
            if f"momentum.{name}" in saved:
                momentum = torch.empty_like(parameter).copy_(saved[f"momentum.{name}"])
                self.optimizer.state[parameter] = {"momentum_buffer": momentum.detach()}


def epochs_of(checkpoint: Path) -> list[Epoch]:
    """The epochs of a training that was kept; none where there is no such file.

    Raises:
        InputError: it is damaged.
    """
    if not checkpoint.exists():
        return []
    _, notes = read_tensors(checkpoint)
    try:
        return [Epoch(**each) for each in parsed(notes["epochs"])]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the checkpoint {checkpoint} cannot be read ({error}); delete it to start again"
        ) from None


@final
class _Meter:
    """Means over the steps of an epoch; stops the run at a loss that is not finite."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self.rights: list[Tensor] = []
        self.rates: list[tuple[int, float]] = []

    def add(self, step: int, rate: float, loss: Tensor, right: Tensor) -> None:
        self.losses.append(loss)
        self.rights.append(right)
        self.rates.append((step, rate))
        if len(self.losses) % _STEPS_BETWEEN_CHECKS == 0:
            self._check(_STEPS_BETWEEN_CHECKS)

    def means(self) -> tuple[float, float]:
        self._check(len(self.losses))
        return float(torch.stack(self.losses).mean()), float(torch.stack(self.rights).mean())

    def _check(self, last: int) -> None:
        finite = torch.isfinite(torch.stack(self.losses[-last:])).tolist()
        if not all(finite):
            step, rate = self.rates[-last:][finite.index(False)]
            raise RunError(
                f"the loss is not finite at step {step} with learning rate {rate:.3g};"
                " train with a lower learning rate or a longer warmup"
            )


def optimizer_for(network: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD over the trainable parameters as `Recipe` says; the learning rate is yet to be set."""
    parameters = [each for each in network.parameters() if each.requires_grad]
    groups = [
        {
            "params": [each for each in parameters if each.ndim > 1],
            "weight_decay": recipe.weight_decay,
        },
        {"params": [each for each in parameters if each.ndim <= 1], "weight_decay": 0.0},
    ]
    momentum = recipe.momentum
    return torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=momentum > 0, fused=True)


def _answers(teacher: nn.Module | None, pictures: Tensor) -> Tensor | None:
    if teacher is None:
        return None
    with torch.no_grad():
        answers: Tensor = teacher(pictures).float()
    return answers


def _loss(outputs: Tensor, labels: Tensor, soft: Tensor | None, recipe: Recipe) -> Tensor:
    """The loss of `Recipe`, a scalar, from (n, classes) logits."""
    hard = F.cross_entropy(outputs, labels, label_smoothing=recipe.label_smoothing)
    if soft is None:
        return hard
    heat, weight = recipe.temperature, recipe.distillation
    divergence = F.kl_div(
        F.log_softmax(outputs / heat, 1),
        F.log_softmax(soft / heat, 1),
        reduction="batchmean",
        log_target=True,
    )
    return (1 - weight) * hard + weight * heat**2 * divergence
