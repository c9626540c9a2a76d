"""One small rule per ATen operator: what it does to the labels of its inputs.

A rule gets the call and returns the labels of the output (a tuple of node arrays, one per
dimension), or a list of such tuples where the operator returns several tensors. What a rule ties or
pins it writes into `call.labels`. An operator without a rule pins everything it touches and is
reported by name: nothing is ever taken for element-wise in silence.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any, Final, Protocol

import numpy as np
import torch

from prunas.supernet.labels import Labels, Nodes

Dims = tuple[Nodes, ...]


class Recorder(Protocol):
    """What a rule may ask of the running trace."""

    labels: Labels

    def dims(self, tensor: torch.Tensor) -> Dims: ...
    def contraction(
        self, tensor: torch.Tensor, operator: str, constant: int, *dims: Nodes
    ) -> None: ...
    def normalises(self, nodes: Nodes) -> None: ...
    def consumes(self, weight: torch.Tensor, nodes: Nodes, depthwise: bool) -> None: ...
    def counts(self, weight: torch.Tensor, what: str, nodes: Nodes) -> None: ...
    def parted(self, pieces: Sequence[Nodes]) -> None: ...


@dataclass(frozen=True)
class Call:
    """One executed operator."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    trace: Recorder

    @property
    def labels(self) -> Labels:
        return self.trace.labels

    def dims(self, tensor: torch.Tensor) -> Dims:
        return self.trace.dims(tensor)

    def get(self, position: int, name: str, default: Any = None) -> Any:
        """An argument, wherever the caller put it."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    def tie(self, first: Nodes, second: Nodes) -> None:
        self.labels.tie(first, second, f"{self.name} joins it with a dimension that cannot change")

    def pin(self, nodes: Nodes, why: str) -> None:
        self.labels.pin(nodes, why)


Rule = Callable[[Call], Any]
RULES: Final[dict[str, Rule]] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for the ATen operators of these names (all their overloads)."""

    def register(function: Rule) -> Rule:
        for name in names:
            if name in RULES:
                raise AssertionError(f"operator {name} has two rules")
            RULES[name] = function
        return function

    return register


# -- element-wise ----------------------------------------------------------------------------------

_POINTWISE: Final = """
abs acos add addcdiv addcmul alias asin atan atan2 bernoulli bitwise_and bitwise_not bitwise_or
bitwise_xor ceil celu clamp clamp_max clamp_min clone contiguous copy copy_ cos cosh detach div
dropout elu eq erf erfc erfinv exp exp2 expm1 fill floor floor_divide fmod frac ge gelu gt
hardshrink hardsigmoid hardswish hardtanh isfinite isinf isnan le leaky_relu lerp lgamma lift_fresh
log log10 log1p log2 log_sigmoid_forward logical_and logical_not logical_or logical_xor logit lt
masked_fill maximum minimum mish mul nan_to_num native_dropout ne neg pow reciprocal relu relu6
remainder round rrelu_with_noise rsqrt rsub selu sgn sigmoid sign silu sin sinh softplus softshrink
special_erfcx special_expit sqrt square sub tan tanh threshold to trunc where xlogy zero
_to_copy _conj special_xlog1py rrelu _prelu_kernel
"""


def _elementwise(call: Call) -> Any:
    tensors = [value for value in (*call.args, *call.kwargs.values()) if _is_tensor(value)]
    first = tensors[0]
    if len(tensors) == 1 and _is_tensor(call.out) and call.out.dim() == first.dim():
        return call.dims(first)
    dims = _broadcast(call, tensors)
    return [dims] * len(call.out) if isinstance(call.out, tuple | list) else dims


for _name in _POINTWISE.split():
    RULES[f"aten.{_name}"] = _elementwise
    RULES.setdefault(f"aten.{_name}_", _elementwise)
