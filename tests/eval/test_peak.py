"""Peak activation memory in closed form against following every tensor of the cut network."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunas.errors import InputError
from prunas.eval.peak import PeakMemory
from prunas.supernet.choice import Choice, choose
from prunas.supernet.cut import cut
from prunas.supernet.resolution import seen, side_of
from prunas.supernet.space import Candidate, SearchSpace
from prunas.supernet.spos import spos_network, spos_space
from prunas.supernet.trace import trace
from tests.eval.following import Following
from tests.eval.joint import NETWORKS, Trimmed, network_of, of_timm, traced
from tests.supernet.networks import (
    APART,
    BLOCKS,
    IMAGE,
    Apart,
    Network,
    Residual,
    Way,
    choice_block,
)
from tests.supernet.random_networks import networks

WITH_DEPTH = ("Residual", "Plain", "Residual", "Attention", "ChannelsLast", "Residual")


def peak_followed(network: nn.Module, space: SearchSpace, candidate: Candidate) -> int:
    size = seen(tuple(space.inputs["shape"][1:]), side_of(space, candidate))
    return Following(cut(network, space, candidate), size).peak()


def compared(network: nn.Module, space: SearchSpace, candidates: int, seed: int = 0) -> PeakMemory:
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


@pytest.mark.parametrize("way", APART.values(), ids=APART)
def test_images_that_the_forward_takes_apart(way: Way) -> None:
    network = Apart(way)
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


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_gene(name: str) -> None:
    network, space = traced(name)
    compared(network, space, 12)


@settings(max_examples=10, deadline=None)
@given(name=st.sampled_from(sorted(NETWORKS)), seed=st.integers(0, 2**32 - 1))
def test_all_kinds_of_genes_at_all_sides(name: str, seed: int) -> None:
    network, space = traced(name, (7, 10))
    compared(network, space, 4, seed)


@pytest.mark.parametrize(
    ("name", "size", "resolutions"),
    [
        ("mobilenetv3_small_050", 64, ()),
        ("tf_mobilenetv3_small_075", 64, (48,)),
        ("test_efficientnet", 64, (33, 48)),
        ("test_convnext", 64, (48,)),
        ("test_mambaout", 64, (48,)),
    ],
)
def test_networks_of_timm(name: str, size: int, resolutions: tuple[int, ...]) -> None:
    network, space = of_timm(name, size, resolutions)
    compared(network, space, 3)


@pytest.mark.slow
def test_single_path_one_shot() -> None:
    network = spos_network(classes=5).eval()
    compared(network, spos_space(network, (3, 64, 64)), 3)


def test_a_choice_by_hand() -> None:
    """8 channels of 4 x 4 floats are 512 bytes: in and out of an alternative, or of the next."""
    wide = nn.Sequential(nn.Conv2d(8, 32, 1), nn.Conv2d(32, 8, 1))
    network = nn.Sequential(nn.Conv2d(3, 8, 1), Choice([nn.Identity(), wide]), nn.Conv2d(8, 8, 1))
    space = trace(network, (3, 4, 4), genes=("operator",))
    assert [gene.kind for gene in space.genes] == ["operator"]
    # without it the last layer is the worst moment, with it 8 and 32 channels
    assert PeakMemory(network, space).bytes([(0,), (1,)]).tolist() == [4 * 16 * 16, 4 * 40 * 16]


def test_what_is_read_after_a_choice_lives_through_it() -> None:
    """A shortcut around a choice: the other alternative does not keep what it does not read."""

    class Past(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 1)
            self.choice = Choice([nn.Identity(), nn.Conv2d(8, 8, 1)])
            self.last = nn.Conv2d(16, 4, 1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            x = self.first(image)
            out: torch.Tensor = self.last(torch.cat([x, self.choice(x)], 1))
            return out

    network = Past()
    space = trace(network, (3, 4, 4), genes=("operator",))
    # at the concatenation: 16 channels, and the two parts, which are one without the layer
    assert PeakMemory(network, space).bytes([(0,), (1,)]).tolist() == [4 * 24 * 16, 4 * 32 * 16]


def test_a_margin_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), Trimmed(8, 5), nn.Conv2d(8, 2, 1))
    space = trace(network, (3, 6, 6), genes=("kernel",))
    # 8 channels of 6 x 6, with a margin of 1 or of 2 around them
    expected = [4 * 8 * (36 + 64), 4 * 8 * (36 + 100)]
    assert PeakMemory(network, space).bytes([(3,), (5,)]).tolist() == expected


class Sparing(Trimmed):
    """Pads where it has to: with the smallest kernel it does not."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padding = (self.weight.shape[-1] - 3) // 2
        if padding:
            x = nn.functional.pad(x, [padding] * 4)
        return nn.functional.conv2d(x, self.weight, self.bias, padding=1, groups=self.groups)


def test_kernels_of_which_other_operators_run_are_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), Sparing(8, 5), nn.Conv2d(8, 2, 1))
    space = trace(network, (3, 6, 6), genes=("width", "kernel"))
    with pytest.raises(InputError, match=r"smaller kernel \('1\[kernel\]'\) .* without genes of"):
        PeakMemory(network, space)


def test_a_choice_without_a_gene_is_the_alternative_that_runs() -> None:
    network = network_of(choice_block(), Residual(8))
    space = trace(network, IMAGE, genes=("width", "depth"))
    assert not space.alternatives
    compared(network, space, 3)
    choose(network, {"1": 1})
    compared(network, space, 3)


def test_sides_of_images_are_told_apart_in_one_table() -> None:
    network, space = traced("gates and kernels", (7, 10))
    peak = compared(network, space, 6)
    table = np.array(space.sample(np.random.default_rng(2), 50))
    alone = [int(peak.bytes([row])[0]) for row in table]
    assert peak.bytes(table).tolist() == alone
    assert peak.bytes([]).shape == (0,)
    with pytest.raises(InputError, match=r"8 is not a side that images have here; .*\(7, 10, 12\)"):
        peak.bytes([(*space.full()[:-1], 8)])


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
