"""The two forms of a PruningNet: the lean one, and that of the paper."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from torch import nn

from prunas.errors import InputError
from prunas.pruningnet import modulation, perceptrons
from prunas.pruningnet.layers import Layer, generated_layers, vectors_beside
from prunas.pruningnet.modulation import Modulation
from prunas.pruningnet.perceptrons import Perceptrons, Start, size_of_perceptrons
from prunas.pruningnet.pruning_net import PruningNet
from prunas.pruningnet.width_norms import WidthNorms
from prunas.supernet.space import SearchSpace
from prunas.supernet.tensors import tensors_of

_COPIES: Final = 3  # numbers kept for each one that is trained: itself, its gradient, its momentum
_BYTES: Final = 4
_MEMORY: Final = Path("/proc/meminfo")


def lean_net(
    network: nn.Module,
    space: SearchSpace,
    *,
    rank: int = modulation.RANK,
    hidden: int = modulation.HIDDEN,
    small_memory: bool = False,
    seed: int = 0,
) -> PruningNet:
    """The network's own weights, changed a little by what is generated; see `Modulation`.

    Args:
        network: with channels sorted and, best, trained; its weights are shared from now on.
        space: its search space.
        rank: of the change of a weight.
        hidden: units of the map behind each tensor.
        small_memory: see `PruningNet`.
        seed: of the start.

    Raises:
        InputError: no layer has channels that can go, or the space is another network's.
    """
    layers = generated_layers(network, space)
    generator = Modulation(
        layers,
        vectors_beside(space, layers),
        tensors_of(network),
        rank=rank,
        hidden=hidden,
        rng=torch.Generator().manual_seed(seed),
    )
    return PruningNet(network, space, generator, small_memory=small_memory)


def published_net(
    network: nn.Module,
    space: SearchSpace,
    *,
    hidden: int = perceptrons.HIDDEN,
    start: Start = "network",
    width_norms: Sequence[str] | None = None,
    small_memory: bool = False,
    seed: int = 0,
) -> PruningNet:
    """A perceptron for every layer, as in the paper; see `Perceptrons`.

    Args:
        network: with channels sorted; with `start="random"` its convolutions do not matter.
        space: its search space.
        hidden: units of each perceptron.
        start: from the network's weights, or at random as published.
        width_norms: as published, batch norms for every width, with a scale for those whose path
            fits one of these patterns (`()`: none has one); None: the network's own batch norms.
        small_memory: see `PruningNet`.
        seed: of the start.

    Raises:
        InputError: as `lean_net`; or the perceptrons do not fit into memory, said before any is
            made.
    """
    layers = require_memory(network, space, hidden=hidden)
    generator = Perceptrons(
        layers,
        tensors_of(network),
        hidden=hidden,
        start=start,
        rng=torch.Generator().manual_seed(seed),
    )
    norms = None if width_norms is None else WidthNorms(network, space, scaled=width_norms)
    return PruningNet(network, space, generator, norms=norms, small_memory=small_memory)


def require_memory(
    network: nn.Module, space: SearchSpace, *, hidden: int = perceptrons.HIDDEN
) -> tuple[Layer, ...]:
    """The layers of a `published_net`, if it can be trained in the memory that is free.

    Raises:
        InputError: it does not fit, said with its size; or there is no such layer.
    """
    layers = generated_layers(network, space)
    numbers = size_of_perceptrons(layers, hidden)
    needed, free = _COPIES * _BYTES * numbers, _free(next(network.parameters()).device)
    if free is not None and needed > free:
        raise InputError(
            f"the perceptrons of {len(layers)} layers hold {numbers / 1e6:.1f} M numbers, which"
            f" takes {needed / 2**30:.1f} GiB to train, and {free / 2**30:.1f} GiB are free; use"
            " the lean generator (--weights pruningnet), which takes about what the network does,"
            " or fewer hidden units"
        )
    return layers


def _free(device: torch.device) -> int | None:
    """Bytes that can be had; None where nobody says."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu" or not _MEMORY.exists():
        return None
    rows = dict(row.split(":", 1) for row in _MEMORY.read_text().splitlines())
    return int(rows["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in rows else None
