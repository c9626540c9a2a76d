"""Which integers are lengths of which dimensions: watched, not guessed.

Modules keep sizes as plain integers (groups, heads, split points, normalised shapes). During a
trace each of them is wrapped in an `int` that remembers its owner; a function mode sees where it
arrives as a size and which labels that dimension carries. Sizes that are read from tensors
remember the dimension that they are the length of: where they arrive as the length of another
one, the two must stay equally long. Integers computed from others at run time are plain again,
and follow by themselves.
"""

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FunctionType
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from prunas.supernet.labels import Nodes
from prunas.supernet.lengths import (
    Derived,
    Length,
    Multiple,
    OwnedInt,
    Ratio,
    Rest,
    Scaled,
    Shape,
    Share,
    Told,
)
from prunas.supernet.scoped import Place


@contextmanager
def owned_integers(network: nn.Module, told: Told) -> Iterator[None]:
    """Every integer attribute of every module of `network` is an `OwnedInt` inside the block.

    `told` are told what becomes of them.
    """
    before: list[tuple[dict[str, Any], str, Any]] = []
    for path, module in network.named_modules():
        of_kernels = _OF_KERNELS if isinstance(module, nn.modules.conv._ConvNd) else ()
        for name, value in list(module.__dict__.items()):
            if type(value) not in _WITH_INTEGERS or name in of_kernels:
                continue
            wrapped = _wrapped(value, path, name, told)
            if wrapped is not value:
                before.append((module.__dict__, name, value))
                module.__dict__[name] = wrapped
    try:
        yield
    finally:
        for store, name, value in before:
            store[name] = value


_WITH_INTEGERS: Final = frozenset((int, tuple, list, torch.Size))
_OF_KERNELS: Final = frozenset(
    (
        "kernel_size",
        "stride",
        "padding",
        "output_padding",
        "dilation",
        "_reversed_padding_repeated_twice",
    )
)
"""Attributes of convolutions that are no channels."""


def _wrapped(value: Any, path: str, name: str, told: Told) -> Any:
    if type(value) is int:
        return OwnedInt(value, Place(path, name, None), told) if value > 0 else value
    if not any(type(entry) is int for entry in value):
        return value
    entries = [
        OwnedInt(entry, Place(path, name, position), told) if type(entry) is int else entry
        for position, entry in enumerate(value)
    ]
    return entries if isinstance(value, list) else tuple(entries)


Observe = Callable[[OwnedInt | Scaled, Nodes], None]
DimsOf = Callable[[torch.Tensor], tuple[Nodes, ...]]


