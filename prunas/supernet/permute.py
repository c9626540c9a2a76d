"""Put the channels of every group in another order, without changing the function."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from prunas.supernet.cut import copied_with, require_same
from prunas.supernet.space import Atoms, Factors, SearchSpace
from prunas.supernet.tensors import taken, tensors_of


@torch.inference_mode(False)
def permute(network: nn.Module, space: SearchSpace, orders: Sequence[Sequence[int]]) -> nn.Module:
    """A copy of `network` in which gene g holds its old channels in the order `orders[g]`.

    Every slot of a channel moves along, so the outputs stay the same up to rounding. Cutting the
    result keeps the first channels of these orders.

    Args:
        network: the traced network.
        space: its search space, valid for the result too.
        orders: for each gene a permutation of its channels' positions, the first to keep first.

    Raises:
        InputError: an order is not a permutation, or the network is not the space's.
    """
    require_same(network, space)
    renumbered = space.renumbering(orders)
    held = tensors_of(network)
    moves: dict[tuple[int, ...], torch.Tensor] = {}
    moved: dict[str, torch.Tensor] = {}
    for name, dimensions in space.slots.items():
        for dimension, factors in dimensions.items():
            key = tuple(id(factor) for factor in factors)
            if key not in moves:
                moves[key] = torch.from_numpy(_sources(factors, renumbered))
            source = moved.get(name, held[name].detach())
            moved[name] = taken(source, dimension, moves[key].to(source.device))
    return copied_with(network, moved)


def _sources(factors: Factors, renumbered: Atoms) -> Atoms:
    """Which old index each new index takes its entries from.

    The pattern of atoms along a dimension stays; an atom's k-th occurrence stays its k-th.
    """
    wanted = np.lexsort(_rows(factors))
    found = np.lexsort(_rows(tuple(renumbered[factor] for factor in factors)))
    sources = np.empty(len(wanted), dtype=np.int64)
    sources[wanted] = found
    return sources


def _rows(factors: Factors) -> tuple[Atoms, ...]:
    """Sort keys: the atoms of each index as a set, so that factors may stand in any order."""
    table = np.sort(np.stack(factors), axis=0)
    return tuple(table)
