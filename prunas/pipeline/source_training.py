"""Training of a run's shared or generated weights, on one device or several."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import torch
from torch import Tensor

from prunas.errors import InputError
from prunas.json_text import parsed
from prunas.pipeline.checkpoints import Pace
from prunas.pipeline.learner import Learner
from prunas.pipeline.ranks import Ranks
from prunas.pipeline.seeding import seeded
from prunas.pipeline.source_files import kin, losses_of, require_kin
from prunas.pipeline.stages import Job
from prunas.pipeline.tensor_file import read_tensors, write_tensors
from prunas.supernet.elastic import Elastic, Supernet
from prunas.supernet.schedules.schedule import Schedule, Step
from prunas.supernet.training import train_supernet

# A generated weight is a product of what is learnt, so its gradient grows with it: one of 24
# trainings of the study diverged, and does not with this norm, which few of its steps exceed
# (benchmarks/RESULTS.md).
_LARGEST_GRADIENT: Final = 10.0


def learn(
    job: Job,
    source: Elastic,
    schedule: Schedule | None = None,
    file: Path | None = None,
    on_step: Callable[[int, int], None] = lambda done, steps: None,
    on_epoch: Callable[[list[float]], None] = lambda losses: None,
) -> list[float]:
    """Train a source to its end, together with the other processes of the run.

    Args:
        job: says how.
        source: left with what it has learnt.
        schedule: what the steps run; the first process alone has one.
        file: what is kept of an unfinished training, from which it goes on: all that is learnt,
            momentum, the average, the number of steps, and the state of the schedule's generator.
            It is written after every epoch but the last, and in between as the request says.
        on_step: called with (steps done, steps in all).
        on_epoch: called with the losses of all epochs so far, first with those in the file.

    Returns:
        The loss of each epoch, the mean over all networks that its steps ran.

    Raises:
        InputError: the file is damaged or of another run.
        RunError: the loss diverges, or the disk is full.
    """
    recipe, ranks, seed = job.request.supernet_recipe(), job.crew.ranks, job.request.seed
    of_epoch = max(1, len(job.data.train) // recipe.batch_size)
    learner = Learner(
        source.learnt,
        recipe,
        images=min(recipe.batch_size, len(job.data.train)),
        steps=recipe.epochs * of_epoch,
        seeds=(seed, 4),
        device=job.device,
        ranks=ranks,
        largest_gradient=math.inf if isinstance(source, Supernet) else _LARGEST_GRADIENT,
    )
    kept = _Kept(source, learner, file, job.request.fingerprint())
    saved = ranks.decided(kept.read)
    done, state, losses, so_far = kept.load(*saved) if saved else (0, None, [], [])
    on_epoch(losses)
    pace = Pace(job.request.every())
    with seeded(0, job.device), ranks.synchronised():
        for epoch in range(done // of_epoch, recipe.epochs):
            rng = np.random.default_rng([seed, 1, epoch])
            if state is not None:
                rng.bit_generator.state, state = state, None
            batches = job.data.train.batches(
                recipe.batch_size,
                shuffle=np.random.default_rng([seed, 2, epoch]),
                augment=True,
                device=job.device,
                channels_last=True,
                skip=done % of_epoch,
                share=learner.share,
            )

            def stepped(done: int, rng: np.random.Generator = rng) -> None:
                on_step(done, learner.steps)
                if done % of_epoch and pace.due():
                    kept.write_if_good(done, losses, so_far, rng)

            train_supernet(
                source,
                batches,
                _Told(ranks, schedule),
                steps=learner.steps,
                descent=learner,
                label_smoothing=recipe.label_smoothing,
                rng=rng,
                first_step=done,
                on_step=stepped,
                on_loss=so_far.append,
            )
            done = (epoch + 1) * of_epoch
            losses.append(float(torch.cat(so_far).mean()))
            so_far.clear()
            on_epoch(losses)
            if epoch + 1 < recipe.epochs:
                kept.write(done, losses)
                pace.rest()
    learner.conclude()
    return losses


@final
@dataclass(frozen=True)
class _Told:
    """The steps of the first process's schedule, in all processes."""

    ranks: Ranks
    schedule: Schedule | None

    def step(self, number: int, steps: int, rng: np.random.Generator) -> Step:
        step = None if self.schedule is None else self.schedule.step(number, steps, rng)
        told = self.ranks.told(step)
        assert told is not None, "the first process has a schedule"
        return told


@final
@dataclass(frozen=True)
class _Kept:
    """The file of an unfinished training; without one nothing is kept."""

    source: Elastic
    learner: Learner
    file: Path | None
    owner: str

    def write(
        self,
        done: int,
        losses: Sequence[float],
        so_far: Sequence[Tensor] = (),
        rng: np.random.Generator | None = None,
    ) -> None:
        """After `done` steps; `so_far` and `rng` are those of the epoch, in the middle of one."""
        if self.file is None:
            return
        notes = {
            **kin(self.source, self.owner),
            "steps": str(done),
            "generator": json.dumps(None if rng is None else rng.bit_generator.state),
            "scale": self.learner.scale,
            "losses": json.dumps(list(losses)),
        }
        tensors = self.learner.tensors()
        if so_far:
            tensors["losses"] = torch.cat(list(so_far))
        write_tensors(self.file, tensors, notes)

    def write_if_good(
        self,
        done: int,
        losses: Sequence[float],
        so_far: Sequence[Tensor],
        rng: np.random.Generator,
    ) -> None:
        """Not after a loss that was not finite, of which one hears some steps later."""
        learnt = self.source.learnt.parameters()
        if self.file is not None and all(bool(torch.isfinite(each).all()) for each in learnt):
            self.write(done, losses, so_far, rng)

    def read(self) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        if self.file is None or not self.file.exists():
            return None
        tensors, notes = read_tensors(self.file)
        require_kin(self.source, self.file, notes, self.owner)
        return tensors, notes

    def load(
        self, tensors: dict[str, Tensor], notes: dict[str, str]
    ) -> tuple[int, Any, list[float], list[Tensor]]:
        """(steps done, state of the generator in mid-epoch, losses of epochs, those of steps)."""
        file = self.file or Path()
        try:
            self.learner.load(tensors, notes["scale"])
            done, state = int(notes["steps"]), parsed(notes["generator"])
        except (KeyError, ValueError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"{file} cannot be read ({reason}); delete it to redo it") from None
        device = next(self.source.learnt.parameters()).device
        so_far = [tensors["losses"].to(device)] if "losses" in tensors else []
        return done, state, losses_of(file, notes), so_far
