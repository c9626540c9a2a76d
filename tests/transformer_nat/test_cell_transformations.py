"""One network for all transformations of cells."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import prunas
from prunas.errors import InputError
from prunas.supernet.choice import settled
from prunas.supernet.elastic import Supernet
from prunas.transformer_nat import (
    PUBLISHED,
    CellNetwork,
    Genotype,
    as_published,
    cell_transformations,
    cifar_skeleton,
    keep_skip_null,
)
from prunas.transformer_nat.notation import read_cell

SKELETON = cifar_skeleton(4, 4, size=8)
SOURCE = PUBLISHED["DARTS_V2"]
TRAINED = CellNetwork(SOURCE, SKELETON, seed=3).eval()
FOUND = cell_transformations(SOURCE, SKELETON, trained=TRAINED, seed=1)
IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_the_source_is_the_trained_network() -> None:
    FOUND.network.eval()
    with torch.no_grad():
        torch.testing.assert_close(FOUND.network(IMAGES), TRAINED(IMAGES))
    assert FOUND.candidate(FOUND.moves.source) == FOUND.space.full()
    assert FOUND.transformed(FOUND.moves.source) == SOURCE


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000))
def test_an_edge_carries_the_same_operator_in_every_cell(seed: int) -> None:
    (positions,) = FOUND.moves.sample(np.random.default_rng(seed), 1)
    candidate = FOUND.candidate(positions)
    network = prunas.cut(FOUND.network, FOUND.space, candidate)
    operators = FOUND.moves.operators(positions)
    chosen = settled(network)
    seen = 0
    for path, name in chosen.items():
        _, number, _, edge = path.split(".")
        reduction = int(number) in SKELETON.reductions
        assert name == operators[int(edge) + 8 * reduction]
        seen += 1
    assert seen == len(FOUND.space.genes) == sum(map(len, FOUND.genes))
    assert FOUND.transformed(positions).operators == operators
    with torch.no_grad(), Supernet(FOUND.network, FOUND.space).frozen(candidate) as running:
        torch.testing.assert_close(running(IMAGES), network(IMAGES))


def test_what_is_built_in_the_end_is_what_was_scored() -> None:
    """With the weights of the choices, the plain network of the transformed cells does the same."""
    (positions,) = FOUND.moves.sample(np.random.default_rng(4), 1)
    small = prunas.cut(FOUND.network, FOUND.space, FOUND.candidate(positions)).eval()
    whole = replace(SKELETON, keep_dead=True)
    built = CellNetwork(FOUND.transformed(positions), whole).eval()
    given, names = small.state_dict(), dict(settled(small))
    state = {}
    for name in built.state_dict():
        path = ".".join(name.split(".")[:4])
        inner = name.removeprefix(f"{path}.")
        if path in names:
            own = f"{path}.{names[path]}.{inner}"
            name_there = own if own in given else f"{path}.{names[path]}.{inner.partition('.')[2]}"
        else:
            name_there = name
        state[name] = given[name_there]
    built.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(built(IMAGES), small(IMAGES))


def test_published_searches_offer_what_is_dearer_too() -> None:
    """VGG has null edges at stride 2, where a skip costs a convolution."""
    vgg = PUBLISHED["VGG"]
    trained = CellNetwork(vgg, SKELETON, seed=3).eval()
    found = cell_transformations(
        vgg, SKELETON, rule=keep_skip_null, legal=as_published, trained=trained
    )
    found.network.eval()
    with torch.no_grad():
        torch.testing.assert_close(found.network(IMAGES), trained(IMAGES))
    positions = found.moves.with_operators(PUBLISHED["NAT_VGG"].operators)
    candidate = found.candidate(positions)
    small = prunas.cut(found.network, found.space, candidate).eval()
    with torch.no_grad(), Supernet(found.network, found.space).frozen(candidate) as running:
        torch.testing.assert_close(running(IMAGES), small(IMAGES))


UNUSED = Genotype(  # node 2 is read by nobody, in the other cell nothing feeds node 3
    read_cell("2: s3@0, c3@1; 3: nu@0, s3@1; 4: nu@2, c3@3", (4,)),
    read_cell("2: nu@0, c1@1; 3: nu@0, nu@1; 4: c3@2, c5@3", (2, 4)),
)


@pytest.mark.parametrize("keep_dead", [False, True])
@pytest.mark.parametrize("cells", [PUBLISHED["NAT_ENAS"], PUBLISHED["NAT_VGG"], UNUSED])
def test_trained_networks_leave_null_edges_out(cells: Genotype, keep_dead: bool) -> None:
    skeleton = cifar_skeleton(4, 4, size=32)
    own = replace(skeleton, keep_dead=keep_dead)
    trained = CellNetwork(cells, own, auxiliary=True, seed=3).eval()
    found = cell_transformations(cells, skeleton, trained=trained, seed=1).network.eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(found(images), trained(images))


def test_weights_of_other_cells_are_refused() -> None:
    others = [
        (PUBLISHED["ENAS"], SKELETON),
        (PUBLISHED["VGG"], SKELETON),
        (SOURCE, cifar_skeleton(4, 5, size=8)),
        (SOURCE, cifar_skeleton(6, 4, size=8)),
    ]
    for cells, skeleton in others:
        with pytest.raises(InputError, match="the trained network is not that of these cells"):
            cell_transformations(cells, skeleton, trained=TRAINED)
    dead = PUBLISHED["NAT_R2"]
    with pytest.raises(InputError, match="the trained network is a Sequential; give a CellNetwork"):
        cell_transformations(SOURCE, SKELETON, trained=torch.nn.Sequential())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="keep_dead=True if they join nodes that nothing reaches"):
        cell_transformations(dead, SKELETON, trained=CellNetwork(dead, SKELETON))
