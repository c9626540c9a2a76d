"""Criteria that ask the gradient of the loss what a channel does to it.

The network runs in evaluation mode on detached copies of its parameters, so that frozen ones have
gradients too and none are left behind. The loss L is the cross-entropy of the network's logits
with integer labels or soft targets, whatever `torch.nn.functional.cross_entropy` takes: labels of
every location of a map as well. w are the weights that leave with a channel (`Slices.all`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves

from prunas.errors import InputError
from prunas.eval.accuracy import evaluating, running
from prunas.eval.batches import Loader, pairs
from prunas.eval.criteria.discriminant import Array
from prunas.eval.criteria.slices import Slice, Slices, checked_parameters, joined, slices_of
from prunas.eval.criteria.verdict import Verdict, judge
from prunas.eval.device import require_on
from prunas.supernet.space import SearchSpace
from prunas.supernet.tensors import buffers_of

Tensors = Mapping[str, torch.Tensor]

_FAINT = 1e-150
_CHUNK = 16  # per-sample gradients held at a time, each of the size of the network


def taylor(
    network: nn.Module,
    space: SearchSpace,
    batches: Loader,
    *,
    device: torch.device | str,
    form: Literal["squared", "absolute"] = "squared",
) -> Verdict:
    """First-order change of the loss when a channel's weights become zero.

    "squared": (sum w g)^2, its mean over batches, g the gradient of a batch's mean loss (Molchanov
    et al. 2019). "absolute": sum |w g|, its mean over batches (group Taylor of DepGraph).
    """
    reduce = _squared_sum if form == "squared" else _sum_of_absolutes
    return _judged_by_weights(network, space, batches, device, reduce)


def taylor_gate(
    network: nn.Module, space: SearchSpace, batches: Loader, *, device: torch.device | str
) -> Verdict:
    """(gamma g_gamma)^2 at the batch normalisations that a channel passes, mean over batches.

    The gate form of Molchanov et al. (2019), summed over coupled normalisations.
    """
    slices = [s.norms for s in slices_of(network, space)]

    def scores(held: Tensors, gradients: Tensors) -> list[Array]:
        products = _products(held, gradients)
        return [_reduced(s, products, _sum_of_squares) for s in slices]

    totals = _means(scores(*pair) for pair in _weight_gradients(network, space, batches, device))
    reason = "no batch normalisation scales its channels"
    return judge(space, (t if s else reason for s, t in zip(slices, totals, strict=True)))


def snip(
    network: nn.Module, space: SearchSpace, batches: Loader, *, device: torch.device | str
) -> Verdict:
    """sum |w g| with g the gradient over all batches, as a share of the sum over all genes.

    Lee et al., "SNIP" (2019), meant for networks at initialisation; by channels.
    """
    held, summed, count = dict[str, torch.Tensor](), dict[str, torch.Tensor](), 0
    for parameters, gradients in _weight_gradients(network, space, batches, device):
        held, count = dict(parameters), count + 1
        summed = {name: g + summed.get(name, 0) for name, g in gradients.items()}
    products = _products(held, {name: total / count for name, total in summed.items()})
    slices = slices_of(network, space)
    totals = [_reduced(s.all, products, _sum_of_absolutes) for s in slices]
    whole = sum(float(t.sum()) for t in totals) or 1.0
    return judge(space, (t / whole for t in totals))


def fisher(
    network: nn.Module, space: SearchSpace, batches: Loader, *, device: torch.device | str
) -> Verdict:
    """Second-order change of the loss, 1/2 sum h w^2 with h = mean over samples of g_b^2.

    Optimal Brain Damage (LeCun et al. 1990) with the diagonal of the empirical Fisher matrix as
    curvature: g_b is the gradient of one sample's loss.
    """
    held = _detached(network, space, device)
    squares = {name: torch.zeros_like(tensor) for name, tensor in held.items()}
    samples = 0
    with evaluating(network):
        for images, targets in labelled(batches):
            for start in range(0, len(images), _CHUNK):
                part = slice(start, start + _CHUNK)
                rows, goals = images[part].to(device), targets[part].to(device)
                loss_of(network(rows), goals)  # refuses what does not fit; vmap could not look
                each = _per_sample(network, held, rows, goals)
                for name, gradient in each.items():
                    squares[name] += (gradient**2).sum(0)
            samples += len(images)
    curved = {name: held[name] ** 2 * squares[name] / (2 * samples) for name in held}
    return judge(space, (_reduced(s.all, curved, _sum) for s in slices_of(network, space)))


def synflow(
    network: nn.Module, space: SearchSpace, batches: Loader, *, device: torch.device | str
) -> Verdict:
    """Synaptic saliency sum |w dR/dw| / R over a channel's own filters, R = 1^T (prod |W|) 1.

    Tanaka et al., "Pruning neural networks without any data" (2020). R is the sum of the outputs
    for an image of equal values when all weights are replaced by their absolute values, biases by
    0 and normalisations of batches by their scales, in float64. The values are 1e-150 instead of
    1, where no activation saturates (ReLU6 would, and its gradient vanish). In networks of ReLUs
    the scores of every layer that all paths lead through add up to 1. Of the images only the
    shape is looked at.
    """
    images, _ = next(pairs(batches))
    positive = _without_biases(_detached(network, space, device))
    with evaluating(network), torch.enable_grad():
        image = torch.full_like(images[:1], _FAINT, dtype=torch.float64, device=device)
        output = functional_call(network, {**positive, **_neutral_statistics(network)}, (image,))
        sums = [leaf.sum() for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)]
        flow = torch.stack(sums).sum()
        found = torch.autograd.grad(flow, list(positive.values()), allow_unused=True)
    whole = float(flow.detach()) or 1.0
    products = {n: p / whole for n, p in _products(positive, _filled(positive, found)).items()}
    return judge(space, (_own(s, products) for s in slices_of(network, space)))


def loss_of(output: Any, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of logits with labels or probabilities.

    Raises:
        InputError: the output is no tensor of logits of two or more classes, or the targets do not
            fit it.
    """
    if not isinstance(output, torch.Tensor) or output.ndim < 2:
        raise InputError(
            "the network does not give one row of logits an image, so there is no loss to"
            " differentiate; choose a criterion without gradients"
        )
    if output.shape[1] < 2:
        raise InputError(
            "the network answers with one number, whose cross-entropy is 0 whatever it is; choose"
            " reconstruction, or di with real targets (n, 1)"
        )
    if not targets.is_floating_point():
        classes = output.shape[1]
        if targets.numel() and not 0 <= int(targets.min()) <= int(targets.max()) < classes:
            raise InputError(
                f"labels run from {int(targets.min())} to {int(targets.max())} but the network has"
                f" {classes} classes; labels must lie in 0..{classes - 1}"
            )
        targets = targets.long()
    else:
        targets = targets.to(output.dtype)
        if targets.numel() and float(targets.min()) < 0:
            raise InputError(
                f"targets fall to {float(targets.min()):.3g}, so they are no probabilities, which"
                " cross-entropy needs; give labels (n,) or probabilities (n, classes), or choose di"
            )
    try:
        return F.cross_entropy(output, targets)
    except (RuntimeError, ValueError):
        raise InputError(
            f"targets of shape {tuple(targets.shape)} do not fit logits of shape"
            f" {tuple(output.shape)}; give labels (n,) or probabilities (n, classes)"
        ) from None


