"""Traced networks as graphs of operators, and what becomes of them."""

import re
from collections import OrderedDict
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import prunas
from prunas.errors import InputError
from prunas.eval.cost import Cost
from prunas.supernet.elastic import Supernet
from prunas.supernet.space import Candidate
from prunas.transformer_nat import (
    OF_NETWORKS,
    PUBLISHED,
    TRANSFORMERS,
    NothingToReplaceError,
    PolicySearch,
    Replacement,
    Scored,
    TracedTransformations,
    as_published,
    cell_graph,
    chosen,
    cifar_skeleton,
    keep_skip_null,
    never_dearer,
    replaced,
    traced_transformations,
    transformations,
    transformers_for,
    two_level_of_networks,
)
from prunas.transformer_nat.canonical import canonical
from prunas.transformer_nat.operators import KNOWN, NULL, SKIP, Kind
from tests.supernet.counting import macs_counted, parameters_counted
from tests.transformer_nat.traced_networks import (
    IMAGE,
    NETWORKS,
    Asks,
    AsksForClass,
    AsksForSide,
    Branch,
    Conditioned,
    Dense,
    Reads,
    TwoWays,
    network,
    plain,
)

SIZES = {"test_resnet": (3, 32, 32), "test_efficientnet": (3, 32, 32)}


@cache
def source(name: str) -> nn.Module:
    return NETWORKS[name]()


@cache
def traced(name: str) -> TracedTransformations:
    return traced_transformations(source(name), SIZES.get(name, IMAGE))


def drawn(found: TracedTransformations, seed: int) -> Candidate:
    rng = np.random.default_rng(seed)
    rate = rng.random()
    return Candidate(
        int(rng.integers(len(names))) if rng.random() < rate else 0 for names in found.moves.options
    )


def options(found: TracedTransformations) -> dict[str, tuple[str, ...]]:
    pairs = zip(found.paths, found.moves.options, strict=True)
    return {path: names for path, names in pairs if len(names) > 1}


# -- the graph -------------------------------------------------------------------------------------


def test_a_plain_network_is_a_chain() -> None:
    found = traced("plain")
    assert options(found) == {
        "0": ("conv_3x3", "conv_1x1", "ds_conv_3x3"),  # the stem: other width, stride 2
        "1": ("conv_3x3", "max_pool_3x3", "avg_pool_3x3", "conv_1x1", "ds_conv_3x3", SKIP),
        "4": ("conv_3x3", "max_pool_3x3", "avg_pool_3x3", "conv_1x1", "ds_conv_3x3"),
        "7": (
            "conv_5x5", "max_pool_3x3", "max_pool_5x5", "avg_pool_3x3", "avg_pool_5x5", "conv_1x1",
            "conv_3x3", "ds_conv_3x3", "ds_conv_5x5", SKIP,
        ),
    }  # fmt: skip
    edges = found.moves.graph.edges
    assert [(edge.source, edge.target) for edge in edges] == [
        ("images", "0"), ("0", "1"), ("1", "4"), ("4", "7"), ("7", "output")
    ]  # fmt: skip
    # 8 x 8 maps after the stem; 4 x 4 after stride 2; true widths and strides
    place = edges[2].places[0]
    assert (place.in_channels, place.out_channels, place.stride) == (8, 8, 2)
    assert (place.height, place.width, place.out_size) == (8, 8, (4, 4))
    assert edges[2].cost_of("conv_3x3").macs == 8 * 8 * 9 * 16
    assert edges[2].cost_of("ds_conv_3x3").params == 8 * 9 + 8 * 8
    assert edges[0].cost_of("conv_3x3").params == 3 * 8 * 9 + 8  # with its bias


def test_a_residual_block_is_a_branch_beside_a_shortcut() -> None:
    found = traced("branches")
    rows = [(e.operator, e.source, e.target) for e in found.moves.graph.edges]
    assert rows[1:5] == [
        ("branch", "0", "1 branch"),
        ("conv_3x3", "1 branch", "1.first"),
        ("fixed", "1.first", "1"),  # the 1 x 1 back has nothing to offer
        ("skip_connect", "0", "1"),
    ]
    branch = found.moves.graph.edges[1]
    # the 1 x 1 convolution with bias and the norm; the 3 x 3 has an edge of its own
    assert branch.cost.macs == 12 * 8 * 64
    assert branch.cost.params == 12 * 8 + 8 + 2 * 12
    assert options(found)["1"] == ("branch", NULL)
    assert SKIP not in options(found)["1.first"]  # 8 channels in, 12 out


