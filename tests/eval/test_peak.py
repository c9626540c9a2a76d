"""Peak activation memory in closed form against following every tensor of the cut network."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunas.errors import InputError
from prunas.eval.peak import PeakMemory
from prunas.supernet.cut import cut
from prunas.supernet.resolution import seen, side_of
from prunas.supernet.space import Candidate, SearchSpace
from prunas.supernet.trace import trace
from tests.eval.following import Following
from tests.supernet.networks import BLOCKS, IMAGE, Network
from tests.supernet.random_networks import networks

WITH_DEPTH = ("Residual", "Plain", "Residual", "Attention", "ChannelsLast", "Residual")


def peak_followed(network: nn.Module, space: SearchSpace, candidate: Candidate) -> int:
    size = seen(tuple(space.inputs["shape"][1:]), side_of(space, candidate))
    return Following(cut(network, space, candidate), size).peak()


def compared(
    network: nn.Module, space: SearchSpace, candidates: int, seed: int = 0
) -> PeakMemory:
    some = space.sample(np.random.default_rng(seed), candidates)
    chosen = [space.full(), space.smallest(), *some]
    peak = PeakMemory(network, space)
    expected = [peak_followed(network, space, each) for each in chosen]
    assert peak.bytes(chosen).tolist() == expected
    return peak


def test_golden_number() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    space = trace(network, (3, 10, 10))
    # the worst moment is the activation: 8 channels before and after it
    assert PeakMemory(network, space).bytes([space.full()]).tolist() == [4 * 2 * 8 * 100]
    # with one channel it is the first convolution (3 + 1) or the last one (1 + 4)
    assert PeakMemory(network, space).bytes([Candidate((1,))]).tolist() == [4 * (1 + 4) * 100]


@settings(max_examples=8, deadline=None)
@given(networks(without=frozenset({"Renormed"})))
def test_random_networks(network: Network) -> None:
    compared(network, trace(network, IMAGE), 2)


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_every_kind_of_coupling(name: str) -> None:
    network = Network([name])
    compared(network, trace(network, IMAGE), 2)


def test_blocks_that_are_left_out_hand_their_input_on() -> None:
    network = Network(WITH_DEPTH)
    space = trace(network, IMAGE)
    assert len(space.blocks) == 5
    compared(network, space, 20)


@settings(max_examples=5, deadline=None)
@given(st.lists(st.sampled_from(["Residual", "Attention", "ChannelsLast"]), min_size=2, max_size=4))
def test_random_depths(blocks: list[str]) -> None:
    network = Network(blocks)
    compared(network, trace(network, IMAGE), 8)


class Handing(nn.Module):
    """A block that takes more than its input, which only blocks read."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.last = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.last(x * bias)
        return out


class Biased(nn.Module):
    """A wide map that is computed first and read in two blocks, or in none of them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.bias = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)
        self.one, self.two = Handing(8), Handing(8)
        self.middle = nn.Conv2d(8, 24, 1)
        self.back = nn.Conv2d(24, 8, 1)
        self.last = nn.Conv2d(8, 5, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x, bias = self.first(image), self.bias(image)
        x = self.one(x, bias)
        x = self.back(self.middle(x).relu())
        out: torch.Tensor = self.last(self.two(x, bias))
        return out


class Pyramid(nn.Module):
    """Hands its first map out with its last, whose making needs less."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = (
            nn.Conv2d(3, 8, 1),
            nn.Conv2d(8, 6, 1),
            nn.Conv2d(6, 9, 1),
        )

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        wide = self.first(image)
        return [wide, self.last(self.middle(wide))]


def test_outputs_live_to_the_end() -> None:
    network = Pyramid()
    space = trace(network, (3, 4, 4))
    # 8 channels handed out early, 6 read by the last layer, and its 9
    assert PeakMemory(network, space).bytes([space.full()]).tolist() == [4 * (8 + 6 + 9) * 16]


def test_what_only_blocks_read_is_freed_without_them() -> None:
    network = Biased()
    space = trace(network, (3, 6, 6))
    assert len(space.blocks) == 2
    peak = PeakMemory(network, space)
    full = list(space.full())
    for one in (0, 1):
        for two in (0, 1):
            chosen = space.candidate([*full[:-2], one, two])
            expected = peak_followed(network, space, chosen)
            assert peak.bytes([chosen]).tolist() == [expected]


def test_the_order_of_channels_does_not_matter() -> None:
    network = Network(["Grouped", "Attention"])
    space = trace(network, IMAGE)
    rng = np.random.default_rng(1)
    orders = [rng.permutation(width).tolist() for width in space.widths]
    chosen = space.sample(rng, 5)
    expected = PeakMemory(network, space).bytes(chosen)
    again = PeakMemory(network, space.reordered(orders)).bytes(chosen)
    assert again.tolist() == expected.tolist()


def test_arrays_and_none_at_all() -> None:
    network = Network(["Plain"])
    space = trace(network, IMAGE)
    peak = PeakMemory(network, space)
    chosen = space.sample(np.random.default_rng(0), 3)
    assert peak.bytes(np.array(chosen)).tolist() == peak.bytes(chosen).tolist()
    assert peak.bytes([]).shape == (0,)
    with pytest.raises(InputError, match="do not fit a space"):
        peak.bytes([[1, 2, 3, 4, 5, 6, 7]])


def test_another_network_is_refused() -> None:
    space = trace(Network(["Plain"]), IMAGE)
    with pytest.raises(InputError, match="not the one this space was traced from"):
        PeakMemory(Network(["Grouped"]), space)
