"""Splits that do not follow the widths are found out, however large their parts are."""

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from prunas.supernet.cut import cut
from prunas.supernet.grid import EVERY
from prunas.supernet.imagined import name_of
from prunas.supernet.trace import trace
from prunas.supernet.verify import verify
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


SHARES: dict[str, Callable[[int], int]] = {
    "three quarters": lambda width: 3 * width // 4,
    "half": lambda width: width // 2,
    "a third": lambda width: width // 3,
    "an eighth": lambda width: max(1, width // 8),
    "nine tenths": lambda width: round(width * 0.9),
}


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("three quarters", 8),
        ("half", 6),
        ("half", 5),
        ("a third", 9),
        ("an eighth", 24),
        ("nine tenths", 15),
    ],
)
def test_shares_of_few_channels_are_found_out(name: str, width: int) -> None:
    share = SHARES[name]

    def use(net: Parted, y: Tensor) -> Tensor:
        return first(share(y.shape[1]))(net, y)

    space = trace(Parted(use, width).eval(), IMAGE)
    parts = [gene for gene, row in enumerate(space.genes) if row.name.startswith("first")]
    for values in itertools.product(*(space.genes[gene].choices for gene in parts)):
        candidate = list(space.full())
        for gene, value in zip(parts, values, strict=True):
            candidate[gene] = value
        removed = space.removed(candidate).get("first.weight", {}).get(0, torch.zeros(0))
        before = int((removed < share(width)).sum())
        assert share(width) - before == share(width - len(removed))


@pytest.mark.parametrize(("width", "side"), [(16, 8), (24, 8), (64, 16)])
def test_a_division_by_no_groups_leaves_whole_groups(width: int, side: int) -> None:
    def use(net: Parted, y: Tensor) -> Tensor:
        out: Tensor = net.next(nn.functional.group_norm(y, y.shape[1] // side))
        return out

    network = Parted(use, width).eval()
    space = trace(network, IMAGE)
    assert space.genes[0].choices == tuple(range(1, width // side + 1))
    verify(network, space)


def counted(net: Parted, y: Tensor) -> Tensor:
    """A length that has become a plain number, which nobody sees compared."""
    out: Tensor = net.next(y.relu() if len(range(y.shape[1])) > 9 else y)
    return out


def counted_afterwards(net: Parted, y: Tensor) -> Tensor:
    many = len(range(y.shape[1])) > 15
    y = net.next(y)
    return y.relu() if many else y


@pytest.mark.parametrize("use", [counted, counted_afterwards])
def test_a_network_that_does_other_things_when_cut_is_found_out(use: Use) -> None:
    network = Parted(use, 16).eval()
    space = trace(network, IMAGE, grid=EVERY)
    operators = _operators(network)
    rng = np.random.default_rng(0)
    for candidate in space.sample(rng, 12):
        assert _operators(cut(network, space, candidate)) == operators
    assert any("the forward runs" in entry.reason for entry in space.pinned)


def _operators(network: nn.Module) -> Counter[str]:
    """How often the operators run that compute something."""
    counting = Counting()
    with torch.no_grad(), counting:
        network(torch.zeros(2, *IMAGE))
    return counting.counts


class Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = name_of(func)
        if name in ("aten.convolution", "aten.relu"):
            self.counts[name] += 1
        return func(*args, **kwargs or {})


def test_other_operators_at_widths_of_one_pin_nothing() -> None:
    """Parts of few heads are tried at widths of one, where other layers run than else."""
    network = timm.create_model("coat_lite_mini", img_size=64).eval()
    space = trace(network, (3, 64, 64))
    widths = [max(gene.choices) for gene in space.genes if gene.name.startswith("patch_embed1")]
    assert widths == [8, 2, 3, 3]  # of a head, and heads with windows of 3, 5 and 7 pixels