def test_gates_and_depthwise_kernels() -> None:
    found = traced("inverted")
    assert options(found)["1.gate"] == ("gate", SKIP)
    assert options(found)["1.depthwise"] == (
        "dw_conv_5x5", "max_pool_3x3", "max_pool_5x5", "avg_pool_3x3", "avg_pool_5x5",
        "dw_conv_3x3", SKIP,
    )  # fmt: skip
    assert options(found)["2.depthwise"] == ("dw_conv_3x3", "max_pool_3x3", "avg_pool_3x3", SKIP)
    assert "1.gate.down" not in options(found)


@pytest.mark.parametrize(
    ("kernel", "groups", "expected"),
    [
        ((1, 3), 1, {"conv_1x1", SKIP}),
        ((3, 1), 1, {"conv_1x1", SKIP}),
        ((1, 7), 1, {"conv_1x1", SKIP}),
        ((1, 3), 8, {SKIP}),
        ((5, 3), 8, {"dw_conv_3x3", "max_pool_3x3", "avg_pool_3x3", SKIP}),
    ],
)
def test_oblong_kernels_do_not_grow(
    kernel: tuple[int, int], groups: int, expected: set[str]
) -> None:
    padding = kernel[0] // 2, kernel[1] // 2
    layer = nn.Conv2d(8, 8, kernel, padding=padding, groups=groups, bias=False)
    source = network(layer, Branch(8, 4))
    own, *others = options(traced_transformations(source, IMAGE))["1"]
    assert own == ("other_dw_conv" if groups > 1 else "other_conv")
    assert set(others) == expected
    before = replaced(source, [Replacement("1", own, "max_pool_3x3")])  # earlier runs may have it
    assert before(torch.zeros(1, *IMAGE)).shape == (1, 5)


def test_blocks_in_blocks_and_concatenations() -> None:
    nested = [(e.operator, e.source, e.target) for e in traced("nested").moves.graph.edges]
    assert ("branch", "0", "1 branch") in nested
    assert ("branch", "1 branch", "1.inner.0 branch") in nested
    assert ("skip_connect", "1 branch", "1.inner.0") in nested
    dense = traced("dense").moves.graph
    reads = {edge.target: edge.source for edge in dense.edges if edge.operator != "fixed"}
    joined = [edge.source for edge in dense.edges if edge.target == reads["1.two"]]
    assert joined == ["0", "1.one"]
    assert [e.source for e in dense.edges if e.target == reads["1.three"]][1] == "1.two"


def test_what_is_joined_once_is_one_node_for_all_who_read_it() -> None:
    """Three blocks of test_resnet change shapes: two ways meet behind each, and go on as one."""
    nodes = traced("test_resnet").moves.graph.nodes
    assert sum(node.startswith("join") for node in nodes) == 3


def test_names_of_modules_that_other_nodes_have() -> None:
    layers = {
        "images": nn.Conv2d(3, 8, 3, padding=1),
        "dense": Dense(8),
        "dense branch": nn.Conv2d(8, 8, 3, padding=1),
        "rest": Branch(8, 4),
        "rest branch": nn.Conv2d(8, 8, 3, padding=1),
        "join 3": nn.Conv2d(8, 8, 3, padding=1),
        "output": nn.Conv2d(8, 4, 3, padding=1),
    }
    found = traced_transformations(nn.Sequential(OrderedDict(layers)).eval(), IMAGE)
    graph = found.moves.graph
    assert graph.inputs == (".images",)
    assert graph.outputs == ((".output",),)
    assert {".join 3", "join 5", ".rest branch"} <= set(graph.nodes)
    ends = [(edge.source, edge.target) for edge in graph.edges]
    assert (ends[0], ends[-1]) == ((".images", "images"), ("output", ".output"))
    assert {*layers, "rest.first"} - {"dense"} <= set(options(found))


@pytest.mark.parametrize("asks", [Asks, AsksForClass, AsksForSide])
def test_nothing_stands_in_for_a_layer_that_is_asked_about(asks: type[nn.Module]) -> None:
    made = network(asks(8), Branch(8, 4))
    found = traced_transformations(made, IMAGE)
    assert "1.conv" not in found.paths
    assert "2.first" in found.paths
    images = torch.randn(2, *IMAGE)
    with torch.no_grad():
        torch.testing.assert_close(found.network(images), made(images))


