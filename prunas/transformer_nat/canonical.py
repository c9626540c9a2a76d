"""The same graph under other names: a form in which equal architectures are equal.

Nodes other than inputs have no identity: two graphs are the same architecture if some renaming of
nodes turns one into the other, whatever the order of nodes, of edges and of the nodes that an
output joins. Inputs and outputs keep their order.

Colours are refined (Weisfeiler and Leman) until they tell no more; where nodes still share one,
each is singled out in turn and the least description counts. Not every node is tried: of twins,
which have the very same edges, one is, and of nodes from which on the same description is reached,
since a renaming of the graph takes one to the other (McKay, "Practical graph isomorphism", 1981).
Without that, m pairs of equal branches would cost 2^m tries. Graphs in which a hundred tries are
left all the same are not searched further: equal ones of them may count as different, but never
different ones as equal.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, Final

from prunas.transformer_nat.graph import Edge, OperatorGraph
from prunas.transformer_nat.simplify import simplified

Colours = dict[str, int]
"""For each node the number of those of lesser colours, so that splitting one leaves the others."""
Description = tuple[tuple[int, int, int], ...]

_TRIES: Final = 100


def canonical(graph: OperatorGraph) -> OperatorGraph:
    """The simplified graph with new names and in one order; equal for equal architectures."""
    lean = simplified(graph)
    wires = _wires(lean)
    ways = islice(_ways(wires, _first_colours(lean)), _TRIES)
    colours = min(ways, key=partial(_description, wires))
    names = {node: str(colour) for node, colour in colours.items()}
    rows = [(colours[a], colours[b], kind) for a, b, kind in wires.rows]
    return OperatorGraph(
        nodes=tuple(names[node] for node in sorted(lean.nodes, key=colours.__getitem__)),
        inputs=tuple(names[node] for node in lean.inputs),
        outputs=tuple(
            tuple(names[node] for node in sorted(joined, key=colours.__getitem__))
            for joined in lean.outputs
        ),
        edges=tuple(
            replace(edge, source=names[edge.source], target=names[edge.target])
            for edge in (lean.edges[i] for i in sorted(range(len(rows)), key=rows.__getitem__))
        ),
    )


@dataclass(frozen=True)
class _Wires:
    """The edges of a graph.

    Attributes:
        rows: (source, target, kind) of each; of one kind are those that differ in their ends alone.
        links: {node: (neighbour, what it sees of the edge)}, for both ends.
    """

    rows: tuple[tuple[str, str, int], ...]
    links: dict[str, list[tuple[str, int]]]


def _wires(graph: OperatorGraph) -> _Wires:
    kinds = _ranks([_kind(edge) for edge in graph.edges])
    pairs = zip(graph.edges, kinds, strict=True)
    rows = tuple((edge.source, edge.target, kind) for edge, kind in pairs)
    links: dict[str, list[tuple[str, int]]] = {node: [] for node in graph.nodes}
    for source, target, kind in rows:
        links[source].append((target, 2 * kind))
        links[target].append((source, 2 * kind + 1))
    return _Wires(rows, links)


def _kind(edge: Edge) -> tuple[Any, ...]:
    places = ((p.in_channels, p.out_channels, p.height, p.width, p.stride) for p in edge.places)
    prices = ((name, astuple(cost)) for name, cost in edge.prices)
    return edge.operator, tuple(places), tuple(prices)


def _ranks(keys: Sequence[Any]) -> list[int]:
    """For each the number of those that are less."""
    ranks: dict[Any, int] = {}
    for rank, key in enumerate(sorted(keys)):
        ranks.setdefault(key, rank)
    return [ranks[key] for key in keys]


def _first_colours(graph: OperatorGraph) -> Colours:
    places = {node: index for index, node in enumerate(graph.inputs)}
    joins = [Counter(joined) for joined in graph.outputs]
    roles = [
        (places.get(node, len(places)), tuple(count[node] for count in joins))
        for node in graph.nodes
    ]
    return dict(zip(graph.nodes, _ranks(roles), strict=True))


def _ways(wires: _Wires, colours: Colours) -> Iterator[Colours]:
    """All nodes told apart, in each way that has to be tried."""
    undecided = [_refined(wires, colours, colours)]
    while undecided:
        colours = undecided.pop()
        shared = _first_shared(colours)
        if not shared:
            yield colours
        twins = {tuple(sorted(wires.links[node])): node for node in shared}
        singled = [_singled(wires, colours, node, shared) for node in twins.values()]
        alike = {_description(wires, _followed(wires, each)): each for each in singled}
        undecided += alike.values()


def _followed(wires: _Wires, colours: Colours) -> Colours:
    """All nodes told apart, in one way."""
    while shared := _first_shared(colours):
        colours = _singled(wires, colours, shared[0], shared)
    return colours


def _first_shared(colours: Colours) -> list[str]:
    """The nodes of the first colour that several have."""
    sizes = Counter(colours.values())
    first = min((colour for colour, size in sizes.items() if size > 1), default=-1)
    return [node for node, colour in colours.items() if colour == first]


def _singled(wires: _Wires, colours: Colours, node: str, shared: list[str]) -> Colours:
    """Refined after one node comes behind the others of its colour."""
    return _refined(wires, {**colours, node: colours[node] + len(shared) - 1}, [node])


def _refined(wires: _Wires, colours: Colours, changed: Iterable[str]) -> Colours:
    """The colours, told apart by those of the neighbours until that adds nothing.

    Args:
        wires: the edges.
        colours: told apart by the neighbours already, but for what has changed.
        changed: nodes that were told apart since, which their neighbours do not show yet.
    """
    colours = dict(colours)
    while changed:
        seen: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for node in changed:
            for neighbour, link in wires.links[node]:
                seen[neighbour].append((link, colours[node]))
        split: dict[int, dict[Any, list[str]]] = defaultdict(lambda: defaultdict(list))
        for node, sights in seen.items():
            split[colours[node]][tuple(sorted(sights))].append(node)
        sizes = Counter(colours.values())
        finer: Colours = {}
        for colour, parts in split.items():
            # nodes that see no change come first and keep the colour
            start = colour + sizes[colour] - sum(map(len, parts.values()))
            for _, part in sorted(parts.items()):
                finer |= dict.fromkeys(part, start)
                start += len(part)
        changed = [node for node, colour in finer.items() if colour != colours[node]]
        colours |= finer
    return colours


def _description(wires: _Wires, colours: Colours) -> Description:
    return tuple(sorted((colours[a], colours[b], kind) for a, b, kind in wires.rows))
