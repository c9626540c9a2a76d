"""Batch-norm statistics of the network as it is now, instead of those it was trained with.

A candidate that runs on shared or cut weights sees other activations than the network whose
training filled the running means and variances, and its accuracy means nothing until they are
estimated anew (SPOS, Guo et al. 2020, section 3.4; slimmable networks, Yu & Huang 2019).
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeAlias

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunas.errors import InputError
from prunas.eval.accuracy import Batches, evaluating, running
from prunas.eval.batches import require_batches

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

_Found: TypeAlias = Sequence[tuple[_BatchNorm, dict[str, torch.Tensor | None]]]


@contextmanager
def recalibrated(network: nn.Module, batches: Batches) -> Iterator[None]:
    """Inside the `with`, `network` has the batch-norm statistics of `batches`; then its own again.

    The statistics of each batch norm become the plain average, over all batches, of the batch
    mean and of the unbiased batch variance,

        mean = 1/K sum_k mean_k,    variance = 1/K sum_k n_k / (n_k - 1) var_k,

    every batch weighing the same. While they are estimated only batch norms are in training mode,
    so dropout and drop path stay off; nothing else of the network changes, and the modules' own
    buffers, which may be views of shared tensors, are set aside and never written to.

    Args:
        network: any module; batch norms that keep no running statistics are left alone.
        batches: pairs (images, anything), on the device of the network; the same ones for all
            candidates that are to be compared.

    Raises:
        InputError: there is no batch, or a batch norm sees one value a channel, or the network
            does not run on the images.
    """
    found = _statistics(network)
    try:
        recalibrate_(network, batches)
        yield
    finally:
        _put_back(found)


def recalibrate_(network: nn.Module, batches: Batches) -> None:
    """Give `network` the batch-norm statistics of `batches`, for good.

    As `recalibrated`, but the new statistics stay: the buffers are new tensors, not the old ones
    overwritten. If it fails the network is as it was.
    """
    with ExitStack() as undo:
        undo.callback(_put_back, _statistics(network))
        _estimate(network, batches)
        undo.pop_all()


def _statistics(network: nn.Module) -> _Found:
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and _tracks(m)]
    return [(norm, {name: norm._buffers[name] for name in _STATISTICS}) for norm in norms]


def _tracks(norm: _BatchNorm) -> bool:
    return norm.track_running_stats and norm.running_mean is not None


def _put_back(found: _Found) -> None:
    for norm, buffers in found:
        norm._buffers.update(buffers)


def _estimate(network: nn.Module, batches: Batches) -> None:
    norms = [norm for norm, _ in _statistics(network)]
    if not norms:
        return
    require_batches(batches)
    seen = 0
    with evaluating(network), _averaging(norms):
        for images, _ in batches:
            _forward(network, images)
            seen += 1
    if seen == 0:
        raise InputError("batch norms were to be recalibrated on no images; give a batch or more")


@contextmanager
def _averaging(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Batch norms with fresh statistics, in training mode, averaging over all that they see."""
    momenta = [(norm, norm.momentum) for norm in norms]
    try:
        for norm in norms:
            norm._buffers.update(_fresh(norm))
            norm.momentum = None  # torch's word for a cumulative average
            norm.training = True  # the flag alone: timm's variant has dropout as a child
        yield
    finally:
        for norm, momentum in momenta:
            norm.momentum = momentum


def _fresh(norm: _BatchNorm) -> dict[str, torch.Tensor]:
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    return {
        "running_mean": torch.zeros_like(mean),
        "running_var": torch.ones_like(variance),
        "num_batches_tracked": torch.zeros((), dtype=torch.long, device=mean.device),
    }


def _forward(network: nn.Module, images: torch.Tensor) -> None:
    try:
        with running(network, images):
            network(images)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InputError(
            f"a batch of {len(images)} gives a batch norm a single value a channel, which has no"
            " variance; recalibrate on batches of two images or more"
        ) from error
