"""The published training of cell networks, as values.

From the code of DARTS (Liu et al., ICLR 2019). For what NAT makes of cells nobody published another
one.
"""

import math
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Recipe:
    """How a cell network is trained: SGD with momentum, cross-entropy.

    Attributes:
        epochs: passes over the training data.
        batch_size: images in a step.
        rate: learning rate in the beginning.
        decay: factor of the rate for each epoch; None for half a cosine to zero.
        momentum: of SGD.
        weight_decay: of SGD.
        gradient_clip: largest norm of the gradient.
        drop_path: probability in the end; it grows from zero in proportion to the epoch.
        auxiliary_weight: of the auxiliary head's loss.
        label_smoothing: of the cross-entropy.
        cutout: side of the square that is blanked, in pixels; 0 for none.
        padding: pixels around the image before a random crop of its size; 0 for a random crop of
            random size.
        jitter: of brightness, contrast, saturation and hue; zeros for none.
        mean: of the channels, in 0..1; subtracted.
        deviation: of the channels; divided by.
    """

    epochs: int
    batch_size: int
    rate: float
    decay: float | None
    momentum: float
    weight_decay: float
    gradient_clip: float
    drop_path: float
    auxiliary_weight: float
    label_smoothing: float
    cutout: int
    padding: int
    jitter: tuple[float, float, float, float]
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]

    def rate_at(self, epoch: int) -> float:
        """Learning rate in that epoch, the first of which is 0."""
        if self.decay is None:
            return self.rate * (1 + math.cos(math.pi * epoch / self.epochs)) / 2
        return self.rate * self.decay**epoch

    def drop_path_at(self, epoch: int) -> float:
        """Probability of dropping a path in that epoch, the first of which is 0."""
        return self.drop_path * epoch / self.epochs


CIFAR10: Final = Recipe(
    epochs=600,
    batch_size=96,
    rate=0.025,
    decay=None,
    momentum=0.9,
    weight_decay=3e-4,
    gradient_clip=5.0,
    drop_path=0.2,
    auxiliary_weight=0.4,
    label_smoothing=0.0,
    cutout=16,
    padding=4,
    jitter=(0.0, 0.0, 0.0, 0.0),
    mean=(0.4914, 0.4822, 0.4465),
    deviation=(0.2470, 0.2435, 0.2616),
)
"""For `cifar_skeleton()`; a mirror image half of the time as well."""

IMAGENET: Final = Recipe(
    epochs=250,
    batch_size=128,
    rate=0.1,
    decay=0.97,
    momentum=0.9,
    weight_decay=3e-5,
    gradient_clip=5.0,
    drop_path=0.0,
    auxiliary_weight=0.4,
    label_smoothing=0.1,
    cutout=0,
    padding=0,
    jitter=(0.4, 0.4, 0.4, 0.2),
    mean=(0.485, 0.456, 0.406),
    deviation=(0.229, 0.224, 0.225),
)
"""For `imagenet_skeleton()`; a mirror image half of the time as well."""
