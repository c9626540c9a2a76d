"""A labelled run of a network, solved: which of its dimensions stay equally long."""

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import torch
from torch import nn

from prunas.errors import InputError
from prunas.supernet.labels import Nodes, Solution
from prunas.supernet.recorder import Product, Record, record
from prunas.supernet.scoped import Place
from prunas.supernet.skeleton import tensors_in, with_batch


def labelled(
    network: nn.Module, inputs: Any, fixed: frozenset[str]
) -> tuple[Any, Record, Solution]:
    """The inputs of a run from which it shows what one image costs, its record, and what follows.

    These are the given inputs, of two images: no dimension has length one by accident then, and
    what the second image alone needs does not count. But a forward may take the images apart
    (`for image in x`), after which often nothing says whose they are, and both count. Where a
    run with one image has less to do, that run is taken.

    Args:
        network, inputs, fixed: as `record` takes them.

    Raises:
        InputError: the network does not run on these inputs.
    """
    found = record(network, inputs, fixed)
    solution = solved(found)
    if all(_is_for_each_image(product, solution) for product in found.products):
        return inputs, found, solution
    single = with_batch(inputs, 1)
    try:
        alone = record(network, single, fixed)
    except InputError:  # it was not written for one image
        return inputs, found, solution
    alone_solved = solved(alone)
    fewer = len(alone.products) < len(found.products)
    less = _work(alone, alone_solved) < _work(found, solution)  # what is done once stays as it is
    if (fewer or less) and _forms(alone) == _forms(found):
        return single, alone, alone_solved
    return inputs, found, solution


def _is_for_each_image(product: Product, solution: Solution) -> bool:
    return any(solution.second_image[nodes].any() for nodes in product.dims)


def _forms(found: Record) -> frozenset[torch.Size]:
    """Shapes of what comes out for an image; others, where a batch of one is squeezed away."""
    return frozenset(tensor.shape[1:] for tensor in tensors_in(found.outputs))


def _work(found: Record, solution: Solution) -> int:
    """Multiply-accumulates of one image, as far as labels tell."""
    return sum(
        product.constant
        * prod(int((~solution.second_image[nodes]).sum()) for nodes in product.dims)
        for product in found.products
    )


def solved(found: Record) -> Solution:
    """Classes in which dimensions that must stay equally long do.

    Two dimensions made of the same classes, in whatever order, are equally long anyway; others
    are tied index by index.
    """
    solution = found.labels.solve()
    united: dict[bytes, bytes] = {}

    def representative(nodes: Nodes) -> bytes:
        table = np.sort(solution.atoms[nodes], axis=1)
        key = table[np.lexsort(table.T)].tobytes()
        while key in united:
            key = united[key]
        return key

    tied = False
    for one, two, why in _equal_lengths(found):
        first, second = representative(one), representative(two)
        if first != second:
            united[second] = first
            found.labels.tie(one, two, why)
            tied = True
    return found.labels.solve() if tied else solution


def _equal_lengths(found: Record) -> Iterator[tuple[Nodes, Nodes, str]]:
    """Pairs of dimensions that have the same length in every candidate, with the reason."""
    yield from found.lengths
    first: dict[Place, Nodes] = {}
    for place, _, nodes in found.sizes:
        known = first.setdefault(place, nodes)
        if known is not nodes and len(known) == len(nodes):
            yield known, nodes, f"{place.module}.{place.name} is also a fixed length"
