"""Graphs of operators: what is refused, what is left out, and what is the same."""

import random
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunas.errors import InputError
from prunas.transformer_nat.canonical import canonical
from prunas.transformer_nat.graph import Edge, OperatorGraph
from prunas.transformer_nat.operator_cost import OperatorCost, Place, operator_cost
from prunas.transformer_nat.operators import NULL, SKIP
from prunas.transformer_nat.simplify import simplified
from tests.transformer_nat.graphs import HERE, graph_of, graphs

BLOCK = graph_of(
    ("conv_3x3", "in", "a"), ("sep_conv_3x3", "a", "out"), ("skip_connect", "in", "out")
)


def test_the_cost_is_the_sum_over_edges_and_places() -> None:
    twice = replace(BLOCK, edges=tuple(replace(edge, places=HERE * 2) for edge in BLOCK.edges))
    once = [operator_cost(edge.operator, HERE[0]) for edge in BLOCK.edges]
    assert BLOCK.cost == once[0] + once[1] + once[2]
    assert twice.cost == BLOCK.cost + BLOCK.cost
    assert BLOCK.edges[0].cost_of("null") == OperatorCost()


def test_graphs_are_values() -> None:
    assert graph_of(*[(e.operator, e.source, e.target) for e in BLOCK.edges]) == BLOCK
    assert hash(BLOCK) == hash(replace(BLOCK))
    changed = BLOCK.with_operators(("conv_3x3", "skip_connect", NULL))
    assert changed.operators == ("conv_3x3", "skip_connect", NULL)
    assert changed != BLOCK
    with pytest.raises(InputError, match="2 operators were given for 3 edges"):
        BLOCK.with_operators(("null", "null"))


def test_graphs_of_lists_are_the_same_graphs() -> None:
    price = (SKIP, OperatorCost())
    plain = Edge(SKIP, "in", "out", HERE, (price,))
    of_lists: Any = Edge(SKIP, "in", "out", list(HERE), [list(price)])  # type: ignore[arg-type]
    graph = OperatorGraph(("in", "out"), ("in",), (("out",),), (plain,))
    lists: Any = ["in", "out"], ["in"], [["out"]], [of_lists]
    assert OperatorGraph(*lists) == graph
    assert hash(OperatorGraph(*lists)) == hash(graph)


@settings(deadline=None, max_examples=50)
@given(graphs())
def test_every_node_is_complete_before_it_is_read(graph: OperatorGraph) -> None:
    assert sorted(graph.order) == list(range(len(graph.edges)))
    for position, index in enumerate(graph.order):
        later = [graph.edges[other] for other in graph.order[position:]]
        assert all(edge.target != graph.edges[index].source for edge in later)


# -- errors ----------------------------------------------------------------------------------------


def test_unknown_operators() -> None:
    with pytest.raises(InputError, match="no operator 'magic'"):
        graph_of(("magic", "in", "out"))