class SizeWatch(TorchFunctionMode):
    """Reports every `OwnedInt` that a torch function receives as the length of a dimension.

    Args:
        dims: labels of a tensor.
        observe: called with the integer and the labels of the dimension it is the length of.
        tie: called with labels that a function needs in equal numbers (the parts of `chunk`).
        equally_long: called with the labels of two dimensions that have one length.
        normalises: called with labels whose number enters the result (attention's scale).
        told: who is told what becomes of lengths.
        merge: labels of several dimensions flattened into one.
        split: labels of the dimensions that one falls into, viewed with a shape.
    """

    def __init__(
        self,
        dims: DimsOf,
        observe: Observe,
        tie: Callable[[Nodes, Nodes], None],
        equally_long: Callable[[Nodes, Nodes], None],
        normalises: Callable[[Nodes], None],
        told: Told,
        merge: Callable[[Sequence[Nodes]], Nodes],
        split: Callable[[Nodes, Sequence[int]], list[Nodes]],
    ) -> None:
        super().__init__()
        self.merge = merge
        self.split = split
        self.told = told
        self.equally_long = equally_long
        self.dims = dims
        self.normalises = normalises
        self.observe = observe
        self.tie = tie
        self.counted: dict[str, OwnedInt | Multiple] = {}
        self.ratios: list[tuple[OwnedInt, OwnedInt]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _BODIES:
            with self:
                return _BODIES[func](*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in _NUMERIC:
            self._enter((*args, *kwargs.values()))
        if name in _COUNTED:
            key, position = _COUNTED[name]
            value = kwargs.get(key, args[position] if len(args) > position else None)
            self.counted = {key: value} if isinstance(value, OwnedInt | Multiple) else {}
        out = func(*args, **kwargs)
        if func in _SHAPES and isinstance(args[0], torch.Tensor):
            return self._remembered(args, kwargs, out)
        reader = _READERS.get(name)
        if reader is not None:
            reader(self, args, kwargs, out)
        return out

    def _enter(self, values: Sequence[Any]) -> None:
        for value in values:
            if isinstance(value, Length | OwnedInt | Scaled | Share | Multiple | Derived):
                self.told.enters(value)

    def lengths(self, sizes: Any, tensor: torch.Tensor, offset: int = 0) -> None:
        """`sizes[i]` is the length of dimension i + offset of `tensor`."""
        dims = self.dims(tensor)[offset:]
        for position, (size, nodes) in enumerate(zip(sizes, dims, strict=False)):
            if isinstance(size, Rest):
                continue
            if isinstance(size, Ratio) and not nodes.any():
                self.ratios.append((size.owned, size.divisor))
            elif isinstance(size, OwnedInt | Scaled):
                self.observe(size, nodes)
            elif isinstance(size, Length):
                self.equally_long(size.nodes, nodes)
            elif isinstance(size, Multiple):
                self.observe(size.owned, self.repeated(size, nodes))
            elif isinstance(size, Share) and position:
                self._shared_out(size, sizes[position - 1], dims[position - 1], nodes)

    def bound(self, size: Any, nodes: Nodes) -> None:
        """A part of a dimension ends, or begins, after the first `size` of its labels."""
        if isinstance(size, OwnedInt | Scaled) and not isinstance(size, Rest):
            self.observe(size, nodes[: int(size)])
        elif isinstance(size, Length):
            self.equally_long(size.nodes, nodes[: int(size)])

    def _remembered(self, args: Any, kwargs: dict[str, Any], sizes: Any) -> Any:
        """What `tensor.shape`, `size()` or `size(dim)` gave, each length with its labels."""
        dims = self.dims(args[0])
        if isinstance(sizes, int):
            axis = kwargs.get("dim", args[1] if len(args) > 1 else 0)
            return self.length(dims[axis])
        return Shape(map(self.length, dims))

    def length(self, nodes: Nodes) -> int:
        """How many there are, and of what."""
        return Length(nodes, self.told) if nodes.any() else len(nodes)

    def repeated(self, size: Multiple, nodes: Nodes) -> Nodes:
        """(whole * heads): the labels of the heads."""
        whole, parts = self.split(nodes, (int(size.length), int(size.owned)))
        self.equally_long(size.length.nodes, whole)
        return parts

    def _shared_out(self, size: Share, before: Any, outer: Nodes, nodes: Nodes) -> None:
        """(..., heads, whole // heads): the whole is made of these heads."""
        if isinstance(before, Multiple) and before.owned.place == size.owned.place:
            outer = self.repeated(before, outer)
        elif not isinstance(before, OwnedInt) or before.place != size.owned.place:
            return
        self.equally_long(size.length.nodes, self.merge([outer, nodes]))


def _unasking(function: Any) -> Any:
    """A copy of a Python function of torch that does not ask who wants to handle it.

    The function itself would hand its whole call over, and what it does inside would not be seen.
    """
    asking = [name for name in function.__globals__ if name.startswith("has_torch_function")]
    names = function.__globals__ | dict.fromkeys(asking, lambda *_: False)
    copy = FunctionType(function.__code__, names, function.__name__, function.__defaults__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


_BODIES: Final = {
    F.multi_head_attention_forward: _unasking(F.multi_head_attention_forward),
}
"""Functions in which sizes are at work."""

_SHAPES: Final = (torch.Tensor.shape.__get__, torch.Tensor.size)  # type: ignore[attr-defined]

_NUMERIC: Final = frozenset(
    f"{start}{name}{end}"
    for name in ("add", "div", "floordiv", "mul", "pow", "sub", "truediv", "true_divide", "divide")
    for start, end in (("", ""), ("", "_"), ("__", "__"), ("__r", "__"), ("__i", "__"))
) | {
    "as_tensor",
    "full",
    "full_like",
    "multiply",
    "new_full",
    "rsub",
    "scalar_tensor",
    "subtract",
    "tensor",
}
"""Functions that take numbers which are no sizes."""

_COUNTED: Final = {
    "conv1d": ("groups", 6),
    "conv2d": ("groups", 6),
    "conv3d": ("groups", 6),
    "conv_transpose1d": ("groups", 6),
    "conv_transpose2d": ("groups", 6),
    "conv_transpose3d": ("groups", 6),
    "group_norm": ("num_groups", 1),
}
"""Integers that count groups: the operator's rule knows the labels of the groups."""

Reader = Callable[[SizeWatch, Any, dict[str, Any], Any], None]


def _flat(values: Sequence[Any]) -> list[Any]:
    """view(a, b) and view((a, b)) mean the same."""
    if len(values) == 1 and isinstance(values[0], tuple | list):
        return list(values[0])
    return list(values)


def _read_shape(watch: SizeWatch, args: Any, kwargs: dict[str, Any], out: Any) -> None:
    sizes = _flat(args[1:]) or _flat(list(kwargs.values())[:1])
    watch.lengths(sizes, out, offset=out.dim() - len(sizes))


def _read_factory(watch: SizeWatch, args: Any, kwargs: dict[str, Any], out: Any) -> None:
    first = kwargs.get("size", args[0] if args and isinstance(args[0], tuple | list) else args)
    watch.lengths([size for size in first if isinstance(size, int)], out)


def _read_new(watch: SizeWatch, args: Any, kwargs: dict[str, Any], out: Any) -> None:
    watch.lengths(_flat(args[1:]) or kwargs.get("size", ()), out)


def _read_unflatten(watch: SizeWatch, args: Any, kwargs: dict[str, Any], out: Any) -> None:
    axis = kwargs.get("dim", args[1] if len(args) > 1 else 0)
    sizes = kwargs.get("sizes", args[2] if len(args) > 2 else ())
    watch.lengths(sizes, out, offset=axis % args[0].dim())


def _read_split(watch: SizeWatch, args: Any, kwargs: dict[str, Any], out: Any) -> None:
    sizes = kwargs.get("split_size_or_sections", args[1] if len(args) > 1 else None)
    axis = kwargs.get("dim", args[2] if len(args) > 2 else 0)
    if isinstance(sizes, int):
        watch.lengths([sizes], out[0], offset=axis % out[0].dim())
        _equal_parts(watch, out, axis)
    elif isinstance(sizes, tuple | list):
        for rest in (size for size in sizes if isinstance(size, Rest)):
            watch.lengths([rest.owned], args[0], offset=axis % args[0].dim())
        for size, part in zip(sizes, out, strict=True):
            watch.lengths([size], part, offset=axis % part.dim())


def _read_chunk(watch: SizeWatch, args: Any, kwargs: dict[str, Any], out: Any) -> None:
    _equal_parts(watch, out, kwargs.get("dim", args[2] if len(args) > 2 else 0))


def _equal_parts(watch: SizeWatch, parts: Any, axis: int) -> None:
    first = watch.dims(parts[0])[axis]
    for part in parts[1:]:
        other = watch.dims(part)[axis]
        if len(other) == len(first):
            watch.tie(first, other)


def _read_layer_norm(watch: SizeWatch, args: Any, kwargs: dict[str, Any], out: Any) -> None:
    sizes = kwargs.get("normalized_shape", args[1] if len(args) > 1 else ())
    watch.lengths(sizes, args[0], offset=args[0].dim() - len(sizes))


def _read_item(watch: SizeWatch, args: Any, kwargs: dict[str, Any], out: Any) -> None:
    tensor, index = args[0], args[1] if isinstance(args[1], tuple) else (args[1],)
    axis = 0
    for position, entry in enumerate(index):
        if entry is None:
            continue
        if entry is Ellipsis:
            rest = sum(1 for later in index[position + 1 :] if later is not None)
            axis = tensor.dim() - rest
            continue
        if isinstance(entry, slice):
            for bound in (entry.start, entry.stop):
                watch.bound(bound, watch.dims(tensor)[axis])
        axis += 1


def _read_narrow(watch: SizeWatch, args: Any, kwargs: dict[str, Any], out: Any) -> None:
    axis, start, length = (
        kwargs.get(key, args[place] if len(args) > place else None)
        for key, place in (("dim", 1), ("start", 2), ("length", 3))
    )
    watch.bound(start, watch.dims(args[0])[axis or 0])
    watch.lengths([length], out, offset=(axis or 0) % out.dim())


def _read_attention(watch: SizeWatch, args: Any, kwargs: dict[str, Any], out: Any) -> None:
    if kwargs.get("scale") is None:  # then it is one over the root of the head width
        watch.normalises(watch.dims(args[0] if args else kwargs["query"])[-1])


def _read_lstm(watch: SizeWatch, args: Any, kwargs: dict[str, Any], out: Any) -> None:
    """That the states are projected torch knows from their width: it is not that of the cells."""
    weights = next(argument for argument in args if isinstance(argument, list))
    gates, states = map(watch.length, watch.dims(weights[1]))
    if len(weights[1]) // 4 != weights[1].shape[1] and isinstance(gates, Length):
        watch.told.compared(gates // 4, operator.ne, states, __name__)


_READERS: Final[dict[str, Reader]] = {
    "lstm": _read_lstm,
    "scaled_dot_product_attention": _read_attention,
    "view": _read_shape,
    "reshape": _read_shape,
    "expand": _read_shape,
    "unflatten": _read_unflatten,
    "split": _read_split,
    "split_with_sizes": _read_split,
    "tensor_split": _read_chunk,
    "chunk": _read_chunk,
    "layer_norm": _read_layer_norm,
    "rms_norm": _read_layer_norm,
    "__getitem__": _read_item,
    "narrow": _read_narrow,
    "zeros": _read_factory,
    "ones": _read_factory,
    "empty": _read_factory,
    "full": _read_factory,
    "new_zeros": _read_new,
    "new_ones": _read_new,
    "new_empty": _read_new,
}