ELEMENTWISE: Final = frozenset(RULES)
"""Operators that change every entry by itself."""


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _broadcast(call: Call, tensors: Sequence[torch.Tensor]) -> Dims:
    """Tie equal dimensions of tensors that broadcast together; a size of one ties nothing."""
    rank = max(tensor.dim() for tensor in tensors)
    result: list[Nodes | None] = [None] * rank
    for tensor in tensors:
        dims = call.dims(tensor)
        for position, nodes in enumerate(dims, start=rank - len(dims)):
            known = result[position]
            if known is None or (len(known) == 1 and len(nodes) > 1):
                result[position] = nodes
            elif len(nodes) == len(known):
                call.tie(known, nodes)
                result[position] = known if known.any() else nodes
    return tuple(nodes for nodes in result if nodes is not None)


# -- contractions ----------------------------------------------------------------------------------


@rule("aten.convolution", "aten._convolution", "aten.convolution_overrideable")
def _convolution(call: Call) -> Dims:
    image, weight, bias = call.args[:3]
    transposed, groups = bool(call.args[6]), int(call.args[8])
    x, w = call.dims(image), call.dims(weight)
    for nodes in w[2:]:
        call.pin(nodes, "the extent of a convolution kernel is not a channel")
    for nodes in x[2:]:
        call.pin(nodes, "a convolution slides over it")
    inputs, outputs = (w[0], w[1]) if transposed else (w[1], w[0])
    if groups == 1:
        call.tie(x[1], inputs)
        call.trace.consumes(weight, x[1], False)
    else:
        outputs = _grouped(call, x[1], w, groups, transposed)
    if bias is not None:
        call.tie(outputs, call.dims(bias)[0])
    positions = prod((image if transposed else call.out).shape[2:])
    constant = positions * prod(weight.shape[2:])
    call.trace.contraction(weight, "convolution", constant, x[0], w[0], w[1])
    return (x[0], outputs, *(call.labels.zeros(size) for size in call.out.shape[2:]))


