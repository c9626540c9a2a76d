"""The same graph under other names: a form in which equal architectures are equal.

Nodes other than inputs have no identity: two graphs are the same architecture if some renaming of
nodes turns one into the other, whatever the order of nodes, of edges and of the nodes that an
output joins. Inputs and outputs keep their order.

Colours are refined (Weisfeiler and Leman) until they tell no more; where nodes still share one,
each is singled out in turn and the least description counts. Nodes with the very same edges can be
swapped and only one of them is tried; without that, four equal nodes would cost 4! tries.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import astuple, replace
from typing import Any

from prunas.transformer_nat.graph import Edge, OperatorGraph
from prunas.transformer_nat.simplify import simplified

Colours = dict[str, int]
Description = tuple[Any, ...]


def canonical(graph: OperatorGraph) -> OperatorGraph:
    """The simplified graph with new names and in one order; equal for equal architectures."""
    lean = simplified(graph)
    _, colours = min(_described(lean), key=lambda found: found[0])
    names = {node: str(colour) for node, colour in colours.items()}
    return OperatorGraph(
        nodes=tuple(names[node] for node in sorted(lean.nodes, key=colours.__getitem__)),
        inputs=tuple(names[node] for node in lean.inputs),
        outputs=tuple(
            tuple(names[node] for node in sorted(joined, key=colours.__getitem__))
            for joined in lean.outputs
        ),
        edges=tuple(
            replace(edge, source=names[edge.source], target=names[edge.target])
            for edge in sorted(lean.edges, key=lambda edge: _row(edge, colours))
        ),
    )


def _described(graph: OperatorGraph) -> Iterator[tuple[Description, Colours]]:
    """A description for each way to tell all nodes apart that has to be tried."""
    undecided = [_refined(graph, _first_colours(graph))]
    while undecided:
        colours = undecided.pop()
        shared = _first_shared(graph, colours)
        if not shared:
            yield tuple(sorted(_row(edge, colours) for edge in graph.edges)), colours
        for node in shared:
            # the fractional colour comes just before that of the others; refining makes it whole
            undecided.append(_refined(graph, {**colours, node: colours[node] - 0.5}))


def _first_colours(graph: OperatorGraph) -> dict[str, Any]:
    places = {node: index for index, node in enumerate(graph.inputs)}
    joins = [Counter(joined) for joined in graph.outputs]
    roles = {
        node: (places.get(node, len(places)), tuple(count[node] for count in joins))
        for node in graph.nodes
    }
    return _ranked(roles)


def _refined(graph: OperatorGraph, colours: dict[str, Any]) -> Colours:
    """The colours, told apart by those of the neighbours until that adds nothing."""
    while True:
        around: dict[str, list[Description]] = defaultdict(list)
        for edge in graph.edges:
            around[edge.target].append((0, edge.operator, _sizes(edge), colours[edge.source]))
            around[edge.source].append((1, edge.operator, _sizes(edge), colours[edge.target]))
        finer = _ranked({n: (colours[n], tuple(sorted(around[n]))) for n in graph.nodes})
        if len(set(finer.values())) == len(set(colours.values())):
            return finer
        colours = finer


def _ranked(keys: dict[str, Any]) -> Colours:
    """0, 1, 2 ... in the order of the keys; equal for equal ones."""
    rank = {key: index for index, key in enumerate(sorted(set(keys.values())))}
    return {node: rank[key] for node, key in keys.items()}


def _first_shared(graph: OperatorGraph, colours: Colours) -> list[str]:
    """The nodes of the first colour that several have, one of each kind of twins."""
    classes: dict[int, list[str]] = defaultdict(list)
    for node in graph.nodes:
        classes[colours[node]].append(node)
    shared = [classes[colour] for colour in sorted(classes) if len(classes[colour]) > 1]
    if not shared:
        return []
    return list({_ends(graph, node): node for node in shared[0]}.values())


def _ends(graph: OperatorGraph, node: str) -> Description:
    """All edges of a node, by the names of its neighbours: the same for twins alone."""
    arriving = [(0, e.operator, _sizes(e), e.source) for e in graph.edges if e.target == node]
    leaving = [(1, e.operator, _sizes(e), e.target) for e in graph.edges if e.source == node]
    return tuple(sorted(arriving + leaving))


def _row(edge: Edge, colours: Colours) -> Description:
    return colours[edge.source], colours[edge.target], edge.operator, _sizes(edge)


def _sizes(edge: Edge) -> Description:
    places = ((p.in_channels, p.out_channels, p.height, p.width, p.stride) for p in edge.places)
    prices = ((name, astuple(cost)) for name, cost in edge.prices)
    return (*places, *prices)
