"""The generator of the paper: every weight is the output of a perceptron of its own.

Liu et al., "MetaPruning", ICCV 2019, section 3.1, and the released code. For a layer that sees the
width ratios r, with h hidden units,

    W = reshape(W_2 relu(W_1 r + b_1) + b_2), of which the candidate takes the leading entries,

so W_2 holds h numbers for every weight of the full network. W_1 and W_2 start as torch's linear
layers do. With `start="network"` (ours) b_2 starts as the trained network's weight and W_2 as
zero, so that training goes on from there instead of from nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, final

import torch
from torch import Tensor, nn

from prunas.pruningnet.generator import Kept, cropped, key
from prunas.pruningnet.layers import Layer

Start = Literal["network", "random"]

HIDDEN: Final = 32


def size_of_perceptrons(layers: Sequence[Layer], hidden: int = HIDDEN) -> int:
    """Numbers in the perceptrons of these layers: h d + h and h N + N each, N weights."""
    return sum(
        h * len(layer.genes) + h + h * layer.numel + layer.numel
        for layer in layers
        for h in [_units(layer, hidden)]
    )


def _units(layer: Layer, hidden: int) -> int:
    """Layers that see their own width only have 32 units in each of the paper's networks."""
    return HIDDEN if len(layer.genes) == 1 else hidden


@final
class Perceptrons(nn.Module):
    """One perceptron a layer.

    Args:
        layers: what is generated.
        weights: the network's own, by name; their device and type are the parameters'.
        hidden: units of each perceptron (32, or 64 for the paper's MobileNetV2).
        start: from the network's weights, or at random as in the paper.
        rng: draws the start.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        weights: Mapping[str, Tensor],
        *,
        hidden: int = HIDDEN,
        start: Start = "network",
        rng: torch.Generator,
    ) -> None:
        super().__init__()
        self.names = tuple(layer.name for layer in layers)
        self.of = nn.ModuleDict()
        for layer in layers:
            own = weights[layer.name]
            given = own if start == "network" else None
            made = _Perceptron(layer, _units(layer, hidden), given, rng)
            self.of[key(layer.name)] = made.to(own.device, own.dtype)

    def made(self, name: str, ratios: Tensor, kept: Kept, shared: Tensor) -> Tensor:
        made: Tensor = self.of[key(name)](ratios, kept)
        return made


@final
class _Perceptron(nn.Module):
    genes: Tensor

    def __init__(
        self, layer: Layer, hidden: int, given: Tensor | None, rng: torch.Generator
    ) -> None:
        super().__init__()
        self.register_buffer("genes", torch.tensor(layer.genes), persistent=False)
        inputs = len(layer.genes)
        self.first = nn.Parameter(uniform((hidden, inputs), inputs, rng))
        self.shift = nn.Parameter(uniform((hidden,), inputs, rng))
        if given is None:
            self.second = nn.Parameter(uniform((*layer.shape, hidden), hidden, rng))
            self.start = nn.Parameter(uniform(layer.shape, hidden, rng))
        else:
            self.second = nn.Parameter(torch.zeros(*layer.shape, hidden))
            self.start = nn.Parameter(
                given.detach().cpu().clone(memory_format=torch.contiguous_format)
            )

    def forward(self, ratios: Tensor, kept: Kept) -> Tensor:
        seen = ratios[self.genes].to(self.first.dtype)
        units = torch.relu(self.first @ seen + self.shift)
        return cropped(self.second, kept) @ units + cropped(self.start, kept)


def uniform(shape: Sequence[int], inputs: int, rng: torch.Generator) -> Tensor:
    """U(-b, b), b = 1 / sqrt(inputs): the start of torch's linear layers."""
    bound = inputs**-0.5
    return torch.empty(*shape).uniform_(-bound, bound, generator=rng)
