"""Normalisations and reductions."""

from typing import Any, Final

import torch

from prunas.supernet.operators.call import RULES, Call, Dims, is_tensor, pinned_like, rule


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
        if is_tensor(tensor):
            call.tie(dims[1], call.dims(tensor)[0])
    statistics = [
        (dims[1],) if tuple(tensor.shape) == (len(dims[1]),) else pinned_like(call, tensor)
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
        if is_tensor(tensor):
            for nodes, more in zip(covered, call.dims(tensor), strict=True):
                call.tie(nodes, more)
    if is_tensor(call.out):
        return dims
    rows = (*dims[: -len(covered)], *(call.labels.zeros(1) for _ in covered))
    return [dims, *(pinned_like(call, tensor, rows) for tensor in call.out[1:])]


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
        if is_tensor(tensor):
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
    """Order does not matter to a reduction, so channels may go; only a sum ignores zeros."""
    tensor = call.args[0]
    dims = call.dims(tensor)
    first = call.out[0] if isinstance(call.out, tuple | list) else call.out
    axes = _reduced_axes(call, tensor, first)
    if call.name not in _LINEAR_REDUCTIONS or call.trace.lifted(tensor):
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
