"""Images of several sides as a gene."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunas.errors import InputError
from prunas.eval.cost import Cost
from prunas.supernet.cut import cut
from prunas.supernet.elastic import Supernet
from prunas.supernet.grid import EVERY
from prunas.supernet.permute import permute
from prunas.supernet.resolution import resized, seeing, seen, side_of, stride_of
from prunas.supernet.space import Candidate, SearchSpace
from prunas.supernet.trace import KINDS, trace
from prunas.supernet.tying import tied
from prunas.supernet.verify import verify
from tests.supernet.counting import macs_counted, parameters_counted
from tests.supernet.networks import Residual, SqueezeExcite

IMAGE = (3, 24, 24)


def network_of(*more: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        Residual(8),
        SqueezeExcite(8),
        nn.Conv2d(8, 8, 5, stride=2, padding=2, groups=8),
        *more,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).eval()


def space_of(network: nn.Module) -> SearchSpace:
    return trace(network, IMAGE, grid=EVERY, genes=KINDS, resolutions=(10, 17))


def test_the_gene_offers_the_sides_given_and_the_own_one() -> None:
    gene = space_of(network_of()).genes[-1]
    assert (gene.name, gene.kind, gene.choices) == ("input", "resolution", (10, 17, 24))
    larger = trace(network_of(), IMAGE, resolutions=(32, 24)).genes[-1]
    assert larger.choices == (24, 32)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_costs_are_exact_at_each_side(seed: int) -> None:
    network = network_of()
    space = space_of(network)
    cost = Cost(space)
    for candidate in space.sample(np.random.default_rng(seed), 3):
        side = side_of(space, candidate)
        small = cut(network, space, candidate)
        assert cost.macs([candidate])[0] == macs_counted(small, seen(IMAGE, side))
        assert cost.params([candidate])[0] == parameters_counted(small)


def test_costs_rise_with_the_side() -> None:
    """What a budget's bisection relies on."""
    network = network_of()
    space = trace(network, IMAGE, resolutions=range(5, 24))
    rows = [(*space.full()[:-1], side) for side in space.genes[-1].choices]
    assert (np.diff(Cost(space).macs(rows)) >= 0).all()


def test_running_a_candidate_is_its_cut_network_on_smaller_images() -> None:
    network = network_of()
    space = space_of(network)
    source = Supernet(network, space)
    images = torch.randn(2, *IMAGE)
    for candidate in [space.smallest(), *space.sample(np.random.default_rng(0), 6)]:
        given = resized(images, side_of(space, candidate))
        expected = cut(network, space, candidate)(given)
        with source.frozen(candidate) as running:
            torch.testing.assert_close(running(images), expected)
        with source.running(candidate) as running:
            running(images).sum().backward()
    assert network(images).shape == (2, 5)  # nothing is left behind
    assert not network._forward_pre_hooks


def test_images_already_of_that_side_are_left_alone() -> None:
    images = torch.randn(2, 3, 10, 14)
    assert resized(images, 10) is images
    assert resized(images, None) is images


def test_a_flat_image_stays_flat_and_oblong_ones_keep_their_shape() -> None:
    small = resized(torch.full((1, 3, 20, 30), 0.7), 10)
    assert small.shape == (1, 3, 10, 15)
    torch.testing.assert_close(small, torch.full_like(small, 0.7))
    assert seen((3, 20, 30), 10) == (3, 10, 15)
    assert seen((3, 20, 30), None) == (3, 20, 30)


def test_shrinking_is_smooth() -> None:
    """Halving a fine chequerboard gives grey, not one of its colours."""
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2
    small = resized(board[None, None].float(), 8)
    assert (small[..., 1:-1, 1:-1] - 0.5).abs().max() < 0.1


def test_the_layout_of_the_images_stays() -> None:
    images = torch.randn(2, 3, 24, 24).contiguous(memory_format=torch.channels_last)
    assert resized(images, 10).is_contiguous(memory_format=torch.channels_last)


def test_seeing_ends_with_its_block() -> None:
    network = nn.Identity()
    images = torch.randn(1, 3, 24, 24)
    with seeing(network, 10):
        assert network(images).shape[-1] == 10
    assert network(images) is images
    with seeing(network, None):
        assert network(images) is images


def test_the_oracles_hold_at_every_side() -> None:
    network = network_of()
    verify(network, space_of(network))


def test_a_space_as_text_has_them_too() -> None:
    space = space_of(network_of())
    read = SearchSpace.from_json(space.to_json())
    assert read == space
    assert read.conditions == tuple((len(space.genes) - 1, side) for side in (10, 17, 24))


def test_maps_are_as_large_as_the_images() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1)
    ).eval()  # fmt: skip
    space = trace(network, (3, 32, 32), resolutions=(16, 24), genes=("width",))
    again = SearchSpace.from_json(space.to_json())
    for side in (16, 24, 32):
        images = torch.randn(2, 3, side, side)
        assert cut(network, again, [5, side])(images).shape == (2, 2, side, side)
    for seed in range(4):
        verify(network, again, seed=seed)


def test_tied_spaces_cost_the_same() -> None:
    network = network_of(nn.Conv2d(8, 8, 1), nn.ReLU())
    space = trace(network, IMAGE, grid=EVERY, genes=("width",), resolutions=(10,))
    one = space.genes[0].name
    fewer = tied(space, whole=[one])
    assert [gene.name for gene in fewer.genes] == [gene.name for gene in space.genes[1:]]
    for candidate in fewer.sample(np.random.default_rng(0), 5):
        whole = Candidate((space.full()[0], *candidate))
        assert Cost(fewer).macs([candidate]) == Cost(space).macs([whole])
    with pytest.raises(InputError, match="'input' is one of resolution, which is left out by"):
        tied(space, whole=["input"])


def test_images_have_one_order() -> None:
    network = network_of()
    space = space_of(network)
    orders = [list(range(width)) for width in space.widths]
    permute(network, space, orders)
    orders[-1].reverse()
    with pytest.raises(InputError, match="'input' is one of resolution, whose choices have"):
        permute(network, space, orders)


class OneSize(nn.Module):
    """Learnt positions."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(3, 24, 24))
        self.conv, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.conv(x + self.positions)).mean((2, 3))
        return out


def test_strides() -> None:
    assert stride_of(network_of(), IMAGE) == 4
    assert stride_of(nn.Conv2d(3, 4, 1), IMAGE) == 1
    assert stride_of(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 4, 1)), IMAGE) == 1
    assert stride_of(OneSize(), IMAGE) == 1


def test_sides_that_cannot_be() -> None:
    network = network_of()
    with pytest.raises(InputError, match="side 3 are smaller than the network's stride, 4; give"):
        trace(network, IMAGE, resolutions=(3,))
    with pytest.raises(InputError, match="24 is the only resolution"):
        trace(network, IMAGE, resolutions=(24,))
    with pytest.raises(InputError, match="side 0 are smaller"):
        trace(network, IMAGE, resolutions=(0,))
    with pytest.raises(InputError, match=r"give input_size=\(channels, height, width\)"):
        trace(network, example=torch.zeros(1, *IMAGE), resolutions=(10,))
    with pytest.raises(InputError, match="OneSize does not run on inputs of shape"):
        trace(OneSize(), IMAGE, resolutions=(16,))
