"""Every criterion on one network, compared, and how sensitive each group is."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar, final

import torch
from torch import nn

from prunas.errors import RunError
from prunas.eval.batches import Loader
from prunas.eval.criteria.comparison import compared, normality
from prunas.eval.criteria.selection import ranking
from prunas.eval.criteria.sensitivity import Sensitivity, narrowing
from prunas.eval.criteria.table import CRITERIA, WEIGHTS_ALONE, criterion_named
from prunas.eval.criteria.verdict import Verdict, width_genes
from prunas.pipeline.data import Data, load_data
from prunas.pipeline.networks import network_for, untrained
from prunas.pipeline.progress import Progress
from prunas.pipeline.report.criteria_page import Study
from prunas.pipeline.spaces import space_of
from prunas.pipeline.stages import fixed
from prunas.pipeline.workers import Workers
from prunas.search.executors import Done, Failed, Recipe, Work, in_order
from prunas.supernet.space import SearchSpace

_MEASURED: Final = 512
"""Held-out images that sensitivities are measured on, and training images to calibrate on."""

Orders = tuple[tuple[int, ...], ...]
Task = TypeVar("Task")
Result = TypeVar("Result")


@final
@dataclass(frozen=True)
class Subject:
    """A network and its data in words, from which every worker makes the same.

    Attributes:
        model: name of a timm network.
        data: what criteria look at; without it only those of weights judge.
        side: of the images; None for that of the data, or of the network.
        classes: how many; None for those of the data, or of the network.
        pretrained: download timm's weights.
        weights: a file with weights.
        keep: parts that no gene may touch.
        images: training images to look at.
        device: where to compute.
    """

    model: str
    data: str | None = None
    side: int | None = None
    classes: int | None = None
    pretrained: bool = False
    weights: str | None = None
    keep: tuple[str, ...] = ()
    images: int = 1024
    device: str = "cpu"

    def made(self) -> "Bench":
        """What these words mean.

        Raises:
            InputError: there is no such network, or no such data.
        """
        device = torch.device(self.device)
        data = None
        if self.data is not None:
            data = load_data(self.data, seed=0, input_size=self.side)
        network, size = network_for(
            data, self.model, self.side, self.classes, self.pretrained, self.weights, device=device
        )
        return Bench(self, network, space_of(self.model, network, size, keep=self.keep), data)


@final
@dataclass(frozen=True, eq=False)
class Bench:
    """The subject, made: where criteria judge and genes are narrowed."""

    subject: Subject
    network: nn.Module
    space: SearchSpace
    data: Data | None

    def judging(self) -> Work[str, Verdict]:
        """What gives the verdict of the criterion of a name."""
        device = torch.device(self.subject.device)
        batches: Loader = ()
        if self.data is not None:
            limit = self.subject.images
            batches = fixed(self.data.train, self.data.input_size, device, limit=limit)

        def judge(name: str) -> Verdict:
            ask = criterion_named(name, images=self.data is not None)
            return ask(self.network, self.space, batches, device=device)

        return judge

    def narrowing(self, orders: Orders) -> Work[int, Sensitivity]:
        """What narrows a gene of width, the first channels of these orders last, and measures."""
        assert self.data is not None, "sensitivity is measured on images"
        size, device = self.data.input_size, torch.device(self.subject.device)
        held_out = fixed(self.data.held_out, size, device, limit=_MEASURED)
        calibration = fixed(self.data.train, size, device, limit=_MEASURED)
        return narrowing(self.network, self.space, orders, held_out, calibration)


def study(
    subject: Subject, names: Sequence[str] | None, workers: Workers, progress: Progress
) -> Study:
    """Judge, compare and measure.

    Workers elsewhere have one thread each; a process of more threads adds numbers up in another
    order, which can change their last bits.

    Args:
        subject: a trained network, and data.
        names: criteria; all that can judge by default.
        workers: who judges and measures, one criterion and one gene at a time.
        progress: shows what is going on.

    Raises:
        InputError: an unknown criterion, or one that needs the data that are missing.
        RunError: three workers failed at the same criterion or gene.
    """
    bench = subject.made()
    space, data = bench.space, bench.data
    offered = CRITERIA if data is not None else sorted(WEIGHTS_ALONE)
    chosen = list(dict.fromkeys(names or offered))
    for name in chosen:
        criterion_named(name, images=data is not None)  # refuses it before anything is computed
    verdicts = dict(_spread(bench, Bench.judging, chosen, workers, progress, "criteria"))
    by = "di" if "di" in chosen else chosen[0]
    rows: list[Sensitivity] = []
    if data is not None:
        ranked = ranking(bench.network, space, verdicts[by]).orders
        measuring = partial(Bench.narrowing, orders=tuple(map(tuple, ranked)))
        genes = list(width_genes(space))
        found = _spread(bench, measuring, genes, workers, progress, "sensitivity")
        rows = [row for _, row in found]
    return Study(
        subject.model,
        "" if data is None else data.name,
        space,
        verdicts,
        compared(space, verdicts),
        normality(bench.network, space),
        tuple(rows),
        by,
        untrained(bench.network, given=subject.pretrained or subject.weights is not None),
    )


def at_bench(subject: Subject, begin: Callable[[Bench], Work[Task, Result]]) -> Work[Task, Result]:
    """What works at a bench of its own: the recipe of a worker."""
    return begin(subject.made())


def _spread(
    bench: Bench,
    begin: Callable[[Bench], Work[Task, Result]],
    tasks: Sequence[Task],
    workers: Workers,
    progress: Progress,
    title: str,
) -> Iterator[tuple[Task, Result]]:
    """Each task with its result, in their order."""
    recipe: Recipe[Task, Result] = partial(begin, bench)
    if workers.elsewhere:
        recipe = partial(at_bench, bench.subject, begin)
    with (
        workers.executor(recipe, patience=workers.work_patience) as executor,
        progress.task(title) as bar,
    ):
        for done, outcome in enumerate(in_order(executor, tasks), 1):
            yield outcome.task, _result(outcome, title)
            bar.update(done, len(tasks))


def _result(outcome: Done[Task, Result] | Failed[Task], title: str) -> Result:
    if isinstance(outcome, Failed):
        raise RunError(f"{title}: {outcome.task} cannot be done: {outcome.reasons[-1]}")
    return outcome.result
