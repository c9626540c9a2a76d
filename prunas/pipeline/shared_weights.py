"""The weights that a network and its transformations share, trained an epoch at a time and kept."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Protocol, final

import numpy as np
import torch
from torch import nn

from prunas.eval.accuracy import Batches
from prunas.eval.scoring import scorer
from prunas.pipeline.progress import Progress
from prunas.pipeline.recipe import Recipe, optimizer_for
from prunas.pipeline.seeding import seeded
from prunas.pipeline.splits import Batch, Split
from prunas.pipeline.tensor_file import read_tensors, write_tensors
from prunas.supernet.elastic import Supernet
from prunas.supernet.resolution import seeing
from prunas.supernet.schedules.schedule import Step
from prunas.supernet.space import Candidate, SearchSpace
from prunas.supernet.training import PlainDescent, train_supernet
from prunas.transformer_nat.transformation import TransformationSpace

_MOST_REPLACED: Final = 0.5
"""Of the operators of a path, in the mean, at most."""


class Transformable(Protocol):
    """One network that holds all transformations of another, as genes of a search space."""

    @property
    def network(self) -> nn.Module: ...
    @property
    def space(self) -> SearchSpace: ...
    @property
    def moves(self) -> TransformationSpace: ...

    def candidate(self, positions: Sequence[int]) -> Candidate:
        """A transformation as a candidate of `space`."""
        ...


@final
@dataclass(frozen=True)
class Course:
    """What shared weights are trained and scored with.

    Attributes:
        train: training images.
        calibration: some of them, for batch-norm statistics.
        held_out: what transformations are scored on.
        recipe: of the training; its epochs are all that there will be.
        device: where.
        seed: of the images and the paths.
        paths: transformations in a step.
        side: of the images that the network sees; None for that of the data.
    """

    train: Split
    calibration: Batches
    held_out: Batches
    recipe: Recipe
    device: torch.device
    seed: int = 0
    paths: int = 1
    side: int | None = None


@final
@dataclass(frozen=True, eq=False)
class _Transformations:
    """Steps of the network itself, which teaches random transformations of it."""

    shared: Transformable
    paths: int

    def step(self, number: int, steps: int, rng: np.random.Generator) -> Step:
        drawn = (self._drawn(rng) for _ in range(self.paths))
        return Step(tuple(map(self.shared.candidate, drawn)), teacher=self.shared.space.full())

    def _drawn(self, rng: np.random.Generator) -> Candidate:
        moves = self.shared.moves
        counts = np.array([len(names) for names in moves.options])
        changed = rng.random(len(counts)) < _MOST_REPLACED * rng.random()
        others = 1 + (rng.random(len(counts)) * (counts - 1)).astype(np.int64)
        drawn = Candidate(np.where(changed & (counts > 1), others, 0).tolist())
        return drawn if moves.connected(drawn) else moves.source


@final
class SharedWeights:
    """One set of weights for all transformations of a network.

    In each step the network itself is trained, by the labels, and a transformation that learns from
    its answers. Of its operators a share is replaced that is drawn anew each time: up to a half.

    Args:
        shared: the transformations; its network holds the weights, and is trained.
        course: how.
        file: where they are kept after every epoch; nowhere if None.
        owner: what the weights depend on, so that others are not taken for them.
        progress: shows what is going on.

    Raises:
        InputError: the file is damaged.
    """

    def __init__(
        self,
        shared: Transformable,
        course: Course,
        *,
        file: Path | None = None,
        owner: str = "",
        progress: Progress | None = None,
    ) -> None:
        self.source = Supernet(shared.network, shared.space)
        self._shared, self._course = shared, course
        self._file, self._owner, self._progress = file, owner, progress or Progress()
        self._optimizer = optimizer_for(self.source.learnt, course.recipe)
        self._done = self._load(file) if file is not None and file.exists() else 0

    @property
    def done(self) -> int:
        """Epochs that the weights were trained for."""
        return self._done

    def train(self, epochs: int) -> None:
        """Train until so many epochs are done; what was done before is not repeated.

        Raises:
            RunError: the loss diverges, or the disk is full.
        """
        course, recipe = self._course, self._course.recipe
        each = max(1, len(course.train) // recipe.batch_size)
        while self._done < epochs:
            epoch = self._done
            dropout = np.random.default_rng([course.seed, 10, epoch])
            with (
                self._progress.task("shared weights") as task,
                seeing(self._shared.network, course.side),
                seeded(int(dropout.integers(2**62)), course.device),
            ):
                train_supernet(
                    self.source,
                    self._batches(epoch),
                    _Transformations(self._shared, course.paths),
                    steps=each * recipe.epochs,
                    descent=PlainDescent(
                        self._optimizer, lambda step: recipe.rate_at(step, each * recipe.epochs)
                    ),
                    label_smoothing=recipe.label_smoothing,
                    rng=np.random.default_rng([course.seed, 8, epoch]),
                    first_step=epoch * each,
                    on_step=lambda done: task.update(done, each * recipe.epochs),
                )
            self._done += 1
            if self._file is not None:
                self._save(self._file)

    def score(self, positions: Candidate) -> float:
        """Held-out accuracy of a transformation, with batch-norm statistics of its own."""
        with seeing(self._shared.network, self._course.side):
            return next(self._scorer([self._shared.candidate(positions)]))

    @cached_property
    def _scorer(self) -> Callable[[Sequence[Candidate]], Iterator[float]]:
        return scorer(self.source, self._course.calibration, self._course.held_out)

    def _batches(self, epoch: int) -> Iterator[Batch]:
        course = self._course
        yield from course.train.batches(
            course.recipe.batch_size,
            shuffle=np.random.default_rng([course.seed, 9, epoch]),
            augment=True,
            device=course.device,
            channels_last=True,
        )

    # -- the file ----------------------------------------------------------------------------------

    def _save(self, file: Path) -> None:
        tensors = {f"learnt/{n}": t for n, t in self.source.learnt.state_dict().items()}
        tensors |= {f"momentum/{name}": momentum for name, momentum in self._momentum()}
        write_tensors(file, tensors, {"owner": self._owner, "epochs": str(self._done)})

    def _load(self, file: Path) -> int:
        """The number of epochs that were done."""
        saved, notes = read_tensors(file)
        if notes.get("owner") != self._owner:
            return 0  # of an earlier transformation; overwritten by the first epoch
        start = len("learnt/")
        self.source.learnt.load_state_dict(
            {name[start:]: t for name, t in saved.items() if name.startswith("learnt/")}
        )
        for name, momentum in self._momentum():
            momentum.copy_(saved[f"momentum/{name}"])
        return int(notes["epochs"])

    def _momentum(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Of every parameter that is trained."""
        for name, parameter in self.source.learnt.named_parameters():
            if parameter.requires_grad:
                yield name, self._optimizer.state[parameter]["momentum_buffer"]
