"""Everything that a budget may limit, of the candidates of one network."""

from collections.abc import Sequence
from functools import cached_property
from typing import final

from numpy import int64
from numpy.typing import ArrayLike, NDArray
from torch import nn

from prunas.eval.cost import Cost
from prunas.eval.peak import PeakMemory
from prunas.supernet.space import Candidate, SearchSpace


@final
class Prices:
    """Multiply-accumulates, parameters, and peak memory, traced when it is first asked for.

    Args:
        network: the traced network; it is not changed, and its weights are not read.
        space: its search space.
    """

    def __init__(self, network: nn.Module, space: SearchSpace) -> None:
        self._network = network
        self._cost = Cost(space)

    def macs(self, candidates: Sequence[Candidate] | ArrayLike) -> NDArray[int64]:
        """As `Cost.macs`."""
        return self._cost.macs(candidates)

    def params(self, candidates: Sequence[Candidate] | ArrayLike) -> NDArray[int64]:
        """As `Cost.params`."""
        return self._cost.params(candidates)

    def memory(self, candidates: Sequence[Candidate] | ArrayLike) -> NDArray[int64]:
        """As `PeakMemory.bytes`: of activations, for one image.

        Raises:
            InputError: the space has genes of another kind than width and depth.
        """
        return self._peak.bytes(candidates)

    @cached_property
    def _peak(self) -> PeakMemory:
        return PeakMemory(self._network, self._cost.space)
