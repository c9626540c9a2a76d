"""Networks of two hidden layers with one output, their parameters one flat array.

They are so small that a library for larger ones spends its time on overheads.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]
Cache = tuple[Floats, Floats, Floats]

_LAST: Final = 3e-3  # the paper of DDPG (Lillicrap et al., ICLR 2016) draws the last layer so


@dataclass(frozen=True)
class Mlp:
    """inputs -> hidden -> hidden -> 1, with rectifiers between."""

    inputs: int
    hidden: int

    def drawn(self, rng: np.random.Generator) -> Floats:
        """Parameters U(-1, 1) / sqrt(inputs of the layer), U(-0.003, 0.003) in the last layer."""
        wide = self.hidden**-0.5
        bounds = (self.inputs**-0.5,) * 2 + (wide,) * 2 + (_LAST,) * 2
        rows = zip(bounds, self._shapes(), strict=True)
        return np.concatenate([rng.uniform(-b, b, prod(shape)) for b, shape in rows])

    def forward(self, parameters: Floats, rows: Floats) -> tuple[Floats, Cache]:
        """(n,) outputs for rows (n, inputs), and what `backward` needs."""
        w1, b1, w2, b2, w3, b3 = self._parts(parameters)
        first = np.maximum(rows @ w1 + b1, 0)
        second = np.maximum(first @ w2 + b2, 0)
        return second @ w3 + b3, (rows, first, second)

    def backward(self, parameters: Floats, cache: Cache, slopes: Floats) -> Floats:
        """The gradient of sum_i slopes[i] * outputs[i] with respect to the parameters."""
        rows, first, second = cache
        to_second, to_first = self._to_hidden(parameters, cache, slopes)
        parts = (
            rows.T @ to_first,
            to_first.sum(axis=0),
            first.T @ to_second,
            to_second.sum(axis=0),
            slopes @ second,
            slopes.sum(keepdims=True),
        )
        return np.concatenate([part.ravel() for part in parts])

    def to_inputs(self, parameters: Floats, cache: Cache, slopes: Floats) -> Floats:
        """(n, inputs) the same gradient with respect to the rows."""
        _, to_first = self._to_hidden(parameters, cache, slopes)
        return np.asarray(to_first @ self._parts(parameters)[0].T)

    def _to_hidden(self, parameters: Floats, cache: Cache, slopes: Floats) -> tuple[Floats, Floats]:
        _, first, second = cache
        _, _, w2, _, w3, _ = self._parts(parameters)
        to_second = slopes[:, None] * w3 * (second > 0)
        return to_second, (to_second @ w2.T) * (first > 0)

    def _shapes(self) -> tuple[tuple[int, ...], ...]:
        wide = self.hidden
        return (self.inputs, wide), (wide,), (wide, wide), (wide,), (wide,), (1,)

    @cached_property
    def _places(self) -> tuple[tuple[slice, tuple[int, ...]], ...]:
        """Where each layer's weights and offsets are in the flat array, and their shapes."""
        shapes = self._shapes()
        ends = list(accumulate(map(prod, shapes)))
        parts = [slice(start, end) for start, end in pairwise([0, *ends])]
        return tuple(zip(parts, shapes, strict=True))

    def _parts(self, parameters: Floats) -> list[Floats]:
        return [parameters[part].reshape(shape) for part, shape in self._places]