@pytest.mark.parametrize("before", [True, False])
def test_nothing_stands_in_for_a_layer_with_hooks(before: bool) -> None:
    made = network(Branch(8, 4), nn.Conv2d(8, 8, 3, padding=1))
    layer = made.get_submodule("2")
    if before:
        layer.register_forward_pre_hook(lambda _, args: (args[0] * 3,))
    else:
        layer.register_forward_hook(lambda _, args, out: out * 3)
    assert "2" not in traced_transformations(made, IMAGE).paths
    for name in ("conv_1x1", "ds_conv_3x3", SKIP):
        with pytest.raises(InputError, match=r"'2' has hooks, which would be lost.*remove them"):
            replaced(made, [Replacement("2", "conv_3x3", name)])


def test_what_was_replaced_once_stays() -> None:
    once = replaced(plain(), [Replacement("1", "conv_3x3", "ds_conv_3x3")])
    found = traced_transformations(once, IMAGE)
    assert set(options(found)) == {"0", "4", "7"}
    for path, source in (("1", "conv_3x3"), ("1.0", "dw_conv_3x3")):
        with pytest.raises(InputError, match=f"'{path}' is, or is part of, what was put in the"):
            replaced(once, [Replacement(path, source, "max_pool_3x3")])


def test_layers_that_are_kept_offer_nothing() -> None:
    made = network(Branch(8, 4), Branch(8, 4))
    found = traced_transformations(made, IMAGE, keep=["1.*", "0.weight"])
    assert set(options(found)) == {"2", "2.first"}
    with pytest.raises(InputError, match="keep pattern 'nowhere' matches no parameter"):
        traced_transformations(made, IMAGE, keep=["nowhere"])


def test_the_rule_of_nat_offers_to_skip_or_to_cut() -> None:
    found = traced_transformations(plain(), IMAGE, rule=keep_skip_null)
    assert options(found) == {"1": ("conv_3x3", SKIP), "7": ("conv_5x5", SKIP)}


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_mambaout", "test_nfnet"])
def test_networks_of_other_kinds(name: str) -> None:
    made = timm.create_model(name).eval()
    config: Any = made.pretrained_cfg
    size = config["input_size"]
    found = traced_transformations(made, size)
    changed = drawn(found, 3)
    small = replaced(made, found.replacements(changed))
    with torch.no_grad():
        assert small(torch.zeros(1, *size)).shape == (1, 1000)
    assert Cost(found.space).params([found.candidate(changed)])[0] == parameters_counted(small)


def test_types_go_down_and_kernels_do_not_grow() -> None:
    rank = {Kind.CONVOLUTION: 3, Kind.FACTORED: 2, Kind.DEPTHWISE: 1}
    for name in OF_NETWORKS:
        here = KNOWN[name]
        for other in two_level_of_networks(name):
            there = KNOWN[other]
            assert other != name
            if other in (SKIP, NULL):
                continue
            assert there.kernel <= here.kernel
            assert rank.get(there.kind, 0) <= rank.get(here.kind, 0)
            assert there.kind is not Kind.DEPTHWISE or here.kind is Kind.DEPTHWISE
    assert two_level_of_networks("branch") == (SKIP, NULL)


def test_what_cannot_be_at_an_edge_has_no_price_there() -> None:
    edge = traced("branches").moves.graph.edges[1]
    assert edge.takes(NULL)
    assert not edge.takes("conv_3x3")
    assert not never_dearer(edge, "conv_3x3")
    with pytest.raises(InputError, match="conv_3x3 cannot be between '0' and '1 branch'"):
        edge.cost_of("conv_3x3")


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_offered_whatever_it_costs_can_be_built(name: str) -> None:
    space = transformations(traced(name).moves.graph, two_level_of_networks, legal=as_published)
    for edge, names in zip(space.graph.edges, space.options, strict=True):
        assert all(map(edge.takes, names))
    (positions,) = space.sample(np.random.default_rng(0), 1)
    assert space.cost(positions).macs >= 0