def _weight_gradients(
    network: nn.Module, space: SearchSpace, batches: Loader, device: torch.device | str
) -> Iterator[tuple[Tensors, Tensors]]:
    """(parameters, gradients of the mean loss) for every batch; zeros where nothing flows."""
    held = {n: t.requires_grad_() for n, t in _detached(network, space, device).items()}
    with evaluating(network):
        for images, targets in labelled(batches):
            with torch.enable_grad():
                with running(network, images):
                    output = functional_call(network, dict(held), (images.to(device),))
                loss = loss_of(output, targets.to(device))
                found = torch.autograd.grad(loss, list(held.values()), allow_unused=True)
            yield held, _filled(held, found)


def _per_sample(
    network: nn.Module, held: Tensors, images: torch.Tensor, targets: torch.Tensor
) -> Tensors:
    """Gradients of every sample's own loss, (samples, ...) each."""

    def loss(parameters: dict[str, torch.Tensor], image: Any, target: Any) -> torch.Tensor:
        output = functional_call(network, parameters, (image[None],))
        return F.cross_entropy(output, target[None])

    def one_by_one() -> Tensors:
        rows = [grad(loss)(dict(held), i, t) for i, t in zip(images, targets, strict=True)]
        return {name: torch.stack([row[name] for row in rows]) for name in held}

    # the fused attention of CPUs cannot be batched
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        try:
            each: Tensors = vmap(grad(loss), (None, 0, 0))(dict(held), images, targets)
        except (RuntimeError, ValueError):  # operators that vmap cannot batch
            each = one_by_one()
    return each


