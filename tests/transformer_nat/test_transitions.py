"""Transitions: the published table, what is legal where, and that nothing ever gets dearer."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from prunas.errors import InputError
from prunas.supernet.space import Candidate
from prunas.transformer_nat.genotype import Genotype
from prunas.transformer_nat.graph import Edge, OperatorGraph
from prunas.transformer_nat.operator_cost import Place, operator_cost
from prunas.transformer_nat.operators import NAT_PLUS, NULL, OPERATORS, SKIP
from prunas.transformer_nat.published_cells import PUBLISHED
from prunas.transformer_nat.simplify import simplified
from prunas.transformer_nat.skeleton import cell_graph, cifar_skeleton, network_cost
from prunas.transformer_nat.transformation import (
    NothingToReplaceError,
    TransformationSpace,
    transformations,
)
from prunas.transformer_nat.transitions import (
    Legality,
    as_published,
    keep_skip_null,
    never_dearer,
    never_dearer_but_identity,
    two_level,
)
from tests.transformer_nat.graphs import genotypes, graph_of, graphs

POOLS_3 = ["max_pool_3x3", "avg_pool_3x3"]
POOLS_5 = ["max_pool_5x5", "avg_pool_5x5"]
DIL_3 = ["dil_conv_3x3", *POOLS_3]
DIL_5 = ["dil_conv_5x5", "dil_conv_3x3", *POOLS_5, *POOLS_3]

# The dictionary that came with NAT++, row by row; skip and null, which all rows have, are left out.
PUBLISHED_TABLE = {
    "conv_5x5": ["conv_3x3", "conv_1x1", "sep_conv_5x5", "sep_conv_3x3", *DIL_5],
    "conv_3x3": ["conv_1x1", "sep_conv_3x3", *DIL_3],
    "conv_1x1": [],
    "sep_conv_5x5": ["sep_conv_3x3", *DIL_5],
    "sep_conv_3x3": DIL_3,
    "dil_conv_5x5": DIL_5[1:],
    "dil_conv_3x3": POOLS_3,
    "avg_pool_5x5": ["max_pool_5x5", *POOLS_3],
    "max_pool_5x5": ["avg_pool_5x5", *POOLS_3],
    "avg_pool_3x3": ["max_pool_3x3"],
    "max_pool_3x3": ["avg_pool_3x3"],
    SKIP: [],
    NULL: [],
}
SIZES = (13, 8, 3, 10, 6, 8, 5, 6, 6, 4, 4, 2, 2)
"""Targets of each row, staying put included."""


def test_the_published_table() -> None:
    assert set(PUBLISHED_TABLE) == set(NAT_PLUS)
    for (name, steps), size in zip(PUBLISHED_TABLE.items(), SIZES, strict=True):
        targets = two_level(name)
        assert len(targets) == len(set(targets)) == size - 1
        assert set(targets) == {*steps, SKIP, NULL} - {name}


def test_what_the_table_leaves_out_although_it_is_cheaper() -> None:
    assert "sep_conv_3x3" not in two_level("dil_conv_5x5")  # the type would go up
    assert "sep_conv_5x5" not in two_level("conv_3x3")  # the kernel would grow
    assert not set(POOLS_3) & set(two_level("conv_1x1"))


def test_keep_skip_or_null() -> None:
    for name in OPERATORS:
        assert set(keep_skip_null(name)) == {SKIP, NULL} - {name}


def test_operators_beyond_the_table_follow_its_rule() -> None:
    assert set(two_level("sep_conv_7x7")) == {"sep_conv_5x5", *two_level("sep_conv_5x5")}
    assert two_level("conv_1x7_7x1") == (SKIP, NULL)
    assert two_level("avg_pool_2x2") == (SKIP, NULL)


@pytest.mark.parametrize("rule", [keep_skip_null, two_level])
def test_rules_know_their_operators(rule: object) -> None:
    with pytest.raises(InputError, match="no operator 'magic'"):
        rule("magic")  # type: ignore[operator]


def edge(name: str, stride: int = 1, out_channels: int = 128, in_channels: int = 128) -> Edge:
    return Edge(name, "a", "b", (Place(in_channels, out_channels, 32, 32, stride),))


def broken(stride: int, legal: Legality) -> set[tuple[str, str]]:
    return {
        (name, target)
        for name in NAT_PLUS
        for target in two_level(name)
        if not legal(edge(name, stride), target)
    }


def test_where_the_published_table_makes_an_edge_dearer() -> None:
    """At 128 channels, 32 x 32: null -> skip alone, and at stride 2 any pool -> skip as well."""
    assert broken(1, never_dearer) == {(NULL, SKIP)}
    pools = {(name, SKIP) for name in POOLS_3 + POOLS_5}
    assert broken(2, never_dearer) == {(NULL, SKIP)} | pools
    assert broken(1, as_published) == broken(2, as_published) == set()


def test_the_named_exception() -> None:
    assert broken(1, never_dearer_but_identity) == set()
    assert broken(2, never_dearer_but_identity) == broken(2, never_dearer)
    wider = edge(NULL, out_channels=129)
    assert not never_dearer_but_identity(wider, SKIP)
    both = replace(wider, places=(*edge(NULL).places, *wider.places))
    assert not never_dearer_but_identity(both, SKIP)
    assert not never_dearer_but_identity(edge(NULL), "max_pool_3x3")


def test_narrow_layers_are_different() -> None:
    """C = 2: a plain 3 x 3 has 9 C^2 = 36 weights, a separable one 18 C + 2 C^2 = 44."""
    narrow = edge("conv_3x3", in_channels=2, out_channels=2)
    assert not never_dearer(narrow, "sep_conv_3x3")
    assert never_dearer(narrow, "dil_conv_3x3")  # 9 C + C^2 = 22


# -- spaces ----------------------------------------------------------------------------------------

SMALL = graph_of(("conv_3x3", "in", "a"), (NULL, "in", "a"), ("max_pool_3x3", "a", "out"))


def test_options_of_a_small_graph() -> None:
    space = transformations(SMALL, keep_skip_null)
    assert space.options == (("conv_3x3", SKIP, NULL), (NULL, SKIP), ("max_pool_3x3", SKIP, NULL))
    assert space.size == 18
    assert space.source == Candidate([0, 0, 0])
    assert space.operators((1, 0, 0)) == (SKIP, NULL, "max_pool_3x3")
    assert space.with_operators((SKIP, NULL, "max_pool_3x3")) == Candidate([1, 0, 0])
    assert space.transformed((1, 0, 0)).operators == (SKIP, NULL, "max_pool_3x3")
    assert not space.connected((2, 0, 0))
    assert space.connected((2, 1, 0))
    assert transformations(SMALL, keep_skip_null, legal=never_dearer).options[1] == (NULL,)


def test_nothing_dead_comes_to_life() -> None:
    """A null edge that alone feeds a node, or alone uses one, stays null: what is behind it is not
    paid for in the source."""
    graph = graph_of(
        ("conv_3x3", "in", "out"),
        (NULL, "in", "unfed"),
        ("conv_5x5", "unfed", "out"),
        ("conv_5x5", "in", "unused"),
        (NULL, "unused", "out"),
    )
    options = transformations(graph).options
    assert [len(names) for names in options] == [8, 1, 1, 1, 1]
    assert all(len(names) > 1 for names in transformations(graph, legal=as_published).options)


def test_where_nothing_may_be_replaced() -> None:
    pools = graph_of(("max_pool_3x3", "in", "out"))
    only = replace(pools, edges=(Edge(SKIP, "in", "out", (Place(8, 8, 6, 6),)),))
    with pytest.raises(NothingToReplaceError, match=r"nothing .* that cuts no output off"):
        transformations(only)  # null is on offer, which would do just that
    with pytest.raises(
        InputError, match=r"nothing in this network may be replaced: .*\(they carry"
    ):
        transformations(only, lambda name: ())
    dead = TransformationSpace(SMALL, (("conv_3x3", SKIP), (NULL,), ("max_pool_3x3",)))
    assert dead.size == 2


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ((0, 0), "2 positions but the graph has 3 edges; it belongs to another graph"),
        ((3, 0, 0), r"3 is no position .* conv_3x3 from 'in' to 'a'; choose one of 0\.\.2"),
        ((0, -1, 0), r"-1 is no position .*; choose one of 0\.\.1"),
        ((0, 0.5, 0), r"0.5 is no position .*; choose one of 0\.\.1"),
        ((0, True, 0), r"True is no position .*; choose one of 0\.\.1"),
    ],
)
def test_candidates_of_another_space(positions: tuple[Any, ...], message: str) -> None:
    space = transformations(SMALL, keep_skip_null)
    with pytest.raises(InputError, match=message):
        space.candidate(positions)
    with pytest.raises(InputError, match=message):
        space.transformed(positions)


def test_operators_that_an_edge_does_not_offer() -> None:
    space = transformations(SMALL, keep_skip_null)
    with pytest.raises(InputError, match=r"conv_3x3 cannot become conv_5x5 here; .* skip_connect"):
        space.with_operators(("conv_5x5", NULL, "max_pool_3x3"))
    with pytest.raises(InputError, match="1 operators were given for 3 edges"):
        space.with_operators((NULL,))
    with pytest.raises(InputError, match="no input reaches the output out"):
        space.transformed((2, 0, 0))


def space_of(graph: OperatorGraph, legal: Legality) -> TransformationSpace | None:
    try:
        return transformations(graph, two_level, legal=legal)
    except InputError:
        return None


@settings(deadline=None, max_examples=30)
@given(graphs(), st.integers(0, 10**6))
def test_strict_transitions_never_raise_a_cost(graph: OperatorGraph, seed: int) -> None:
    """At each place of each edge, and over the whole graph, dead parts left out or not."""
    for legal in (never_dearer, never_dearer_but_identity):
        space = space_of(graph, legal)
        assume(space is not None)
        assert space is not None
        for each, names in zip(graph.edges, space.options, strict=True):
            for name in names[1:]:
                for place in each.places:
                    before, after = (operator_cost(n, place) for n in (each.operator, name))
                    assert after.params <= before.params
                    assert after.macs <= before.macs
                    identity = (each.operator, name) == (NULL, SKIP)
                    assert after.published_macs <= before.published_macs or identity
        source = simplified(graph).cost
        for candidate in space.sample(np.random.default_rng(seed), 4):
            found = space.transformed(candidate)
            for cost, bound in ((found.cost, graph.cost), (simplified(found).cost, source)):
                assert cost.params <= bound.params
                assert cost.macs <= bound.macs
            assert space.cost(candidate) == simplified(found).cost


@settings(deadline=None, max_examples=15)
@given(genotypes(), st.integers(0, 10**6))
def test_networks_never_get_dearer(genotype: Genotype, seed: int) -> None:
    """With all that stands around the cells, and its widths that follow from what they join."""
    skeleton = cifar_skeleton(4, 4, size=8)
    space = space_of(cell_graph(genotype, skeleton), never_dearer_but_identity)
    assume(space is not None)
    assert space is not None
    source = network_cost(genotype, skeleton)
    for candidate in space.sample(np.random.default_rng(seed), 4):
        changed = genotype.with_operators(space.operators(candidate))
        cost = network_cost(changed, skeleton)
        assert cost.params <= source.params
        assert cost.macs <= source.macs


def test_published_transformations_are_in_the_published_space() -> None:
    """What NAT and NAT++ made of DARTS and ENAS, by their rules. NAT_VGG adds convolutions at
    stride 2, which is in the published space alone."""
    skeleton = cifar_skeleton()
    sources = {"DARTS": "DARTS_V2", "ENAS": "ENAS", "VGG": "VGG", "ResBlock": "ResBlock"}
    for short, name in sources.items():
        graph = cell_graph(PUBLISHED[name], skeleton)
        for prefix, rule in (("NAT", keep_skip_null), ("NATv2", two_level)):
            target = PUBLISHED[f"{prefix}_{short}"].operators
            transformations(graph, rule, legal=as_published).with_operators(target)
    strict = transformations(cell_graph(PUBLISHED["VGG"], skeleton), keep_skip_null)
    with pytest.raises(InputError, match="null cannot become skip_connect here"):
        strict.with_operators(PUBLISHED["NAT_VGG"].operators)


def test_samples_are_uniform_and_connected() -> None:
    space = transformations(SMALL, keep_skip_null)
    found = space.sample(np.random.default_rng(0), 3000)
    connected = {c for c in all_of(space) if space.connected(c)}
    counts = np.array([found.count(each) for each in connected])
    assert set(found) == connected
    assert counts.sum() == 3000
    expected = 3000 / len(connected)
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def all_of(space: TransformationSpace) -> list[Candidate]:
    grid = np.indices([len(names) for names in space.options]).reshape(len(space.options), -1)
    return [Candidate(row) for row in grid.T.tolist()]


def test_the_source_stands_in_where_nothing_is_connected() -> None:
    """42 edges of a chain would have to be kept by chance, or skipped."""
    names = ["in", *(f"n{index}" for index in range(41)), "out"]
    chain = graph_of(*[("conv_1x1", a, b) for a, b in pairwise(names)])
    space = transformations(chain)
    assert space.sample(np.random.default_rng(0), 2) == [space.source] * 2
