"""Adam (Kingma & Ba, ICLR 2015) on arrays that a search's state can hold."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from prunas.search.learnt import Learnt

_MEAN: Final = 0.9  # the paper's decays and epsilon
_SQUARE: Final = 0.999
_EPSILON: Final = 1e-8
# beside epsilon this moves nothing, but what decays further in float32 gets many times slower
_NOTHING: Final = 1e-15
_BLOCK: Final = 2**14
_MOMENTS: Final = ("mean", "square")


@dataclass
class Adam:
    """Running means of a gradient and of its square, after so many steps; for its owner alone."""

    mean: NDArray[Any]
    square: NDArray[Any]
    steps: int

    @classmethod
    def fresh(cls, parameters: NDArray[Any]) -> "Adam":
        """Before the first step."""
        return cls(np.zeros_like(parameters), np.zeros_like(parameters), 0)

    def ascend(self, parameters: NDArray[Any], gradient: NDArray[Any], rate: float) -> None:
        """Move `parameters` (n,) in place, up `gradient`.

        Block by block, as what is computed on the way then stays in the cache.
        """
        self.steps += 1
        pace = rate / (1 - _MEAN**self.steps)
        correction = (1 - _SQUARE**self.steps) ** -0.5
        for part in blocks(len(parameters)):
            mean, square, slope = self.mean[part], self.square[part], gradient[part]
            mean += (1 - _MEAN) * (slope - mean)
            mean *= np.abs(mean) > _NOTHING
            square += (1 - _SQUARE) * (slope * slope - square)
            parameters[part] += pace * mean / (np.sqrt(square) * correction + _EPSILON)


def blocks(n: int) -> list[slice]:
    """0..n in parts that the cache holds."""
    return [slice(start, start + _BLOCK) for start in range(0, n, _BLOCK)]


def ascended(learnt: Learnt, name: str, gradient: NDArray[Any], rate: float) -> Learnt:
    """`learnt` after one step of the array `name`; its moments are kept beside it."""
    parameters = learnt[name].ravel().copy()
    adam = restored(learnt, name, parameters)
    adam.ascend(parameters, gradient.ravel(), rate)
    return stored(learnt.changed(**{name: parameters.reshape(gradient.shape)}), name, adam)


def moments_of(name: str, array: NDArray[Any]) -> dict[str, tuple[int, ...]]:
    """The names and shapes of what `stored` keeps beside an array."""
    return {f"{name} {part}": (array.size,) for part in _MOMENTS} | {f"{name} steps": ()}


def restored(learnt: Learnt, name: str, parameters: NDArray[Any]) -> Adam:
    """The moments that `stored` kept for these parameters, in their precision."""
    if f"{name} steps" not in learnt:
        return Adam.fresh(parameters)
    mean, square = (learnt[f"{name} {part}"].astype(parameters.dtype) for part in _MOMENTS)
    return Adam(mean, square, int(learnt[f"{name} steps"]))


def stored(learnt: Learnt, name: str, adam: Adam) -> Learnt:
    """`learnt` with the moments of the array `name`."""
    moments = dict(zip(_MOMENTS, (adam.mean, adam.square), strict=True))
    named = {f"{name} {part}": array for part, array in moments.items()}
    return learnt.changed(**named, **{f"{name} steps": adam.steps})
