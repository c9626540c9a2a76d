"""Operators that change every entry by itself."""

from typing import Any, Final

from prunas.supernet.operators.call import RULES, Call, broadcast, is_tensor

_POINTWISE: Final = """
abs acos add addcdiv addcmul alias asin atan atan2 bernoulli bitwise_and bitwise_not bitwise_or
bitwise_xor ceil celu clamp clamp_max clamp_min clone contiguous copy copy_ cos cosh detach div
dropout elu eq erf erfc erfinv exp exp2 expm1 fill floor floor_divide fmod frac ge gelu gt
hardshrink hardsigmoid hardswish hardtanh isfinite isinf isnan le leaky_relu lerp lgamma lift_fresh
log log10 log1p log2 log_sigmoid_forward logical_and logical_not logical_or logical_xor logit lt
masked_fill maximum minimum mish mul nan_to_num native_dropout ne neg pow reciprocal relu relu6
remainder round rrelu_with_noise rsqrt rsub selu sgn sigmoid sign silu sin sinh softplus softshrink
special_erfcx special_expit sqrt square sub tan tanh threshold to trunc where xlogy zero
_to_copy _conj conj_physical angle complex polar special_xlog1py rrelu _prelu_kernel
acosh asinh atanh bitwise_left_shift bitwise_right_shift copysign deg2rad digamma exponential
float_power fmax fmin frexp heaviside hypot i0 isneginf isposinf ldexp logaddexp logaddexp2
log_normal normal_ normal_functional positive rad2deg random signbit sinc special_entr special_i0e
special_log_ndtr special_ndtr special_ndtri uniform cauchy geometric
"""


def elementwise(call: Call) -> Any:
    tensors = [value for value in (*call.args, *call.kwargs.values()) if is_tensor(value)]
    first = tensors[0]
    if len(tensors) == 1 and is_tensor(call.out) and call.out.dim() == first.dim():
        return call.dims(first)
    dims = broadcast(call, tensors)
    return [dims] * len(call.out) if isinstance(call.out, tuple | list) else dims


for _name in _POINTWISE.split():
    RULES[f"aten.{_name}"] = elementwise
    RULES.setdefault(f"aten.{_name}_", elementwise)
ELEMENTWISE: Final = frozenset(RULES)
"""Operators that change every entry by itself."""
