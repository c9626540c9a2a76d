"""Contractions: convolutions, matrix products, attention."""

from math import prod

import torch

from prunas.supernet.labels import Nodes
from prunas.supernet.operators.call import Call, Dims, common, pinned_like, rule


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


@rule("aten.addmm", "aten.baddbmm", "aten.addmv")
def _added_matrix_product(call: Call) -> Dims:
    return _added(call, _multiply(call, call.args[1], call.args[2]))


@rule("aten.addbmm")
def _added_sum_of_matrix_products(call: Call) -> Dims:
    return _added(call, _multiply(call, call.args[1], call.args[2])[1:])


def _added(call: Call, dims: Dims) -> Dims:
    bias = call.dims(call.args[0])
    for nodes, more in zip(reversed(dims), reversed(bias), strict=False):
        if len(more) > 1:
            call.tie(nodes, more)
    return dims


def _multiply(call: Call, left: torch.Tensor, right: torch.Tensor) -> Dims:
    a, b = call.dims(left), call.dims(right)
    inner = b[-2] if len(b) > 1 else b[-1]
    call.tie(a[-1], inner)
    if call.trace.lifted(left) and call.trace.lifted(right):
        call.trace.normalises(inner)
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
    return [first, *(pinned_like(call, tensor) for tensor in call.out[1:])]


@rule("aten._trilinear")
def _trilinear(call: Call) -> Dims:
    """Three tensors, stretched to a common rank, are multiplied and summed over some dimensions."""
    stretched = []
    for tensor, gaps in zip(call.args[:3], call.args[3:6], strict=True):
        dims = list(call.dims(tensor))
        for axis in sorted(gaps):
            dims.insert(axis, call.labels.zeros(1))
        stretched.append(tuple(dims))
    together = common(call, stretched)
    summed = set(call.args[6])
    return tuple(nodes for axis, nodes in enumerate(together) if axis not in summed)


@rule("aten._cdist_forward", "aten._euclidean_dist")
def _distances(call: Call) -> Dims:
    """Distances of all pairs of rows: a channel that is zero in both adds nothing."""
    left, right = call.dims(call.args[0]), call.dims(call.args[1])
    call.tie(left[-1], right[-1])
    for one, two in zip(left[:-2], right[:-2], strict=False):
        call.tie(one, two)
    return (*left[:-1], right[-2])
