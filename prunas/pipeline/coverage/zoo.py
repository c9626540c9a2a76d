"""The networks that are examined: timm's, and torchvision's behind "torchvision/"."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatch
from functools import cache
from typing import Any, Final

import timm
import torchvision.models
from torch import nn

from prunas.errors import InputError

Size = tuple[int, int, int]

_CLASSES: Final = 1000
_TORCHVISION: Final = "torchvision/"
_SEGMENTED_SIDE: Final = 520


@dataclass(frozen=True)
class Entry:
    """One network of the zoo.

    Attributes:
        name: as in the table.
        family: the file of its library that it is from, "torchvision/" before torchvision's.
        input_size: the one it was made for.
        fixed: it takes no other.
        arguments: that it is created with; a network without a classifier gets one of 1,000
            classes, since else its embedding is what it returns, and must stay.
    """

    name: str
    family: str
    input_size: Size
    fixed: bool
    arguments: dict[str, Any]

    @property
    def from_timm(self) -> bool:
        return not self.name.startswith(_TORCHVISION)

    def at(self, size: Size) -> "Entry":
        """The same for pictures of another size; one of a fixed size is built for it by timm."""
        more = {"img_size": size[1:]} if self.fixed else {}
        return replace(self, input_size=size, arguments={**self.arguments, **more})

    def create(self) -> nn.Module:
        """The network in eval mode, with random weights."""
        network: nn.Module
        if self.from_timm:
            network = timm.create_model(self.name, **self.arguments)
        else:
            name = self.name.removeprefix(_TORCHVISION)
            with warnings.catch_warnings():  # of its own future defaults
                warnings.simplefilter("ignore")
                network = torchvision.models.get_model(name, weights=None, **self.arguments)
        return network.eval()


def entry(name: str) -> Entry:
    """What is known of a network by name.

    Raises:
        InputError: there is none.
    """
    _require(name)
    return _of_torchvision(name) if name.startswith(_TORCHVISION) else _of_timm(name)


def names(patterns: Sequence[str]) -> list[str]:
    """The names that match any of the patterns ("resnet*", "torchvision/*"), sorted.

    Raises:
        InputError: a pattern matches nothing.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        found = [name for name in _all() if fnmatch(name, pattern)]
        if not found:
            _require(pattern)
        chosen.update(found)
    return sorted(chosen)


@cache
def _all() -> list[str]:
    modules = (torchvision.models, torchvision.models.segmentation)
    found = [name for module in modules for name in torchvision.models.list_models(module=module)]
    ours = ["metapruning_*", "spos_*"]  # registered by prunas
    return [*timm.list_models(exclude_filters=ours), *(_TORCHVISION + name for name in found)]


def _require(name: str) -> None:
    if name in _all():
        return
    near = get_close_matches(name, _all(), n=3)
    advice = f"did you mean {' or '.join(near)}?" if near else "'resnet*' means all resnets"
    raise InputError(f"no network is called {name!r}; {advice}")


def _of_timm(name: str) -> Entry:
    config = timm.get_pretrained_cfg(name)
    if config is None:
        raise InputError(f"timm does not say what pictures {name} is made for; examine another")
    family = timm.models.model_entrypoint(name).__module__.rpartition(".")[2]
    arguments = {} if config.num_classes else {"num_classes": _CLASSES}
    channels, height, width = config.input_size
    return Entry(name, family, (channels, height, width), config.fixed_input_size, arguments)


def _of_torchvision(name: str) -> Entry:
    known: Any = torchvision.models
    bare = name.removeprefix(_TORCHVISION)
    weights = list(known.get_model_weights(bare))[-1]  # the first may be for larger pictures
    builder = known.get_model_builder(bare)
    family = _TORCHVISION + builder.__module__.rpartition(".")[2]
    if "segmentation" in builder.__module__:
        side, arguments = _SEGMENTED_SIDE, {"weights_backbone": None}
    else:
        side, arguments = weights.transforms().crop_size[0], {}
    fixed = weights.meta["min_size"][0] == side
    return Entry(name, family, (3, side, side), fixed, arguments)
