"""Entries by number, and new tensors."""

from typing import Any, Final

import torch

from prunas.supernet.operators.call import (
    RULES,
    Call,
    Dims,
    Rule,
    broadcast,
    is_tensor,
    pinned,
    rule,
)
from prunas.supernet.operators.elementwise import elementwise


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
    return (*rest[:start], *broadcast(call, indices), *rest[start:])


@rule("aten.gather")
def _gather(call: Call) -> Dims:
    """Along one dimension by number; everywhere else an entry comes from its own place."""
    dims, index = call.dims(call.args[0]), call.dims(call.args[2])
    _along_its_own(call, call.args[1], dims, index)
    return index


@rule(
    *("aten.scatter", "aten.scatter_", "aten.scatter_add", "aten.scatter_add_"),
    *("aten.scatter_reduce", "aten.scatter_reduce_"),
    *("aten.index_add", "aten.index_add_", "aten.index_copy", "aten.index_copy_"),
)
def _scatter(call: Call) -> Dims:
    dims = call.dims(call.args[0])
    axis = call.args[1] % len(dims)
    given = [value for value in call.args[2:4] if is_tensor(value) and value.dim() == len(dims)]
    for tensor in given:
        _along_its_own(call, axis, dims, call.dims(tensor))
    call.pin(dims[axis], "its entries are addressed by number")
    return dims


def _along_its_own(call: Call, axis: int, dims: Dims, others: Dims) -> None:
    for position, (nodes, more) in enumerate(zip(dims, others, strict=True)):
        if position == axis % len(dims):
            call.pin(nodes, "its entries are addressed by number")
        elif len(nodes) == len(more):
            call.tie(nodes, more)
        else:
            call.pin(nodes, "a part of it is addressed by number")
            call.pin(more, "it is a part of another dimension, addressed by number")


_ORDERED: Final = {
    1: "sort argsort cumsum cumsum_ cumprod cumprod_ logcumsumexp cummax cummin mode",
    2: "topk kthvalue",
}


def _ordered(position: int) -> Rule:
    """Order counts along one dimension, the argument at that position; all others pass."""

    def pass_others(call: Call) -> Any:
        dims = call.dims(call.args[0])
        if not dims:  # a number
            return [dims] * len(call.out) if isinstance(call.out, tuple | list) else dims
        first = call.out[0] if isinstance(call.out, tuple | list) else call.out
        axis = call.get(position, "dim", -1)
        axis = call.kwargs.get("dim", -1) if isinstance(axis, bool) else axis
        axis %= len(dims)
        call.pin(dims[axis], f"{call.name} depends on the order of its entries")
        kept = first.dim() == len(dims)
        new = (call.labels.zeros(first.shape[axis]),) if kept else ()
        result = (*dims[:axis], *new, *dims[axis + 1 :])
        return [result] * len(call.out) if isinstance(call.out, tuple | list) else result

    return pass_others


for _position, _names in _ORDERED.items():
    for _name in _names.split():
        RULES[f"aten.{_name}"] = _ordered(_position)


@rule("aten.tril", "aten.triu", "aten.tril_", "aten.triu_")
def _triangle(call: Call) -> Dims:
    dims = call.dims(call.args[0])
    for nodes in dims[-2:]:
        call.pin(nodes, "a triangle of it is left out")
    return dims


_FACTORIES: Final = """
zeros ones empty full rand randn randint new_zeros new_ones new_empty new_full empty_strided
new_empty_strided
"""
_FACTORIES_LIKE: Final = (
    "zeros_like ones_like empty_like full_like rand_like randn_like randint_like"
)
_VALUES: Final = "arange linspace eye scalar_tensor randperm"


def _factory(call: Call) -> Dims:
    """A constant tensor has labels of its own: what it is combined with decides."""
    return tuple(call.labels.fresh(size) for size in call.out.shape)


@rule("aten.normal")
def _noise(call: Call) -> Any:
    """Around the entries of a tensor, or a new tensor of a given size."""
    return elementwise(call) if any(map(is_tensor, call.args)) else _factory(call)


def _values(call: Call) -> Dims:
    """Every entry of these differs, so none of them can go."""
    return tuple(call.labels.zeros(size) for size in call.out.shape)


for _name in _FACTORIES.split():
    RULES[f"aten.{_name}"] = _factory
for _name in _FACTORIES_LIKE.split():
    RULES[f"aten.{_name}"] = elementwise
for _name in _VALUES.split():
    RULES[f"aten.{_name}"] = _values
