"""Batches of images, in the forms that loaders yield."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import torch

from prunas.errors import InputError
from prunas.supernet.resolution import resized

Pair: TypeAlias = tuple[torch.Tensor, torch.Tensor | None]
"""Images and their targets, if there are any."""

Loader: TypeAlias = Iterable[
    torch.Tensor | Sequence[torch.Tensor] | Pair | Mapping[str, torch.Tensor]
]
"""What loaders yield: pairs (images, targets), images alone, or dictionaries with them."""

_IMAGES: Final = ("images", "image", "pixel_values", "input", "inputs", "x")
_TARGETS: Final = ("targets", "target", "labels", "label", "y")


def pairs(batches: Loader) -> Iterator[Pair]:
    """(images, targets) of every batch that has images; targets None where there are none.

    Args:
        batches: yields pairs (images, targets), images alone, or dictionaries with them under
            usual names ("image", "pixel_values", "label", "target" ... and their plurals).

    Raises:
        InputError: a batch of another form, or with another number of targets than images; no
            image at all; one tensor, or what yields nothing, instead of batches.
    """
    require_batches(batches)
    empty = True
    for batch in batches:
        images, targets = _parts(batch)
        if not isinstance(images, torch.Tensor) or not images.ndim:
            raise InputError(
                f"a batch begins with {type(images).__name__}, not with a tensor of images; give"
                " pairs (images, targets)"
            )
        if targets is not None and not isinstance(targets, torch.Tensor):
            raise InputError(
                f"the targets of a batch are {type(targets).__name__}, not a tensor; give pairs"
                " (images, targets)"
            )
        if targets is not None and targets.ndim and len(targets) != len(images):
            raise InputError(
                f"a batch of {len(images)} images came with {len(targets)} targets; give one for"
                " each image"
            )
        if len(images):
            empty = False
            yield _differentiable(images), None if targets is None else _differentiable(targets)
    if empty:
        raise InputError("there are no images to look at; give at least one batch")


def _differentiable(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor; a copy of one from inference mode, which gradients cannot pass."""
    return tensor.clone() if tensor.is_inference() else tensor


def require_batches(batches: object) -> None:
    """Refuse what yields no batches, and a tensor, whose entries would be taken for them.

    Raises:
        InputError: it is such.
    """
    if not hasattr(batches, "__iter__") and not hasattr(batches, "__getitem__"):
        raise InputError(
            f"the batches are {batches!r}; give a list of batches, or a loader that yields them"
        )
    if isinstance(batches, torch.Tensor):
        raise InputError(
            f"the batches are one tensor of shape {tuple(batches.shape)}; give a list of batches,"
            " such as [images] or [(images, labels)]"
        )


def images_at(
    side: int | None, batches: Loader, *, device: torch.device | str
) -> Iterator[torch.Tensor]:
    """The images of every batch on a device, resized to a side if it is not None; as `pairs`."""
    for images, _ in pairs(batches):
        yield resized(images.to(device), side)


def _parts(batch: Any) -> tuple[Any, Any]:
    if isinstance(batch, torch.Tensor):
        return batch, None
    if isinstance(batch, Mapping):
        return _named(batch, _IMAGES, required=True), _named(batch, _TARGETS)
    if isinstance(batch, tuple | list) and len(batch) in (1, 2):
        return (*batch, None)[0], (*batch, None)[1]
    raise InputError(
        f"a batch is {type(batch).__name__}, which is neither a pair (images, targets), images"
        " alone, nor a dictionary with them"
    )


def _named(batch: Mapping[Any, Any], names: tuple[str, ...], *, required: bool = False) -> Any:
    found = [batch[name] for name in names if name in batch]
    if not found and required:
        raise InputError(
            f"a batch is a dictionary with {sorted(map(str, batch))}, and none of them is called"
            f" {', '.join(names)}; rename the images or give pairs (images, targets)"
        )
    return found[0] if found else None
