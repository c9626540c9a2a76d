"""Which tensors are generated, and which genes each of them is generated from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from torch import nn
from torch.nn.modules.conv import _ConvNd

from prunas.errors import InputError
from prunas.supernet.cut import require_same
from prunas.supernet.space import SearchSpace
from prunas.supernet.tensors import modules_of


@dataclass(frozen=True)
class Layer:
    """The weight of one convolution or linear layer, as the full network has it.

    Attributes:
        name: of the tensor.
        shape: of the tensor.
        genes: the widths that it is generated from, by number.
    """

    name: str
    shape: tuple[int, ...]
    genes: tuple[int, ...]

    @property
    def numel(self) -> int:
        return prod(self.shape)


def generated_layers(network: nn.Module, space: SearchSpace) -> tuple[Layer, ...]:
    """Every convolution and linear layer whose weight genes decide, but for the classifier.

    A layer sees the widths that decide its own weight, and those of its neighbours: the layers of
    the module that holds it with which it shares a gene. In a bottleneck these are the widths
    before, inside and after it; at the stem its own (MetaPruning, section 3.1). A linear layer of
    whose outputs none can go is a classifier, and is not generated (as there).

    Raises:
        InputError: there is no such layer, or the space is another network's.
    """
    require_same(network, space)
    kinds = {
        f"{path}.weight" if path else "weight": module
        for path, module in modules_of(network)
        if isinstance(module, _ConvNd | nn.Linear) and "weight" in module._parameters
    }
    names = [
        name
        for name in space.slots
        if name in kinds and not (isinstance(kinds[name], nn.Linear) and 0 not in space.slots[name])
    ]
    if not names:
        raise InputError(
            "no convolution or linear layer of this network has channels that can go, so there is"
            " no weight to generate; search it with the weights of a supernet"
        )
    seen = seen_genes(space, names)
    return tuple(Layer(name, space.shapes[name], seen[name]) for name in names)


def seen_genes(space: SearchSpace, layers: Sequence[str]) -> Mapping[str, tuple[int, ...]]:
    """For every tensor that genes decide the numbers of the genes that it is generated from."""
    own = {name: _own_genes(space, name) for name in space.slots}
    result = {}
    for name, genes in own.items():
        room = _room(name)
        beside = [own[other] for other in layers if _lies_in(other, room)]
        near = [others for others in beside if others & genes]
        result[name] = tuple(sorted(genes.union(*near)))
    return result


def _own_genes(space: SearchSpace, name: str) -> set[int]:
    factors = [factor for dimension in space.slots[name].values() for factor in dimension]
    found = set(np.unique(space.gene_of_atom[np.concatenate(factors)]).tolist())
    return {gene for gene in found if gene >= 0}


def _room(name: str) -> str:
    """The module that holds the layer of a tensor."""
    return name.rpartition(".")[0].rpartition(".")[0]


def _lies_in(name: str, room: str) -> bool:
    """Whether a layer is part of that module; the network itself counts for its own layers only."""
    return name.startswith(f"{room}.") if room else not _room(name)


def vectors_beside(space: SearchSpace, layers: Sequence[Layer]) -> Mapping[str, tuple[int, ...]]:
    """{name: genes} of the vectors that genes decide: scales and shifts of norms, and biases."""
    seen = seen_genes(space, [layer.name for layer in layers])
    return {
        name: genes
        for name, genes in seen.items()
        if name in space.parameters and len(space.shapes[name]) == 1
    }
