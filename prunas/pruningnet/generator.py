"""What a generator of weights is, and what it is told of a candidate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from prunas.supernet.elastic import sliced
from prunas.supernet.space import Atoms, SearchSpace

Kept = Mapping[int, Atoms]
"""{dimension: surviving indices} of one tensor, for the dimensions that shrink."""


class Generator(Protocol):
    """Makes the tensors of a candidate; an `nn.Module` whose parameters are what it learns."""

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors of the network that it makes."""
        ...

    def made(self, name: str, ratios: Tensor, kept: Kept, shared: Tensor) -> Tensor:
        """One tensor of a candidate, cut.

        Args:
            name: one of `names`.
            ratios: (genes,) the candidate's widths as shares of the full ones.
            kept: what is left of the tensor.
            shared: the tensor of that name in the full network.
        """
        ...


@dataclass(frozen=True, eq=False)
class Told:
    """A candidate as generators see it: `ratios`, and what is `kept` of every tensor."""

    ratios: Tensor
    kept: Mapping[str, Kept]

    @classmethod
    def of(cls, space: SearchSpace, candidate: Sequence[int], device: torch.device) -> "Told":
        kept: dict[str, dict[int, Atoms]] = {}
        for name, dimension, indices in space.survivors(candidate):
            kept.setdefault(name, {})[dimension] = indices
        shares = [value / full for value, full in zip(candidate, space.full(), strict=True)]
        return cls(torch.tensor(shares, device=device), kept)


def cropped(tensor: Tensor, kept: Kept) -> Tensor:
    """The surviving entries of a tensor; it may have more dimensions than `kept` knows."""
    for dimension, indices in kept.items():
        tensor = sliced(tensor, dimension, indices)
    return tensor


def key(name: str) -> str:
    """A tensor's name as that of a module, which holds no dots."""
    return name.replace(".", "/")
