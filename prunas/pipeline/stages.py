"""The main job in stages. Each reads what the one before left in the run's folder."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from prunas.errors import InputError
from prunas.eval.cost import Cost
from prunas.eval.criteria.selection import di_prior
from prunas.eval.latency.backends import backend_of
from prunas.eval.prices import Prices
from prunas.pipeline.crew import NOBODY, Crew
from prunas.pipeline.data import Data, load_data
from prunas.pipeline.log import Log
from prunas.pipeline.moved import place_of, require_same
from prunas.pipeline.networks import create_network
from prunas.pipeline.progress import Progress, Task
from prunas.pipeline.recipe import Recipe
from prunas.pipeline.request import Request
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.sealed import read_sealed, write_sealed
from prunas.pipeline.small_images import Size
from prunas.pipeline.spaces import space_of
from prunas.pipeline.splits import Batch, Split
from prunas.pipeline.stopwatch import Stopwatch
from prunas.pipeline.training import Epoch, train
from prunas.pipeline.workers import HERE, Workers
from prunas.search.archive import Archive
from prunas.search.budget import Budget, Feasible, as_values
from prunas.search.executors import Executor
from prunas.search.loop import Progress as Scores
from prunas.search.loop import run_search
from prunas.search.method import Scored
from prunas.search.methods import SEARCHES
from prunas.search.prior import Prior
from prunas.search.uniform import uniform_candidates
from prunas.supernet.permute import permute
from prunas.supernet.resolution import seen, side_of
from prunas.supernet.space import Candidate, SearchSpace

_SCORING_BATCH = 256
_HELD_VALUES = 2**26  # a quarter of a gigabyte of float32


@dataclass(frozen=True)
class Fixed:
    """The same batches each time it is iterated: small sets from memory, large ones streamed.

    Attributes:
        split: where the images come from.
        values: numbers in one image.
        batch_size: images in a batch.
        limit: images in all.
        device: where the batches are put.
    """

    split: Split
    values: int
    batch_size: int
    limit: int
    device: torch.device

    def __iter__(self) -> Iterator[Batch]:
        fits = self.limit * self.values <= _HELD_VALUES
        yield from self._held if fits else self._read()

    @cached_property
    def _held(self) -> list[Batch]:
        return list(self._read())

    def _read(self) -> Iterator[Batch]:
        chosen = self.split.first(self.limit)
        yield from chosen.batches(self.batch_size, device=self.device, channels_last=True)


def fixed(
    split: Split, input_size: Size, device: torch.device, *, limit: int | None = None
) -> Fixed:
    """The first images of a split, all of them without a limit."""
    count = min(limit or len(split), len(split))
    return Fixed(split, prod(input_size), _SCORING_BATCH, count, device)


@dataclass(frozen=True, eq=False)
class Job:
    """Everything that the stages of one run share.

    Args:
        folder: where results go.
        device: where to compute.
        progress: shows what is going on.
        workers: who evaluates and trains candidates.
        crew: the processes that train.
    """

    folder: RunFolder
    device: torch.device
    progress: Progress
    workers: Workers = HERE
    crew: Crew = NOBODY

    @cached_property
    def request(self) -> Request:
        return self.folder.request()

    @cached_property
    def data(self) -> Data:
        """Those of the run: if it knows which they were, others are refused."""
        request, before = self.request, self.folder.contents()
        place = place_of(self.folder, "data") or request.data
        data = load_data(place, seed=request.seed, input_size=request.input_size)
        if before is not None:
            data.contents.require(before, data.name)
        if request.resolutions and max(request.resolutions) > min(data.input_size[1:]):
            raise InputError(
                f"images of side {max(request.resolutions)} are larger than those of the data,"
                f" {min(data.input_size[1:])}; give --input-size {max(request.resolutions)}"
            )
        return data

    def network(self) -> nn.Module:
        """The full network as it is created, on the device."""
        request = self.request
        return self._created(request.seed, pretrained=request.pretrained, weights=self._weights)

    @cached_property
    def _weights(self) -> str | None:
        """The file that the network begins with: if the run knows what it was, no other one."""
        file, before = place_of(self.folder, "weights"), self.folder.read().get("weights")
        if file is not None and before is not None:
            require_same(file, before)
        return file

    def untrained(self, seed: int) -> nn.Module:
        """The full network with random weights of this seed, on the device."""
        return self._created(seed)

    def _created(
        self, seed: int, *, pretrained: bool = False, weights: str | None = None
    ) -> nn.Module:
        network = create_network(
            self.request.model,
            classes=len(self.data.classes),
            input_size=self.data.input_size,
            pretrained=pretrained,
            weights=weights,
            seed=seed,
        )
        network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    @cached_property
    def blank(self) -> nn.Module:
        """The network as created, for its structure; nobody trains it."""
        return self.network()

    @cached_property
    def space(self) -> SearchSpace:
        return space_of(
            self.request.model,
            self.blank,
            self.data.input_size,
            grid=self.request.grid,
            keep=self.request.keep,
            genes=self.request.genes,
            resolutions=self.request.resolutions,
        )

    @cached_property
    def cost(self) -> Cost:
        return Cost(self.space)

    @cached_property
    def prices(self) -> Prices:
        """All that a budget may limit; latency, if it is limited, as it is near the budget."""
        if not self.request.limits_latency:
            return Prices(self.blank, self.space)
        watch = self._watch
        rough = Prices(self.blank, self.space, watch.predictor)
        times = watch.predictor_near(self.budget, rough)
        return Prices(self.blank, self.space, times)

    @cached_property
    def budget(self) -> Budget:
        """As stated; latency in nanoseconds, of which a share is one of the measured network's."""
        stated = Budget.parse(self.request.budget)
        if not self.request.limits_latency:
            return stated
        return stated.absolute({"latency": self._watch.nanoseconds})

    @property
    def stopwatch(self) -> Stopwatch | None:
        """What times networks; None where neither the budget nor anybody else asks for times."""
        timed = self.request.limits_latency or self.request.latency_backend is not None
        return self._watch if timed else None

    @cached_property
    def _watch(self) -> Stopwatch:
        request, folder = self.request, self.folder.path / "checkpoints"
        named = request.latency_table
        return Stopwatch(
            self.blank,
            self.space,
            backend_of(request.latency_backend or "eager"),
            request.latency_batch,
            table=folder / "latency.json" if named is None else Path(named),
            kept=folder / "measured.json",
            seed=request.seed,
            told=self.progress.say,
        )

    @cached_property
    def feasible(self) -> Feasible:
        return Feasible(self.space, self.budget, self.prices)

    @cached_property
    def uniform(self) -> Candidate:
        """The baseline: the largest uniform width inside the budget, filled up to it.

        A single ratio for all genes rarely meets a budget exactly; the remainder is spent gene by
        gene, so that the comparison is at equal multiply-accumulates.
        """
        return fair_uniform(self.feasible)

    @cached_property
    def smaller_input(self) -> Candidate | None:
        """The other baseline, where resolutions are searched: the full network on smaller images.

        None if it is outside the budget on the smallest of them.
        """
        full, sides = self.space.full(), [g.kind == "resolution" for g in self.space.genes]
        if not any(sides):
            return None
        place = sides.index(True)
        rows = as_values([full] * len(self.space.genes[place].choices))
        rows[:, place] = self.space.genes[place].choices
        inside = rows[self.feasible.contains(rows)]
        return Candidate(inside[-1].tolist()) if len(inside) else None

    def sees(self, candidate: Candidate) -> Size:
        """The shape of the images that a candidate takes."""
        channels, height, width = seen(self.data.input_size, side_of(self.space, candidate))
        return channels, height, width

    def leading(
        self, follow: Callable[..., None], *arguments: object
    ) -> AbstractContextManager[None]:
        """The other processes call `follow(their job, *arguments)` meanwhile."""
        return self.crew.leading(self.folder.path, self.device, follow, *arguments)

    def rng(self, purpose: int) -> np.random.Generator:
        """An independent stream of the run's seed for each purpose."""
        return np.random.default_rng([self.request.seed, purpose])

    def fixed(self, split: Split, limit: int | None = None) -> Fixed:
        return fixed(split, self.data.input_size, self.device, limit=limit)


