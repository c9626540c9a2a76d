"""Top-1 accuracy of a network, which is left as it was found."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from prunas.errors import InputError, RunError
from prunas.eval.batches import require_batches

Batches: TypeAlias = Iterable[tuple[torch.Tensor, torch.Tensor]]
"""Pairs (images (n, ...), targets (n, ...)), on the device of the network that will see them."""


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Every module of `network` in evaluation mode and no gradients; both put back at the end.

    Each module gets its own training flag back, so a network that was partly in training mode
    (beside a frozen backbone, say) is again so afterwards.
    """
    found = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        # not inference_mode: what a module caches in its forward must stay usable in training
        with torch.no_grad():
            yield
    finally:
        for module, training in found:
            module.training = training


@contextmanager
def running(network: nn.Module, images: torch.Tensor) -> Iterator[None]:
    """Inside the `with`, that `network` does not run on such images becomes a sentence.

    Raises:
        InputError: it does not.
    """
    try:
        yield
    except (RunError, torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except RuntimeError as error:
        if "memory" in str(error):  # torch has no other error for it on the CPU
            raise
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{type(network).__name__} does not run on images of shape {tuple(images.shape)} and"
            f" type {images.dtype} ({reason}); give images as it was trained on"
        ) from error


def accuracy(network: nn.Module, batches: Batches) -> float:
    """Share of images whose largest logit is the one of their label, in 0..1.

    An image with a NaN among its logits counts as wrong (`argmax` would call NaN the largest).

    Args:
        network: gives logits (n, classes) for images (n, ...).
        batches: pairs (images, integer labels (n,)).

    Raises:
        InputError: there is no image, a label is outside 0..classes - 1, the output is not one row
            of logits an image, or the network does not run on the images.
    """
    right, _, _ = _judged(network, batches)
    return float(right.mean())


def per_class(network: nn.Module, batches: Batches) -> NDArray[np.float64]:
    """Accuracy of each class on its own, shape (classes,); NaN for a class without images.

    Arguments, NaN logits and errors as in `accuracy`.
    """
    right, labels, classes = _judged(network, batches)
    hits = np.bincount(labels, weights=right, minlength=classes)
    images = np.bincount(labels, minlength=classes)
    return np.asarray(np.divide(hits, images, out=np.full(classes, np.nan), where=images > 0))


def _judged(
    network: nn.Module, batches: Batches
) -> tuple[NDArray[np.bool_], NDArray[np.int64], int]:
    """Which images are classified right (n,), their labels (n,), and the number of classes."""
    verdicts, targets, classes = [], [], 0
    require_batches(batches)
    with evaluating(network):
        for images, labels in batches:
            if not isinstance(labels, torch.Tensor):
                raise InputError(
                    f"the labels of a batch are {type(labels).__name__}, not a tensor; give pairs"
                    " (images, labels)"
                )
            with running(network, images):
                logits = network(images)
            classes = _classes(logits, labels)
            verdicts.append((logits.argmax(1) == labels) & ~logits.isnan().any(1))
            targets.append(labels)
    if not verdicts or sum(map(len, targets)) == 0:
        raise InputError("accuracy was asked over no images; give at least one batch")
    # moved once at the end: a copy per batch would make the device wait for the host
    known = torch.cat(targets).cpu().numpy()
    if known.min() < 0 or known.max() >= classes:
        raise InputError(
            f"labels run from {known.min()} to {known.max()} but the network has {classes}"
            f" classes; labels must lie in 0..{classes - 1}"
        )
    return torch.cat(verdicts).cpu().numpy(), known, classes


def _classes(logits: torch.Tensor, labels: torch.Tensor) -> int:
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise InputError(
            f"accuracy needs logits (images, classes) and labels (images,), but the network gave"
            f" {tuple(logits.shape)} for labels {tuple(labels.shape)}"
        )
    return logits.shape[1]
