"""Outputs of common operators on the meta device, without running their kernels.

Many meta kernels are Python that decomposes an operator into dozens of others, which costs a
hundred times what the output's shape does. The shortcuts here answer only where the answer is
plain (dense tensors, floating types, no promotion); in every other case they return None and the
kernel runs. Shapes, types and strides are those of the kernel, which the tests compare.
"""

from collections.abc import Callable
from typing import Any, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_LAST: Final = {4: torch.channels_last, 5: torch.channels_last_3d}
Shortcut = Callable[[str, tuple[Any, ...], dict[str, Any]], Any]


def executed(func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What `func(*args, **kwargs)` returns on the meta device; `name` is "aten.add" and so on."""
    shortcut = _SHORTCUTS.get(name)
    if shortcut is not None:
        out = shortcut(name, args, kwargs)
        if out is not None:
            return out
    return func(*args, **kwargs)


class Imagining(TorchDispatchMode):
    """Takes the shortcuts for every operator that runs inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return executed(func, name_of(func), args, kwargs or {})


_NAMES: Final[dict[Any, str]] = {}


def name_of(func: Any) -> str:
    """An operator's name without its overload, such as "aten.add"."""
    name = _NAMES.get(func)
    if name is None:
        name = _NAMES[func] = func.overloadpacket._qualified_op_name.replace("::", ".")
    return name


def _floating(tensor: Any) -> bool:
    """A floating meta tensor, of no subclass with ideas of its own."""
    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.device.type == "meta"
        and tensor.is_floating_point()
    )


def _empty(shape: Any, like: torch.Tensor) -> torch.Tensor:
    return torch.empty(shape, dtype=like.dtype, device="meta")


def _like(tensor: torch.Tensor) -> torch.Tensor:
    """`torch.empty_like`, which is a slow Python function on this device."""
    if tensor.is_contiguous():
        return _empty(tensor.shape, tensor)
    last = _LAST.get(tensor.dim())
    if last is not None and tensor.is_contiguous(memory_format=last):
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta", memory_format=last)
    return torch.empty_like(tensor)


def _unary(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    image = args[0]
    rest = (*args[1:], *kwargs.values())
    if not _floating(image) or any(isinstance(value, torch.Tensor) for value in rest):
        return None
    return image if name.endswith("_") else _like(image)


def _binary(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The first operand has the shape of the result; the second broadcasts along it."""
    one, two = args[0], args[1]
    if not _floating(one) or 0 in one.stride():
        return None
    if isinstance(two, torch.Tensor):
        if not _floating(two) or two.dtype != one.dtype or not _fits(two.shape, one.shape):
            return None
    elif type(two) not in (int, float):
        return None
    return one if name.endswith("_") else _like(one)


def _fits(small: torch.Size, large: torch.Size) -> bool:
    if len(small) > len(large):
        return False
    tail = large[len(large) - len(small) :]
    return all(a in (1, b) for a, b in zip(small, tail, strict=True))


def _batch_norm(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """With stored statistics; they and the affine parameters have one entry per channel."""
    image, *others, training = args[:6]
    if training or not _floating(image) or image.dim() < 2:
        return None
    size = (image.shape[1],)
    if any(isinstance(tensor, torch.Tensor) and tensor.shape != size for tensor in others):
        return None  # the kernel says what is wrong
    return _like(image), _empty((0,), image), _empty((0,), image)


def _layer_norm(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result is row-major whatever the input is, as on every real device."""
    image, shape, *affine = args[:4]
    if not _floating(image) or image.dtype not in (torch.float32, torch.float64):
        return None  # lower precisions may keep their statistics in another type
    kept = image.dim() - len(shape)
    if image.shape[kept:] != tuple(shape):
        return None
    for tensor in affine:
        if tensor is not None and (tensor.shape != tuple(shape) or tensor.dtype != image.dtype):
            return None
    statistics = (*image.shape[:kept], *(1,) * len(shape))
    return _empty(image.shape, image), _empty(statistics, image), _empty(statistics, image)


def _convolution(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    image, weight, bias, stride, padding, dilation, transposed, _, groups = args[:9]
    if transposed or not _floating(image) or not _floating(weight) or image.dtype != weight.dtype:
        return None
    layout = _layout(image)
    outputs, inputs, *kernel = weight.shape
    if layout is None or inputs * groups != image.shape[1] or outputs % groups:
        return None
    if bias is not None and bias.shape != (outputs,):
        return None
    if not image.dim() - 2 == len(stride) == len(padding) == len(dilation) == len(kernel):
        return None
    rows = zip(image.shape[2:], kernel, stride, padding, dilation, strict=True)
    spatial = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in rows]
    if min(spatial) < 1:
        return None
    shape = (image.shape[0], outputs, *spatial)
    return torch.empty(shape, dtype=image.dtype, device="meta", memory_format=layout)


def _layout(image: torch.Tensor) -> torch.memory_format | None:
    """The memory layout that a convolution of `image` returns; None if it is neither of two."""
    if image.is_contiguous():
        return torch.contiguous_format
    last = _LAST.get(image.dim())
    return last if last is not None and image.is_contiguous(memory_format=last) else None


def _added_product(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """addmm of a bias row."""
    bias, left, right = args[:3]
    if not (_floating(bias) and _floating(left) and _floating(right)):
        return None
    fits = bias.dim() == 1 and left.shape[1] == right.shape[0] and bias.shape[0] == right.shape[1]
    if not fits or not left.dtype == right.dtype == bias.dtype:
        return None
    return _empty((left.shape[0], right.shape[1]), left)


def _mean(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Over the last dimensions of an image."""
    if len(args) < 2 or kwargs or not _floating(args[0]) or not args[0].is_contiguous():
        return None
    image, axes, keep = args[0], args[1], len(args) > 2 and args[2]
    rank = image.dim()
    if not axes or sorted(axis % rank for axis in axes) != list(range(rank - len(axes), rank)):
        return None
    shape = image.shape[: rank - len(axes)]
    return _empty((*shape, *(1,) * len(axes)) if keep else shape, image)


def _softmax(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    converts = bool(kwargs) or (len(args) > 2 and args[2] is True)
    if converts or not _floating(args[0]) or not args[0].is_contiguous():
        return None
    return _empty(args[0].shape, args[0])


def _roll(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Entries shifted in a circle; where no axis is given, of the flattened tensor."""
    image = args[0]
    if not _floating(image):
        return None
    axes = args[2] if len(args) > 2 else ()
    layout = (_layout(image) if axes else None) or torch.contiguous_format
    return torch.empty(image.shape, dtype=image.dtype, device="meta", memory_format=layout)


_UNARY: Final = """
relu relu6 hardtanh hardswish hardsigmoid silu sigmoid gelu leaky_relu elu mish tanh softplus clamp
clamp_min clamp_max rsqrt sqrt exp erf
"""
_BINARY: Final = "add sub mul div"
_SOFTMAX: Final = "_softmax _log_softmax _safe_softmax"

_SHORTCUTS: Final[dict[str, Shortcut]] = {
    **{f"aten.{name}{end}": _unary for name in _UNARY.split() for end in ("", "_")},
    **{f"aten.{name}{end}": _binary for name in _BINARY.split() for end in ("", "_")},
    **{f"aten.{name}": _softmax for name in _SOFTMAX.split()},
    "aten.roll": _roll,
    "aten.native_batch_norm": _batch_norm,
    "aten.native_layer_norm": _layer_norm,
    "aten.convolution": _convolution,
    "aten.addmm": _added_product,
    "aten.mean": _mean,
}
