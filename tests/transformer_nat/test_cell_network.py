"""The network of cells: published sizes, what is counted against what runs, and training."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import prunas
from prunas.errors import InputError
from prunas.transformer_nat.cell_network import CellModule, CellNetwork
from prunas.transformer_nat.genotype import Cell, Genotype
from prunas.transformer_nat.layers import DropPath
from prunas.transformer_nat.notation import read_cell
from prunas.transformer_nat.published_cells import PUBLISHED
from prunas.transformer_nat.recipe import CIFAR10, IMAGENET
from prunas.transformer_nat.skeleton import (
    Skeleton,
    cell_graph,
    cell_places,
    cifar_skeleton,
    imagenet_skeleton,
    network_cost,
)
from tests.transformer_nat.graphs import genotypes

CIFAR = replace(cifar_skeleton(), keep_dead=True)
LARGE = replace(imagenet_skeleton(), keep_dead=True)
TINY = cifar_skeleton(channels=4, layers=3, size=8)
DARTS_V2 = PUBLISHED["DARTS_V2"]

# Exact sizes: DARTS' own README prints 3.3 M and 4.7 M for DARTS_V2, the rest was counted on the
# released code.
EXACT = {
    "DARTS_V1": (3_169_414, 4_510_432),
    "DARTS_V2": (3_349_342, 4_718_752),
    "NASNet": (3_830_950, 5_564_320),
    "AmoebaNet": (3_145_078, 4_627_360),
    "NAT_DARTS": (2_682_334, 3_978_784),
    "ENAS": (3_859_894, 5_625_952),
}

# (millions of parameters, millions of multiply-accumulates) at CIFAR size, then at ImageNet size
ROUNDED = {
    "DARTS_V1": (3.169, 501.0, 4.510, 505.9),
    "DARTS_V2": (3.349, 528.4, 4.719, 529.9),
    "NAT_DARTS": (2.682, 424.2, 3.979, 440.9),
    "NATv2_DARTS": (2.476, 394.2, 3.724, 413.3),
    "ENAS": (3.860, 605.7, 5.626, 608.2),
    "NAT_ENAS": (3.860, 605.7, 5.626, 608.2),
    "NATv2_ENAS": (3.691, 580.8, 5.377, 583.4),
    "NASNet": (3.831, 603.5, 5.564, 604.0),
    "AmoebaNet": (3.145, 488.9, 4.627, 526.7),
    "PNASNet": (4.481, 706.0, 6.395, 696.7),
}
PARAMETERS = {
    "ResBlock": (3.798, 5.008),
    "NAT_ResBlock": (3.851, 5.101),
    "NATv2_ResBlock": (3.700, 4.831),
    "VGG": (3.798, 5.008),
    "NAT_VGG": (3.851, 5.101),
    "NATv2_VGG": (2.587, 3.503),
    "Mobilenetv2": (1.161, 1.643),
    "NAT_MobileNetv2": (1.187, 1.689),
}
MACS = {"ResBlock": 548.4, "NAT_ResBlock": 553.7, "NATv2_ResBlock": 538.3, "VGG": 548.4}
MACS |= {"NAT_VGG": 553.7, "NATv2_VGG": 378.1, "Mobilenetv2": 181.6, "NAT_MobileNetv2": 184.3}
RANDOM_CELLS = {"R1": 3.52, "R2": 2.85, "R3": 5.24, "R4": 8.49, "R5": 5.35}
RANDOM_CELLS |= {"NAT_R1": 2.91, "NAT_R2": 2.26, "NAT_R3": 3.00, "NAT_R4": 5.45, "NAT_R5": 5.28}
RANDOM_CELLS |= {"NAONet": 11.46, "NAT_NAONet": 8.29, "NATv2_NAONet": 8.97}


def params_of(genotype: Genotype, skeleton: Skeleton, *, auxiliary: bool = False) -> int:
    with torch.device("meta"):
        network = CellNetwork(genotype, skeleton, auxiliary=auxiliary)
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", EXACT)
def test_parameters_of_the_published_networks(name: str) -> None:
    found = tuple(network_cost(PUBLISHED[name], skeleton).params for skeleton in (CIFAR, LARGE))
    assert found == EXACT[name]


def test_parameters_of_a_published_network_as_built() -> None:
    found = tuple(params_of(PUBLISHED["AmoebaNet"], skeleton) for skeleton in (CIFAR, LARGE))
    assert found == EXACT["AmoebaNet"]


@pytest.mark.parametrize("name", ROUNDED)
def test_costs_of_the_published_networks(name: str) -> None:
    small, large = (network_cost(PUBLISHED[name], skeleton) for skeleton in (CIFAR, LARGE))
    found = [small.params / 1e6, small.macs / 1e6, large.params / 1e6, large.macs / 1e6]
    assert [round(found[0], 3), round(found[1], 1)] == list(ROUNDED[name][:2])
    assert [round(found[2], 3), round(found[3], 1)] == list(ROUNDED[name][2:])


@pytest.mark.parametrize("name", PARAMETERS)
def test_costs_of_the_hand_made_cells(name: str) -> None:
    small, large = (network_cost(PUBLISHED[name], skeleton) for skeleton in (CIFAR, LARGE))
    assert (round(small.params / 1e6, 3), round(large.params / 1e6, 3)) == PARAMETERS[name]
    assert round(small.macs / 1e6, 1) == MACS[name]


@pytest.mark.parametrize("name", RANDOM_CELLS)
def test_parameters_of_the_random_cells_and_naonet(name: str) -> None:
    """Two figures of this list were rounded up, so to a hundredth only."""
    found = network_cost(PUBLISHED[name], CIFAR).params / 1e6
    assert found == pytest.approx(RANDOM_CELLS[name], abs=0.006)


def test_dead_nodes_are_published_as_zeros_and_left_out_here() -> None:
    """Node 3 of NAT_R2 adds nothing to nothing, and is a quarter of what a normal cell joins."""
    kept = network_cost(PUBLISHED["NAT_R2"], CIFAR)
    lean = network_cost(PUBLISHED["NAT_R2"], cifar_skeleton())
    # every reader of a normal cell's output loses C inputs of its C 1 x 1 convolutions, 37 in all:
    # cells 1 to 19 but the two behind a reduction read one as `last`, 2 to 19 but two as `older`;
    # see where they stand
    lost = sum(
        place.channels * width
        for index, place in enumerate(cell_places(PUBLISHED["NAT_R2"], CIFAR))
        for width in normal_widths(index)
    )
    classifier = 10 * 144  # the last cell is normal, 144 wide
    assert kept.params - lean.params == lost + classifier
    for skeleton, cost in ((CIFAR, kept), (cifar_skeleton(), lean)):
        assert params_of(PUBLISHED["NAT_R2"], skeleton) == cost.params


def normal_widths(index: int) -> list[int]:
    """Widths of the normal cells whose output the cell of that number reads (L = 20, C = 36)."""
    width = [36] * 6 + [72] * 7 + [144] * 7
    return [width[i] for i in (index - 1, index - 2) if i >= 0 and i not in (6, 13)]


def test_dead_nodes_as_zeros_do_not_change_the_shape() -> None:
    images = torch.zeros(2, 3, 8, 8)
    for keep_dead in (True, False):
        network = CellNetwork(PUBLISHED["NAT_R2"], replace(TINY, keep_dead=keep_dead)).eval()
        assert network(images).shape == (2, 10)


@settings(deadline=None, max_examples=8)
@given(genotypes())
def test_what_runs_is_what_is_counted(genotype: Genotype) -> None:
    for skeleton in (TINY, imagenet_skeleton(4, 3, classes=7, size=35)):
        for variant in (skeleton, replace(skeleton, keep_dead=True)):
            cost = network_cost(genotype, variant)
            network = CellNetwork(genotype, variant).eval()
            images = torch.zeros(2, 3, variant.size, variant.size)
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                assert network(images).shape == (2, variant.classes)
            assert sum(p.numel() for p in network.parameters()) == cost.params
            assert counter.get_total_flops() == 2 * 2 * cost.macs


@settings(deadline=None, max_examples=30)
@given(genotypes())
def test_the_graph_has_the_operators_and_places_of_the_network(genotype: Genotype) -> None:
    """What is around the cells costs the same, whatever they carry."""
    skeleton = replace(TINY, keep_dead=True)
    graph = cell_graph(genotype, skeleton)
    assert graph.operators == genotype.operators
    assert len(graph.edges[0].places) == 1  # cell 0 of 3 is normal, the others reduce
    assert len(graph.edges[-1].places) == 2
    pools = genotype.with_operators(["max_pool_3x3"] * len(genotype.operators))
    others = network_cost(pools, skeleton), cell_graph(pools, skeleton).cost
    assert network_cost(genotype, skeleton) + others[1] == others[0] + graph.cost


def test_where_cells_stand() -> None:
    """CIFAR: reductions at 6 and 13, maps 32, 16, 8. ImageNet: at 4 and 9, maps 28, 14, 7."""
    places = cell_places(DARTS_V2, CIFAR)
    assert [index for index, place in enumerate(places) if place.reduction] == [6, 13]
    assert [place.place_of(5).height for place in places] == [32] * 6 + [16] * 7 + [8] * 7
    assert [place.channels for place in places] == [36] * 6 + [72] * 7 + [144] * 7
    assert [place.older.stride for place in places] == [1] * 7 + [2] + [1] * 6 + [2] + [1] * 5
    assert [place.place_of(0).stride for place in places[5:8]] == [1, 2, 1]
    assert [place.place_of(2).stride for place in places[5:8]] == [1, 1, 1]
    large = cell_places(DARTS_V2, LARGE)
    assert [index for index, place in enumerate(large) if place.reduction] == [4, 9]
    assert [place.place_of(5).height for place in large] == [28] * 4 + [14] * 5 + [7] * 5
    assert (large[0].older.height, large[0].older.stride, large[0].last.height) == (56, 2, 28)


# -- the auxiliary head ----------------------------------------------------------------------------


def test_the_auxiliary_head_adds_what_is_published() -> None:
    """DARTS_V2, 576 = 4 x 144 channels behind the second reduction: 0.42 to 0.48 M."""
    extra = params_of(DARTS_V2, CIFAR, auxiliary=True) - EXACT["DARTS_V2"][0]
    head = 576 * 128 + 2 * 128 + 128 * 768 * 4 + 2 * 768 + 768 * 10 + 10
    assert extra == head == 476_426
    extra = params_of(DARTS_V2, LARGE, auxiliary=True) - EXACT["DARTS_V2"][1]
    # 4 x 192 channels; without the second norm
    assert extra == 768 * 128 + 2 * 128 + 128 * 768 * 4 + 768 * 1000 + 1000
    assert 1.19e6 < extra < 1.27e6


def test_the_auxiliary_head_answers_in_training() -> None:
    network = CellNetwork(DARTS_V2, cifar_skeleton(2, 3, classes=5), auxiliary=True)
    logits, auxiliary = network.with_auxiliary(torch.zeros(3, 3, 32, 32))
    assert logits.shape == auxiliary.shape == (3, 5)
    assert not torch.equal(logits, auxiliary)


def test_the_auxiliary_head_has_to_fit() -> None:
    with pytest.raises(InputError, match="maps of 8 to 10 rows and gets 2; give images"):
        CellNetwork(DARTS_V2, TINY, auxiliary=True)
    with pytest.raises(InputError, match="maps of 7 to 8 rows and gets 2"):
        CellNetwork(DARTS_V2, imagenet_skeleton(4, 3, size=64), auxiliary=True)
    with pytest.raises(InputError, match="has no auxiliary head; make it with auxiliary=True"):
        CellNetwork(DARTS_V2, TINY).with_auxiliary(torch.zeros(1, 3, 8, 8))


# -- drop path -------------------------------------------------------------------------------------


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_dropped_path_is_zero_or_scaled_for_each_image() -> None:
    path = DropPath().train()
    maps = torch.rand(4000, 2, 3, 3) + 1
    assert path(maps) is maps
    path.probability, path.generator = 0.25, generator()
    made = path(maps)
    dropped = (made == 0).flatten(1).all(dim=1)
    assert torch.allclose(made[~dropped], maps[~dropped] / 0.75)
    assert 0.22 < dropped.float().mean() < 0.28  # 4 standard deviations: 4 sqrt(3/16 / 4000)
    assert path.eval()(maps) is maps


def test_every_operator_but_identities_is_dropped() -> None:
    """NAT_DARTS: 3 + 1 identities in the normal cell; in the reduction cell skips from inputs are
    none."""
    network = CellNetwork(PUBLISHED["NAT_DARTS"], TINY)
    normal, reduce = list(network.cells)[:2]
    identities = [sum(isinstance(m, nn.Identity) for m in c.modules()) for c in (normal, reduce)]
    assert identities == [4, 2]
    assert sum(isinstance(m, DropPath) for m in normal.modules()) == 8 - 4
    assert sum(isinstance(m, DropPath) for m in reduce.modules()) == 7 - 2  # one edge is null


def test_dropping_ends_with_its_block_and_leaves_the_global_generator() -> None:
    network = CellNetwork(DARTS_V2, TINY).train()
    images = torch.rand(4, 3, 8, 8)
    plain = network(images)
    before = torch.get_rng_state()
    with network.dropping(0.5, generator(1)):
        first = network(images)
    with network.dropping(0.5, generator(1)):
        again = network(images)
    assert torch.equal(first, again)
    assert not torch.allclose(first, plain)
    assert torch.equal(network(images), plain)
    assert torch.equal(torch.get_rng_state(), before)
    copy.deepcopy(network)  # no generator is left behind: those cannot be copied
    with pytest.raises(InputError, match=r"drop path probability 1 is outside \[0, 1\)"):
        network.dropping(1, generator()).__enter__()


# -- the rest --------------------------------------------------------------------------------------


def test_the_seed_decides_the_weights_and_nothing_else_moves() -> None:
    before = torch.get_rng_state()
    first, same, other = (CellNetwork(DARTS_V2, TINY, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    weights = [torch.nn.utils.parameters_to_vector(n.parameters()) for n in (first, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_cell_that_nothing_reaches_is_refused() -> None:
    dead = Genotype(read_cell("2: nu@0, nu@1", (2,)), DARTS_V2.reduce)
    for skeleton in (TINY, replace(TINY, keep_dead=True)):
        with pytest.raises(InputError, match="no input reaches the output"):
            CellNetwork(dead, skeleton)
        with pytest.raises(InputError, match="no input reaches the output"):
            network_cost(dead, skeleton)
        with pytest.raises(InputError, match="no input reaches the output"):
            cell_graph(dead, skeleton)


def test_skeletons_have_room() -> None:
    with pytest.raises(InputError, match="a cell network of 2 cells has no room"):
        cifar_skeleton(layers=2)
    with pytest.raises(InputError, match="too small"):
        cifar_skeleton(channels=1)
    with pytest.raises(InputError, match="too small"):
        cifar_skeleton(size=0)


def test_skeletons_have_a_stem() -> None:
    with pytest.raises(InputError, match="there is no stem 'cifr'; choose one of cifar, imagenet"):
        Skeleton("cifr", 4, 3, 10, 8)  # type: ignore[arg-type]
    for wrong in ("32", 32.0, None, True):
        with pytest.raises(InputError, match=f"size of a cell network is {wrong!r}; give a whole"):
            Skeleton("cifar", 4, 3, 10, wrong)  # type: ignore[arg-type]


def test_it_can_be_traced() -> None:
    """So that its channels can be pruned, too."""
    network = CellNetwork(DARTS_V2, TINY).eval()
    space = prunas.trace(network, (3, 8, 8))
    full = space.full()
    assert prunas.Cost(space).macs([full])[0] == network_cost(DARTS_V2, TINY).macs
    assert prunas.Cost(space).params([full])[0] == network_cost(DARTS_V2, TINY).params


def test_it_learns() -> None:
    """One step after the other on the same images, with all that the recipe has."""
    network = CellNetwork(DARTS_V2, cifar_skeleton(2, 3, classes=2, size=32), auxiliary=True)
    images = torch.rand(8, 3, 32, 32, generator=generator())
    labels = torch.arange(8) % 2
    images += labels[:, None, None, None]
    optimiser = torch.optim.SGD(
        network.parameters(), CIFAR10.rate, CIFAR10.momentum, weight_decay=CIFAR10.weight_decay
    )
    losses = []
    for _ in range(8):
        with network.dropping(CIFAR10.drop_path_at(300), generator()):
            logits, auxiliary = network.with_auxiliary(images)
        loss = F.cross_entropy(logits, labels)
        losses.append(loss.item())
        loss = loss + CIFAR10.auxiliary_weight * F.cross_entropy(auxiliary, labels)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), CIFAR10.gradient_clip)
        optimiser.step()
    assert losses[-1] < 0.7 * losses[0]


def test_cells_keep_what_they_join_in_order() -> None:
    """Two nodes that double and quadruple their input, in a cell of skips."""
    cell = Cell((("skip_connect", 0, 2), ("skip_connect", 0, 2),
                 ("skip_connect", 2, 3), ("skip_connect", 2, 3)), (2, 3))  # fmt: skip
    network = CellNetwork(Genotype(cell, DARTS_V2.reduce), TINY).eval()
    module = next(iter(network.cells))
    assert isinstance(module, CellModule)
    maps = torch.rand(1, 12, 8, 8)
    older = module.older(maps)
    assert torch.allclose(module(maps, maps), torch.cat([2 * older, 4 * older], dim=1))


# -- the recipe ------------------------------------------------------------------------------------


def test_the_published_training() -> None:
    assert (CIFAR10.epochs, CIFAR10.batch_size, CIFAR10.weight_decay) == (600, 96, 3e-4)
    assert (IMAGENET.epochs, IMAGENET.batch_size, IMAGENET.weight_decay) == (250, 128, 3e-5)
    rates = [CIFAR10.rate_at(epoch) for epoch in (0, 300, 600)]
    assert rates == pytest.approx([0.025, 0.0125, 0.0])
    assert [IMAGENET.rate_at(epoch) for epoch in (0, 2)] == pytest.approx([0.1, 0.1 * 0.97**2])
    assert [CIFAR10.drop_path_at(epoch) for epoch in (0, 300, 600)] == pytest.approx([0, 0.1, 0.2])
    assert IMAGENET.drop_path_at(100) == 0