def test_cycles_name_their_nodes() -> None:
    edges = [("conv_3x3", "in", "a"), ("conv_3x3", "a", "b"), ("skip_connect", "b", "a")]
    with pytest.raises(InputError, match="a cycle: none of the nodes a, b, out can be the first"):
        graph_of(*edges, ("conv_3x3", "b", "out"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": ("in", "a", "out", "a")}, "node 'a' is given 2 times"),
        ({"nodes": ("in", "out")}, "edge conv_3x3 from 'in' to 'a': the graph has no node 'a'"),
        ({"nodes": ("in", "a", "out", "b")}, "node 'b' is no input and no edge ends there"),
        ({"inputs": ("in", "x")}, "node 'x' is an input or output, but the graph has no such"),
        ({"outputs": (("out", "x"),)}, "node 'x' is an input or output"),
        ({"inputs": ("in", "a")}, "'a' is an input, and nothing is added to inputs"),
        ({"inputs": ()}, "needs an input, an output"),
        ({"outputs": ()}, "needs an input, an output"),
        ({"outputs": (("out",), ())}, "a node for each output"),
    ],
)
def test_missing_nodes(changes: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(BLOCK, **changes)  # type: ignore[arg-type]


def test_outputs_that_nothing_reaches() -> None:
    with pytest.raises(InputError, match=r"no input reaches the output out: .* 'null' edge; put"):
        graph_of((NULL, "in", "a"), ("conv_3x3", "a", "out"))
    two = (("a",), ("out",))
    with pytest.raises(InputError, match="the output out"):
        graph_of(("conv_3x3", "in", "a"), (NULL, "a", "out"), outputs=two)


def test_edges_are_somewhere_and_agree() -> None:
    with pytest.raises(InputError, match="from 'in' to 'out' is nowhere"):
        OperatorGraph(("in", "out"), ("in",), (("out",),), (Edge(NULL, "in", "out", ()),))
    wide = Edge("conv_3x3", "in", "out", (Place(8, 9, 6, 6),))
    with pytest.raises(
        InputError, match=r"'out' cannot add maps of different shapes .*\(8, 6, 6\)"
    ):
        replace(BLOCK, edges=(*BLOCK.edges, wide))
    often = Edge("conv_3x3", "in", "out", HERE * 2)
    with pytest.raises(InputError, match="'out' cannot add maps"):
        replace(BLOCK, edges=(*BLOCK.edges, often))


@pytest.mark.parametrize("place", [Place(4, 8, 6, 6), Place(8, 8, 5, 6), Place(8, 8, 6, 5)])
def test_edges_read_what_is_there(place: Place) -> None:
    """Behind a node that holds 8 channels of 6 x 6, and beside another edge from an input."""
    small = Place(8, 8, *place.out_size)
    edges = (Edge("conv_3x3", "in", "a", HERE), Edge("conv_1x1", "a", "out", (place,)))
    with pytest.raises(
        InputError, match=r"edge conv_1x1 from 'a' to 'out' reads .*, but those of 'a' are \[\(8, 6"
    ):
        OperatorGraph(("in", "a", "out"), ("in",), (("out",),), edges)
    beside = (edges[0], Edge("conv_1x1", "in", "b", (place,)), Edge(SKIP, "b", "out", (small,)))
    with pytest.raises(InputError, match=r"from 'in' to 'b' reads .*, but those of 'in' are"):
        OperatorGraph(("in", "a", "b", "out"), ("in",), (("a",), ("out",)), beside)
    priced = replace(edges[1], prices=(("conv_1x1", OperatorCost()),))
    OperatorGraph(("in", "a", "out"), ("in",), (("out",),), (edges[0], priced))


# -- leaving out -----------------------------------------------------------------------------------


def test_null_edges_and_dead_nodes_go() -> None:
    graph = graph_of(
        ("conv_3x3", "in", "out"),
        (NULL, "in", "a"),  # so nothing reaches a
        ("conv_5x5", "a", "out"),
        ("conv_5x5", "in", "b"),  # nobody uses b
        (NULL, "b", "out"),
        outputs=(("out", "a"),),
    )
    lean = simplified(graph)
    assert lean == graph_of(("conv_3x3", "in", "out"))
    assert lean.cost == operator_cost("conv_3x3", HERE[0])


def test_inputs_stay() -> None:
    graph = graph_of(("conv_3x3", "x", "out"), (NULL, "y", "out"), inputs=("x", "y"))
    assert simplified(graph).inputs == ("x", "y")


@settings(deadline=None, max_examples=50)
@given(graphs())
def test_what_is_left_out_is_exactly_what_no_way_uses(graph: OperatorGraph) -> None:
    """Against the slow way: all ways from the input to an output."""
    used: set[int] = set()

    def walk(node: str, way: tuple[int, ...]) -> None:
        if any(node in joined for joined in graph.outputs):
            used.update(way)
        for index, edge in enumerate(graph.edges):
            if edge.source == node and edge.operator != NULL:
                walk(edge.target, (*way, index))

    walk("0", ())
    assert graph.live(graph.operators) == tuple(sorted(used))
    lean = simplified(graph)
    assert lean.edges == tuple(graph.edges[index] for index in sorted(used))
    assert simplified(lean) == lean
    assert not lean.cost.exceeds(graph.cost)


# -- the same graph --------------------------------------------------------------------------------


def shuffled(graph: OperatorGraph, seed: int) -> OperatorGraph:
    """The same architecture: other names, another order of nodes, edges and what is joined."""
    rng = random.Random(seed)
    names = [f"n{index}" for index in range(len(graph.nodes))]
    rng.shuffle(names)
    new = dict(zip(graph.nodes, names, strict=True))
    edges = [replace(e, source=new[e.source], target=new[e.target]) for e in graph.edges]
    rng.shuffle(edges)
    rng.shuffle(names)
    outputs = []
    for joined in graph.outputs:
        renamed = [new[node] for node in joined]
        rng.shuffle(renamed)
        outputs.append(tuple(renamed))
    inputs = tuple(new[node] for node in graph.inputs)
    return OperatorGraph(tuple(names), inputs, tuple(outputs), tuple(edges))


@settings(deadline=None, max_examples=50)
@given(graphs(), st.integers(0, 10**6))
def test_names_and_order_do_not_matter(graph: OperatorGraph, seed: int) -> None:
    form = canonical(graph)
    assert canonical(shuffled(graph, seed)) == form
    assert canonical(form) == form
    assert form.cost == simplified(graph).cost


def same_by_trying(a: OperatorGraph, b: OperatorGraph) -> bool:
    """The slow way: every renaming of nodes."""
    a, b = simplified(a), simplified(b)
    if len(a.nodes) != len(b.nodes):
        return False
    edges = sorted(map(repr, b.edges))
    outputs = [sorted(joined) for joined in b.outputs]
    for names in permutations(b.nodes):
        new = dict(zip(a.nodes, names, strict=True))
        moved = [replace(e, source=new[e.source], target=new[e.target]) for e in a.edges]
        if (
            tuple(new[node] for node in a.inputs) == b.inputs
            and [sorted(new[node] for node in joined) for joined in a.outputs] == outputs
            and sorted(map(repr, moved)) == edges
        ):
            return True
    return False


@st.composite
def little_graphs(draw: st.DrawFn) -> OperatorGraph:
    """Few operators and nodes, so that two of them are often the same."""
    operators = st.sampled_from(("skip_connect", "conv_1x1", NULL))
    edges = [
        (draw(operators), draw(st.sampled_from("xabc"[:node])), "xabc"[node])
        for node in (1, 2, 3)
        for _ in range(2)
    ]
    edges += [("skip_connect", node, "out") for node in "xabc"]
    return graph_of(*edges, inputs=("x",))


@settings(deadline=None, max_examples=50)
@given(little_graphs(), little_graphs())
def test_the_same_form_means_the_same_architecture(a: OperatorGraph, b: OperatorGraph) -> None:
    assert (canonical(a) == canonical(b)) == same_by_trying(a, b)


def test_shared_nodes_are_not_copies() -> None:
    """One node read twice, against two nodes that compute alike: colours must not mix them up."""
    once = graph_of(("conv_3x3", "in", "a"), ("conv_1x1", "a", "out"), ("conv_1x1", "a", "out"))
    twice = graph_of(
        ("conv_3x3", "in", "a"),
        ("conv_3x3", "in", "b"),
        ("conv_1x1", "a", "out"),
        ("conv_1x1", "b", "out"),
    )
    assert canonical(once) != canonical(twice)


def rings(*lengths: int) -> OperatorGraph:
    """Rings of twice these lengths, their nodes by turns fed by the input and joined in the end."""
    edges = []
    start = 0
    for length in lengths:
        for step in range(length):
            upper, lower = f"u{start + step}", f"l{start + step}"
            after = f"l{start + (step + 1) % length}"
            edges += [("conv_1x1", "in", upper), ("conv_1x1", upper, lower)]
            edges += [("conv_1x1", upper, after), ("conv_1x1", lower, "out")]
        start += length
    return graph_of(*edges)


def test_regular_graphs_that_colours_cannot_tell_apart() -> None:
    """A ring of 8 against two rings of 4: refinement alone sees no difference."""
    one, two = rings(4), rings(2, 2)
    assert canonical(one) != canonical(two)
    assert canonical(shuffled(one, 1)) == canonical(one)


def pairs_in_a_row(count: int) -> OperatorGraph:
    """Blocks of two equal branches of two convolutions each, as in Shake-Shake."""
    edges = []
    for block in range(count):
        start, end = f"n{block}", f"n{block + 1}"
        for branch in (f"a{block}", f"b{block}"):
            edges += [("conv_3x3", start, branch), ("conv_3x3", branch, f"{branch} end")]
            edges += [("skip_connect", f"{branch} end", end)]
    return graph_of(*edges, inputs=("n0",), outputs=((f"n{count}",),))


def branches_side_by_side(count: int) -> OperatorGraph:
    """Equal branches of two convolutions whose ends one output joins."""
    edges = []
    for branch in range(count):
        edges += [("conv_3x3", "in", f"a{branch}"), ("conv_3x3", f"a{branch}", f"b{branch}")]
    return graph_of(*edges, outputs=(tuple(f"b{branch}" for branch in range(count)),))


@pytest.mark.parametrize(
    ("graph", "other"), [(pairs_in_a_row(24), 3), (branches_side_by_side(12), 2)]
)
def test_symmetries_are_quick(graph: OperatorGraph, other: int) -> None:
    """2^24 and 12! orders, of nodes that are no twins; `other` begins another branch."""

    def changed(edge: int) -> OperatorGraph:
        before, after = graph.operators[:edge], graph.operators[edge + 1 :]
        return canonical(graph.with_operators((*before, "conv_1x1", *after)))

    form = canonical(graph)
    assert canonical(shuffled(graph, 5)) == form
    assert canonical(form) == form
    assert changed(0) == changed(other) != form
    assert changed(1) not in (changed(0), form)


def test_where_too_many_tries_are_left_nothing_different_becomes_equal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(canonical.__globals__, "_TRIES", 1)
    assert canonical(rings(4)) != canonical(rings(2, 2))
    assert canonical(rings(2, 2)).cost == rings(2, 2).cost


def test_many_equal_nodes_are_quick() -> None:
    """Twelve twins have 12! orders."""
    nodes = [f"n{index}" for index in range(12)]
    edges = [("conv_1x1", "in", node) for node in nodes]
    graph = graph_of(*edges, *[("skip_connect", node, "out") for node in nodes])
    assert canonical(graph) == canonical(shuffled(graph, 3))
