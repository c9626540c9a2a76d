"""What may stand in the place of a trained convolution, with weights made from its own.

    smaller kernel   the middle of the full one (Cai et al., "Once for all", ICLR 2020, section 3.3,
                     without the learnt transform)
    factored         depthwise, then 1 x 1: of all such pairs the nearest one, in the least squares.
                     Input channel c reaches the outputs by a (D, k^2) matrix M_c; the pair can be
                     any matrix of rank one there, and the nearest is its largest singular triple
    pool             parameter-free, where as many channels go out as come in
    skip             the input itself, where shape and channels stay

Outputs have the shape they had: the padding follows the kernel. Where it would be negative, or the
layer is not a plain `nn.Conv2d`, there is no such substitute. For layers with hooks there is none
at all, as these would be lost.
"""

from collections.abc import Callable, Mapping
from typing import Final, final

import torch
from torch import Tensor, nn

from prunas.errors import InputError
from prunas.transformer_nat.operators import (
    KNOWN,
    OTHER_CONVOLUTION,
    OTHER_DEPTHWISE,
    Kind,
    operator,
)


@final
class Substitute(nn.Sequential):
    """What a transformed network has in the place of a layer of another class."""


def carried(layer: nn.Conv2d) -> str:
    """The operator that a convolution is; large and oblong kernels have one name for all."""
    depthwise = layer.groups > 1 and layer.groups == layer.in_channels == layer.out_channels
    height, width = layer.kernel_size
    name = f"{'dw_conv' if depthwise else 'conv'}_{height}x{width}"
    known = name in KNOWN and height == width and KNOWN[name].kind in _CONVOLUTIONS
    return name if known else (OTHER_DEPTHWISE if depthwise else OTHER_CONVOLUTION)


_CONVOLUTIONS: Final = (Kind.CONVOLUTION, Kind.DEPTHWISE)


def substitute(layer: nn.Conv2d, name: str) -> nn.Module | None:
    """The operator of that name for the place of `layer`; None if it cannot be there.

    Layers that are returned are new and share no tensor with `layer`; their weights are made from
    its own, and trainable where those are.

    Args:
        layer: stays as it is.
        name: an operator. A skip presumes of a subclass, which may pad its input, that the layer
            keeps the shape.

    Raises:
        InputError: there is no such operator.
    """
    found = operator(name)
    rule = _RULES.get(found.kind)
    made = None if rule is None or is_hooked(layer) else rule(layer, found.kernel)
    if made is not None:
        _freeze_as(layer, made)
    return made


def is_hooked(layer: nn.Module) -> bool:
    """Whether something runs before or after the layer's own forward."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks)


def require_finite(layer: nn.Conv2d, path: str) -> None:
    """Refuse a layer from whose weights none can be made.

    Raises:
        InputError: a weight is not finite.
    """
    weight = layer.weight.detach()
    if weight.is_meta or (finite := weight.isfinite()).all():
        return
    raise InputError(
        f"{int((~finite).sum())} of {weight.numel()} weights of {path!r} are not finite, so that"
        " nothing can take the place of this layer; train the network again, or keep the layer"
    )


def _freeze_as(layer: nn.Conv2d, made: nn.Module) -> None:
    for name, parameter in made.named_parameters():
        bias = layer.bias if name.endswith("bias") else None
        parameter.requires_grad_((layer.weight if bias is None else bias).requires_grad)


def renew(module: nn.Module, seed: int) -> None:
    """Give the layers in a substitute random weights; torch's global generator is left as found."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                weight = torch.empty(layer.weight.shape)
                nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
                with torch.no_grad():
                    layer.weight.copy_(weight * layer.groups**0.5)
                    if layer.bias is not None:
                        layer.bias.zero_()


def _skip(layer: nn.Conv2d, kernel: int) -> nn.Module | None:
    if layer.in_channels != layer.out_channels or max(layer.stride) > 1:
        return None
    shrinks = _is_plain(layer) and any(2 * p != d * (k - 1) for p, d, k in _sides(layer))
    return None if shrinks else nn.Identity()


def _smaller(layer: nn.Conv2d, kernel: int) -> nn.Conv2d | None:
    sides = _fitted(layer, kernel)
    if sides is None:
        return None
    padding, first = sides
    small = _like(layer, kernel, padding)
    rows, columns = (slice(start, start + kernel) for start in first)
    with torch.no_grad():
        small.weight.copy_(layer.weight[:, :, rows, columns])
        if small.bias is not None and layer.bias is not None:
            small.bias.copy_(layer.bias)
    return small


def _narrowed(layer: nn.Conv2d, kernel: int) -> nn.Module | None:
    """A smaller kernel of the same kind: nothing if it is as large as it was."""
    return None if layer.kernel_size == (kernel, kernel) else _smaller(layer, kernel)


def _depthwise(layer: nn.Conv2d, kernel: int) -> nn.Module | None:
    return _narrowed(layer, kernel) if layer.groups == layer.in_channels else None