def fair_uniform(feasible: Feasible) -> Candidate:
    """The largest uniform width inside the budget, then moved into the budget's window."""
    largest = uniform_candidates(feasible)[0]
    rng = np.random.default_rng(0)  # the baseline is one network, whatever the run's seed
    return Candidate(feasible.repair(as_values([largest]), rng)[0].tolist())


# -- stages ----------------------------------------------------------------------------------------


def train_full(job: Job) -> nn.Module:
    """The full network, trained; at once if that is done already."""
    network = job.network()
    recipe = job.request.full_recipe()
    if recipe is None:
        return network.eval()
    with (
        job.folder.stage("train the full network"),
        job.progress.task("full network") as task,
        job.leading(follow_full, recipe),
    ):
        train(
            network,
            job.data.train,
            recipe,
            seed=job.request.seed,
            device=job.device,
            on_step=task.update,
            on_epoch=lambda epoch: log_epoch(job.progress.log, "full network", epoch),
            checkpoint=job.folder.checkpoint("full"),
            every=job.request.every(),
            ranks=job.crew.ranks,
        )
    return network.eval()


def follow_full(job: Job, recipe: Recipe) -> None:
    """The part of another process in `train_full`; weights come from the first one."""
    train(
        job.untrained(0),
        job.data.train,
        recipe,
        seed=job.request.seed,
        device=job.device,
        ranks=job.crew.ranks,
    )