# -- never dearer ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_grows_at_any_edge(name: str) -> None:
    graph = traced(name).moves.graph
    for edge, names in zip(graph.edges, traced(name).moves.options, strict=True):
        for other in names:
            assert edge.cost_of(other).macs <= edge.cost.macs
            assert edge.cost_of(other).params <= edge.cost.params


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_graph_genes_and_network_agree(name: str, seed: int) -> None:
    """What the graph says is saved, what the genes cost, and what the plain network really has."""
    found, size = traced(name), SIZES.get(name, IMAGE)
    moves, cost = found.moves, Cost(found.space)
    changed = drawn(found, seed)
    candidate = found.candidate(changed)
    full, small = (int(v) for v in cost.macs([found.space.full(), candidate]))
    saved = moves.cost(moves.source).macs - moves.cost(changed).macs
    assert full - small == saved >= 0
    full_params, params = (int(v) for v in cost.params([found.space.full(), candidate]))
    assert full_params - params == moves.cost(moves.source).params - moves.cost(changed).params >= 0
    plain_network = replaced(source(name), found.replacements(changed))
    assert parameters_counted(plain_network) == params
    assert macs_counted(plain_network, size) == small


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_shared_weights_run_as_the_plain_network_does(name: str, seed: int) -> None:
    found, size = traced(name), SIZES.get(name, IMAGE)
    changed = drawn(found, seed)
    images = torch.randn(2, *size, generator=torch.Generator().manual_seed(seed))
    plain_network = replaced(source(name), found.replacements(changed))
    shared = Supernet(found.network, found.space)
    with torch.no_grad(), shared.frozen(found.candidate(changed)) as running:
        torch.testing.assert_close(running(images), plain_network(images))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_source_is_the_network(name: str) -> None:
    found, size = traced(name), SIZES.get(name, IMAGE)
    images = torch.randn(2, *size)
    assert found.candidate(found.moves.source) == found.space.full()
    assert found.replacements(found.moves.source) == ()
    with torch.no_grad():
        expected = source(name)(images)
        torch.testing.assert_close(found.network(images), expected)
        torch.testing.assert_close(replaced(source(name), ())(images), expected)


def test_frozen_layers_stay_frozen() -> None:
    frozen = plain()
    for name in ("1", "7"):
        frozen.get_submodule(name).requires_grad_(False)
    found = traced_transformations(frozen, IMAGE)
    trainable = {n.split(".")[0] for n, p in found.network.named_parameters() if p.requires_grad}
    assert trainable == {"0", "2", "4", "5", "8", "12"}
    small = replaced(frozen, [Replacement("7", "conv_5x5", "ds_conv_3x3")])
    assert not any(p.requires_grad for p in small.get_submodule("7").parameters())


def test_a_block_that_goes_takes_what_is_inside_along() -> None:
    found = traced("inverted")
    place = {path: index for index, path in enumerate(found.paths) if path}
    positions = [0] * len(found.moves.options)
    for path in ("1", "1.depthwise", "1.gate"):
        positions[place[path]] = 1
    assert found.replacements(positions) == (Replacement("1", "branch", NULL),)
    alone = [int(index == place["1"]) for index in range(len(positions))]
    graphs = [found.moves.transformed(each) for each in (positions, alone)]
    assert canonical(graphs[0]) == canonical(graphs[1])


@pytest.mark.parametrize("argument", [True, False])
def test_a_block_that_another_tensor_enters_stays(argument: bool) -> None:
    """What it reads runs without it too: the graph could not say what is saved."""
    made = TwoWays(Conditioned(8), argument=argument).eval()
    found = traced_transformations(made, IMAGE)
    assert set(options(found)) == {"stem", "s", "t", "r.a"}
    assert not found.space.blocks
    cost, moves = Cost(found.space), found.moves
    for seed in range(12):
        changed = drawn(found, seed)
        candidate = found.candidate(changed)
        full, small = (int(v) for v in cost.macs([found.space.full(), candidate]))
        assert full - small == moves.cost(moves.source).macs - moves.cost(changed).macs
        real = replaced(made, found.replacements(changed))
        assert macs_counted(real, IMAGE) == small
        assert parameters_counted(real) == cost.params([candidate])[0]


def test_a_block_whose_inner_block_reads_another_tensor_stays() -> None:
    found = traced_transformations(TwoWays(Reads(8)).eval(), IMAGE)
    assert {block.path for block in found.space.blocks.values()} == {"r.inner"}
    assert options(found)["r.inner"] == ("branch", NULL)


def test_nothing_is_put_into_a_block_that_is_gone() -> None:
    gone, inside = Replacement("1", "branch", NULL), Replacement("1.first", "conv_3x3", "conv_1x1")
    made = network(Branch(8, 8))
    with pytest.raises(InputError, match=r"no module '1\.first' to replace.*took it away"):
        replaced(made, [gone, inside])
    assert parameters_counted(replaced(made, [inside, gone])) == parameters_counted(
        replaced(made, [gone])
    )


# -- what may go wrong -----------------------------------------------------------------------------


def test_networks_in_which_nothing_may_be_replaced() -> None:
    head = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5))
    with pytest.raises(
        NothingToReplaceError, match="nothing in Sequential may be replaced: it has"
    ):
        traced_transformations(head, IMAGE)
    pointwise = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1))
    with pytest.raises(NothingToReplaceError, match="nothing in Sequential may be replaced"):
        traced_transformations(pointwise, IMAGE)


