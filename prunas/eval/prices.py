"""Everything that a budget may limit, of the candidates of one network."""

from collections.abc import Sequence
from functools import cached_property
from typing import final

import numpy as np
from numpy import int64
from numpy.typing import ArrayLike, NDArray
from torch import nn

from prunas.errors import InputError
from prunas.eval.cost import Cost
from prunas.eval.latency.predictor import Predictor
from prunas.eval.peak import PeakMemory
from prunas.supernet.space import Candidate, SearchSpace


@final
class Prices:
    """Multiply-accumulates, parameters, peak memory (traced when it is first asked for), latency.

    Args:
        network: the traced network; it is not changed, and its weights are not read.
        space: its search space.
        times: predicts latency on the user's device; without it, latency has no price.
    """

    def __init__(
        self, network: nn.Module, space: SearchSpace, times: Predictor | None = None
    ) -> None:
        self._network = network
        self._cost = Cost(space)
        self._times = times

    def macs(self, candidates: Sequence[Candidate] | ArrayLike) -> NDArray[int64]:
        """As `Cost.macs`."""
        return self._cost.macs(candidates)

    def params(self, candidates: Sequence[Candidate] | ArrayLike) -> NDArray[int64]:
        """As `Cost.params`."""
        return self._cost.params(candidates)

    def memory(self, candidates: Sequence[Candidate] | ArrayLike) -> NDArray[int64]:
        """As `PeakMemory.bytes`: of activations, for one image.

        Raises:
            InputError: as `PeakMemory`.
        """
        return self._peak.bytes(candidates)

    def latency(self, candidates: Sequence[Candidate] | ArrayLike) -> NDArray[int64]:
        """Predicted nanoseconds of one batch, rounded; not monotone, see `Features`.

        Raises:
            InputError: nothing was measured.
        """
        if self._times is None:
            raise InputError(
                "the latency of candidates is not known here; limit it where networks are measured,"
                " in a search, or limit macs and params"
            )
        nanoseconds = 1e6 * self._times.milliseconds(candidates)
        return np.maximum(np.rint(nanoseconds), 1).astype(int64)

    @cached_property
    def _peak(self) -> PeakMemory:
        return PeakMemory(self._network, self._cost.space)