def sort_channels(job: Job, network: nn.Module) -> tuple[nn.Module, Prior | None]:
    """The network with its most informative channels first, and what they are worth."""
    if not job.request.prior:
        return network, None
    file = job.folder.path / "checkpoints" / "prior.json"
    if file.exists():
        orders, values = _ranked_before(file, job.space)
    else:
        with job.folder.stage("rank channels by discriminant information"):
            images = job.fixed(job.data.train, _images_to_rank(job.space))
            ranking = di_prior(network, job.space, images, device=job.device)
        orders, values = ranking.orders, ranking.values
        entries = {"orders": orders, "values": values, "notes": ranking.notes}
        write_sealed(file, entries)
    ordered = permute(network, job.space, orders)
    return ordered, Prior(
        tuple(tuple(range(width)) for width in job.space.widths),
        tuple(tuple(worth) for worth in values),
    )


def _ranked_before(file: Path, space: SearchSpace) -> tuple[Any, Any]:
    """The orders and values on record.

    Raises:
        InputError: they are damaged, or of another space.
    """
    try:
        saved = read_sealed(file)
        orders, values = saved["orders"], saved["values"]
        channels = [list(range(width)) for width in space.widths]
        if [sorted(order) for order in orders] != channels:
            raise ValueError("it is of another network")
        if [len(worth) - 1 for worth in values] != list(space.widths):
            raise ValueError("it is of another network")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} cannot be read ({error}); delete it to redo it") from None
    return orders, values


def _images_to_rank(space: SearchSpace) -> int:
    """Ten for each channel of the widest gene, at least 4,096: fewer saturate the criterion."""
    return max(4096, 10 * max(space.widths))


def search(job: Job, executor: Executor[Candidate, float], prior: Prior | None) -> list[Scored]:
    """Score candidates inside the budget; every score is in the archive before it is used."""
    request = job.request
    with (
        Archive(job.folder.archive, fingerprint=request.fingerprint()) as archive,
        job.folder.stage("search"),
        job.progress.task("search") as task,
    ):
        return run_search(
            SEARCHES[request.search],
            job.space,
            job.budget,
            prior,
            executor,
            archive,
            job.prices,
            evaluations=request.evaluations,
            batch=request.asked_at_once,
            in_flight=request.in_flight,
            rng=job.rng(3),
            on_progress=_told(job.progress.log, task),
        )


def _told(log: Log, task: Task) -> Callable[[Scores], None]:
    """Moves a bar, and tells the log each score and the best so far."""
    best = -math.inf

    def tell(at: Scores) -> None:
        nonlocal best
        task.update(at.done, at.total)
        score = at.scored.score
        best = max(best, score) if math.isfinite(score) else best
        log.write("search/score", score, at.done)
        log.write("search/best score", best, at.done)

    return tell


def log_epoch(log: Log, name: str, epoch: Epoch) -> None:
    """Tell the log of an epoch of the training of that name."""
    log.write(f"{name}/loss", epoch.loss, epoch.index)
    log.write(f"{name}/accuracy", epoch.accuracy, epoch.index)
    log.write(f"{name}/learning rate", epoch.learning_rate, epoch.index)