def _grouped(call: Call, x: Nodes, w: Dims, groups: int, transposed: bool) -> Nodes:
    """Groups of the input, the weight and the output go together, as do columns of all groups."""
    weight = call.args[1]
    rows, columns = call.labels.split(x, (groups, len(x) // groups))
    weight_rows, weight_columns = call.labels.split(w[0], (groups, len(w[0]) // groups))
    call.tie(rows, weight_rows)
    call.trace.counts(weight, "groups", weight_rows)
    call.trace.consumes(weight, x, len(w[1]) == 1 and not transposed)
    if not transposed:
        call.tie(columns, w[1])
        return w[0]
    call.tie(columns, weight_columns)
    return call.labels.merge([weight_rows, w[1]])


@rule("aten.mm", "aten.mv", "aten.dot", "aten.vdot", "aten.bmm", "aten.matmul")
def _matrix_product(call: Call) -> Dims:
    return _multiply(call, call.args[0], call.args[1])


@rule("aten.addmm", "aten.baddbmm", "aten.addmv", "aten.addbmm")
def _added_matrix_product(call: Call) -> Dims:
    dims = _multiply(call, call.args[1], call.args[2])
    bias = call.dims(call.args[0])
    for nodes, more in zip(reversed(dims), reversed(bias), strict=False):
        if len(more) > 1:
            call.tie(nodes, more)
    return dims


def _multiply(call: Call, left: torch.Tensor, right: torch.Tensor) -> Dims:
    a, b = call.dims(left), call.dims(right)
    inner = b[-2] if len(b) > 1 else b[-1]
    call.tie(a[-1], inner)
    batch = a[:-2]
    for one, two in zip(batch, b[:-2], strict=False):
        call.tie(one, two)
    outer = [*batch, *a[-2:-1], *(b[-1:] if len(b) > 1 else ())]
    if len(a) > 1 and len(b) > 1:  # torch's counter leaves products with vectors out
        call.trace.contraction(right, "linear" if len(b) == 2 else "bmm", 1, *outer, a[-1])
    call.trace.consumes(right, a[-1], False)
    call.trace.consumes(left, inner, False)
    return tuple(outer)


@rule(
    "aten._scaled_dot_product_flash_attention_for_cpu",
    "aten._scaled_dot_product_flash_attention",
    "aten._scaled_dot_product_efficient_attention",
    "aten._scaled_dot_product_attention_math",
    "aten._scaled_dot_product_fused_attention_overrideable",
    "aten._scaled_dot_product_cudnn_attention",
)
def _attention(call: Call) -> list[Dims]:
    query, key, value = (call.dims(tensor) for tensor in call.args[:3])
    for q, k, v in zip(query[:-2], key[:-2], value[:-2], strict=True):
        call.tie(q, k)
        call.tie(q, v)
    call.tie(query[-1], key[-1])
    call.tie(key[-2], value[-2])
    batch = query[:-1]
    call.trace.contraction(call.args[0], "attention", 1, *batch, key[-2], query[-1])
    call.trace.contraction(call.args[0], "attention", 1, *batch, key[-2], value[-1])
    first = (*batch, value[-1])
    return [first, *(_pinned_like(call, tensor) for tensor in call.out[1:])]


def _pinned_like(call: Call, tensor: Any, before: Dims = ()) -> Dims:
    if not _is_tensor(tensor):
        return ()
    known = dict(enumerate(before))
    sizes = enumerate(tensor.shape)
    return tuple(
        known[i] if i in known and len(known[i]) == size else call.labels.zeros(size)
        for i, size in sizes
    )


# -- normalisation and reduction -------------------------------------------------------------------


@rule(
    "aten.native_batch_norm",
    "aten._native_batch_norm_legit",
    "aten._native_batch_norm_legit_no_training",
    "aten._native_batch_norm_legit_functional",
    "aten.cudnn_batch_norm",
    "aten.batch_norm",
)
def _batch_norm(call: Call) -> list[Dims]:
    dims = call.dims(call.args[0])
    if call.args[5] is True:  # statistics of this very input (standardised weights use it so)
        for nodes in dims[2:]:
            call.trace.normalises(nodes)
    for tensor in call.args[1:5]:
        if _is_tensor(tensor):
            call.tie(dims[1], call.dims(tensor)[0])
    statistics = [
        (dims[1],) if tuple(tensor.shape) == (len(dims[1]),) else _pinned_like(call, tensor)
        for tensor in call.out[1:]
    ]
    return [dims, *statistics]


@rule("aten.native_layer_norm", "aten._fused_rms_norm", "aten.rms_norm")
def _layer_norm(call: Call) -> list[Dims] | Dims:
    dims = call.dims(call.args[0])
    covered = dims[-len(call.args[1]) :]
    for nodes in covered:
        call.trace.normalises(nodes)
    for tensor in call.args[2:4]:
        if _is_tensor(tensor):
            for nodes, more in zip(covered, call.dims(tensor), strict=True):
                call.tie(nodes, more)
    if _is_tensor(call.out):
        return dims
    rows = (*dims[: -len(covered)], *(call.labels.zeros(1) for _ in covered))
    return [dims, *(_pinned_like(call, tensor, rows) for tensor in call.out[1:])]


@rule("aten._weight_norm_interface")
def _weight_norm(call: Call) -> list[Dims]:
    """w = g v / |v|, the norm over all dimensions of v but one; of zeros it is no number."""
    direction, length = (call.dims(tensor) for tensor in call.args[:2])
    axis = call.get(2, "dim", 0) % len(direction)
    call.tie(direction[axis], length[axis])
    for nodes in direction:
        call.trace.normalises(nodes)
    return [direction, length]


@rule("aten.native_group_norm")
def _group_norm(call: Call) -> list[Dims]:
    image, weight, bias = call.args[:3]
    groups = int(call.args[6])
    dims = call.dims(image)
    rows, columns = call.labels.split(dims[1], (groups, len(dims[1]) // groups))
    call.trace.normalises(columns)
    for tensor in (weight, bias):
        if _is_tensor(tensor):
            call.tie(dims[1], call.dims(tensor)[0])
            call.trace.counts(tensor, "num_groups", rows)
    return [dims, (dims[0], rows), (dims[0], rows)]


@rule(
    "aten._softmax", "aten._log_softmax", "aten._safe_softmax", "aten.softmax", "aten.log_softmax"
)
def _softmax(call: Call) -> Dims:
    dims = call.dims(call.args[0])
    call.trace.normalises(dims[call.args[1]])
    return dims


_REDUCTIONS: Final = """
mean sum amax amin max min var std var_mean std_mean prod norm linalg_vector_norm logsumexp any all
argmax argmin median aminmax
"""
_LINEAR_REDUCTIONS: Final = ("aten.sum",)


def _reduction(call: Call) -> Any:
    """Order does not matter to a reduction, so channels may go; only a sum ignores zeroed ones."""
    tensor = call.args[0]
    dims = call.dims(tensor)
    first = call.out[0] if isinstance(call.out, tuple | list) else call.out
    axes = _reduced_axes(call, tensor, first)
    if call.name not in _LINEAR_REDUCTIONS:
        for axis in axes:
            call.trace.normalises(dims[axis])
    if call.name in ("aten.argmax", "aten.argmin", "aten.max", "aten.min") and len(axes) == 1:
        call.pin(dims[axes[0]], f"{call.name} returns a position in it")
    keep = first.dim() == tensor.dim()
    kept = [
        (call.labels.zeros(1) if axis in axes else nodes)
        for axis, nodes in enumerate(dims)
        if keep or axis not in axes
    ]
    return [tuple(kept)] * len(call.out) if isinstance(call.out, tuple | list) else tuple(kept)


def _reduced_axes(call: Call, tensor: torch.Tensor, out: torch.Tensor) -> list[int]:
    rank = tensor.dim()
    if out.dim() == 0:
        return list(range(rank))
    position = 2 if "norm" in call.name else 1
    given = call.get(position, "dim")
    if given is None:
        return [axis for axis in range(rank) if out.dim() == rank and out.shape[axis] == 1]
    axes = [given] if isinstance(given, int) else list(given)
    return [axis % rank for axis in (axes or range(rank))]


for _name in _REDUCTIONS.split():
    RULES[f"aten.{_name}"] = _reduction


# -- shape -----------------------------------------------------------------------------------------


@rule("aten.view", "aten._unsafe_view", "aten.reshape", "aten._reshape_alias", "aten.flatten")
def _view(call: Call) -> Dims:
    return viewed(call.labels, call.dims(call.args[0]), tuple(call.out.shape))


def viewed(labels: Labels, dims: Dims, shape: tuple[int, ...]) -> Dims:
    """Labels after a row-major reshape: neighbouring dimensions merge, or fall apart."""
    old = [len(nodes) for nodes in dims]
    result: list[Nodes] = []
    start = position = 0
    while position < len(shape) or start < len(old):
        stop, end = _next_block(old, shape, start, position)
        result.extend(_reshaped(labels, dims[start:stop], shape[position:end]))
        start, position = stop, end
    return tuple(result)


def _reshaped(labels: Labels, dims: Dims, shape: Sequence[int]) -> list[Nodes]:
    """Split into the finest dimensions that both shapes are made of, then merge those."""
    if not shape:
        return []
    old = [len(nodes) for nodes in dims]
    pieces = _common_pieces(old, shape)
    if pieces is None:  # such as (4, 6) -> (6, 4): no common pieces, each entry on its own
        return labels.split(labels.merge(dims), shape)
    parts = [
        part
        for nodes, sizes in zip(dims, _dealt(old, pieces), strict=True)
        for part in (labels.split(nodes, sizes) if sizes else ())
    ]
    result, used = [], 0
    for size, sizes in zip(shape, _dealt(shape, pieces), strict=True):
        run = parts[used : used + len(sizes)]
        result.append(labels.merge(run) if run else labels.zeros(size))
        used += len(sizes)
    return result


def _common_pieces(old: Sequence[int], new: Sequence[int]) -> list[int] | None:
    """Sizes > 1 of which both shapes are products of consecutive ones; None if there are none."""
    ends = sorted({int(e) for shape in (old, new) for e in np.cumprod([1, *shape])})
    pieces = [after // before for before, after in pairwise(ends)]
    exact = all(
        before * piece == after
        for before, piece, after in zip(ends, pieces, ends[1:], strict=False)
    )
    return pieces if exact else None


def _dealt(shape: Sequence[int], pieces: Sequence[int]) -> list[list[int]]:
    """The consecutive pieces that each dimension is the product of."""
    rest, result = iter(pieces), []
    for size in shape:
        taken: list[int] = []
        while prod(taken) < size:
            taken.append(next(rest))
        result.append(taken)
    return result


def _next_block(
    old: Sequence[int], new: Sequence[int], start: int, position: int
) -> tuple[int, int]:
    """Ends of the smallest runs of old and new dimensions that hold the same number of entries."""
    stop, end = start, position
    left = right = 1
    if stop < len(old):
        left, stop = old[stop], stop + 1
    if end < len(new):
        right, end = new[end], end + 1
    while left != right:
        if left < right and stop < len(old):
            left, stop = left * old[stop], stop + 1
        elif end < len(new):
            right, end = right * new[end], end + 1
        else:
            break
    while stop < len(old) and old[stop] == 1 and (end >= len(new) or new[end] != 1):
        stop += 1
    while end < len(new) and new[end] == 1 and (stop >= len(old) or old[stop] != 1):
        end += 1
    return stop, end


@rule(
    *("aten.permute", "aten.transpose", "aten.t", "aten.movedim", "aten.numpy_T", "aten.swapaxes"),
    *("aten.transpose_", "aten.t_", "aten.swapaxes_"),
)
def _permute(call: Call) -> Dims:
    dims = call.dims(call.args[0])
    if call.name in ("aten.t", "aten.t_"):
        return dims[::-1]
    if call.name == "aten.permute":
        return tuple(dims[axis] for axis in call.args[1])
    order = list(range(len(dims)))
    first, second = call.args[1], call.args[2]
    order[first], order[second] = order[second], order[first]
    return tuple(dims[axis] for axis in order)


@rule("aten.unsqueeze")
def _unsqueeze(call: Call) -> Dims:
    dims = list(call.dims(call.args[0]))
    axis = call.args[1]
    dims.insert(axis if axis >= 0 else axis + len(dims) + 1, call.labels.zeros(1))
    return tuple(dims)


@rule("aten.squeeze")
def _squeeze(call: Call) -> Dims:
    dims = call.dims(call.args[0])
    given = call.get(1, "dim")
    axes = range(len(dims)) if given is None else [given] if isinstance(given, int) else given
    gone = {axis % len(dims) for axis in axes if len(dims[axis]) == 1}
    return tuple(nodes for axis, nodes in enumerate(dims) if axis not in gone)


@rule("aten.expand")
def _expand(call: Call) -> Dims:
    return _stretched(call, call.dims(call.args[0]), call.out.shape)


def _stretched(call: Call, dims: Dims, shape: Sequence[int]) -> Dims:
    """Size-one dimensions repeated to a new length get labels of their own, to be tied later."""
    padded = (call.labels.zeros(1),) * (len(shape) - len(dims)) + dims
    return tuple(
        nodes if len(nodes) == size else call.labels.fresh(size)
        for nodes, size in zip(padded, shape, strict=True)
    )


@rule("aten.repeat")
def _repeat(call: Call) -> Dims:
    dims = call.dims(call.args[0])
    times = call.args[1]
    padded = (call.labels.zeros(1),) * (len(times) - len(dims)) + dims
    return tuple(
        nodes if count == 1 else call.labels.merge([call.labels.fresh(count), nodes])
        for nodes, count in zip(padded, times, strict=True)
    )


@rule("aten.cat", "aten.concat")
def _cat(call: Call) -> Dims:
    tensors = [tensor for tensor in call.args[0] if tensor.dim() > 1 or tensor.numel() > 0]
    axis = call.get(1, "dim", 0) % call.out.dim()
    dims = [call.dims(tensor) for tensor in tensors]
    result = []
    for position in range(call.out.dim()):
        if position == axis:
            result.append(np.concatenate([d[position] for d in dims]))
            continue
        result.append(_tied(call, [d[position] for d in dims]))
    return tuple(result)


@rule("aten.stack")
def _stack(call: Call) -> Dims:
    dims = [call.dims(tensor) for tensor in call.args[0]]
    result = [_tied(call, [d[position] for d in dims]) for position in range(len(dims[0]))]
    axis = call.get(1, "dim", 0) % call.out.dim()
    # stacked tensors are addressed by number afterwards, so none of them can go
    result.insert(axis, call.labels.zeros(len(dims)))
    return tuple(result)


def _tied(call: Call, nodes: Sequence[Nodes]) -> Nodes:
    for other in nodes[1:]:
        call.tie(nodes[0], other)
    return next((array for array in nodes if array.any()), nodes[0])


@rule(
    *("aten.split", "aten.split_with_sizes", "aten.unsafe_split", "aten.unsafe_split_with_sizes"),
    *("aten.chunk", "aten.unsafe_chunk", "aten.tensor_split"),
)
def _split(call: Call) -> list[Dims]:
    dims = call.dims(call.args[0])
    axis = call.get(2, "dim", 0) % len(dims)
    ends = np.cumsum([part.shape[axis] for part in call.out])[:-1]
    pieces = np.split(dims[axis], ends)
    call.trace.parted(pieces)
    return [(*dims[:axis], piece, *dims[axis + 1 :]) for piece in pieces]


@rule("aten.slice", "aten.narrow")
def _slice(call: Call) -> Dims:
    dims = call.dims(call.args[0])
    axis = call.get(1, "dim", 0) % len(dims)
    start = call.get(2, "start", 0) or 0
    step = call.get(4, "step", 1) if call.name == "aten.slice" else 1
    length, nodes = call.out.shape[axis], dims[axis]
    start = min(max(start + len(nodes) if start < 0 else start, 0), len(nodes))
    piece = nodes if length == len(nodes) else nodes[start : start + length * step : step]
    if step != 1:
        call.pin(nodes, "it is read with a stride")
        piece = call.labels.zeros(length)
    if length < len(nodes):
        call.trace.parted([piece])
    return (*dims[:axis], piece, *dims[axis + 1 :])


@rule("aten.unfold")
def _unfold(call: Call) -> Dims:
    """Windows over one dimension: their number takes its place, their entries come last."""
    dims = call.dims(call.args[0])
    axis = call.get(1, "dimension", 0) % len(dims)
    call.pin(dims[axis], "windows slide over it")
    windows, entries = (call.labels.zeros(call.out.shape[place]) for place in (axis, -1))
    return (*dims[:axis], windows, *dims[axis + 1 :], entries)


@rule("aten.select", "aten.unbind")
def _select(call: Call) -> Any:
    dims = call.dims(call.args[0])
    axis = call.get(1, "dim", 0) % len(dims)
    call.pin(dims[axis], "its entries are addressed by number")
    rest = (*dims[:axis], *dims[axis + 1 :])
    return [rest] * len(call.out) if isinstance(call.out, tuple | list) else rest


@rule("aten.flip")
def _flip(call: Call) -> Dims:
    dims = call.dims(call.args[0])
    axes = {axis % len(dims) for axis in call.args[1]}
    return tuple(nodes[::-1].copy() if a in axes else nodes for a, nodes in enumerate(dims))


@rule("aten.roll")
def _roll(call: Call) -> Dims:
    dims = call.dims(call.args[0])
    axes = call.get(2, "dims", []) or range(len(dims))
    for axis in axes:
        call.pin(dims[axis], "its entries are shifted in a circle")
    return dims


@rule("aten.as_strided_")
def _restride(call: Call) -> Any:
    dims = call.dims(call.args[0])
    same = tuple(call.args[1]) == tuple(len(nodes) for nodes in dims)
    return dims if same else pinned(call)


@rule("aten.constant_pad_nd", "aten.pad")
def _pad(call: Call) -> Dims:
    """Padding is zeros that nobody computes: like a new tensor, it has labels of its own."""
    dims = list(call.dims(call.args[0]))
    amounts = list(call.args[1])
    for index in range(len(amounts) // 2):
        axis = len(dims) - 1 - index
        before, after = amounts[2 * index], amounts[2 * index + 1]
        if (before, after) == (0, 0):
            continue
        if not dims[axis].any() or min(before, after) < 0:
            call.pin(dims[axis], "it is cropped or padded by fixed amounts")
            dims[axis] = call.labels.zeros(call.out.shape[axis])
            continue
        dims[axis] = np.concatenate([_blank(call, before), dims[axis], _blank(call, after)])
    return tuple(dims)


def _blank(call: Call, size: int) -> Nodes:
    return call.labels.fresh(size) if size > 1 else call.labels.zeros(size)


@rule("aten.pixel_shuffle")
def _pixel_shuffle(call: Call) -> Dims:
    *rest, channels, height, width = call.dims(call.args[0])
    square = int(call.args[1]) ** 2
    rows, columns = call.labels.split(channels, (len(channels) // square, square))
    call.pin(columns, "its entries become the pixels of one block")
    spatial = (call.labels.zeros(size) for size in call.out.shape[-2:])
    call.pin(height, "it is a position")
    call.pin(width, "it is a position")
    return (*rest, rows, *spatial)


@rule("aten.pixel_unshuffle")
def _pixel_unshuffle(call: Call) -> Dims:
    *rest, channels, _, _ = call.dims(call.args[0])
    spatial = (call.labels.zeros(size) for size in call.out.shape[-2:])
    return (*rest, np.repeat(channels, int(call.args[1]) ** 2), *spatial)


@rule("aten.channel_shuffle", "aten.native_channel_shuffle")
def _channel_shuffle(call: Call) -> Dims:
    batch, channels, *spatial = call.dims(call.args[0])
    groups = int(call.args[1])
    rows, columns = call.labels.split(channels, (groups, len(channels) // groups))
    return (batch, call.labels.merge([columns, rows]), *spatial)


@rule("aten.glu")
def _glu(call: Call) -> Dims:
    dims = call.dims(call.args[0])
    axis = call.get(1, "dim", -1) % len(dims)
    value, gate = np.split(dims[axis], 2)
    call.tie(value, gate)
    return (*dims[:axis], value, *dims[axis + 1 :])


# -- images ----------------------------------------------------------------------------------------

_SPATIAL: Final = {
    1: "avg_pool1d _adaptive_avg_pool1d upsample_nearest1d upsample_linear1d reflection_pad1d "
    "replication_pad1d _upsample_nearest_exact1d",
    2: "avg_pool2d _adaptive_avg_pool2d max_pool2d_with_indices max_pool2d adaptive_max_pool2d "
    "upsample_nearest2d upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa "
    "_upsample_bicubic2d_aa _upsample_nearest_exact2d reflection_pad2d replication_pad2d "
    "adaptive_avg_pool2d fractional_max_pool2d",
    3: "avg_pool3d _adaptive_avg_pool3d max_pool3d_with_indices adaptive_max_pool3d "
    "upsample_nearest3d upsample_trilinear3d replication_pad3d reflection_pad3d",
}


def _spatial(positions: int) -> Rule:
    """Resampling over the last dimensions: channels pass, positions are pinned."""

    def resample(call: Call) -> Any:
        dims = call.dims(call.args[0])
        for nodes in dims[-positions:]:
            call.pin(nodes, f"{call.name} resamples it")
        first = call.out[0] if isinstance(call.out, tuple | list) else call.out
        spatial = tuple(call.labels.zeros(size) for size in first.shape[-positions:])
        result = (*dims[:-positions], *spatial)
        return [result] * len(call.out) if isinstance(call.out, tuple | list) else result

    return resample


for _positions, _names in _SPATIAL.items():
    for _name in _names.split():
        RULES[f"aten.{_name}"] = _spatial(_positions)


# -- look-ups and new tensors ----------------------------------------------------------------------


@rule("aten.embedding")
def _embedding(call: Call) -> Dims:
    rows, columns = call.dims(call.args[0])
    call.pin(rows, "its rows are looked up by number")
    return (*call.dims(call.args[1]), columns)


@rule("aten.index", "aten.index_select")
def _index(call: Call) -> Any:
    dims = call.dims(call.args[0])
    if call.name == "aten.index_select":
        axis = call.args[1] % len(dims)
        call.pin(dims[axis], "its entries are looked up by number")
        index = call.dims(call.args[2])
        return (*dims[:axis], *(index or (call.labels.zeros(1),)), *dims[axis + 1 :])
    used = [axis for axis, index in enumerate(call.args[1]) if index is not None]
    for axis in used:
        call.pin(dims[axis], "its entries are looked up by number")
    indices = [call.args[1][axis] for axis in used]
    if any(index.dtype is torch.bool for index in indices):
        return pinned(call)
    start = used[0] if used[-1] - used[0] + 1 == len(used) else 0
    rest = [nodes for axis, nodes in enumerate(dims) if axis not in used]
    # what was looked up stays or goes with the places that it was looked up at
    return (*rest[:start], *_broadcast(call, indices), *rest[start:])


_FACTORIES: Final = """
zeros ones empty full new_zeros new_ones new_empty new_full empty_strided new_empty_strided
"""
_FACTORIES_LIKE: Final = "zeros_like ones_like empty_like full_like rand_like randn_like"
_VALUES: Final = "arange linspace eye scalar_tensor randperm"


def _factory(call: Call) -> Dims:
    """A constant tensor has labels of its own: what it is combined with decides."""
    return tuple(call.labels.fresh(size) for size in call.out.shape)


def _values(call: Call) -> Dims:
    """Every entry of these differs, so none of them can go."""
    return tuple(call.labels.zeros(size) for size in call.out.shape)


for _name in _FACTORIES.split():
    RULES[f"aten.{_name}"] = _factory
for _name in _FACTORIES_LIKE.split():
    RULES[f"aten.{_name}"] = _elementwise
for _name in _VALUES.split():
    RULES[f"aten.{_name}"] = _values


def pinned(call: Call) -> Any:
    """The way out: everything the operator touches stays as it is.

    Dimensions that keep place and length keep their (now pinned) labels too: the images of a batch
    must still be told apart for the costs of one image.
    """
    touched = _tensors(call.args) + _tensors(tuple(call.kwargs.values()))
    for tensor in touched:
        for nodes in call.dims(tensor):
            call.pin(nodes, f"operator {call.name} has no rule")
    before = call.dims(touched[0]) if touched else ()
    if isinstance(call.out, tuple | list):
        return [_pinned_like(call, tensor, before) for tensor in call.out]
    return _pinned_like(call, call.out, before)


def _tensors(values: Sequence[Any]) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for value in values:
        if _is_tensor(value):
            found.append(value)
        elif isinstance(value, tuple | list):
            found.extend(_tensors(value))
    return found
