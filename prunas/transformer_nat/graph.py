"""Architectures as graphs: nodes are sums of feature maps, edges carry operators.

A node is the sum of what its incoming edges bring; an output of the graph is the concatenation of
nodes. An edge may stand at several places of the network, as in cells that are repeated: whatever
replaces its operator does so at each of them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from prunas.errors import InputError
from prunas.transformer_nat.operator_cost import FREE, OperatorCost, Place, operator_cost
from prunas.transformer_nat.operators import NULL, operator


@dataclass(frozen=True)
class Edge:
    """An operator between two nodes.

    Attributes:
        operator: its name.
        source: the node it reads.
        target: the node it is added to.
        places: where it is, once for each repetition; at least one.
        prices: (operator, cost) of whatever can be here, where that is not for `operator_cost` to
            say: in traced networks, which have their own norms and biases. Empty otherwise.
    """

    operator: str
    source: str
    target: str
    places: tuple[Place, ...]
    prices: tuple[tuple[str, OperatorCost], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", tuple(self.places))
        object.__setattr__(self, "prices", tuple(map(tuple, self.prices)))

    def takes(self, name: str) -> bool:
        """Whether an operator of that name can be built here."""
        return not self.prices or any(name == known for known, _ in self.prices)

    def costs_of(self, name: str) -> tuple[OperatorCost, ...]:
        """What the operator of that name would cost at each place; with prices, at all at once.

        Raises:
            InputError: there is no such operator, or it cannot be here.
        """
        if not self.prices:
            return tuple(operator_cost(name, place) for place in self.places)
        if not self.takes(name):
            raise InputError(
                f"{name} cannot be between {self.source!r} and {self.target!r}; what can be is"
                f" {', '.join(known for known, _ in self.prices)}"
            )
        return (dict(self.prices)[name],)

    def cost_of(self, name: str) -> OperatorCost:
        """What the operator of that name would cost here, over all places."""
        return sum(self.costs_of(name), FREE)

    @cached_property
    def cost(self) -> OperatorCost:
        """What the operator costs, over all places."""
        return self.cost_of(self.operator)


@dataclass(frozen=True)
class OperatorGraph:
    """An architecture. Immutable; every instance is valid. Lists that it is given become tuples.

    Attributes:
        nodes: names, in any order.
        inputs: the nodes that are given; no edge ends there.
        outputs: the nodes that are joined to each output.
        edges: the operators; several may join the same two nodes.

    Raises:
        InputError: an unknown operator, a node that is missing, fed by nothing or given twice, a
            cycle, edges that bring different shapes to one node or read another shape than it has,
            or an output that nothing reaches.
    """

    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[tuple[str, ...], ...]
    edges: tuple[Edge, ...]

    def __post_init__(self) -> None:
        for name in ("nodes", "inputs", "edges"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "outputs", tuple(map(tuple, self.outputs)))
        _check_nodes(self)
        nodes, inputs = set(self.nodes), set(self.inputs)
        for edge in self.edges:
            _check_edge(edge, nodes, inputs)
        _check_fed(self)
        self.order  # noqa: B018 - raises where there is a cycle
        _check_shapes(self)
        for joined in self.dead_outputs(self.operators):
            raise InputError(
                f"no input reaches the output {' + '.join(joined)}: every way there is cut by a"
                f" {NULL!r} edge; put an operator on one of them"
            )

    @property
    def operators(self) -> tuple[str, ...]:
        """The operator of every edge."""
        return tuple(edge.operator for edge in self.edges)

    @property
    def cost(self) -> OperatorCost:
        """The sum over all edges. What does not matter in the end counts too: see `simplified`."""
        return sum((edge.cost for edge in self.edges), FREE)

    def with_operators(self, operators: Sequence[str]) -> "OperatorGraph":
        """The same graph with these operators, one for every edge.

        Raises:
            InputError: the number is wrong, an operator is unknown, or an output is cut off.
        """
        if len(operators) != len(self.edges):
            raise InputError(f"{len(operators)} operators were given for {len(self.edges)} edges")
        pairs = zip(self.edges, operators, strict=True)
        return replace(self, edges=tuple(replace(edge, operator=name) for edge, name in pairs))

    @cached_property
    def order(self) -> tuple[int, ...]:
        """The edges in an order in which every node is complete before it is read."""
        waiting = dict.fromkeys(self.nodes, 0)
        leaving: dict[str, list[int]] = {node: [] for node in self.nodes}
        for index, edge in enumerate(self.edges):
            waiting[edge.target] += 1
            leaving[edge.source].append(index)
        complete = [node for node in self.nodes if not waiting[node]]
        order: list[int] = []
        for node in complete:  # grows while it is walked
            order += leaving[node]
            for index in leaving[node]:
                target = self.edges[index].target
                waiting[target] -= 1
                if not waiting[target]:
                    complete.append(target)
        if len(complete) < len(self.nodes):
            stuck = [node for node in self.nodes if waiting[node]]
            raise InputError(
                f"the graph has a cycle: none of the nodes {', '.join(stuck)} can be the first of"
                " them; turn an edge round or take one away"
            )
        return tuple(order)

    def fed(self, operators: Sequence[str]) -> set[str]:
        """The nodes that an input reaches if the edges carry these operators."""
        found = set(self.inputs)
        for index in self.order:
            edge = self.edges[index]
            if edge.source in found and operators[index] != NULL:
                found.add(edge.target)
        return found

    def used(self, operators: Sequence[str]) -> set[str]:
        """The nodes from which an output is reached if the edges carry these operators."""
        found = {node for joined in self.outputs for node in joined}
        for index in reversed(self.order):
            edge = self.edges[index]
            if edge.target in found and operators[index] != NULL:
                found.add(edge.source)
        return found

    def live(self, operators: Sequence[str]) -> tuple[int, ...]:
        """The edges that carry something from an input to an output with these operators."""
        fed, used = self.fed(operators), self.used(operators)
        return tuple(
            index
            for index, edge in enumerate(self.edges)
            if operators[index] != NULL and edge.source in fed and edge.target in used
        )

    def dead_outputs(self, operators: Sequence[str]) -> list[tuple[str, ...]]:
        """The outputs that no input reaches with these operators."""
        fed = self.fed(operators)
        return [joined for joined in self.outputs if fed.isdisjoint(joined)]


def _check_nodes(graph: OperatorGraph) -> None:
    for name, times in Counter(graph.nodes).items():
        if times > 1:
            raise InputError(f"node {name!r} is given {times} times; names of nodes are unique")
    known = set(graph.nodes)
    joined = [node for nodes in graph.outputs for node in nodes]
    for name in (*graph.inputs, *joined):
        if name not in known:
            raise InputError(f"node {name!r} is an input or output, but the graph has no such node")
    if not graph.inputs or not joined or not all(graph.outputs):
        raise InputError("a graph needs an input, an output, and a node for each output")


def _check_edge(edge: Edge, nodes: set[str], inputs: set[str]) -> None:
    operator(edge.operator)
    told = f"edge {edge.operator} from {edge.source!r} to {edge.target!r}"
    for name in (edge.source, edge.target):
        if name not in nodes:
            raise InputError(f"{told}: the graph has no node {name!r}")
    if edge.target in inputs:
        raise InputError(f"{told}: {edge.target!r} is an input, and nothing is added to inputs")
    if not edge.places:
        raise InputError(f"{told} is nowhere; give it at least one place")


def _check_fed(graph: OperatorGraph) -> None:
    targets = {edge.target for edge in graph.edges} | set(graph.inputs)
    for name in graph.nodes:
        if name not in targets:
            raise InputError(f"node {name!r} is no input and no edge ends there; leave it out")


def _check_shapes(graph: OperatorGraph) -> None:
    shapes: dict[str, list[tuple[int, int, int]]] = {}
    for edge in graph.edges:
        made = [(place.out_channels, *place.out_size) for place in edge.places]
        first = shapes.setdefault(edge.target, made)
        if made != first:
            raise InputError(
                f"node {edge.target!r} cannot add maps of different shapes (channels, rows,"
                f" columns): {first} and {made}"
            )
    for edge in graph.edges:
        if edge.prices:  # traced networks reshape what an edge reads
            continue
        read = [(place.in_channels, place.height, place.width) for place in edge.places]
        held = shapes.setdefault(edge.source, read)  # an input is what its first edge reads
        if read != held:
            raise InputError(
                f"edge {edge.operator} from {edge.source!r} to {edge.target!r} reads maps of shape"
                f" (channels, rows, columns) {read}, but those of {edge.source!r} are {held}; give"
                " the edge places of that shape"
            )
