"""Genes of kernels: depthwise convolutions that look at fewer neighbours.

A smaller kernel is the middle of the full one. So its rows, and its columns, are atoms like
channels: the middle one comes first, the outer ones go first, and what is cut is a slice.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from prunas.supernet.imagined import Imagining
from prunas.supernet.scoped import sizes_of, swapped
from prunas.supernet.skeleton import FORWARD_ERRORS, META, called
from prunas.supernet.space import (
    Atoms,
    Attribute,
    Contraction,
    Gene,
    Pinned,
    SearchSpace,
    Size,
)
from prunas.supernet.tensors import modules_of

Shapes = list[tuple[int, ...]]
"""Of what a layer returned, call by call."""

_LEAST: Final = 3  # one row of a depthwise kernel mixes nothing


def with_kernels(
    space: SearchSpace, bare: nn.Module, inputs: Any, fixed: Collection[str]
) -> SearchSpace:
    """`space` with a gene for each depthwise kernel of side 5 or more: 3, 5, ... to the full side.

    The smaller kernel keeps the middle of the weight, and the padding follows, so that the output
    has the size it had (Cai et al., "Once for all", ICLR 2020, section 3.3; its learnt transform of
    the middle is `KernelTransform`).

    Args:
        space: the other genes; those of kernels come after them.
        bare: the network on the meta device, in eval mode; left as found.
        inputs: meta tensors that it takes.
        fixed: names of tensors that the user wants left alone.
    """
    layers = dict(_large_kernels(bare, space))
    found = {path: _obstacle(path, layer, space, fixed) for path, layer in layers.items()}
    pinned = {path: why for path, why in found.items() if why is not None}
    offered = {path: layer for path, layer in layers.items() if path not in pinned}
    pinned |= _stuck(space, offered, bare, inputs)
    offered = {path: layer for path, layer in offered.items() if path not in pinned}
    reasons = tuple(Pinned(f"{path}[kernel]", why) for path, why in pinned.items())
    return replace(_extended(space, offered), pinned=(*space.pinned, *reasons))


def kernels_of(space: SearchSpace) -> dict[int, str]:
    """{gene of a kernel: name of the weight that it decides}."""
    owner = space.gene_of_atom
    return {
        gene: name
        for name, dimensions in space.slots.items()
        for dimension, factors in dimensions.items()
        if dimension > 1
        for gene in np.unique(owner[factors[0]]).tolist()
        if gene >= 0 and space.genes[gene].kind == "kernel"
    }


@contextmanager
def shrunk(bare: nn.Module, space: SearchSpace, sides: Mapping[int, int]) -> Iterator[nn.Module]:
    """Inside the `with`, the skeleton has kernels of these sides: {gene: side}."""
    values = [sides.get(gene, value) for gene, value in enumerate(space.full())]
    tensors = {}
    for gene, side in sides.items():
        name = kernels_of(space)[gene]
        layer = bare.get_submodule(name.rpartition(".")[0])
        assert isinstance(layer, _ConvNd), "genes of kernels are of convolutions"
        tensors[name] = _smaller(layer, side)
    with swapped(bare, tensors, sizes_of(space, space.kept(values))):
        yield bare


def _large_kernels(bare: nn.Module, space: SearchSpace) -> Iterator[tuple[str, _ConvNd]]:
    used = {contraction.module for contraction in space.contractions}
    for path, module in modules_of(bare):
        if not isinstance(module, _ConvNd) or path not in used or module.transposed:
            continue
        sides = set(module.kernel_size)
        depthwise = module.groups > 1 and module.weight.shape[1] == 1
        if depthwise and len(sides) == 1 and (side := sides.pop()) > _LEAST and side % 2:
            yield path, module


def _obstacle(path: str, layer: _ConvNd, space: SearchSpace, fixed: Collection[str]) -> str | None:
    if f"{path}.weight" in fixed:
        return "the layer was asked to be left alone"
    if "weight" not in layer._parameters:
        return "its weight is computed from other tensors"
    if f"{path}.weight" in space.aliases.values():
        return "other layers share its weight"
    return None


def _stuck(
    space: SearchSpace, layers: Mapping[str, _ConvNd], bare: nn.Module, inputs: Any
) -> Mapping[str, str]:
    """The layers whose output has another size, or the network none, with a smaller kernel."""
    if not layers:
        return {}
    trial = _Trial(space, bare, inputs, _output_shapes(bare, layers, inputs))
    if trial.failure(layers) is None:
        return {}
    found = {path: trial.failure({path: layer}) for path, layer in layers.items()}
    return {path: why for path, why in found.items() if why is not None}


@dataclass(frozen=True)
class _Trial:
    """Runs the skeleton with smaller kernels.

    Attributes:
        expected: what every layer returns with its full kernel.
    """

    space: SearchSpace
    bare: nn.Module
    inputs: Any
    expected: Mapping[str, Shapes]

    def failure(self, layers: Mapping[str, _ConvNd]) -> str | None:
        """What goes wrong where these layers, all at once, are smaller; at every side."""
        sides = range(_LEAST, max(map(_side, layers.values())), 2)
        return next((why for side in sides if (why := self._failure(layers, side))), None)

    def _failure(self, layers: Mapping[str, _ConvNd], side: int) -> str | None:
        extended = _extended(self.space, layers)
        sides = [min(side, _side(layer)) for layer in layers.values()]
        integers = sizes_of(extended, extended.kept([*self.space.full(), *sides]))
        pairs = zip(layers.items(), sides, strict=True)
        tensors = {f"{path}.weight": _smaller(layer, chosen) for (path, layer), chosen in pairs}
        with swapped(self.bare, tensors, integers):
            try:
                found = _output_shapes(self.bare, layers, self.inputs)
            except FORWARD_ERRORS as error:
                first = (str(error).strip() or type(error).__name__).splitlines()[0]
                return f"the network does not run with a smaller kernel here: {first}"
        for path in layers:
            if found[path] != self.expected[path]:
                return f"a smaller kernel returns shapes {found[path]}, not {self.expected[path]}"
        return None


def _smaller(layer: _ConvNd, side: int) -> torch.Tensor:
    shape = layer.weight.shape[:2] + (side,) * len(layer.kernel_size)
    return torch.empty(shape, dtype=layer.weight.dtype, device=META)


def _side(layer: _ConvNd) -> int:
    return int(layer.kernel_size[0])


def _output_shapes(bare: nn.Module, layers: Collection[str], inputs: Any) -> Mapping[str, Shapes]:
    """What each of these layers returns in one run, by path."""
    seen: dict[str, Shapes] = {path: [] for path in layers}
    handles = [
        bare.get_submodule(path).register_forward_hook(
            lambda _, args, out, path=path: seen[path].append(tuple(out.shape))
        )
        for path in layers
    ]
    try:
        with torch.no_grad(), Imagining():
            called(bare, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _extended(space: SearchSpace, layers: Mapping[str, _ConvNd]) -> SearchSpace:
    first_gene, first_atom = len(space.genes), 1 + sum(space.widths)
    sides = {path: _side(layer) for path, layer in layers.items()}
    gene_of = {path: first_gene + index for index, path in enumerate(sides)}
    slots = {name: dict(dimensions) for name, dimensions in space.slots.items()}
    attributes = list(space.attributes)
    for path, side in sides.items():
        factors = (first_atom + _from_the_middle(side),)
        first_atom += side
        dimensions = slots.setdefault(f"{path}.weight", {})
        dimensions.update(dict.fromkeys(range(2, layers[path].weight.dim()), factors))
        attributes += _sizes(path, layers[path], factors)
    return replace(
        space,
        genes=(*space.genes, *(_gene(path, side) for path, side in sides.items())),
        widths=(*space.widths, *sides.values()),
        slots=slots,
        attributes=tuple(attributes),
        contractions=tuple(
            _priced(row, sides[row.module], gene_of[row.module], layers[row.module])
            if row.module in sides
            else row
            for row in space.contractions
        ),
    )


def _gene(path: str, side: int) -> Gene:
    return Gene(f"{path}[kernel]", "kernel", tuple(range(_LEAST, side + 1, 2)))


def _from_the_middle(side: int) -> Atoms:
    """(side,) rank of each row, the middle first: 3 1 0 2 4 for five of them."""
    offset = np.arange(side) - side // 2
    return np.where(offset < 0, -2 * offset - 1, 2 * offset)


def _sizes(path: str, layer: _ConvNd, factors: tuple[Atoms, ...]) -> Iterator[Attribute]:
    """The integers of a layer that follow its kernel; padding of d (k - 1) / 2 does in proportion.

    d (K - 1) / 2 * k / K, rounded down, is d (k - 1) / 2 for the odd k up to K while d is 1 or 2;
    what other dilations and paddings do, the trial tells.
    """
    for name in ("kernel_size", "padding", "_reversed_padding_repeated_twice"):
        value = getattr(layer, name)
        if isinstance(value, str):
            continue
        for position, full in enumerate(value):
            if full:
                yield Attribute(path, name, position, int(full), factors)


def _priced(row: Contraction, side: int, gene: int, layer: _ConvNd) -> Contraction:
    axes = len(layer.kernel_size)
    length: Size = ((1, (gene,)),)
    return replace(row, constant=row.constant // side**axes, sizes=(*row.sizes, *[length] * axes))
