"""The network and the search space of Single Path One-Shot.

Guo et al., "Single path one-shot neural architecture search with uniform sampling", ECCV 2020,
sections 3.4 and 4, as in the released code: twenty blocks, each one of four operators, and, which
was never released, a scale of its inner channels. The two halves that a block exchanges stay as
wide as they are, so that no block's width depends on another's. Unlike in the released code batch
norms of the supernet have a scale and a shift, and weights begin as torch's layers do, not from
N(0, 1 / fan-in) (there the stem's with a deviation of 0.01).
"""

from collections.abc import Sequence
from typing import Any, Final

import timm
import torch
from timm.models import register_model
from torch import Tensor, nn

from prunas.errors import InputError
from prunas.supernet.choice import Choice
from prunas.supernet.grid import WidthGrid
from prunas.supernet.space import Candidate, SearchSpace
from prunas.supernet.trace import trace
from prunas.supernet.tying import tied

NAME: Final = "spos_shufflenetv2"
OPERATORS: Final = ("shuffle3", "shuffle5", "shuffle7", "xception")
SCALES: Final = WidthGrid(tuple(step / 10 for step in range(1, 11)), truncate=True)
"""Inner channels 0.2, 0.4, ... 2.0 times half the block's width, which is built at 2.0."""

_STAGES: Final = ((64, 4), (160, 4), (320, 8), (640, 4))
_INNER: Final = (
    *(f"shuffle{kernel}.branch.0" for kernel in (3, 5, 7)),
    *(f"xception.branch.{place}" for place in (2, 7)),
)
"""Ends of the names of the convolutions that make inner channels."""
_STEM: Final = 16
_LAST: Final = 1024


def _normed(conv: nn.Conv2d, *, activation: bool = True) -> list[nn.Module]:
    norm = nn.BatchNorm2d(conv.out_channels)
    return [conv, norm, nn.ReLU(inplace=True)] if activation else [conv, norm]


def _pointwise(inputs: int, outputs: int) -> list[nn.Module]:
    return _normed(nn.Conv2d(inputs, outputs, 1, bias=False))


def _depthwise(channels: int, kernel: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)
    return _normed(conv, activation=False)


def _shuffle_branch(inputs: int, inner: int, outputs: int, kernel: int, stride: int) -> nn.Module:
    return nn.Sequential(
        *_pointwise(inputs, inner), *_depthwise(inner, kernel, stride), *_pointwise(inner, outputs)
    )


def _xception_branch(inputs: int, inner: int, outputs: int, stride: int) -> nn.Module:
    return nn.Sequential(
        *_depthwise(inputs, 3, stride),
        *_pointwise(inputs, inner),
        *_depthwise(inner, 3, 1),
        *_pointwise(inner, inner),
        *_depthwise(inner, 3, 1),
        *_pointwise(inner, outputs),
    )


class ShuffleUnit(nn.Module):
    """A unit of ShuffleNetV2.

    At stride 1 one half of the channels, every second one, goes through the branch and the other
    one past it; at stride 2 all go through the branch, and through layers beside it.
    """

    def __init__(self, branch: nn.Module, beside: nn.Module | None) -> None:
        super().__init__()
        self.branch = branch
        self.beside = beside

    def forward(self, maps: Tensor) -> Tensor:
        if self.beside is not None:
            return torch.cat([self.beside(maps), self.branch(maps)], 1)
        past, through = _halves(maps)
        return torch.cat([past, self.branch(through)], 1)


def _block(inputs: int, outputs: int, stride: int) -> Choice:
    """A choice of the four units; the depthwise kernel beside a branch is that of the branch."""
    entering = inputs if stride == 2 else inputs // 2
    leaving = outputs - entering
    units: dict[str, nn.Module] = {}
    for name, kernel in zip(OPERATORS, (3, 5, 7, 3), strict=True):
        branch = (
            _xception_branch(entering, outputs, leaving, stride)
            if name == "xception"
            else _shuffle_branch(entering, outputs, leaving, kernel, stride)
        )
        units[name] = ShuffleUnit(branch, _beside(inputs, kernel) if stride == 2 else None)
    return Choice(units)


def _beside(channels: int, kernel: int) -> nn.Module:
    return nn.Sequential(*_depthwise(channels, kernel, 2), *_pointwise(channels, channels))


def _halves(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Even and odd channels: the shuffle of the unit before and the split of this one."""
    batch, channels, height, width = maps.shape
    pairs = maps.reshape(batch, channels // 2, 2, height, width)
    return pairs[:, :, 0], pairs[:, :, 1]


class ShuffleSupernet(nn.Module):
    """Stem, twenty blocks, a last convolution and a classifier."""

    def __init__(self, num_classes: int, in_chans: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *_normed(nn.Conv2d(in_chans, _STEM, 3, 2, 1, bias=False)),
        )
        blocks: list[nn.Module] = []
        inputs = _STEM
        for outputs, count in _STAGES:
            for place in range(count):
                blocks.append(_block(inputs, outputs, 1 if place else 2))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Sequential(*_pointwise(inputs, _LAST))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Linear(_LAST, num_classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.last(self.blocks(self.stem(images)))
        result: Tensor = self.classifier(self.dropout(self.pool(maps).flatten(1)))
        return result


@register_model
def spos_shufflenetv2(
    pretrained: bool = False, *, num_classes: int = 1000, in_chans: int = 3, **_: Any
) -> nn.Module:
    """The supernet: all operators at twice the usual inner width."""
    if pretrained:
        raise InputError("there are no pretrained weights of this form; give a weights file")
    return ShuffleSupernet(num_classes, in_chans)


def spos_network(*, classes: int = 1000) -> nn.Module:
    """The supernet as timm makes it."""
    network: nn.Module = timm.create_model(NAME, num_classes=classes)
    return network


def spos_space(network: nn.Module, size: Sequence[int] = (3, 224, 224)) -> SearchSpace:
    """Per block an operator and a scale of the inner channels: 4^20 x 10^20 candidates."""
    return spos_narrowed(trace(network, size, grid=SCALES, genes=("width", "operator")))


def spos_narrowed(space: SearchSpace) -> SearchSpace:
    """A traced space of this network with the genes of the paper.

    The inner channels of all operators of a block are one gene; all other channels stay.
    """
    inner = [gene.name for gene in space.genes if gene.name.endswith(_INNER)]
    blocks: dict[str, list[str]] = {}
    for name in inner:
        blocks.setdefault(name.split(".")[1], []).append(name)
    rest = [gene.name for gene in space.genes if gene.kind == "width" and gene.name not in inner]
    return tied(space, list(blocks.values()), rest)


def spos_candidate(
    space: SearchSpace, operators: Sequence[int], scales: Sequence[int] | None = None
) -> Candidate:
    """The candidate that the paper writes as two lists, in the order of the blocks.

    Args:
        space: as `spos_space` makes it.
        operators: numbers in `OPERATORS`.
        scales: numbers in 0.2, 0.4, ..., 2.0; None: 1.0 everywhere.
    """
    places = [4] * len(operators) if scales is None else list(scales)
    widths = [gene for gene in space.genes if gene.kind == "width"]
    values = [gene.choices[place] for gene, place in zip(widths, places, strict=True)]
    return space.candidate([*values, *operators])
