"""The three networks of MetaPruning, and their search spaces with 31 widths a gene.

Liu et al., "MetaPruning: Meta Learning for Automatic Neural Network Channel Pruning", ICCV 2019,
as in the released code (github.com/liuzechun/MetaPruning). MobileNetV2 is 1.4 times as wide as
usual and its first bottleneck has an expansion too; ResNet-50 is timm's.

A shortcut is there where the full widths agree. In the released code the networks that are
trained in the end have one wherever the pruned widths happen to agree; ours do not.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import timm
import torch
from timm.models import register_model
from torch import nn

from prunas.errors import InputError
from prunas.pruningnet.forms import published_net
from prunas.pruningnet.pruning_net import PruningNet
from prunas.supernet.grid import METAPRUNING
from prunas.supernet.space import SearchSpace
from prunas.supernet.trace import trace
from prunas.supernet.tying import tied

_SIZE: Final = (3, 224, 224)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


class _Separable(nn.Module):
    """A depthwise and a pointwise convolution, each with batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.depthwise = _conv(inputs, inputs, 3, stride, groups=inputs)
        self.norm1 = nn.BatchNorm2d(inputs)
        self.pointwise = _conv(inputs, outputs, 1)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        maps = self.activation(self.norm1(self.depthwise(maps)))
        result: torch.Tensor = self.activation(self.norm2(self.pointwise(maps)))
        return result


class _Bottleneck(nn.Module):
    """An inverted residual; the first one of the network has an expansion of one."""

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.expand = _conv(inputs, inner, 1)
        self.norm1 = nn.BatchNorm2d(inner)
        self.depthwise = _conv(inner, inner, 3, stride, groups=inner)
        self.norm2 = nn.BatchNorm2d(inner)
        self.project = _conv(inner, outputs, 1)
        self.norm3 = nn.BatchNorm2d(outputs)
        self.activation = nn.ReLU6(inplace=True)
        self.shortcut = inputs == outputs and stride == 1

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        inner = self.activation(self.norm1(self.expand(maps)))
        inner = self.activation(self.norm2(self.depthwise(inner)))
        result: torch.Tensor = self.norm3(self.project(inner))
        return maps + result if self.shortcut else result


class _Classifier(nn.Module):
    """A stem, blocks, perhaps a head, and a linear layer on the mean over positions."""

    def __init__(
        self,
        stem: Sequence[nn.Module],
        blocks: Sequence[nn.Module],
        head: Sequence[nn.Module],
        features: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(*stem)
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(*head)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(features, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.head(self.blocks(self.stem(images)))
        result: torch.Tensor = self.classifier(self.pool(maps).flatten(1))
        return result


@register_model
def metapruning_mobilenetv1(
    pretrained: bool = False, *, num_classes: int = 1000, in_chans: int = 3, **_: Any
) -> nn.Module:
    """MobileNetV1 at 1.0 x: 568.74 M multiply-accumulates at 224 x 224."""
    _refuse_pretrained(pretrained)
    widths = (32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024)
    strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
    stem = [_conv(in_chans, 32, 3, 2), nn.BatchNorm2d(32), nn.ReLU(inplace=True)]
    blocks = [_Separable(*each) for each in zip(widths, widths[1:], strides, strict=False)]
    return _Classifier(stem, blocks, (), widths[-1], num_classes)


@register_model
def metapruning_mobilenetv2(
    pretrained: bool = False, *, num_classes: int = 1000, in_chans: int = 3, **_: Any
) -> nn.Module:
    """MobileNetV2 at 1.4 x, from which the paper prunes down."""
    _refuse_pretrained(pretrained)
    stages = ((22, 1, 1), (33, 2, 2), (44, 3, 2), (88, 4, 2), (132, 3, 1), (224, 3, 2), (448, 1, 1))
    blocks: list[nn.Module] = []
    inputs = 44
    for outputs, count, first_stride in stages:
        for place in range(count):
            inner = inputs * (6 if blocks else 1)
            blocks.append(_Bottleneck(inputs, inner, outputs, 1 if place else first_stride))
            inputs = outputs
    stem = [_conv(in_chans, 44, 3, 2), nn.BatchNorm2d(44), nn.ReLU6(inplace=True)]
    head = [_conv(448, 1280, 1), nn.BatchNorm2d(1280), nn.ReLU6(inplace=True)]
    return _Classifier(stem, blocks, head, 1280, num_classes)


@register_model
def metapruning_resnet50(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """timm's ResNet-50, under the name that has the paper's search space."""
    network: nn.Module = timm.create_model("resnet50", pretrained=pretrained, **arguments)
    return network


def _refuse_pretrained(wanted: bool) -> None:
    if wanted:
        raise InputError("there are no pretrained weights of this form; give a weights file")


@dataclass(frozen=True, eq=False)
class Published:
    """One of the paper's networks, as its PruningNet was made.

    Attributes:
        name: of the network in timm's registry, once this module is imported.
        hidden: units of the perceptrons of its blocks; those of single convolutions have 32.
        scaled: batch norms that have a scale and a shift (for every width).
        tie: groups of genes that share one id in the paper.
        whole: genes that the paper leaves at full width.
    """

    name: str
    hidden: int
    scaled: tuple[str, ...]
    tie: Callable[[SearchSpace], Iterator[tuple[str, ...]]]
    whole: tuple[str, ...]

    def network(self, *, classes: int = 1000) -> nn.Module:
        network: nn.Module = timm.create_model(self.name, num_classes=classes)
        return network

    def space(self, network: nn.Module, size: Sequence[int] = _SIZE) -> SearchSpace:
        """The genes and the 31 widths of the paper."""
        return self.narrowed(trace(network, size, grid=METAPRUNING, genes=("width",)))

    def pruning_net(self, network: nn.Module, space: SearchSpace, *, seed: int = 0) -> PruningNet:
        """The PruningNet of the paper, untrained; it does not share the network's convolutions."""
        return published_net(
            network,
            space,
            hidden=self.hidden,
            start="random",
            width_norms=self.scaled,
            seed=seed,
        )

    def narrowed(self, space: SearchSpace) -> SearchSpace:
        """A traced space of this network with the genes of the paper."""
        return tied(space, list(self.tie(space)), self.whole)


def _inner_widths(space: SearchSpace) -> Iterator[tuple[str, ...]]:
    """The first two convolutions of a bottleneck have one id."""
    for gene in space.genes:
        if gene.name.endswith(".conv1"):
            yield gene.name, f"{gene.name.removesuffix('1')}2"


def _no_ties(space: SearchSpace) -> Iterator[tuple[str, ...]]:
    return iter(())


_LAST_OF_V1: Final = ("blocks.12.pointwise",)
_HEAD_OF_V2: Final = ("head.0",)
_LAST_OF_RESNET: Final = ("layer4.0.conv3",)

PUBLISHED: Final[Mapping[str, Published]] = {
    "mobilenetv1": Published(
        "metapruning_mobilenetv1", 32, ("stem.1", "*.norm1"), _no_ties, _LAST_OF_V1
    ),
    "mobilenetv2": Published("metapruning_mobilenetv2", 64, (), _no_ties, _HEAD_OF_V2),
    "resnet50": Published("metapruning_resnet50", 32, (), _inner_widths, _LAST_OF_RESNET),
}
