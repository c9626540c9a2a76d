"""Candidates to milliseconds, from measured networks.

    latency(w) = sum over k of c_k x_k(w),   c_k >= 0,

with the quantities x of `prunas.eval.latency.features`. The coefficients minimise the sum of the
squares of the relative errors on the measured networks. There are about as many quantities as
networks, and many of them rise and fall together; that no coefficient may be negative is what
keeps noise out (a ridge besides did no better on networks left out). Nothing is assumed about what
a runtime fuses: an activation that costs nothing after a convolution gets no coefficient, and what
each network costs however small it is gets one of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

from prunas.errors import InputError
from prunas.eval.latency.features import Features
from prunas.supernet.space import Candidate

Values = NDArray[np.float64]

FEWEST: Final = 12
"""Networks that a fit needs."""

_FOLDS: Final = 6
_PATIENCE: Final = 50  # iterations of the solver for each coefficient


@final
@dataclass(frozen=True, eq=False)
class Predictor:
    """Predicts how long candidates take.

    Attributes:
        features: the quantities.
        coefficients: milliseconds for one of each, none negative.
        error: median relative error on networks that were left out of the fit, by
            cross-validation; what to expect of candidates like the measured ones.
    """

    features: Features
    coefficients: Values
    error: float

    def milliseconds(self, candidates: Sequence[Candidate] | ArrayLike) -> Values:
        """Predicted latency, shape (n,).

        Args:
            candidates: candidates of the space, or an integer array (n, genes) of chosen values.

        Raises:
            InputError: the rows do not have one value per gene.
        """
        return self.features.values(candidates) @ self.coefficients

    def scaled(self, candidates: Sequence[Candidate], milliseconds: Sequence[float]) -> "Predictor":
        """The same predictor times the median of measured / predicted of these candidates.

        Predictions near a budget are then right in the median there, whatever the fit makes of the
        rest of the space, and whatever the clock of the device did meanwhile.
        """
        ratios = np.asarray(milliseconds) / self.milliseconds(candidates)
        return replace(self, coefficients=self.coefficients * float(np.median(ratios)))


def fitted(
    features: Features, candidates: Sequence[Candidate], milliseconds: Sequence[float]
) -> Predictor:
    """A predictor from measured networks.

    Args:
        features: the quantities of their space.
        candidates: the networks.
        milliseconds: how long each takes.

    Raises:
        InputError: too few networks, or a time that is not positive.
    """
    times = np.asarray(milliseconds, dtype=np.float64)
    if len(candidates) < FEWEST or len(times) != len(candidates):
        raise InputError(
            f"{len(candidates)} networks and {len(times)} times are not enough to fit a predictor;"
            f" measure {FEWEST} networks or more"
        )
    if not (np.isfinite(times).all() and (times > 0).all()):
        raise InputError(f"latencies must be positive; the smallest is {times.min()} ms")
    quantities = features.values(candidates)
    error = _left_out_error(quantities, times)
    return Predictor(features, _solved(quantities, times), error)


def _left_out_error(quantities: Values, times: Values) -> float:
    """Median relative error on each sixth of the networks, predicted from the others."""
    fold = np.arange(len(times)) % _FOLDS
    errors = np.empty(len(times))
    for number in range(_FOLDS):
        rest, own = fold != number, fold == number
        coefficients = _solved(quantities[rest], times[rest])
        errors[own] = np.abs(quantities[own] @ coefficients / times[own] - 1)
    return float(np.median(errors))


def _solved(quantities: Values, times: Values) -> Values:
    relative = quantities / times[:, None]
    norms = np.linalg.norm(relative, axis=0)
    scale = np.where(norms > 0, norms, 1.0)  # bytes and counts are of very different sizes
    solution, _ = nnls(relative / scale, np.ones(len(times)), maxiter=_PATIENCE * len(scale))
    coefficients: Values = solution / scale
    return coefficients
