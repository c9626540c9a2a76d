"""What a policy has learnt, as a plain value: it can be compared, and saved to the last bit."""

import base64
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from prunas.errors import InputError
from prunas.supernet.space import Candidate
from prunas.transformer_nat.operators import Vocabulary

Array = NDArray[np.float64]

_PACKED: Final = ("weights", "mean", "square")


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
        """Read what `to_data` and JSON made of it."""
        changed = {
            **{name: base64.b64decode(data[name]) for name in _PACKED},
            "vocabulary": tuple(data["vocabulary"]),
            "drawn": tuple(Candidate(row) for row in data["drawn"]),
            "average": tuple(data["average"]),
        }
        return cls(**{**data, **changed})

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

    def refuse_unless(self, form: str, vocabulary: Vocabulary) -> None:
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
        if len(self.decays) != 2 or not all(0 <= each < 1 for each in self.decays):
            raise InputError(f"decays={self.decays} of Adam must be two numbers in [0, 1)")


def packed(array: Array) -> bytes:
    """Numbers as bytes."""
    return array.astype("<f8").tobytes()


def unpacked(data: bytes) -> Array:
    """(n,) what `packed` wrote, as an array of its own."""
    return np.frombuffer(data, dtype="<f8").copy()
