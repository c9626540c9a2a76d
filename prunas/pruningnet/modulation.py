"""The lean generator: shared weights, changed a little by what is generated.

For a weight W of a layer that sees the width ratios r, and for a vector v (the scale or shift of a
norm, a bias),

    W(r) = W + sum_i s_i(r) u_i (x) V_i,      v(r) = v + d(r),

with W and v the shared ones, u_i (outputs), V_i (the other dimensions) and the maps

    s(r) = B relu(A r + a),                   d(r) = D relu(E r + e)

learnt. It starts as the shared weights (B and D are zero). Each u_i (x) V_i starts with a
Frobenius norm of about 1, so that one rate of learning suits s and W: a step along s moves the
weight by that norm squared times what a step on W moves it, and with patterns as large as W
itself training was unstable (measured: benchmarks/RESULTS.md). A norm's scale and shift are the
gain and bias of a channel; a gain on W itself would be undone by the norm behind it. Where
MetaPruning needs 32 or 64 numbers for each weight, this needs a few for each channel.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Final, final

import torch
from torch import Tensor, nn

from prunas.pruningnet.generator import Kept, cropped, key
from prunas.pruningnet.layers import Layer
from prunas.pruningnet.perceptrons import uniform

RANK: Final = 4
HIDDEN: Final = 8


@final
class Modulation(nn.Module):
    """Low-rank changes of weights, and changes of vectors.

    Args:
        layers: whose weights are changed.
        vectors: {name: genes that it sees} of vectors that are changed.
        weights: the network's tensors by name; their device and type are the parameters'.
        rank: of the changes of a weight.
        hidden: units of each map.
        rng: draws the start.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        vectors: Mapping[str, tuple[int, ...]],
        weights: Mapping[str, Tensor],
        *,
        rank: int = RANK,
        hidden: int = HIDDEN,
        rng: torch.Generator,
    ) -> None:
        super().__init__()
        self.names = (*(layer.name for layer in layers), *vectors)
        self.of = nn.ModuleDict()
        for layer in layers:
            weight = weights[layer.name]
            made = _LowRank(weight, layer.genes, rank, hidden, rng)
            self.of[key(layer.name)] = made.to(weight.device, weight.dtype)
        for name, genes in vectors.items():
            vector = weights[name]
            shifted = _Vector(len(vector), genes, hidden, rng)
            self.of[key(name)] = shifted.to(vector.device, vector.dtype)

    def made(self, name: str, ratios: Tensor, kept: Kept, shared: Tensor) -> Tensor:
        made: Tensor = self.of[key(name)](ratios, kept, shared)
        return made


@final
class _Map(nn.Module):
    """relu(A r + a), of the ratios that a tensor sees."""

    genes: Tensor

    def __init__(self, genes: tuple[int, ...], hidden: int, rng: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("genes", torch.tensor(genes), persistent=False)
        self.first = nn.Parameter(uniform((hidden, len(genes)), len(genes), rng))
        self.shift = nn.Parameter(uniform((hidden,), len(genes), rng))

    def forward(self, ratios: Tensor) -> Tensor:
        seen = ratios[self.genes].to(self.first.dtype)
        return torch.relu(torch.addmv(self.shift, self.first, seen))


@final
class _LowRank(nn.Module):
    def __init__(
        self, weight: Tensor, genes: tuple[int, ...], rank: int, hidden: int, rng: torch.Generator
    ) -> None:
        super().__init__()
        self.map = _Map(genes, hidden, rng)
        self.second = nn.Parameter(torch.zeros(rank, hidden))
        outputs, *others = weight.shape
        left, right = outputs**-0.5, prod(others) ** -0.5
        self.left = nn.Parameter(torch.empty(outputs, rank).normal_(generator=rng) * left)
        self.right = nn.Parameter(torch.empty(rank, *others).normal_(generator=rng) * right)

    def forward(self, ratios: Tensor, kept: Kept, shared: Tensor) -> Tensor:
        amounts = torch.mv(self.second, self.map(ratios))
        weight = cropped(shared, kept)
        left = cropped(self.left, {d: i for d, i in kept.items() if d == 0})
        right = cropped(self.right, {d: i for d, i in kept.items() if d > 0})
        change = torch.mm(left * amounts, right.flatten(1))
        return weight + change.view(len(left), *right.shape[1:])


@final
class _Vector(nn.Module):
    def __init__(
        self, length: int, genes: tuple[int, ...], hidden: int, rng: torch.Generator
    ) -> None:
        super().__init__()
        self.map = _Map(genes, hidden, rng)
        self.second = nn.Parameter(torch.zeros(length, hidden))

    def forward(self, ratios: Tensor, kept: Kept, shared: Tensor) -> Tensor:
        change = torch.mv(cropped(self.second, kept), self.map(ratios))
        return cropped(shared, kept) + change
