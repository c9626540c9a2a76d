"""A forward that asks how long something is computes the same at all widths that are offered."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from prunas.supernet.cut import cut
from prunas.supernet.grid import EVERY
from prunas.supernet.trace import trace
from tests.supernet.networks import IMAGE

Use = Callable[["Asking", Tensor, Tensor], Tensor]


class Asking(nn.Module):
    """conv 3 -> 8, conv 8 -> 16, something that asks about the two, linear 16 -> 5."""

    def __init__(self, use: Use) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.wider, self.last = nn.Conv2d(8, 16, 1), nn.Linear(16, 5)
        self.least = 8
        self.use = use

    def forward(self, image: Tensor) -> Tensor:
        x = self.one(image)
        out: Tensor = self.last(self.use(self, x, self.two(x)).mean((2, 3)))
        return out


DECIDING: dict[str, tuple[Use, str]] = {
    "stated sizes": (
        lambda net, x, y: x + y if net.two.in_channels == net.two.out_channels else y, "8 == 16",
    ),
    "shapes": (lambda net, x, y: x + y if x.shape == y.shape else y, "8 == 16"),
    "a projection": (
        lambda net, x, y: y + (net.wider(x) if x.shape[1] != y.shape[1] else x), "8 != 16",
    ),
    "a threshold": (lambda net, x, y: y.relu() if y.shape[1] > 8 else y, "16 > 8"),
    "a threshold of its own": (lambda net, x, y: y if y.size(1) < net.least else -y, "16 < 8"),
    "a remainder": (lambda net, x, y: y.relu() if y.shape[1] % 4 == 0 else y, r"16 % 4 == 0"),
    "a remainder that is none": (lambda net, x, y: y if y.shape[1] % 4 else -y, r"16 % 4 != 0"),
    "a half": (lambda net, x, y: y.relu() if y.shape[1] // 2 >= 5 else y, "16 // 2 >= 5"),
}  # fmt: skip


@pytest.mark.parametrize("name", DECIDING)
def test_a_width_that_the_forward_goes_by_is_pinned(name: str) -> None:
    use, asked = DECIDING[name]
    space = trace(Asking(use), IMAGE, grid=EVERY)
    assert [gene.name for gene in space.genes] == ["one"]
    reasons = {entry.name: entry.reason for entry in space.pinned}
    assert f"the forward asks about its length ({asked})" in reasons["two.weight[0]"]


HARMLESS: dict[str, Use] = {
    "of its own shape": lambda net, x, y: y.relu() if y.shape == y.relu().shape else y,
    "of its layer's size": lambda net, x, y: y if y.shape[1] == net.two.out_channels else -y,
    "out of reach": lambda net, x, y: -y if y.shape[1] > 16 or x.shape[1] > 9 else y,
    "of presence": lambda net, x, y: y.relu() if y.shape[1] > 1 else y,
    "of the image": lambda net, x, y: y.relu() if x.shape[2:] == y.shape[2:] else y,
    "with a word": lambda net, x, y: y if y.shape[1] == "wide" else y.relu(),  # type: ignore[comparison-overlap]
    "at a number between": lambda net, x, y: y if y.shape[1] < 0.5 else y.relu(),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_an_answer_that_is_always_the_same_pins_nothing(name: str) -> None:
    space = trace(Asking(HARMLESS[name]), IMAGE, grid=EVERY)
    assert [gene.name for gene in space.genes] == ["one", "two"]


def test_only_the_choices_that_there_are_count() -> None:
    def use(net: Asking, x: Tensor, y: Tensor) -> Tensor:
        return y.relu() if y.shape[1] % 4 == 0 else y

    class Wide(Asking):
        def __init__(self) -> None:
            super().__init__(use)
            self.two, self.last = nn.Conv2d(8, 64, 3, padding=1), nn.Linear(64, 5)

    assert "two" in {gene.name for gene in trace(Wide(), IMAGE).genes}
    assert "two" not in {gene.name for gene in trace(Wide(), IMAGE, grid=EVERY).genes}


class Doubting(nn.Module):
    """Two layers of equal width; the second is added only where it has the width of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 12), nn.Linear(6, 12)
        self.last, self.other = nn.Linear(12, 5), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.one(x), self.two(x)
        out: Tensor = self.last(one) + self.other(two)
        return out.relu() if one.shape == two.shape else out


def test_lengths_that_were_found_equal_stay_equal() -> None:
    network = Doubting().eval()
    space = trace(network, (6,), grid=EVERY)
    assert [gene.choices[-1] for gene in space.genes] == [12]
    small = cut(network, space, [7])
    x = torch.randn(2, 6)
    with torch.no_grad():
        plain = small.last(small.one(x)) + small.other(small.two(x))  # type: ignore[operator]
        assert torch.equal(small(x), plain.relu())


def test_what_torchs_own_layers_ask_pins_nothing() -> None:
    class Attending(nn.Module):
        """`nn.MultiheadAttention` asks whether its four heads are an even number."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 5)
            self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            out: Tensor = self.last(self.attention(y, y, y)[0].mean(1))
            return out

    space = trace(Attending().eval(), (7, 6), grid=EVERY)
    assert sorted(gene.choices[-1] for gene in space.genes) == [4, 4, 16]
