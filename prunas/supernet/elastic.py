"""One candidate without copying: the network runs on slices of its own weights, or on others."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import final

import numpy as np
import torch
from torch import nn

from prunas.supernet.blocks import without
from prunas.supernet.choice import choosing
from prunas.supernet.cut import cut, owners, require_same
from prunas.supernet.kernel_transform import KernelTransform
from prunas.supernet.layers import stated
from prunas.supernet.resolution import seeing, side_of
from prunas.supernet.scoped import Place, sizes_of, swapped
from prunas.supernet.skeleton import dictionaries, forget
from prunas.supernet.space import Atoms, SearchSpace
from prunas.supernet.tensors import tensors_of


class Elastic(ABC):
    """One network that runs as any of its candidates; a weights source.

    Args:
        network: the traced network; it is not copied, and what no gene decides runs as it is.
        space: its search space.

    Raises:
        InputError: the network is not the one the space was traced from.
    """

    def __init__(self, network: nn.Module, space: SearchSpace) -> None:
        require_same(network, space)
        self.network = network
        self.space = space
        self._kept = dictionaries(network)
        self._owners = owners(network, space.slots)

    @abstractmethod
    def weights(self, candidate: Sequence[int]) -> Mapping[str, torch.Tensor]:
        """The candidate's parameters and buffers that differ from those the network holds."""

    @property
    @abstractmethod
    def learnt(self) -> nn.Module:
        """A module of all that training changes."""

    def alone(self, candidate: Sequence[int]) -> nn.Module:
        """The candidate as a plain module, with weights of its own; see `cut`.

        It takes images of the side that the candidate sees.
        """
        small = cut(self.network, self.space, candidate)
        held = tensors_of(small)
        with torch.no_grad():
            for name, tensor in self.weights(candidate).items():
                if name in held:
                    held[name].copy_(tensor)
        return small

    def integers(self, candidate: Sequence[int]) -> dict[Place, int]:
        """The sizes that modules must keep while the candidate runs."""
        return sizes_of(self.space, self.space.kept(candidate))

    @contextmanager
    def running(self, candidate: Sequence[int]) -> Iterator[nn.Module]:
        """The network as this candidate, with gradients; as it was afterwards.

        Images of the full side are what it takes, whatever the candidate sees of them.
        """
        with self._holding(candidate, self._at_once(candidate)) as network:
            yield network

    @contextmanager
    def frozen(self, candidate: Sequence[int]) -> Iterator[nn.Module]:
        """The network as this candidate, for many forwards without gradient.

        Weights are made, and made contiguous, once: a convolution would do so in every forward.
        """
        with torch.no_grad():
            weights = {
                name: t.contiguous(memory_format=_layout(t))
                for name, t in self._at_once(candidate).items()
            }
            with self._holding(candidate, weights) as network:
                yield network

    def _with_aliases(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """These, and tied ones under their further names too."""
        for alias, name in self.space.aliases.items():
            if name in tensors:
                tensors[alias] = tensors[name]
        return tensors

    def _at_once(self, candidate: Sequence[int]) -> Mapping[str, torch.Tensor]:
        """The tensors that are held as long as the candidate runs."""
        return self.weights(candidate)

    @contextmanager
    def _holding(
        self, candidate: Sequence[int], weights: Mapping[str, torch.Tensor]
    ) -> Iterator[nn.Module]:
        gone = self.space.left_out(candidate)
        forget(self._kept)
        try:
            with (
                choosing(self.network, self.space.chosen(candidate)),
                swapped(self.network, weights, self.integers(candidate)),
                stated(self._owners),
                without(self.network, gone),
                seeing(self.network, side_of(self.space, candidate)),
            ):
                yield self.network
        finally:
            forget(self._kept)


@final
class Supernet(Elastic):
    """One set of weights for every candidate.

    In a network whose channels are sorted (`prunas.permute`), a candidate keeps a prefix of every
    group, so its weights are views of the full ones, and gradients flow into the shared tensors.

    Args:
        network: the traced network; it is not copied.
        space: its search space.
        kernels: makes the smaller kernels; without it they are the middle of the full ones.

    Raises:
        InputError: the network is not the one the space was traced from.
    """

    def __init__(
        self, network: nn.Module, space: SearchSpace, kernels: KernelTransform | None = None
    ) -> None:
        super().__init__(network, space)
        self.kernels = kernels
        self._learnt = network
        if kernels is not None:
            self._learnt = nn.ModuleDict({"network": network, "kernels": kernels})

    def weights(self, candidate: Sequence[int]) -> Mapping[str, torch.Tensor]:
        """The candidate's parameters and buffers that differ from the full network's, as views.

        A dimension whose surviving indices are not one run is gathered instead (concatenations).
        """
        held = tensors_of(self.network)
        result: dict[str, torch.Tensor] = {}
        sides: dict[str, int] = {}
        for name, dimension, indices in self.space.survivors(candidate):
            if self.kernels is not None and name in self.kernels.names and dimension > 1:
                sides[name] = len(indices)
                continue
            result[name] = sliced(result.get(name, held[name]), dimension, indices)
        if self.kernels is not None:
            for name, side in sides.items():
                result[name] = self.kernels.smaller(name, result.get(name, held[name]), side)
        return self._with_aliases(result)

    @property
    def learnt(self) -> nn.Module:
        return self._learnt


def _layout(tensor: torch.Tensor) -> torch.memory_format:
    return torch.channels_last if tensor.dim() == 4 else torch.contiguous_format


def sliced(tensor: torch.Tensor, dimension: int, indices: Atoms) -> torch.Tensor:
    """These ascending indices of a dimension: a view where they are one run."""
    start, length = int(indices[0]), len(indices)
    if int(indices[-1]) - start + 1 == length:
        return tensor.narrow(dimension, start, length)
    runs = _runs(indices)
    if len(runs) <= _FEW_RUNS:
        return torch.cat([tensor.narrow(dimension, at, size) for at, size in runs], dimension)
    return tensor.index_select(dimension, torch.from_numpy(indices).to(tensor.device))


_FEW_RUNS = 64
"""Up to so many pieces, joining slices is faster than gathering single entries."""


def _runs(indices: Atoms) -> list[tuple[int, int]]:
    """(first, length) of the consecutive runs of ascending indices."""
    breaks = np.flatnonzero(np.diff(indices) != 1) + 1
    starts = np.concatenate([[0], breaks])
    lengths = np.diff(np.concatenate([starts, [len(indices)]]))
    return [(int(indices[s]), int(n)) for s, n in zip(starts, lengths, strict=True)]
