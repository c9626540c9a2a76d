"""What images of smaller sides are worth to a network."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunas.eval.accuracy import evaluating
from prunas.eval.batches import Loader, images_at
from prunas.eval.criteria.discriminant import Scatter, discriminant_information
from prunas.eval.recalibration import recalibrated


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
        small_images = images_at(side, batches, device=device)
        with recalibrated(network, ((images, images) for images in small_images)):
            small = _answers(network, side, batches, device)
        assert small is not None, "answers have the form that they had"
        shares.append(discriminant_information(Scatter.of(small, whole)) / most)
    return np.maximum.accumulate(np.clip([*shares, 1.0], 0, 1))


def _answers(
    network: nn.Module, side: int | None, batches: Loader, device: torch.device | str
) -> NDArray[np.float64] | None:
    """(images, answers) to images of this side; None if answers have another form."""
    rows = []
    with evaluating(network):
        for images in images_at(side, batches, device=device):
            answers: Any = network(images)
            if not isinstance(answers, Tensor) or answers.dim() < 2:
                return None
            pooled = answers if answers.dim() == 2 else answers.flatten(2).mean(2)
            rows.append(pooled.double().cpu().numpy())
    return np.concatenate(rows)
