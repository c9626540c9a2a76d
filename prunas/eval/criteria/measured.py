"""What every width of a gene is worth, measured on the network itself instead of by a criterion."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from prunas.errors import InputError
from prunas.eval.accuracy import evaluating
from prunas.eval.batches import Loader, images_at
from prunas.eval.device import require_on
from prunas.supernet.permute import permute
from prunas.supernet.resolution import side_of
from prunas.supernet.space import Candidate, SearchSpace

Cutting = Callable[[nn.Module, Candidate], nn.Module]
"""Cuts a network whose channels are in order, and adapts what is left."""

_SHARES: Final = (0.0, 0.125, 0.25, 0.5, 0.75)


def measured_values(
    network: nn.Module,
    space: SearchSpace,
    orders: Sequence[Sequence[int]],
    batches: Loader,
    cutting: Cutting,
    *,
    device: torch.device | str,
    shares: Sequence[float] = _SHARES,
) -> tuple[tuple[float, ...], ...]:
    """Per gene the worth of its best k channels, k = 0..width: what narrowing it alone undoes.

    D_g(k) = mean over images of KL(p || p_k), in nats: p what the full network answers (softmax),
    p_k what it answers with gene g at k channels and all others whole, adapted by `cutting`. Worth
    is D_g(smallest) - D_g(k), measured at some widths, linear between them, and made to rise with
    k. The greedy search of Hou & Kung (2020) also asks the network itself, by accuracy and anew
    after every step; KL needs no labels and does not jump, and one round is what `allocate` takes.
    Errors of several genes are taken to add up. Where the side of images is a gene p_k is what is
    answered to images of the candidate's side, and p to those of the largest one.

    A criterion's own values miss what this sees: whether anything behind a layer listens to it.

    Args:
        network: trained, on `device`; not changed.
        space: its search space.
        orders: per gene the channels, the one to keep longest first.
        batches: images (targets are not looked at), iterated once for every measurement.
        cutting: makes the narrowed networks.
        device: where to compute.
        shares: of the full width; the nearest choices are measured, and 0 for the smallest.

    Raises:
        InputError: no images, or a network that does not give logits (images, classes, ...), or
            gives more of them for larger images where their side is a gene.
    """
    require_on(network, device)
    ordered = permute(network, space, orders)
    wanted = _answers(ordered, side_of(space, space.full()), batches, device)
    curves = []
    for gene, width in enumerate(space.full()):
        losses = {width: 0.0}
        for choice in _nearest(space.genes[gene].choices, shares):
            changed = list(space.full())
            changed[gene] = choice
            candidate = space.candidate(changed)
            small = cutting(ordered, candidate)
            found = _answers(small, side_of(space, candidate), batches, device)
            losses[choice] = _divergence(wanted, found)
        curves.append(_rising(losses, width))
    return tuple(curves)


def _nearest(choices: Sequence[int], shares: Sequence[float]) -> list[int]:
    """The choices nearest to these shares of the largest one, which itself is left out."""
    table = np.array(choices)
    near = {int(table[np.abs(table - share * table[-1]).argmin()]) for share in shares}
    return sorted(near - {int(table[-1])})


def _answers(
    network: nn.Module, side: int | None, batches: Loader, device: torch.device | str
) -> torch.Tensor:
    """Log-probabilities (images, classes, ...) for images of this side."""
    with evaluating(network):
        images = images_at(side, batches, device=device)
        return torch.cat([_log_softmax(network(batch)) for batch in images])


def _log_softmax(output: Any) -> torch.Tensor:
    if not isinstance(output, torch.Tensor) or output.ndim < 2 or output.shape[1] < 2:
        raise InputError(
            "widths are measured by what the network answers, and it does not give logits of two"
            " or more classes; let the criterion allocate"
        )
    return output.double().log_softmax(1)


def _divergence(wanted: torch.Tensor, found: torch.Tensor) -> float:
    """Mean KL divergence in nats."""
    if found.shape != wanted.shape:
        raise InputError(
            f"the network answers {tuple(found.shape[1:])} to smaller images and"
            f" {tuple(wanted.shape[1:])} to whole ones, so that sides cannot be measured; let the"
            " criterion allocate"
        )
    value = float((wanted.exp() * (wanted - found)).sum(1).mean())
    if not np.isfinite(value):
        raise InputError("the network answers with NaN; check the weights and the images")
    return value


def _rising(losses: Mapping[int, float], width: int) -> tuple[float, ...]:
    """Worth of k = 0..width channels from losses at some widths."""
    known = sorted(losses)
    loss = np.interp(np.arange(width + 1), known, [losses[k] for k in known])
    worth = np.maximum.accumulate(loss[known[0]] - loss)
    return tuple((worth - worth[0]).tolist())
