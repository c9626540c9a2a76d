"""Graphs for the tests."""

from hypothesis import strategies as st

from prunas.transformer_nat.genotype import Cell, Genotype
from prunas.transformer_nat.graph import Edge, OperatorGraph
from prunas.transformer_nat.operator_cost import Place
from prunas.transformer_nat.operators import NULL, OPERATORS

ALL = tuple(OPERATORS)
assert ALL[-1] == NULL

HERE = (Place(8, 8, 6, 6),)
"""Where all edges of small graphs are."""


def graph_of(
    *edges: tuple[str, str, str],
    inputs: tuple[str, ...] = ("in",),
    outputs: tuple[tuple[str, ...], ...] = (("out",),),
) -> OperatorGraph:
    """A graph of (operator, source, target), all at one place; its nodes are those of its edges."""
    nodes = dict.fromkeys(node for _, source, target in edges for node in (source, target))
    return OperatorGraph(tuple(nodes), inputs, outputs, tuple(Edge(*each, HERE) for each in edges))


def cells(operators: tuple[str, ...] = ALL) -> st.SearchStrategy[Cell]:
    """Cells of one to four nodes whose output an input reaches."""

    @st.composite
    def draw(draw: st.DrawFn) -> Cell:
        nodes = draw(st.integers(1, 4))
        edges = [
            (draw(st.sampled_from(operators)), draw(st.integers(0, node - 1)), node)
            for node in range(2, 2 + nodes)
            for _ in range(2)
        ]
        joined = draw(st.sets(st.integers(2, 1 + nodes), min_size=1))
        return Cell(tuple(edges), tuple(sorted(joined)))

    return draw().filter(_reached)


def genotypes() -> st.SearchStrategy[Genotype]:
    return st.builds(Genotype, cells(), cells())


def graphs() -> st.SearchStrategy[OperatorGraph]:
    """Graphs with shapes of their own: widths change, maps shrink, edges stand at several places.

    Node i > 0 reads from one to three of its predecessors; node 0 is the input. Sizes follow from
    a level for each node, at least that of each node it reads. An input reaches every node.
    """

    @st.composite
    def draw(draw: st.DrawFn) -> OperatorGraph:
        count = draw(st.integers(2, 5))
        repeats = draw(st.integers(1, 2))
        size = draw(st.integers(1, 9))
        widths = [draw(st.integers(1, 6)) for _ in range(count)]
        levels = [0]
        edges = []
        for node in range(1, count):
            sources = draw(st.lists(st.integers(0, node - 1), min_size=1, max_size=3))
            least = max(levels[source] for source in sources)
            levels.append(draw(st.integers(least, least + 1)))
            for slot, source in enumerate(sources):
                stride = 2 ** (levels[node] - levels[source])
                name = draw(st.sampled_from(ALL if slot else ALL[:-1]))
                rows = _shrunk(size, levels[source])
                place = Place(widths[source], widths[node], rows, rows, stride)
                edges.append(Edge(name, str(source), str(node), (place,) * repeats))
        nodes = tuple(map(str, range(count)))
        used = {edge.source for edge in edges if edge.operator != NULL}
        ends = tuple(node for node in nodes[1:] if node not in used)
        return OperatorGraph(nodes, ("0",), (ends or (nodes[-1],),), tuple(edges))

    return draw()


def _shrunk(size: int, level: int) -> int:
    return 1 + (size - 1) // int(2**level)


def _reached(cell: Cell) -> bool:
    fed = {0, 1}
    for name, source, target in cell.edges:
        if name != NULL and source in fed:
            fed.add(target)
    return not fed.isdisjoint(cell.output)
