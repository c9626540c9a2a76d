"""An exponential moving average of a module's weights."""

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn


@final
class Average:
    """The average of `Recipe.ema`, of all floating-point tensors of a module's state.

    Integer ones (counters of batches) have no average.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        state = module.state_dict()  # detached, of the same memory
        self._live = {n: t for n, t in state.items() if t.is_floating_point()}
        self._averaged = {name: tensor.clone() for name, tensor in self._live.items()}

    def update(self, step: int) -> None:
        """Take in the weights as they are after this step, counted from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        averaged, live = list(self._averaged.values()), list(self._live.values())
        torch._foreach_lerp_(averaged, live, 1 - decay)

    def tensors(self) -> Mapping[str, Tensor]:
        return self._averaged

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in self._averaged.items():
            tensor.copy_(tensors[name])

    def hand_over(self) -> None:
        """The module gets its averaged weights."""
        for name, tensor in self._live.items():
            tensor.copy_(self._averaged[name])
