"""The weights that a network and its transformations share, trained an epoch at a time and kept."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, final

import numpy as np
import safetensors
import torch
from safetensors.torch import save_file

from prunas.errors import InputError
from prunas.pipeline.files import replacing
from prunas.pipeline.splits import Batch
from prunas.pipeline.stages import Job
from prunas.pipeline.training import optimizer_for
from prunas.supernet.elastic import Supernet
from prunas.supernet.resolution import seeing
from prunas.supernet.space import Candidate
from prunas.supernet.training import train_supernet
from prunas.transformer_nat.traced import TracedTransformations

_MOST_REPLACED: Final = 0.5
"""Of the operators of a path, in the mean, at most."""


@final
class SharedWeights:
    """One set of weights for all transformations of a network.

    In each step the network itself is trained, by the labels, and a transformation that learns from
    its answers. Of its operators a share is replaced that is drawn anew each time: up to a half.

    Args:
        job: says how to train.
        traced: the transformations; its network holds the weights, and is trained.
        owner: what the weights depend on, so that others are not taken for them.
        epochs: in all, for the learning rate.
        seed: of the images and the paths.
        side: of the images that the network sees; None for that of the data.
    """

    def __init__(
        self,
        job: Job,
        traced: TracedTransformations,
        owner: Mapping[str, Any],
        epochs: int,
        *,
        seed: int,
        side: int | None,
    ) -> None:
        self.source = Supernet(traced.network, traced.space)
        self._job, self._traced, self._epochs = job, traced, epochs
        self._seed, self._side = seed, side
        self._owner = json.dumps(owner, sort_keys=True)
        self._file = job.folder.checkpoint("transformation")
        self._recipe = job.request.ranking_recipe(max(1, epochs))
        self._optimizer = optimizer_for(self.source.learnt, self._recipe)
        for parameter in self.source.learnt.parameters():
            # torch's fused SGD takes no step where some parameters have momentum and some not yet
            self._optimizer.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}
        self._done = self._load()

    @property
    def done(self) -> int:
        """Epochs that the weights were trained for."""
        return self._done

    def train(self, epochs: int) -> None:
        """Train until so many epochs are done, at most all; what was done before is not repeated.

        Raises:
            RunError: the loss diverges, or the disk is full.
        """
        job, recipe = self._job, self._recipe
        each = max(1, len(job.data.train) // recipe.batch_size)
        while self._done < min(epochs, self._epochs):
            epoch = self._done
            with (
                job.progress.task("shared weights") as task,
                seeing(self._traced.network, self._side),
            ):
                train_supernet(
                    self.source,
                    self._batches(epoch),
                    self._paths,
                    paths_per_step=job.request.paths,
                    sandwich=True,
                    optimizer=self._optimizer,
                    rate=lambda step: recipe.rate_at(step, each * self._epochs),
                    label_smoothing=recipe.label_smoothing,
                    rng=np.random.default_rng([self._seed, 8, epoch]),
                    first_step=epoch * each,
                    on_step=lambda done: task.update(done, each * self._epochs),
                )
            self._done += 1
            self._save()

    def _batches(self, epoch: int) -> Iterator[Batch]:
        yield from self._job.data.train.batches(
            self._recipe.batch_size,
            shuffle=np.random.default_rng([self._seed, 9, epoch]),
            augment=True,
            device=self._job.device,
            channels_last=True,
        )

    def _paths(self, rng: np.random.Generator, n: int) -> Sequence[Candidate]:
        return [self._traced.candidate(self._drawn(rng)) for _ in range(n)]

    def _drawn(self, rng: np.random.Generator) -> Candidate:
        counts = np.array([len(names) for names in self._traced.moves.options])
        changed = rng.random(len(counts)) < _MOST_REPLACED * rng.random()
        others = 1 + (rng.random(len(counts)) * (counts - 1)).astype(np.int64)
        return Candidate(np.where(changed & (counts > 1), others, 0).tolist())

    def _save(self) -> None:
        tensors = {f"learnt/{n}": t for n, t in self.source.learnt.state_dict().items()}
        for name, parameter in self.source.learnt.named_parameters():
            tensors[f"momentum/{name}"] = self._optimizer.state[parameter]["momentum_buffer"]
        plain = {
            name: t.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, t in tensors.items()
        }
        with replacing(self._file) as aside:
            save_file(plain, aside, {"owner": self._owner, "epochs": str(self._done)})

    def _load(self) -> int:
        """The number of epochs that were done."""
        if not self._file.exists():
            return 0
        try:
            with safetensors.safe_open(self._file, "pt") as opened:
                notes = opened.metadata() or {}
                if notes.get("owner") != self._owner:
                    return 0  # of an earlier transformation; overwritten by the first epoch
                names = opened.keys()
                saved = {name: opened.get_tensor(name) for name in names}
        except (OSError, safetensors.SafetensorError) as error:
            raise InputError(
                f"{self._file} cannot be read ({error}); delete it to redo it"
            ) from None
        start = len("learnt/")
        self.source.learnt.load_state_dict(
            {name[start:]: t for name, t in saved.items() if name.startswith("learnt/")}
        )
        for name, parameter in self.source.learnt.named_parameters():
            self._optimizer.state[parameter]["momentum_buffer"].copy_(saved[f"momentum/{name}"])
        return int(notes["epochs"])
