"""Training a network: plain SGD, optionally taught by another network."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
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
from prunas.pipeline.checkpoints import Every, Pace
from prunas.pipeline.compilation import compiled
from prunas.pipeline.learner import Learner
from prunas.pipeline.ranks import ALONE, Ranks
from prunas.pipeline.recipe import Recipe
from prunas.pipeline.seeding import seeded
from prunas.pipeline.splits import Batch, Split
from prunas.pipeline.tensor_file import read_tensors, write_tensors

_STEPS_BETWEEN_CHECKS = 16  # reading a loss waits for the accelerator, so not at every step


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
    every: Every | None = None,
    ranks: Ranks = ALONE,
) -> list[Epoch]:
    """Train `network` in place on `device` and leave it in eval mode.

    Tensors are kept in channels-last memory and in float32. All randomness comes from `seed`, a
    stream of its own for every epoch's order and for every step, and torch's global generators
    are left as found. With `checkpoint` the state is written after every epoch and at times in
    between, and a call that finds the file goes on from it to the result of an uninterrupted run.

    Several processes that make this call together train one network: each runs its share of every
    batch, and gradients, statistics of batch norms and what is returned are those of the whole.
    They begin with the weights of the first process, which alone touches the checkpoint.

    Args:
        on_step: called with (steps done, steps in all).
        on_epoch: called with every epoch, those in the checkpoint first.
        checkpoint: a .safetensors file: weights, momentum, their average, the scale of float16,
            the epochs so far, and the losses of the unfinished one.
        every: when it is written within an epoch; `Every()` if None.
        ranks: the processes that train together.

    Raises:
        RunError: the loss is no longer finite, the checkpoint cannot be written, the network
            cannot be compiled, or another process has ended.
        InputError: the checkpoint is of another network, recipe or seed, or unreadable; or a
            batch has too few images to be shared.
    """
    run = _Run(network, split, recipe, seed, torch.device(device), ranks)
    run.begin(checkpoint)
    keep = _keeper(run, checkpoint if ranks.first else None, every or Every())
    with ExitStack() as around:
        taught = around.enter_context(_teaching(teacher, run.device, ranks))
        around.enter_context(seeded(0, run.device))
        around.enter_context(ranks.synchronised())
        tell = on_epoch or _ignore
        for epoch in run.epochs:
            tell(epoch)
        while len(run.epochs) < recipe.epochs:
            run.epoch(taught, on_step or _ignore, keep)
            tell(run.epochs[-1])
    run.learner.conclude()
    network.eval()
    return run.epochs


def _ignore(*_: object) -> None:
    """The default `on_step` and `on_epoch`."""


def _keeper(run: "_Run", file: Path | None, every: Every) -> Callable[[], None]:
    """What is called after every step, and writes the checkpoint where it is time."""
    pace = Pace(every)

    def keep() -> None:
        ended = len(run.meter) == 0
        if file is not None and (pace.due() or ended):
            run.save(file)
            pace.rest()

    return keep


@contextmanager
def _teaching(
    teacher: nn.Module | None, device: torch.device, ranks: Ranks
) -> Iterator[nn.Module | None]:
    """The teacher on `device` in eval mode; its modes are restored afterwards."""
    if teacher is None:
        yield None
        return
    modes = [(module, module.training) for module in teacher.modules()]
    teacher.to(device).eval()
    ranks.hand_out(teacher)
    try:
        yield teacher
    finally:
        for module, mode in modes:
            module.training = mode


@final
class _Run:
    """The moving parts of one training run."""

    def __init__(
        self,
        network: nn.Module,
        split: Split,
        recipe: Recipe,
        seed: int,
        device: torch.device,
        ranks: Ranks,
    ) -> None:
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.split, self.recipe, self.seed, self.device = split, recipe, seed, device
        self.ranks = ranks
        self.steps = max(1, len(split) // recipe.batch_size)
        self.learner = Learner(
            network,
            recipe,
            images=min(recipe.batch_size, len(split)),
            steps=self.steps * recipe.epochs,
            seeds=(seed, 1),
            device=device,
            ranks=ranks,
        )
        self.forward = compiled(network) if recipe.compile else network
        self.epochs: list[Epoch] = []
        self.meter = _Meter()

    def epoch(
        self,
        teacher: nn.Module | None,
        on_step: Callable[[int, int], None],
        keep: Callable[[], None],
    ) -> None:
        """What is still to be done of an epoch."""
        self.network.train()
        index = len(self.epochs)
        batches = self.split.batches(
            self.recipe.batch_size,
            shuffle=np.random.default_rng([self.seed, index]),
            augment=self.recipe.augment,
            device=self.device,
            channels_last=True,
            skip=len(self.meter),
            share=self.learner.share,
        )
        for step, batch in enumerate(batches, index * self.steps + len(self.meter)):
            rate = self.learner.rate_at(step)
            self.meter.add(step, rate, self._step(step, batch, teacher))
            if len(self.meter) == self.steps:
                loss, accuracy = self.meter.means()
                self.epochs.append(Epoch(index, loss, accuracy, rate, self.meter.seconds()))
                self.meter = _Meter()
            on_step(step + 1, self.learner.steps)
            keep()

    def _step(self, step: int, batch: Batch, teacher: nn.Module | None) -> Tensor:
        """One descent; returns (loss, share of right answers), still on the device."""
        self.learner.begin(step)
        measures = torch.zeros(2, device=self.device)
        for images, labels, share in self.learner.parts(*batch):
            with self.learner.autocast():
                outputs = self.forward(images)
                soft = _answers(teacher, images)
            loss = share * _loss(outputs.float(), labels, soft, self.recipe)
            self.learner.backward(loss)
            right = share * (outputs.detach().argmax(1) == labels).float().mean()
            measures += torch.stack([loss.detach(), right])
        return self.learner.finish(step, measures)

    # -- checkpoints ---------------------------------------------------------------------------

    def save(self, file: Path) -> None:
        self.meter.check()  # weights after a loss that is not finite are not worth keeping
        notes = {
            "run": self._identity(),
            "epochs": json.dumps([asdict(each) for each in self.epochs]),
            "scale": self.learner.scale,
            "seconds": str(self.meter.seconds()),
        }
        tensors = self.learner.tensors()
        if len(self.meter):
            tensors["measures"] = torch.stack(self.meter.measures)
        write_tensors(file, tensors, notes)

    def begin(self, file: Path | None) -> None:
        """Take up what the checkpoint holds, if there is one."""
        saved = self.ranks.decided(lambda: self._kept(file))
        if saved is None:
            return
        tensors, notes = saved
        try:
            self.learner.load(tensors, notes["scale"])
            self.epochs = [Epoch(**each) for each in parsed(notes["epochs"])]
            if "measures" in tensors:
                measures = tensors["measures"].to(self.device).unbind()
                self.meter = _Meter(measures, spent=float(notes["seconds"]))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"the checkpoint {file} cannot be read ({error}); delete it to start again"
            ) from None

    def _kept(self, file: Path | None) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        if file is None or not file.exists():
            return None
        tensors, notes = read_tensors(file)
        if notes.get("run") != self._identity():
            raise InputError(
                f"the checkpoint {file} is of another network, recipe, data or seed;"
                " give another file, or delete it to start again"
            )
        return tensors, notes

    def _identity(self) -> str:
        """What must be the same for a checkpoint to go on to the same result."""
        shapes = {name: list(tensor.shape) for name, tensor in self.network.state_dict().items()}
        run = {"recipe": self.recipe.decisive(), "seed": self.seed, "pictures": len(self.split)}
        return json.dumps({**run, "network": shapes}, sort_keys=True)


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
    """Measures of the steps of an epoch; stops the run at a loss that is not finite.

    Args:
        measures: (loss, share of right answers) of the steps that were made before.
        spent: seconds that they took.
    """

    def __init__(self, measures: Iterable[Tensor] = (), spent: float = 0.0) -> None:
        self.measures = list(measures)
        self._rates: list[tuple[int, float]] = []
        self._started = perf_counter() - spent

    def __len__(self) -> int:
        return len(self.measures)

    def add(self, step: int, rate: float, measures: Tensor) -> None:
        self.measures.append(measures)
        self._rates.append((step, rate))
        if len(self._rates) >= _STEPS_BETWEEN_CHECKS:
            self.check()

    def means(self) -> tuple[float, float]:
        self.check()
        loss, right = torch.stack(self.measures).mean(0).tolist()
        return loss, right

    def seconds(self) -> float:
        return perf_counter() - self._started

    def check(self) -> None:
        """Raises RunError where a loss since the last check is not finite."""
        if not self._rates:
            return
        finite = torch.isfinite(torch.stack(self.measures[-len(self._rates) :])[:, 0]).tolist()
        if not all(finite):
            step, rate = self._rates[finite.index(False)]
            raise RunError(
                f"the loss is not finite at step {step} with learning rate {rate:.3g};"
                " train with a lower learning rate"
            )
        self._rates.clear()


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
