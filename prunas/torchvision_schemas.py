"""Lets torchvision be imported beside a torch it was not compiled for.

The registries' torchvision is built against CUDA. Beside a CPU-only torch its compiled library
cannot load, and `import torchvision` (so also `import timm`) ends with "operator torchvision::nms
does not exist": its Python side attaches shape functions to `nms` and `qnms`, which only that
library declares. Importing this module first declares the two schemas, and does nothing where the
library loads. The operators get no kernel: to call them still fails, as it must.
"""

from importlib.machinery import PathFinder
from importlib.util import find_spec

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def _compiled_library() -> str | None:
    """The path of torchvision's compiled library; None where there is none."""
    package = find_spec("torchvision")  # looks, without importing
    if package is None:
        return None
    library = PathFinder.find_spec("_C", package.submodule_search_locations)
    return library.origin if library else None


def _loads(library: str | None) -> bool:
    """Whether torch can load the library; a second load of it, by torchvision, changes nothing."""
    if library is None:
        return False
    try:
        torch.ops.load_library(library)
    except OSError:
        return False
    return True


def _declare() -> torch.library.Library | None:
    """Declares the schemas that nobody declares; returns their owner, None when all were there."""
    if _loads(_compiled_library()):
        return None
    missing = [schema for schema in _SCHEMAS if not _declared(schema.partition("(")[0])]
    if not missing:
        return None
    owner = torch.library.Library("torchvision", "FRAGMENT")
    for schema in missing:
        owner.define(schema)
    return owner


def _declared(operator: str) -> bool:
    return hasattr(torch.ops.torchvision, operator)


_owner = _declare()  # torch takes the declarations back when their owner is collected