def test_networks_that_are_not_ready() -> None:
    choice = prunas.Choice([nn.Identity(), nn.Conv2d(8, 8, 3, padding=1)])
    with pytest.raises(InputError, match=r"holds choice blocks.*cut a candidate out of it first"):
        traced_transformations(network(choice), IMAGE)
    with pytest.raises(InputError, match=r"does not run on images of shape \(4, 16, 16\)"):
        traced_transformations(plain(), (4, 16, 16))


@pytest.mark.parametrize(
    ("replacement", "message"),
    [
        (Replacement("9.conv", "conv_3x3", SKIP), "has no module '9.conv' to replace"),
        (
            Replacement("2", "conv_3x3", "conv_1x1"),
            "conv_1x1 cannot take the place of '2', a Batch",
        ),
        (Replacement("1", "conv_3x3", "conv_7x7"), "conv_7x7 cannot take the place of '1', a Conv"),
        (Replacement("1", "conv_3x3", "conv_4x4"), "there is no operator 'conv_4x4'"),
        (Replacement("0", "conv_3x3", SKIP), "skip_connect cannot take the place of '0', a Conv"),
        (Replacement("4", "conv_3x3", SKIP), "skip_connect cannot take the place of '4', a Conv"),
        (Replacement("1", "conv_3x3", NULL), "null cannot take the place of '1', a Conv2d"),
        (Replacement("1", "branch", NULL), "'1' is no branch but a conv_3x3"),
        (Replacement("2", "branch", SKIP), "skip_connect cannot take the place of '2', a Batch"),
        (Replacement("1", "nonsense", "conv_1x1"), "'1' is no nonsense but a conv_3x3"),
        (Replacement("1", "conv_5x5", SKIP), "'1' is no conv_5x5 but a conv_3x3"),
    ],
)
def test_replacements_of_another_network(replacement: Replacement, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replaced(plain(), [replacement])


@pytest.mark.parametrize(
    ("field", "value"), [("path", ""), ("path", 1), ("source", None), ("operator", ["x"])]
)
def test_replacements_that_are_none(field: str, value: Any) -> None:
    row = {"path": "1", "source": "conv_3x3", "operator": SKIP, "alone": True, field: value}
    message = rf"the {field} of a replacement is {re.escape(repr(value))}; give the"
    with pytest.raises(InputError, match=message):
        Replacement(**row)
    with pytest.raises(InputError, match=message):
        Replacement.from_json(row)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value: float) -> None:
    made = plain()
    with torch.no_grad():
        made.get_parameter("4.weight")[0, 0, 0, 0] = value
    message = r"1 of 576 weights of '4' are not finite.*train the network again"
    with pytest.raises(InputError, match=message):
        traced_transformations(made, IMAGE)
    with pytest.raises(InputError, match=message):
        replaced(made, [Replacement("4", "conv_3x3", "ds_conv_3x3")])
    assert "4" not in traced_transformations(made, IMAGE, keep=["4"]).paths


def test_policies_of_cells_do_not_know_networks() -> None:
    for name in ("policy", "lstm"):
        with pytest.raises(InputError, match=r"the policy does not know the operator ds_conv_3x3"):
            TRANSFORMERS[name].start(traced("plain").moves, np.random.default_rng(0))


# -- searching -------------------------------------------------------------------------------------


def test_cells_have_the_methods_of_cells() -> None:
    cells = transformations(cell_graph(PUBLISHED["DARTS_V2"], cifar_skeleton(4, 3, size=8)))
    assert transformers_for(cells) is TRANSFORMERS
    policy = transformers_for(traced("plain").moves)["policy"]
    assert isinstance(policy, PolicySearch)
    assert policy.policy.vocabulary == OF_NETWORKS
    long = transformers_for(traced("test_efficientnet").moves)["policy"]
    assert isinstance(long, PolicySearch)
    assert long.keep == 1 - min(0.2, 3 / len(options(traced("test_efficientnet"))))


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_every_method_searches_a_traced_network(name: str) -> None:
    found = traced("inverted")
    method = transformers_for(found.moves)[name]
    state = method.start(found.moves, np.random.default_rng(0))
    for _ in range(5):
        state, asked = method.ask(state, 4)
        state = method.tell(state, [Scored(each, _frugal(found, each)) for each in asked])
    assert state.asked[0] == found.moves.source
    assert _frugal(found, chosen(state)) > _frugal(found, found.moves.source)


def _frugal(found: TracedTransformations, positions: Sequence[int]) -> float:
    return -found.moves.cost(positions).macs / 1e5