def _judged_by_weights(
    network: nn.Module,
    space: SearchSpace,
    batches: Loader,
    device: torch.device | str,
    reduce: Callable[[Array], Array],
) -> Verdict:
    slices = slices_of(network, space)

    def scores(held: Tensors, gradients: Tensors) -> list[Array]:
        products = _products(held, gradients)
        return [_reduced(s.all, products, reduce) for s in slices]

    passes = _weight_gradients(network, space, batches, device)
    return judge(space, _means(scores(*pair) for pair in passes))


def _means(rounds: Iterator[list[Array]]) -> list[Array]:
    """The mean over rounds, gene by gene."""
    count, totals = 0, list[Array]()
    for scores in rounds:
        totals = [a + b for a, b in zip(totals, scores, strict=True)] if count else scores
        count += 1
    return [total / count for total in totals]


def _own(slices: Slices, products: Tensors) -> Array | str:
    if not slices.own:
        return "no layer of its own computes its channels"
    return _sum_of_absolutes(joined(slices.own, products))


def _sum(rows: Array) -> Array:
    return np.asarray(rows.sum(1))


def _squared_sum(rows: Array) -> Array:
    return np.asarray(rows.sum(1) ** 2)


def _sum_of_squares(rows: Array) -> Array:
    return np.asarray((rows**2).sum(1))


def _sum_of_absolutes(rows: Array) -> Array:
    return np.asarray(np.abs(rows).sum(1))


def _reduced(slices: Sequence[Slice], products: Tensors, reduce: Callable[[Array], Array]) -> Array:
    """(channels,) all values of the slices that belong to a channel, reduced."""
    return reduce(joined(slices, products)) if slices else np.zeros(0)


def _products(held: Tensors, gradients: Tensors) -> Tensors:
    return {name: (tensor.detach() * gradients[name]).detach() for name, tensor in held.items()}


def _filled(held: Tensors, gradients: Sequence[torch.Tensor | None]) -> Tensors:
    """By name, with zeros for parameters that the loss does not depend on."""
    pairs = zip(held.items(), gradients, strict=True)
    return {name: torch.zeros_like(t) if g is None else g for (name, t), g in pairs}


def _detached(
    network: nn.Module, space: SearchSpace, device: torch.device | str
) -> dict[str, torch.Tensor]:
    require_on(network, device)
    held = checked_parameters(network, space)
    return {name: tensor.detach().clone() for name, tensor in held.items()}


def _without_biases(held: Tensors) -> Tensors:
    """Absolute weights, and zero for what is added."""
    return {
        name: (t * 0 if name.endswith("bias") else t.abs()).double().requires_grad_()
        for name, t in held.items()
    }


def _neutral_statistics(network: nn.Module) -> Tensors:
    """Every buffer in float64; running means 0 and variances 1."""
    result = {}
    for name, buffer in buffers_of(network).items():
        plain = buffer.double() if buffer.is_floating_point() else buffer
        if name.endswith("running_mean"):
            plain = torch.zeros_like(plain)
        if name.endswith("running_var"):
            plain = torch.ones_like(plain)
        result[name] = plain
    return result


def labelled(batches: Loader) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The pairs of batches whose images all have targets.

    Raises:
        InputError: a batch without targets, no image, and as `prunas.eval.batches.pairs`.
    """
    for images, targets in pairs(batches):
        if targets is None:
            raise InputError("the batches have no targets; a gradient needs labels of the images")
        yield images, targets
