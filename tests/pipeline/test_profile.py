import re

import pytest
import torch
from torch import Tensor, nn

import prunas
from prunas.errors import InputError
from prunas.pipeline.networks import create_network
from prunas.pipeline.profile import Price, compare_with_thop, profile
from prunas.pipeline.terminal import profile_text
from prunas.search.budget import Budget


def thop_total(network: nn.Module, size: tuple[int, int, int]) -> int:
    from thop import profile as count

    macs: float = count(network, (torch.zeros(1, *size),), verbose=False)[0]
    return round(macs)


class Plain(nn.Module):
    """Layers that thop and prunas count alike."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.second = nn.Conv2d(8, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.first(images).relu()).mean((2, 3))  # type: ignore[no-any-return]


class Imaginary(Plain):
    """Runs nowhere but in a trace."""

    def forward(self, images: Tensor) -> Tensor:
        if not images.is_meta:
            raise ValueError("not today\nnor tomorrow")
        return super().forward(images)


def test_figures_are_those_of_the_candidates() -> None:
    network = Plain()
    space = prunas.trace(network, (3, 6, 6))
    found = profile(network, space, (3, 6, 6), Budget.parse("macs=50%,params=1K"))
    assert found.full == Price(16 * (9 * 3 * 8 + 8 * 4), 3 * 9 * 8 + 8 + 8 * 4 + 4)
    assert found.half == Price(16 * (9 * 3 * 4 + 4 * 4), 3 * 9 * 4 + 4 + 4 * 4 + 4)
    assert found.smallest == Price(16 * (9 * 3 + 4), 3 * 9 + 1 + 4 + 4)
    assert found.decided == (found.full.macs - found.smallest.macs,)
    assert found.limits == {"macs": found.full.macs // 2, "params": 1000}
    assert found.thop.macs == found.full.macs
    assert found.thop.sentence == "thop counts 3,968 MACs, the same."


def test_names_in_brackets_are_shown_as_they_are() -> None:
    network = nn.Sequential()
    for name, layer in (("stem[3x3]", nn.Conv2d(3, 8, 3)), ("[/b]:fire:", nn.Conv2d(8, 4, 1))):
        network.add_module(name, layer)
    network.add_module("head", nn.Conv2d(4, 4, 1))
    space = prunas.trace(network, (3, 6, 6))
    text = profile_text(profile(network, space, (3, 6, 6)), "a network[b] of photos[/b]", 100)
    for name in ("stem[3x3]", "[/b]:fire:", "a network[b] of photos[/b]"):
        assert name in text


def test_a_budget_out_of_reach_is_refused() -> None:
    network = Plain()
    space = prunas.trace(network, (3, 6, 6))
    with pytest.raises(InputError, match="the smallest one has 496"):
        profile(network, space, (3, 6, 6), Budget.parse("macs=400"))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("resnet10t", "it adds .* for BatchNorm2d, .* for AdaptiveAvgPool2d, which prunas does"),
        ("test_vit", "MACs: it leaves out .* for products of two activations, which it does not"),
        ("test_nfnet", "it adds .*; it leaves out .* for ScaledStdConv2d, which it does not know"),
    ],
)
def test_where_thop_differs_is_said(name: str, sentence: str) -> None:
    size = (3, 64, 64)
    network = create_network(name, classes=7, input_size=size)
    keys = list(network.state_dict())
    found = compare_with_thop(network, prunas.trace(network, size), size)
    assert list(network.state_dict()) == keys  # thop leaves buffers behind in what it profiles
    assert found.macs == thop_total(network, size)
    assert re.search(sentence, found.sentence), found.sentence


def test_the_difference_adds_up() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1))
    found = compare_with_thop(network, prunas.trace(network, (3, 6, 6)), (3, 6, 6))
    normalised = 4 * 8 * 16  # thop: four operations on each of 8 channels at 16 positions
    assert found.macs == 3_968 + normalised
    assert found.sentence.endswith("it adds 512 for BatchNorm2d, which prunas does not count.")


def test_several_classes_are_listed_and_few_named() -> None:
    class First(nn.Conv2d): ...

    class Second(nn.Conv2d): ...

    class Third(nn.Conv2d): ...

    class Fourth(nn.Conv2d): ...

    network = nn.Sequential(First(4, 8, 1), Second(8, 4, 1), Third(4, 6, 1), Fourth(6, 2, 1))
    found = compare_with_thop(network, prunas.trace(network, (4, 1, 1)), (4, 1, 1))
    kinds = ("32 for First", "32 for Second", "24 for Third", "12 elsewhere")
    assert found.macs == 0
    assert f"it leaves out {', '.join(kinds)}, which" in found.sentence


def test_thop_may_not_run_the_network() -> None:
    network = Imaginary()
    found = compare_with_thop(network, prunas.trace(network, (3, 6, 6)), (3, 6, 6))
    assert found.macs is None
    assert found.sentence == "thop cannot run the network: not today"


def test_the_text_names_genes_pins_and_limits() -> None:
    size = (3, 64, 64)
    network = create_network("test_byobnet", classes=7, input_size=size)
    space = prunas.trace(network, size, keep=("stages.0.*",))
    text = profile_text(profile(network, space, size, Budget.parse("macs=40%")), "the title", 100)
    assert text.startswith("the title\n")
    assert max(map(len, text.splitlines())) <= 100
    assert not any(line.endswith(" ") for line in text.splitlines())
    for gene in space.genes:
        assert f"\n {gene.name} " in text
    assert "pinned, because it was asked to be left alone" in text
    assert "the budget allows" in text
    assert "thop counts" in text
