"""Where a channel that is zero is not one that was left out, and that genes are said to be so."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunas.supernet.grid import EVERY
from prunas.supernet.trace import trace
from prunas.supernet.verify import verify

Use = Callable[["Mixing", Tensor, Tensor, Tensor], Tensor]


class Mixing(nn.Module):
    """Three linear layers to 12, something that mixes what they return, linear -> 5."""

    def __init__(self, use: Use) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(6, 12) for _ in range(3))
        self.last = nn.Linear(12, 5)
        self.width, self.parts = 12, 4
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        y = self.use(self, self.query(x), self.key(x), self.value(x))
        out: Tensor = self.last(y.mean(1))
        return out


def attention(scaled: Callable[["Mixing", Tensor, Tensor], Tensor]) -> Use:
    return lambda net, q, k, v: scaled(net, q, q @ k.transpose(1, 2)).softmax(-1) @ v


def linear_attention(net: Mixing, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k = F.elu(q) + 1, F.elu(k) + 1
    total = q @ k.sum(1, keepdim=True).transpose(1, 2)
    out: Tensor = (q @ (k.transpose(1, 2) @ v)) / total
    return out


def centred(net: Mixing, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q = q.view(q.shape[0], -1, net.width)
    return q - q.sum(-1, keepdim=True) / net.width


def by_parts(net: Mixing, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out: Tensor = q.unflatten(2, (net.parts, -1)).flatten(2) * net.parts
    return out


USES: dict[str, Use] = {
    "a sum of exponentials": lambda net, q, k, v: q.exp() / q.exp().sum(-1, keepdim=True),
    "a sum of gates": lambda net, q, k, v: q * k.sigmoid().sum(-1, keepdim=True),
    "a sum after one more": lambda net, q, k, v: q * (k + 1).sum(-1, keepdim=True),
    "a sum after a mean": lambda net, q, k, v: q * (k - k[..., :1]).sum(-1, keepdim=True),
    "linear attention": linear_attention,
    "a mean by hand": lambda net, q, k, v: q - q.sum(-1, keepdim=True) / q.shape[-1],
    "a mean by an integer": centred,
    "times parts": by_parts,
    "a length first": lambda net, q, k, v: q.shape[-1] * q,
    "a length added": lambda net, q, k, v: q + q.shape[-1],
    "a length in a tensor": lambda net, q, k, v: q * torch.full((1,), q.shape[-1], device=q.device),
    "scaled": attention(lambda net, q, a: a / q.shape[-1]),
    "scaled by a half": attention(lambda net, q, a: a / (q.shape[-1] // 2)),
    "scaled by a power": attention(lambda net, q, a: a * q.shape[-1] ** -0.5),
    "scaled by a root": attention(lambda net, q, a: a / math.sqrt(q.size(-1))),
    "scaled by numpy": attention(lambda net, q, a: a / float(np.sqrt(q.size(-1)))),
    "scaled by a tensor": attention(
        lambda net, q, a: a / torch.tensor(q.size(-1), device=q.device).sqrt()
    ),
}


@pytest.mark.parametrize("name", USES)
def test_zeroed_is_not_removed_is_said(name: str) -> None:
    torch.manual_seed(0)
    network = Mixing(USES[name]).eval()
    space = trace(network, (7, 6), grid=EVERY)
    assert space.normalised
    for seed in range(4):
        verify(network, space, seed=seed)


LINEAR: dict[str, Use] = {
    "a sum": lambda net, q, k, v: q * k.sum(-1, keepdim=True),
    "a sum of what is zero at zero": lambda net, q, k, v: q * F.gelu(k).sum(-1, keepdim=True),
    "gated": lambda net, q, k, v: q * (k * v.sigmoid()).sum(-1, keepdim=True),
    "moved": lambda net, q, k, v: q * (k + q).sum(-1, keepdim=True),
    "products": lambda net, q, k, v: (q @ k.transpose(1, 2)).softmax(-1) @ v,
    "one factor is zero": lambda net, q, k, v: q @ (k.sigmoid().transpose(1, 2) @ v),
}


@pytest.mark.parametrize("name", LINEAR)
def test_what_is_zero_at_zero_is_summed_as_if_it_were_not_there(name: str) -> None:
    network = Mixing(LINEAR[name]).eval()
    space = trace(network, (7, 6), grid=EVERY)
    assert not space.normalised
    for seed in range(4):
        verify(network, space, seed=seed)
