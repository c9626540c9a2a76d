"""A trainable network of cells: genotype and skeleton in, a plain module out."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor, nn

from prunas.errors import InputError
from prunas.transformer_nat.genotype import INPUTS, Genotype
from prunas.transformer_nat.layers import DropPath, adapted, operator_module
from prunas.transformer_nat.skeleton import (
    BuiltCell,
    CellPlace,
    Skeleton,
    built_cell,
    cell_places,
    final_channels,
)


@final
class CellNetwork(nn.Module):
    """The network of a genotype, as DARTS trains it.

    Nodes that nothing reaches are not built, unless the skeleton says so.

    Args:
        genotype: its cells.
        skeleton: everything else.
        auxiliary: with a second classifier behind the second reduction cell, for training.
        seed: of the initial weights; torch's global generator is left as found.

    Raises:
        InputError: no input reaches the nodes that a cell joins, or the auxiliary head does not
            fit the size of the maps.
    """

    def __init__(
        self, genotype: Genotype, skeleton: Skeleton, *, auxiliary: bool = False, seed: int = 0
    ) -> None:
        super().__init__()
        self.genotype = genotype
        self.skeleton = skeleton
        built = {
            reduction: built_cell(cell, keep_dead=skeleton.keep_dead)
            for reduction, cell in ((False, genotype.normal), (True, genotype.reduce))
        }
        places = cell_places(genotype, skeleton)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.stem = _stem(skeleton)
            self.cells = nn.ModuleList(CellModule(built[p.reduction], p) for p in places)
            self.pool = nn.AdaptiveAvgPool2d(1)
            self.classifier = nn.Linear(final_channels(genotype, skeleton), skeleton.classes)
            self.auxiliary = _auxiliary_head(genotype, skeleton) if auxiliary else None

    def forward(self, images: Tensor) -> Tensor:
        """(n, classes) logits of (n, in_channels, size, size) images."""
        return self._logits(self._maps(images)[-1])

    def with_auxiliary(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The logits, and those of the auxiliary head.

        Raises:
            InputError: the network was made without one.
        """
        if self.auxiliary is None:
            raise InputError("this cell network has no auxiliary head; make it with auxiliary=True")
        maps = self._maps(images)
        auxiliary: Tensor = self.auxiliary(maps[self.skeleton.reductions[1]])
        return self._logits(maps[-1]), auxiliary

    @contextmanager
    def dropping(self, probability: float, generator: torch.Generator) -> Iterator[None]:
        """Inside, training drops each operator's output for an image with that probability.

        Identities are never dropped; skips of stride 2 are.

        Args:
            probability: in [0, 1).
            generator: decides; on the device of the network.

        Raises:
            InputError: the probability is outside [0, 1).
        """
        if not 0 <= probability < 1:
            raise InputError(f"drop path probability {probability} is outside [0, 1)")
        paths = [module for module in self.modules() if isinstance(module, DropPath)]
        for path in paths:
            path.probability, path.generator = probability, generator
        try:
            yield
        finally:
            for path in paths:
                path.probability, path.generator = 0.0, None

    def _maps(self, images: Tensor) -> list[Tensor]:
        """What each cell makes."""
        older, last = self.stem(images)
        maps = []
        for cell in self.cells:
            older, last = last, cell(older, last)
            maps.append(last)
        return maps

    def _logits(self, maps: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.pool(maps).flatten(1))
        return logits


@final
class CellModule(nn.Module):
    """One cell at one place."""

    def __init__(self, built: BuiltCell, place: CellPlace) -> None:
        super().__init__()
        self.older = adapted(place.older)
        self.last = adapted(place.last)
        edges = [built.cell.edges[index] for index in built.edges]
        self.operators = nn.ModuleList(
            _droppable(operator_module(name, place.place_of(source))) for name, source, _ in edges
        )
        self.ends = [(source, target) for _, source, target in edges]
        self.output = built.output

    def forward(self, older: Tensor, last: Tensor) -> Tensor:
        nodes = {0: self.older(older), 1: self.last(last)}
        for (source, target), operator in zip(self.ends, self.operators, strict=True):
            made = operator(nodes[source])
            nodes[target] = nodes[target] + made if target in nodes else made
        return torch.cat([nodes[node] for node in self.output], dim=1)


def _droppable(operator: nn.Module) -> nn.Module:
    if isinstance(operator, nn.Identity):
        return operator
    return nn.Sequential(operator, DropPath())


@final
class _CifarStem(nn.Module):
    """One convolution, whose map is both inputs of the first cell."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.layers(images)
        return maps, maps


@final
class _ImageNetStem(nn.Module):
    """Three convolutions of stride 2; the maps of the last two are the inputs."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        half = width // 2
        self.older = nn.Sequential(
            nn.Conv2d(in_channels, half, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.Conv2d(half, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.last = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        older = self.older(images)
        return older, self.last(older)


def _stem(skeleton: Skeleton) -> nn.Module:
    width = skeleton.stem_channels[1]
    if skeleton.stem == "cifar":
        return _CifarStem(skeleton.in_channels, width)
    return _ImageNetStem(skeleton.in_channels, width)


def _auxiliary_head(genotype: Genotype, skeleton: Skeleton) -> nn.Module:
    """The second classifier; the one for ImageNet lacks the second norm, as published."""
    behind = skeleton.reductions[1]
    channels = final_channels(genotype, skeleton, behind)
    place = cell_places(genotype, skeleton)[behind]
    rows = place.place_of(INPUTS).height
    stride = 3 if skeleton.stem == "cifar" else 2
    if (rows - 5) // stride != 1:  # the pool has to leave 2 x 2
        raise InputError(
            f"the auxiliary head needs maps of {5 + stride} to {4 + 2 * stride} rows and gets"
            f" {rows}; give images of another size or leave the head out"
        )
    second = [nn.BatchNorm2d(768)] if skeleton.stem == "cifar" else []
    return nn.Sequential(
        nn.ReLU(),
        nn.AvgPool2d(5, stride=stride, count_include_pad=False),
        nn.Conv2d(channels, 128, 1, bias=False),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.Conv2d(128, 768, 2, bias=False),
        *second,
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(768, skeleton.classes),
    )
