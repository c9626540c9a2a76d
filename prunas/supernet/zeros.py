"""Whether a result is zero where the channels that it is computed from are.

A channel that is set to zero adds nothing to a sum, as one that is left out does, only if what is
summed is zero there: not after an exponential, nor once something was added that has no channels.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import torch

from prunas.supernet.labels import SECOND_IMAGE, Nodes
from prunas.supernet.operators import Call

Lifted = Callable[[torch.Tensor], bool]
"""Whether a tensor may be other than zero at channels that are zero."""

_NOT_ZERO_AT_ZERO: Final = """
acos cos cosh digamma eq erfc exp exp2 full full_like ge hardsigmoid le lgamma log log10 log2
log_sigmoid_forward logical_not logit ones ones_like reciprocal rsqrt sigmoid softplus special_expit
_log_softmax _safe_softmax _softmax
"""
_LIFTING: Final = frozenset(_NOT_ZERO_AT_ZERO.split())
_ADDING: Final = frozenset(("add", "maximum", "minimum", "rsub", "sub", "where"))
_MULTIPLYING: Final = frozenset(("bitwise_and", "logical_and", "mul"))
_WEIGHTED: Final = frozenset(("native_batch_norm", "native_group_norm", "native_layer_norm"))
"""Their results are multiplied by a weight that has the channels, if there is one."""
_PRODUCTS: Final = {"mm": 0, "bmm": 0, "matmul": 0, "addmm": 1, "baddbmm": 1, "addbmm": 1}
"""Matrix products, and the place of their first factor."""


def lifts(call: Call, lifted: Lifted) -> bool:
    """Whether the result of an operator may be other than zero at channels that are zero."""
    name = call.name.removeprefix("aten.").removesuffix("_")
    tensors = list(_tensors((*call.args, *call.kwargs.values())))
    if name in _LIFTING:
        return True
    if name in _ADDING:
        return any(map(lifted, tensors)) or _adds_a_number(call) or not _all_have(call, tensors)
    if name in _MULTIPLYING:
        return not _some_have(call, [tensor for tensor in tensors if not lifted(tensor)])
    if name == "div":
        return lifted(tensors[0]) or not _some_have(call, tensors[:1])
    if name in _WEIGHTED and len(tensors) > 1:
        return False
    if name == "convolution":
        return any(map(lifted, tensors[1:]))
    if name in _PRODUCTS:
        return _product_lifts(call, _PRODUCTS[name], lifted)
    return any(map(lifted, tensors)) or _is_positive_at_zero(call, name)


def _product_lifts(call: Call, place: int, lifted: Lifted) -> bool:
    left, right = call.args[place : place + 2]
    rows, columns = call.dims(left)[-2:-1], call.dims(right)[-1:]
    if lifted(left) and (lifted(right) or any(map(_can_go, rows))):
        return True
    return any(map(lifted, call.args[:place])) or (lifted(right) and any(map(_can_go, columns)))


def _is_positive_at_zero(call: Call, name: str) -> bool:
    """Functions of a number of which it depends."""
    if name in ("clamp", "clamp_min"):
        least = call.get(1, "min")
        return isinstance(least, int | float) and least > 0
    if name == "fill":
        return bool(call.get(1, "value") != 0)
    if name == "masked_fill":
        return bool(call.get(2, "value") != 0)
    if name == "pow":
        return isinstance(call.args[1], int | float) and call.args[1] <= 0
    return False


def _adds_a_number(call: Call) -> bool:
    return any(type(value) in (int, float) and value != 0 for value in call.args[:3])


def _can_go(nodes: Nodes) -> bool:
    return bool((nodes > SECOND_IMAGE).any())


def _axes(call: Call) -> Iterator[int]:
    """Those of the result that have channels, counted from the last one."""
    dims = call.dims(call.out)
    return (axis for axis in range(-len(dims), 0) if _can_go(dims[axis]))


def _has(tensor: torch.Tensor, axis: int) -> bool:
    return tensor.dim() >= -axis and tensor.shape[axis] > 1


def _all_have(call: Call, tensors: Sequence[torch.Tensor]) -> bool:
    """Whether each of them has all the channels of the result."""
    return all(_has(tensor, axis) for axis in _axes(call) for tensor in tensors)


def _some_have(call: Call, tensors: Sequence[torch.Tensor]) -> bool:
    """Whether all the channels of the result are those of one of them."""
    return all(any(_has(tensor, axis) for tensor in tensors) for axis in _axes(call))


def _tensors(values: Sequence[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
