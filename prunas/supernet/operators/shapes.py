"""What moves entries: views, transpositions, concatenation, parts, padding."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import prod
from operator import mul
from typing import Any

import numpy as np

from prunas.supernet.labels import Labels, Nodes
from prunas.supernet.operators.call import Call, Dims, pinned, rule, tied


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
    if not shape or len(dims) == len(shape) == 1:
        return list(dims)[: len(shape)]
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
    ends = sorted({end for shape in (old, new) for end in accumulate((1, *shape), mul)})
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
        result.append(tied(call, [d[position] for d in dims]))
    return tuple(result)


@rule("aten.stack")
def _stack(call: Call) -> Dims:
    dims = [call.dims(tensor) for tensor in call.args[0]]
    result = [tied(call, [d[position] for d in dims]) for position in range(len(dims[0]))]
    axis = call.get(1, "dim", 0) % call.out.dim()
    # stacked tensors are addressed by number afterwards, so none of them can go
    result.insert(axis, call.labels.zeros(len(dims)))
    return tuple(result)


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
