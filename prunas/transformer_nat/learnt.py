"""What a policy has learnt, as a plain value: it can be compared, and saved to the last bit."""

import base64
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from prunas.errors import InputError
from prunas.given_numbers import is_whole
from prunas.supernet.space import Candidate
from prunas.transformer_nat.operators import Vocabulary

Array = NDArray[np.float64]

_PACKED: Final = ("weights", "mean", "square")
_BYTES: Final = 8  # of one weight


@dataclass(frozen=True)
class Learnt:
    """A policy between two updates. A plain value.

    Attributes:
        form: the class of the policy and its sizes.
        vocabulary: the operators that it knows.
        weights: its weights, as little-endian doubles; see `unpacked`.
        mean: running mean of their gradient.
        square: running mean of its square.
        steps: number of updates.
        drawn: what it drew and what has not led to an update, in that order.
        average: running mean of the rewards, not corrected for its start, and what corrects it.
    """

    form: str
    vocabulary: Vocabulary
    weights: bytes
    mean: bytes
    square: bytes
    steps: int = 0
    drawn: tuple[Candidate, ...] = ()
    average: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def fresh(cls, form: str, vocabulary: Vocabulary, weights: Array) -> "Learnt":
        """Before the first update."""
        zeros = packed(np.zeros_like(weights))
        return cls(form, vocabulary, packed(weights), zeros, zeros)

    def to_data(self) -> dict[str, Any]:
        """All of it as what JSON can hold, the numbers as base64."""
        texts = {name: base64.b64encode(getattr(self, name)).decode() for name in _PACKED}
        return {**asdict(self), **texts}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Learnt":
        """Read what `to_data` and JSON made of it.

        Raises:
            ValueError: it is damaged.
            LookupError, TypeError: it is something else.
        """
        changed = {
            **{name: base64.b64decode(data[name], validate=True) for name in _PACKED},
            "vocabulary": tuple(data["vocabulary"]),
            "drawn": tuple(Candidate(row) for row in data["drawn"]),
            "average": tuple(data["average"]),
        }
        learnt = cls(**{**data, **changed})
        learnt._check()
        return learnt

    def _check(self) -> None:
        weights, mean, square = map(unpacked, (self.weights, self.mean, self.square))
        if not len(weights) == len(mean) == len(square):
            raise ValueError("the weights of the policy and their means differ in number")
        if not np.isfinite([weights, mean, square]).all() or (square < 0).any():
            raise ValueError("the weights of the policy, or their means, are no finite numbers")
        if not all(isinstance(each, str) for each in (self.form, *self.vocabulary)):
            raise ValueError("the policy or an operator that it knows has no name")
        if not is_whole(self.steps) or self.steps < 0:
            raise ValueError(f"the policy was updated {self.steps!r} times")
        mean_reward, weight = self.average
        if not math.isfinite(mean_reward) or not 0 <= weight < math.inf:
            raise ValueError(f"the running mean of the rewards is {self.average}")

    def stepped(self, gradient: Array, settings: "Adam") -> "Learnt":
        """After one step of Adam up the gradient.

        Kingma & Ba, ICLR 2015, with weight decay as part of the gradient, as NAT has it.
        """
        weights, steps = unpacked(self.weights), self.steps + 1
        first, second = settings.decays
        slope = gradient - settings.weight_decay * weights
        mean = first * unpacked(self.mean) + (1 - first) * slope
        square = second * unpacked(self.square) + (1 - second) * slope**2
        size = np.sqrt(square / (1 - second**steps)) + 1e-8
        moved = weights + settings.rate * mean / (1 - first**steps) / size
        return replace(
            self, weights=packed(moved), mean=packed(mean), square=packed(square), steps=steps
        )

    def refuse_unless(self, form: str, vocabulary: Vocabulary, size: int) -> None:
        """Raise an InputError if these weights belong to another policy."""
        if self.vocabulary != vocabulary:
            raise InputError(
                f"the policy was trained for the operators {', '.join(self.vocabulary)}, but here"
                f" they are {', '.join(vocabulary)}; train one for these, or use its own"
            )
        if self.form != form:
            raise InputError(
                f"the weights belong to the policy {self.form}, not to {form}; use the settings"
                " that they were trained with"
            )
        found = len(self.weights) // _BYTES
        if found != size:
            raise InputError(
                f"the policy {form} has {size} weights, and {found} are here, so that some were"
                " lost; use a state that was saved whole"
            )


@dataclass(frozen=True)
class Adam:
    """Settings of the updates.

    Attributes:
        rate: learning rate.
        decays: of the running means of the gradient and of its square.
        weight_decay: times the weights, taken from the gradient.

    Raises:
        InputError: a setting that no update can be made with.
    """

    rate: float
    decays: tuple[float, float]
    weight_decay: float

    def __post_init__(self) -> None:
        for name in ("rate", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(
                    f"{name}={getattr(self, name)} of Adam must be a finite number, 0 or more"
                )
        decays: tuple[float, ...] = self.decays  # what was given may be of any length
        if len(decays) != 2 or not all(0 <= each < 1 for each in decays):
            raise InputError(f"decays={decays} of Adam must be two numbers in [0, 1)")


def packed(array: Array) -> bytes:
    """Numbers as bytes."""
    return array.astype("<f8").tobytes()


def unpacked(data: bytes) -> Array:
    """(n,) what `packed` wrote, as an array of its own."""
    return np.frombuffer(data, dtype="<f8").copy()
