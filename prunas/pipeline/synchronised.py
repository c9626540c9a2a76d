"""Batch norms of several processes that normalise as one would."""

from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from prunas.pipeline.collectives import summed


@final
class SynchronisedNorms(TorchFunctionMode):
    """In it batch norms in training mode take means and variances over all processes.

    It is every `torch.nn.functional.batch_norm`, whoever calls it: on slices of shared weights as
    in timm's layers. torch's own SyncBatchNorm replaces modules, and runs on accelerators alone.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is F.batch_norm:
            return _batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _batch_norm(
    images: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """The arguments of `torch.nn.functional.batch_norm`, whose result over all processes it is.

    y = (x - mean) / sqrt(var + eps) * weight + bias, computed in float32; the running variance
    takes in the unbiased one.
    """
    if not training:
        return F.batch_norm(
            images, running_mean, running_var, weight, bias, training, momentum, eps
        )
    axes = [axis for axis in range(images.dim()) if axis != 1]
    shape = [1, -1, *[1] * (images.dim() - 2)]
    values = images.float()
    count = values.new_full((1,), images.numel() / images.shape[1])
    total = _everywhere(torch.cat([values.sum(axes), count]))
    count, mean = total[-1].detach(), total[:-1] / total[-1].detach()
    centred = values - mean.view(shape)
    variance = _everywhere(centred.square().sum(axes)) / count
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            unbiased = variance * count / (count - 1)
            running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    scale = (variance + eps).rsqrt() if weight is None else (variance + eps).rsqrt() * weight
    normalised = centred * scale.view(shape)
    return (normalised if bias is None else normalised + bias.view(shape)).to(images.dtype)


def _everywhere(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]
    return total


@final
class _Sum(torch.autograd.Function):
    """The sum over processes. So is its gradient, as the losses of all depend on it."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return summed(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return summed(gradients[0])
