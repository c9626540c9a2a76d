"""Splits that do not follow the widths are found out, however large their parts are."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from prunas.supernet.grid import EVERY
from prunas.supernet.trace import trace
from tests.supernet.networks import IMAGE

Use = Callable[["Parted", Tensor], Tensor]


class Parted(nn.Module):
    """conv 3 -> width, something done to a part of its channels, conv -> 8, linear -> 5."""

    def __init__(self, use: Use, width: int) -> None:
        super().__init__()
        self.first, self.next = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 8, 1)
        self.left, self.right = nn.Conv2d(width // 2, 8, 1), nn.Conv2d(width // 2, 8, 1)
        self.last = nn.Linear(8, 5)
        self.use = use

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.last(self.use(self, self.first(image)).mean((2, 3)))
        return out


def first(count: int) -> Use:
    """So many channels go through an activation."""
    return lambda net, y: net.next(torch.cat([y[:, :count].relu(), y[:, count:]], 1))


def share(parts: int) -> Use:
    return lambda net, y: first(y.shape[1] // parts)(net, y)


def scaled(net: Parted, y: Tensor) -> Tensor:
    y[:, :4].mul_(2)
    out: Tensor = net.next(y)
    return out


def masked(net: Parted, y: Tensor) -> Tensor:
    mask = torch.ones(y.shape[1], device=y.device)
    mask[:4] = 0
    out: Tensor = net.next(y * mask.view(1, -1, 1, 1))
    return out


def halves(net: Parted, y: Tensor) -> Tensor:
    half = y.shape[1] // 2
    out: Tensor = net.left(y[:, :half]) + net.right(y[:, half:])
    return out


def gated(net: Parted, y: Tensor) -> Tensor:
    half = y.shape[1] // 2
    out: Tensor = net.left(y[:, :half] * y[:, half:].sigmoid())
    return out


# name: (use, width, what may be free of the first layer's channels)
SPLITS: dict[str, tuple[Use, int, list[int]]] = {
    "three quarters": (first(24), 32, [8]),
    "nearly all": (first(30), 32, [2]),
    "a few": (first(4), 64, [60]),
    "in place": (scaled, 16, [12]),
    "a mask": (masked, 16, [12]),
    "half of 16": (share(2), 16, []),
    "half of 64": (share(2), 64, []),
    "a quarter of 16": (share(4), 16, []),
    "two branches of 16": (halves, 16, []),
    "two branches of 32": (halves, 32, []),
    "tied halves": (gated, 16, [8]),  # one gene for both: then half follows
}


@pytest.mark.parametrize("name", SPLITS)
def test_only_what_follows_is_free(name: str) -> None:
    use, width, free = SPLITS[name]
    space = trace(Parted(use, width).eval(), IMAGE, grid=EVERY)
    found = [g.choices[-1] for g in space.genes if g.name.startswith("first")]
    assert found == free