def _factored(layer: nn.Conv2d, kernel: int) -> nn.Module | None:
    if layer.groups > 1 or layer.in_channels == 1 or (small := _smaller(layer, kernel)) is None:
        return None
    channels, device, dtype = layer.in_channels, layer.weight.device, layer.weight.dtype
    first = nn.Conv2d(
        channels,
        channels,
        kernel,
        _pair(small.stride),
        _pair(small.padding),
        _pair(small.dilation),
        groups=channels,
        bias=False,
        device=device,
        dtype=dtype,
    )
    second = nn.Conv2d(
        channels, layer.out_channels, 1, bias=layer.bias is not None, device=device, dtype=dtype
    )
    spatial, across = _rank_one(small.weight.detach())
    with torch.no_grad():
        first.weight.copy_(spatial)
        second.weight.copy_(across)
        if second.bias is not None and layer.bias is not None:
            second.bias.copy_(layer.bias)
    return Substitute(first, second)


def _rank_one(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(C, 1, k, k) and (D, C, 1, 1) whose products are nearest to (D, C, k, k); equally large."""
    outputs, inputs, rows, columns = weight.shape
    by_input = weight.double().permute(1, 0, 2, 3).reshape(inputs, outputs, rows * columns)
    _, vectors = torch.linalg.eigh(by_input.transpose(1, 2) @ by_input)
    spatial = vectors[:, :, -1]  # of the largest eigenvalue, of length one
    spatial = spatial * torch.where(spatial.sum(1, keepdim=True) < 0, -1.0, 1.0)  # one of two signs
    across = (by_input @ spatial[:, :, None])[:, :, 0]
    size = across.norm(dim=1, keepdim=True).clamp_min(1e-12).sqrt()
    return (
        (spatial * size).reshape(inputs, 1, rows, columns).to(weight.dtype),
        (across / size).T.reshape(outputs, inputs, 1, 1).to(weight.dtype),
    )


def _max_pool(layer: nn.Conv2d, kernel: int) -> nn.Module | None:
    padding = _pool_padding(layer, kernel)
    return (
        None if padding is None else Substitute(nn.MaxPool2d(kernel, _pair(layer.stride), padding))
    )


def _average_pool(layer: nn.Conv2d, kernel: int) -> nn.Module | None:
    padding = _pool_padding(layer, kernel)
    if padding is None:
        return None
    return Substitute(nn.AvgPool2d(kernel, _pair(layer.stride), padding, count_include_pad=False))


def _pool_padding(layer: nn.Conv2d, kernel: int) -> tuple[int, int] | None:
    if layer.in_channels != layer.out_channels or not _is_plain(layer):
        return None
    height, width = (
        padding - (dilation * (side - 1) - (kernel - 1)) // 2
        for padding, dilation, side in _sides(layer)
    )
    even = all(dilation * (side - 1) % 2 == 0 for _, dilation, side in _sides(layer))
    fits = even and min(height, width) >= 0 and max(height, width) <= kernel // 2
    return (height, width) if fits else None


def _fitted(layer: nn.Conv2d, kernel: int) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """(padding, first row and column) of the middle `kernel` rows and columns."""
    if not _is_plain(layer) or min(layer.kernel_size) < kernel:
        return None
    if any((side - kernel) % 2 for side in layer.kernel_size):
        return None
    first = tuple((side - kernel) // 2 for side in layer.kernel_size)
    padding = tuple(p - d * f for (p, d, _), f in zip(_sides(layer), first, strict=True))
    if min(padding) < 0:
        return None
    return (padding[0], padding[1]), (first[0], first[1])


def _is_plain(layer: nn.Conv2d) -> bool:
    """Whether the layer is what its numbers say, and nothing computes its weight."""
    return (
        type(layer) is nn.Conv2d
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and isinstance(layer._parameters.get("weight"), nn.Parameter)
    )


def _sides(layer: nn.Conv2d) -> list[tuple[int, int, int]]:
    """(padding, dilation, kernel) of rows and of columns."""
    assert not isinstance(layer.padding, str), "only plain layers come here"
    return list(zip(layer.padding, layer.dilation, layer.kernel_size, strict=True))


def _pair(value: str | tuple[int, ...]) -> tuple[int, int]:
    """As it is: torch types them more widely."""
    assert not isinstance(value, str), "only plain layers come here"
    rows, columns = value
    return rows, columns


def _like(layer: nn.Conv2d, kernel: int, padding: tuple[int, int]) -> nn.Conv2d:
    return nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        kernel,
        _pair(layer.stride),
        padding,
        _pair(layer.dilation),
        layer.groups,
        bias=layer.bias is not None,
        device=layer.weight.device,
        dtype=layer.weight.dtype,
    )


_RULES: Final[Mapping[Kind, Callable[[nn.Conv2d, int], nn.Module | None]]] = {
    Kind.SKIP: _skip,
    Kind.CONVOLUTION: _narrowed,
    Kind.DEPTHWISE: _depthwise,
    Kind.FACTORED: _factored,
    Kind.MAX_POOL: _max_pool,
    Kind.AVERAGE_POOL: _average_pool,
}
