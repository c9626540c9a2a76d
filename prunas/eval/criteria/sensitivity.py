"""How much accuracy goes when one gene alone is narrowed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from prunas.eval.accuracy import Batches, accuracy
from prunas.eval.recalibration import recalibrated
from prunas.supernet.cut import cut
from prunas.supernet.permute import permute
from prunas.supernet.space import SearchSpace


@dataclass(frozen=True)
class Sensitivity:
    """Accuracy of the network with one gene narrowed and all others whole.

    Attributes:
        gene: which one.
        widths: channels left, ascending; the last is the full width.
        accuracies: for each of them, in 0..1.
    """

    gene: int
    widths: tuple[int, ...]
    accuracies: tuple[float, ...]


def narrowing(
    network: nn.Module,
    space: SearchSpace,
    orders: Sequence[Sequence[int]],
    batches: Batches,
    calibration: Batches,
    *,
    shares: Sequence[float] = (0.25, 0.5, 0.75),
) -> Callable[[int], Sensitivity]:
    """What narrows a gene of width, best channels first, and measures.

    Args:
        network: trained, on the device of the batches; not changed.
        space: its search space.
        orders: per gene the channels, the one to keep longest first.
        batches: pairs (images, labels) to measure on.
        calibration: pairs (images, anything) for the batch norms of each cut network.
        shares: of the full width; the nearest choices are taken.

    Raises:
        InputError: no images, or another network than the space's.
    """
    ordered = permute(network, space, orders)
    whole = _measured(ordered, batches, calibration)

    def measure(gene: int) -> Sensitivity:
        choices = np.array(space.genes[gene].choices)
        found = {space.widths[gene]: whole}
        for share in shares:
            width = int(choices[np.abs(choices - share * choices[-1]).argmin()])
            if width not in found:
                candidate = list(space.full())
                candidate[gene] = width
                small = cut(ordered, space, space.candidate(candidate)).eval()
                found[width] = _measured(small, batches, calibration)
        return Sensitivity(gene, tuple(sorted(found)), tuple(found[w] for w in sorted(found)))

    return measure


def _measured(network: nn.Module, batches: Batches, calibration: Batches) -> float:
    with torch.no_grad(), recalibrated(network, calibration):
        return accuracy(network, batches)
