"""Every criterion on one network, compared, and how sensitive each group is."""

from collections.abc import Sequence

import torch
from torch import nn

from prunas.eval.criteria.comparison import compared, normality
from prunas.eval.criteria.selection import ranking
from prunas.eval.criteria.sensitivity import sensitivities
from prunas.eval.criteria.table import CRITERIA, WEIGHTS_ALONE, criterion
from prunas.eval.criteria.verdict import width_genes
from prunas.pipeline.data import Data
from prunas.pipeline.progress import Progress
from prunas.pipeline.report.criteria_page import Study
from prunas.pipeline.stages import fixed
from prunas.supernet.space import SearchSpace

_MEASURED = 512
"""Held-out images that sensitivities are measured on, and training images to calibrate on."""


def study(
    network: nn.Module,
    space: SearchSpace,
    data: Data | None,
    names: Sequence[str] | None,
    model: str,
    images: int,
    device: torch.device,
    progress: Progress,
) -> Study:
    """Judge, compare and measure.

    Args:
        network: trained, on `device`.
        space: its search space.
        data: what criteria look at; without it only those of weights judge.
        names: criteria; all that can judge by default.
        model: the network's name.
        images: training images to look at.
        device: where to compute.
        progress: shows what is going on.

    Raises:
        InputError: an unknown criterion, or one that needs the data that are missing.
    """
    chosen = list(names or (CRITERIA if data is not None else sorted(WEIGHTS_ALONE)))
    judges = {name: criterion(name, images=data is not None) for name in chosen}
    batches = () if data is None else fixed(data.train, data.input_size, device, limit=images)
    verdicts = {}
    with progress.task("criteria") as task:
        for done, (name, judge) in enumerate(judges.items(), 1):
            verdicts[name] = judge(network, space, batches, device=device)
            task.update(done, len(chosen))
    rows = []
    by = "di" if "di" in chosen else chosen[0]
    if data is not None:
        orders = ranking(network, space, verdicts[by]).orders
        held_out = fixed(data.held_out, data.input_size, device, limit=_MEASURED)
        calibration = fixed(data.train, data.input_size, device, limit=_MEASURED)
        count = len(width_genes(space))
        with progress.task("sensitivity") as task:
            for row in sensitivities(network, space, orders, held_out, calibration):
                rows.append(row)
                task.update(len(rows), count)
    return Study(
        model,
        "" if data is None else data.name,
        space,
        verdicts,
        compared(space, verdicts),
        normality(network, space),
        tuple(rows),
        by,
    )
