"""Which entries of which tensors belong to a channel: its own filters, and all that leaves with it.

In a network of convolutions or linears a channel of a gene owns the rows of the weights that
compute it (its filters); the columns of the weights that read it, its biases and its entries in
normalisations leave with it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from prunas.errors import InputError
from prunas.eval.criteria.discriminant import Array
from prunas.eval.criteria.verdict import width_genes
from prunas.supernet.space import Atoms, SearchSpace, Tap
from prunas.supernet.tensors import parameters_of, require_values


@dataclass(frozen=True, eq=False)
class Slice:
    """The entries along one dimension of one parameter that belong to the channels of a gene.

    Attributes:
        parameter: its name.
        dimension: the dimension.
        places: (channels, entries) indices along it; -1 fills up channels that have fewer.
    """

    parameter: str
    dimension: int
    places: Atoms

    def rows(self, tensor: torch.Tensor) -> Array:
        """(channels, values) the values of a tensor of the parameter's shape, 0 as filling."""
        along = tensor.detach().movedim(self.dimension, 0).reshape(tensor.shape[self.dimension], -1)
        taken = along.double().cpu().numpy()[self.places]
        taken[self.places < 0] = 0
        return np.asarray(taken.reshape(len(self.places), -1))


@dataclass(frozen=True, eq=False)
class Slices:
    """All slices of one gene, by what they are.

    Attributes:
        own: rows of the dense weights that compute the channels; of depthwise ones if there are
            no others.
        norms: scales of batch normalisations over the channels.
        all: every entry of every parameter that leaves with a channel.
    """

    own: tuple[Slice, ...]
    norms: tuple[Slice, ...]
    all: tuple[Slice, ...]


def slices_of(network: nn.Module, space: SearchSpace) -> tuple[Slices, ...]:
    """The slices of every gene of width.

    Raises:
        InputError: the network has other parameters than the one the space was traced from.
    """
    held = checked_parameters(network, space)
    found: list[list[Slice]] = [[] for _ in width_genes(space)]
    for name in sorted(space.parameters & space.slots.keys()):
        for dimension, factors in space.slots[name].items():
            for atoms in factors:
                for gene, places in places_of(space, atoms):
                    if gene < len(found):
                        found[gene].append(Slice(name, dimension, places))
    roles = {name: _role(network, name, held[name]) for name in space.parameters}
    return tuple(_sorted_by_role(slices, roles) for slices in found)


def writers(network: nn.Module, space: SearchSpace) -> tuple[Tap, ...]:
    """The convolutions and linears that compute channels of genes, with the atoms they give."""
    held = checked_parameters(network, space)
    found = {}
    for name in sorted(space.parameters & space.slots.keys()):
        path, _, _ = name.rpartition(".")
        role = _role(network, name, held[name])
        given = None if role.dimension is None else space.slots[name].get(role.dimension)
        if given and isinstance(network.get_submodule(path), _ConvNd | nn.Linear):
            found[path] = Tap(path, given, role.depthwise)
    return tuple(found.values())


def checked_parameters(network: nn.Module, space: SearchSpace) -> Mapping[str, torch.Tensor]:
    """The network's parameters by the names of the space.

    Raises:
        InputError: they are not those of the traced network, have no values, or hold NaN or
            infinite ones.
    """
    require_values(network)
    held = parameters_of(network)
    for name in sorted(space.parameters):
        if name not in held or tuple(held[name].shape) != space.shapes[name]:
            raise InputError(
                f"the network has no parameter {name!r} of shape {space.shapes[name]}; the search"
                " space belongs to another network"
            )
        if not held[name].isfinite().all():
            raise InputError(
                f"the parameter {name!r} holds NaN or infinite values; give the network weights"
                " from before its training went wrong"
            )
    return {name: held[name] for name in space.parameters}


def joined(slices: Sequence[Slice], tensors: Mapping[str, torch.Tensor]) -> Array:
    """(channels, values) all values of the slices, side by side."""
    return np.concatenate([s.rows(tensors[s.parameter]) for s in slices], axis=1)


@dataclass(frozen=True)
class _Role:
    """The dimension of a parameter that computes channels, if any, and of what kind it is."""

    dimension: int | None = None
    depthwise: bool = False
    norm: bool = False


def _role(network: nn.Module, name: str, parameter: torch.Tensor) -> _Role:
    path, _, own_name = name.rpartition(".")
    module = network.get_submodule(path)
    if isinstance(module, _BatchNorm):
        return _Role(norm=own_name == "weight")
    if parameter.ndim < 2:
        return _Role()
    if isinstance(module, _ConvNd):
        depthwise = module.groups > 1 and parameter.shape[1] == 1
        return _Role(int(isinstance(module, _ConvTransposeNd)), depthwise)
    return _Role(int(isinstance(module, nn.Embedding)))


def _sorted_by_role(slices: Sequence[Slice], roles: Mapping[str, _Role]) -> Slices:
    computing = [s for s in slices if roles[s.parameter].dimension == s.dimension]
    dense = [s for s in computing if not roles[s.parameter].depthwise]
    norms = [s for s in slices if roles[s.parameter].norm]
    return Slices(tuple(dense or computing), tuple(norms), tuple(slices))


def places_of(space: SearchSpace, atoms: Atoms) -> Iterator[tuple[int, Atoms]]:
    """(gene, (channels, entries) places) for every gene that a dimension carries atoms of."""
    owners = space.gene_of_atom[atoms]
    for gene in np.unique(owners[owners >= 0]).tolist():
        places = np.flatnonzero(owners == gene)
        channels = atoms[places] - space.offsets[gene]
        counts = np.bincount(channels, minlength=space.widths[gene])
        order = np.argsort(channels, kind="stable")
        starts = np.repeat(np.cumsum(counts) - counts, counts)
        table = np.full((space.widths[gene], counts.max()), -1, dtype=np.int64)
        table[channels[order], np.arange(len(order)) - starts] = places[order]
        yield gene, table
