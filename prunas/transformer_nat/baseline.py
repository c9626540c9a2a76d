"""What a reward is compared with, so that a policy learns from the difference.

Any number that does not depend on the draw itself leaves the gradient of the expected reward as it
is and changes its variance only.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Average = tuple[float, float]
"""A running mean that starts at zero, and the weight of what it has seen."""


def leave_one_out(rewards: Array) -> Array:
    """(n,) for each of n >= 2 rewards the mean of the others."""
    return np.asarray((rewards.sum() - rewards) / (len(rewards) - 1))


def averaged(average: Average, reward: float, decay: float) -> Average:
    """The running mean after one more reward: b <- d b + (1 - d) R, and likewise its weight."""
    mean, weight = average
    return decay * mean + (1 - decay) * reward, decay * weight + (1 - decay)


def corrected(average: Average, otherwise: float) -> float:
    """The running mean without the zero that it started from; `otherwise` before any reward."""
    mean, weight = average
    return mean / weight if weight else otherwise


def published_average(mean: float, reward: float, decay: float = 0.99) -> float:
    """The running mean in the code of NAT: b <- d b + (1 - d) (R - b).

    It is given the reward less the mean, so that it settles at half of a constant reward. Nothing
    here uses it; it says what published searches did.
    """
    return decay * mean + (1 - decay) * (reward - mean)
