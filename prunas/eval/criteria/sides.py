"""What images of smaller sides are worth to a network."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunas.eval.accuracy import evaluating
from prunas.eval.batches import Loader, pairs
from prunas.eval.criteria.discriminant import Scatter, discriminant_information
from prunas.eval.recalibration import recalibrated
from prunas.supernet.resolution import resized, seeing


def answers_left(
    network: nn.Module, sides: Sequence[int], batches: Loader, *, device: torch.device | str
) -> NDArray[np.float64] | None:
    """The share of a network's answers that is still in its answers to smaller images.

    For each side, discriminant information about the answers z to whole images (logits; of maps
    their mean) of the answers z_s to images of side s, batch norms recalibrated on such images:

        share_s = DI(z_s -> z) / DI(z -> z),

    the part of z that a ridge regression on z_s explains, beside what one on z itself does. So it
    does not count what a linear map, or a last layer that is trained anew, would put right, and
    needs no labels.

    Args:
        network: the full network, on `device`; left as it was.
        sides: ascending, the last one that of the images.
        batches: images, iterated twice a side.
        device: where images are sent.

    Returns:
        (sides,) in 0..1, never falling, 1 for the last; None where answers are not one tensor, or
        are all alike.
    """
    whole = _answers(network, None, batches, device)
    if whole is None:
        return None
    most = discriminant_information(Scatter.of(whole, whole))
    if most == 0:
        return None
    shares = []
    for side in sides[:-1]:
        with recalibrated(network, _images(batches, device, side)):
            small = _answers(network, side, batches, device)
        assert small is not None, "answers have the form that they had"
        shares.append(discriminant_information(Scatter.of(small, whole)) / most)
    return np.maximum.accumulate(np.clip([*shares, 1.0], 0, 1))


def _images(
    batches: Loader, device: torch.device | str, side: int
) -> Iterator[tuple[Tensor, Tensor]]:
    for images, _ in pairs(batches):
        small = resized(images.to(device), side)
        yield small, small


def _answers(
    network: nn.Module, side: int | None, batches: Loader, device: torch.device | str
) -> NDArray[np.float64] | None:
    """(images, answers) to images of this side; None if answers have another form."""
    rows = []
    with evaluating(network), seeing(network, side):
        for images, _ in pairs(batches):
            answers: Any = network(images.to(device))
            if not isinstance(answers, Tensor) or answers.dim() < 2:
                return None
            pooled = answers if answers.dim() == 2 else answers.flatten(2).mean(2)
            rows.append(pooled.double().cpu().numpy())
    return np.concatenate(rows)
