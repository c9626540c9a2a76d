"""How strongly the network's answers depend on what each of its layers computes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final, cast

import numpy as np
import torch
from torch import nn

from prunas.errors import InputError
from prunas.eval.accuracy import evaluating, running
from prunas.eval.criteria.discriminant import Array
from prunas.eval.device import require_on


def answer_curvatures(
    network: nn.Module,
    names: Sequence[str],
    images: torch.Tensor,
    *,
    device: torch.device | str,
    generator: torch.Generator,
) -> dict[str, Array]:
    """{layer: (outputs, outputs) sum over images of E[sum over positions of g g^T]}.

    g is the gradient, by what the layer gives at a position, of u . z: z are the logits, p their
    softmax, and u = (diag(sqrt p) - p sqrt(p)^T) e with e normal, so that E[u u^T] = diag(p) -
    p p^T, the Hessian of KL(p || softmax z') at z' = z. So if r is what a layer gives too much,
    1/2 sum over positions of r^T (g g^T) r is what the answers diverge by, in nats, to second
    order, without what positions do to one another: the Fisher matrix of a layer's output as in
    Kronecker-factored curvature (Martens & Grosse 2015; Grosse & Martens 2016 for convolutions).
    They draw labels from p; u has the same covariance, and lighter tails where p is sure.

    Args:
        network: on `device`; left as it was.
        names: its convolutions and linears; several calls of one add up.
        images: (n, ...).
        device: where to compute.
        generator: draws e, one for each image (and location), on the CPU.

    Raises:
        InputError: the network does not give logits (images, classes, ...) of two or more
            classes, or they cannot be differentiated, or gradients are NaN or infinite.
    """
    require_on(network, device)
    sums: dict[str, torch.Tensor] = {}

    def add(name: str, gradient: torch.Tensor) -> None:
        last = isinstance(network.get_submodule(name), nn.Linear)
        rows = (gradient if last else gradient.movedim(1, -1)).flatten(0, -2)
        sums[name] = sums.get(name, 0) + (rows.T @ rows).double()

    with evaluating(network), _differentiated(network, names, add), torch.enable_grad():
        inputs = _floating(images).to(device).detach().requires_grad_()
        with running(network, images):
            logits = _logits(network(inputs))
        directions = _directions(logits.detach(), generator)
        (slope,) = torch.autograd.grad(logits, inputs, directions, allow_unused=True)
        if slope is None:
            raise InputError(_FLAT)
    return {
        name: _finite(name, sums[name]) if name in sums else _unheard(network, name)
        for name in names
    }


def _directions(logits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """u, in the shape of the logits; classes are dimension 1."""
    p = logits.double().softmax(1)
    roots = p.sqrt()
    noise = torch.randn(logits.shape, generator=generator, dtype=torch.float64).to(p.device)
    return (roots * noise - p * (roots * noise).sum(1, keepdim=True)).to(logits.dtype)


def _finite(name: str, curvature: torch.Tensor) -> Array:
    if not curvature.isfinite().all():
        raise InputError(
            f"the gradient by what layer {name!r} gives is NaN or infinite; check the weights and"
            " the images, or choose a criterion without gradients"
        )
    return np.asarray(curvature.cpu().numpy())


def _unheard(network: nn.Module, name: str) -> Array:
    """The curvature of a layer that the answers do not depend on."""
    outputs = len(cast(torch.Tensor, network.get_submodule(name).weight))
    return np.zeros((outputs, outputs))


def _floating(images: torch.Tensor) -> torch.Tensor:
    if not images.is_floating_point():
        raise InputError(
            f"images of type {images.dtype} cannot be differentiated; give floating-point images"
        )
    return images


def _logits(output: Any) -> torch.Tensor:
    if not isinstance(output, torch.Tensor) or output.ndim < 2 or output.shape[1] < 2:
        raise InputError(
            "the network does not give logits of two or more classes, so its answers have no"
            " curvature; choose another criterion, such as reconstruction"
        )
    if not output.requires_grad:
        raise InputError(_FLAT)
    return output


_FLAT: Final = (
    "the network's answers cannot be differentiated; choose a criterion without gradients"
)


@contextmanager
def _differentiated(
    network: nn.Module, names: Sequence[str], add: Callable[[str, torch.Tensor], None]
) -> Iterator[None]:
    """While it lasts, `add` is given the gradient by what each layer gives.

    Hooks of tensors, since what a layer gives may be changed in place afterwards.
    """

    def listen(name: str) -> Callable[[nn.Module, Any, torch.Tensor], None]:
        def follow(layer: nn.Module, arguments: Any, output: torch.Tensor) -> None:
            if output.requires_grad:
                output.register_hook(partial(add, name))

        return follow

    with ExitStack() as handles:
        for name in names:
            layer = network.get_submodule(name)
            handles.callback(layer.register_forward_hook(listen(name)).remove)
        yield
