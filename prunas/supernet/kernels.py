"""Genes of kernels: depthwise convolutions that look at fewer neighbours.

A smaller kernel is the middle of the full one. So its rows, and its columns, are atoms like
channels: the middle one comes first, the outer ones go first, and what is cut is a slice.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from prunas.supernet.imagined import Imagining, name_of
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

_LEAST: Final = 3  # one row of a depthwise kernel mixes nothing


@dataclass(frozen=True)
class _Seen:
    """A depthwise convolution as it ran once.

    Attributes:
        shape: of what it returned.
        margins: along each side of the image, how far before its first pixel the kernel begins.
        side: of the kernel.
        dilation: from each of its rows to the next, along each side.
    """

    shape: tuple[int, ...]
    margins: tuple[int, ...]
    side: int
    dilation: tuple[int, ...]

    @property
    def middle(self) -> tuple[int, ...]:
        """Where the middle of the kernel is first put, along each side."""
        reach = (d * (self.side - 1) // 2 for d in self.dilation)
        return tuple(r - m for r, m in zip(reach, self.margins, strict=True))


def with_kernels(
    space: SearchSpace, bare: nn.Module, inputs: Any, fixed: Collection[str]
) -> SearchSpace:
    """`space` with a gene for each depthwise kernel of side 5 or more: 3, 5, ... to the full side.

    The smaller kernel keeps the middle of the weight, and the padding follows, so that the output
    has the size it had and each entry of it looks at the middle of what it looked at (Cai et al.,
    "Once for all", ICLR 2020, section 3.3; its learnt transform of the middle is
    `KernelTransform`). Where the padding does not follow so, the kernel stays.

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
    """The layers that look elsewhere, or return another size, or none, with a smaller kernel."""
    if not layers:
        return {}
    trial = _Trial(space, bare, inputs, _seen(bare, layers, inputs))
    if trial.failure(layers) is None:
        return {}
    found = {path: trial.failure({path: layer}) for path, layer in layers.items()}
    return {path: why for path, why in found.items() if why is not None}


@dataclass(frozen=True)
class _Trial:
    """Runs the skeleton with smaller kernels.

    Attributes:
        expected: every layer's runs with its full kernel.
    """

    space: SearchSpace
    bare: nn.Module
    inputs: Any
    expected: Mapping[str, list[_Seen]]

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
                found = _seen(self.bare, layers, self.inputs)
            except FORWARD_ERRORS as error:
                first = (str(error).strip() or type(error).__name__).splitlines()[0]
                return f"the network does not run with a smaller kernel here: {first}"
        differences = (_difference(self.expected[path], found[path]) for path in layers)
        return next((why for why in differences if why is not None), None)


def _difference(expected: list[_Seen], found: list[_Seen]) -> str | None:
    """What a smaller kernel does that the middle of the full one would not."""
    if not expected:
        return "its weight is used by other code than a convolution"
    before, after = ([run.shape for run in runs] for runs in (expected, found))
    if before != after:
        return f"a smaller kernel returns shapes {after}, not {before}"
    for one, two in zip(expected, found, strict=True):
        if one.middle != two.middle:
            return (
                f"a smaller kernel looks at other pixels: its middle is first put at {two.middle},"
                f" not at {one.middle}, since the padding does not follow on both sides alike"
            )
    return None


def _smaller(layer: _ConvNd, side: int) -> torch.Tensor:
    shape = layer.weight.shape[:2] + (side,) * len(layer.kernel_size)
    return torch.empty(shape, dtype=layer.weight.dtype, device=META)


def _side(layer: _ConvNd) -> int:
    return int(layer.kernel_size[0])


class _Watching(Imagining):
    """Notes every convolution with one of some layers' weights, or inside one of them.

    What an operator padded just before counts as the convolution's own padding.
    """

    def __init__(self, layers: Mapping[str, _ConvNd]) -> None:
        super().__init__()
        self.layers = layers
        self.running: str | None = None
        self.seen: dict[str, list[_Seen]] = {path: [] for path in layers}
        self._of_weight = {id(layer.weight): path for path, layer in layers.items()}
        self._padded: dict[int, tuple[torch.Tensor, Sequence[int]]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = super().__torch_dispatch__(func, types, args, kwargs)
        name = name_of(func)
        if name in _PADDING:
            self._padded[id(out)] = out, args[1]  # an id means nothing after its tensor is gone
        elif name == "aten.convolution":
            path = self.running or self._of_weight.get(id(args[1]))
            if path is not None:
                self.seen[path].append(self._run(self.layers[path], args, tuple(out.shape)))
        return out

    def _run(self, layer: _ConvNd, args: Any, shape: tuple[int, ...]) -> _Seen:
        image, weight, _, _, padding, dilation = args[:6]
        axes = weight.dim() - 2
        outside = self._outside(layer, image)[::2][::-1]  # pairs, those of the last side first
        outside = [0] * (axes - len(outside)) + list(outside)[-axes:]
        margins = tuple(int(p) + int(o) for p, o in zip(padding, outside, strict=True))
        return _Seen(shape, margins, weight.shape[-1], tuple(map(int, dilation)))

    def _outside(self, layer: _ConvNd, image: torch.Tensor) -> Sequence[int]:
        if layer.padding_mode == "circular":  # made by copying, not by an operator for it
            return layer._reversed_padding_repeated_twice
        return self._padded[id(image)][1] if id(image) in self._padded else ()


_PADDING: Final = frozenset(
    (
        "aten.constant_pad_nd",
        *(f"aten.{kind}_pad{n}d" for kind in ("reflection", "replication") for n in (1, 2, 3)),
    )
)


def _seen(bare: nn.Module, layers: Mapping[str, _ConvNd], inputs: Any) -> Mapping[str, list[_Seen]]:
    """How each of these layers runs in one run of the network, by path."""
    watching = _Watching(layers)

    def begins(path: str) -> None:
        watching.running = path

    def ends() -> None:
        watching.running = None

    handles = [
        handle
        for path, layer in layers.items()
        for handle in (
            layer.register_forward_pre_hook(lambda *_, path=path: begins(path)),
            layer.register_forward_hook(lambda *_: ends()),
        )
    ]
    try:
        with torch.no_grad(), watching:
            called(bare, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return watching.seen


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
