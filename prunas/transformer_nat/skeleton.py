"""The network around the cells: where they stand, how wide they are, and what all of it costs.

Liu et al., "DARTS: Differentiable Architecture Search", ICLR 2019, and its code. Of L cells, those
at L // 3 and 2 L // 3 are reduction cells, and from each of them on the cells are twice as wide. A
cell reads the outputs of the last two cells, both brought to its width C first: by a 1 x 1
convolution, the older one by a factorised reduction where the last cell halved the map. What a cell
joins of n nodes is n C wide.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from prunas.errors import InputError
from prunas.given_numbers import is_whole
from prunas.transformer_nat.genotype import INPUTS, Cell, Genotype
from prunas.transformer_nat.graph import Edge, OperatorGraph
from prunas.transformer_nat.operator_cost import (
    FREE,
    OperatorCost,
    Place,
    convolution_cost,
    operator_cost,
)

Stem = Literal["cifar", "imagenet"]


@dataclass(frozen=True)
class Skeleton:
    """Everything about a cell network but its cells; `cifar_skeleton` and `imagenet_skeleton`.

    Attributes:
        stem: "cifar", one 3 x 3 convolution to three times the width, or "imagenet", three of
            stride 2, of which the first cell sees the second and the third.
        channels: width C of the first cells.
        layers: number L of cells, at least 3.
        classes: outputs of the classifier.
        size: rows and columns of the image.
        in_channels: channels of the image.
        keep_dead: join nodes that nothing reaches as zeros, as the published networks do. They
            cost channels in the cells behind; without this they are left out. A cell needs one
            that is reached all the same.
    """

    stem: Stem
    channels: int
    layers: int
    classes: int
    size: int
    in_channels: int = 3
    keep_dead: bool = False

    def __post_init__(self) -> None:
        if self.stem not in get_args(Stem):
            raise InputError(
                f"there is no stem {self.stem!r}; choose one of {', '.join(get_args(Stem))}"
            )
        for name in ("channels", "layers", "classes", "size", "in_channels"):
            value = getattr(self, name)
            if not is_whole(value):
                raise InputError(f"{name} of a cell network is {value!r}; give a whole number")
        if self.layers < 3:
            raise InputError(f"a cell network of {self.layers} cells has no room; use at least 3")
        if self.channels < 2 or min(self.classes, self.size, self.in_channels) < 1:
            raise InputError(f"{self} has a size that is too small; give at least 2 channels")

    @property
    def reductions(self) -> tuple[int, int]:
        """Which cells are reduction cells; the auxiliary head stands behind the second one."""
        return self.layers // 3, 2 * self.layers // 3

    @property
    def stem_channels(self) -> tuple[int, int]:
        """Channels of what the first cell reads."""
        width = 3 * self.channels if self.stem == "cifar" else self.channels
        return width, width

    @property
    def stem_sizes(self) -> tuple[int, int]:
        """Rows (and columns) of what the first cell reads."""
        if self.stem == "cifar":
            return self.size, self.size
        older = _half(_half(self.size))
        return older, _half(older)


def cifar_skeleton(
    channels: int = 36, layers: int = 20, *, classes: int = 10, size: int = 32
) -> Skeleton:
    """The skeleton for small images; by default that of the published figures."""
    return Skeleton("cifar", channels, layers, classes, size)


def imagenet_skeleton(
    channels: int = 48, layers: int = 14, *, classes: int = 1000, size: int = 224
) -> Skeleton:
    """The skeleton for large images; by default that of the published figures."""
    return Skeleton("imagenet", channels, layers, classes, size)


@dataclass(frozen=True)
class CellPlace:
    """Where one cell stands.

    Attributes:
        reduction: whether it is a reduction cell.
        channels: its width.
        older: what the output of the cell before the last becomes the first input by.
        last: what the output of the last cell becomes the second input by.
    """

    reduction: bool
    channels: int
    older: Place
    last: Place

    def place_of(self, source: int) -> Place:
        """Where an edge from that node is."""
        rows, columns = self.last.out_size
        halved = self.reduction and source >= INPUTS
        size = (_half(rows), _half(columns)) if halved else (rows, columns)
        stride = 2 if self.reduction and source < INPUTS else 1
        return Place(self.channels, self.channels, *size, stride)


@dataclass(frozen=True)
class BuiltCell:
    """What of a cell is built: the edges, by their numbers, and the nodes that are joined."""

    cell: Cell
    edges: tuple[int, ...]
    output: tuple[int, ...]


def built_cell(cell: Cell, *, keep_dead: bool = False) -> BuiltCell:
    """What of a cell has to be built.

    Args:
        cell: any cell.
        keep_dead: build dead nodes and null edges too; see `Skeleton`.

    Raises:
        InputError: no input reaches the nodes that the cell joins.
    """
    graph = _cell_graph(cell, "node", {source: (Place(1, 1, 1, 1),) for source in _sources(cell)})
    if keep_dead:
        return BuiltCell(cell, tuple(range(len(cell.edges))), cell.output)
    fed = graph.fed(graph.operators)
    output = tuple(node for node in cell.output if f"node {node}" in fed)
    return BuiltCell(cell, graph.live(graph.operators), output)


def cell_places(genotype: Genotype, skeleton: Skeleton) -> tuple[CellPlace, ...]:
    """Where each cell of the network stands.

    Raises:
        InputError: no input reaches the nodes that a cell joins.
    """
    joined = {
        reduction: len(built_cell(cell, keep_dead=skeleton.keep_dead).output)
        for reduction, cell in ((False, genotype.normal), (True, genotype.reduce))
    }
    channels = skeleton.channels
    before, previous = skeleton.stem_channels
    older, size = skeleton.stem_sizes
    places = []
    for index in range(skeleton.layers):
        reduction = index in skeleton.reductions
        channels *= 2 if reduction else 1
        shrunk = 2 if size < older else 1
        first = Place(before, channels, older, older, shrunk)
        places.append(CellPlace(reduction, channels, first, Place(previous, channels, size, size)))
        before, previous = previous, joined[reduction] * channels
        older, size = size, _half(size) if reduction else size
    return tuple(places)


def final_channels(genotype: Genotype, skeleton: Skeleton, after: int = -1) -> int:
    """Channels of what the cell of that number makes; by default what the classifier reads."""
    place = cell_places(genotype, skeleton)[after]
    cell = genotype.reduce if place.reduction else genotype.normal
    return len(built_cell(cell, keep_dead=skeleton.keep_dead).output) * place.channels


def cell_graph(genotype: Genotype, skeleton: Skeleton) -> OperatorGraph:
    """Both cells of a network as one graph of two parts, every edge at all its places.

    The edges are those of the normal cell and then those of the reduction cell, so that operators
    that fit the graph fit `genotype.with_operators`. Nodes are "normal 0" to "reduce 5".

    Raises:
        InputError: no input reaches the nodes that a cell joins.
    """
    places = cell_places(genotype, skeleton)
    parts = []
    for name, cell, reduction in _cells(genotype):
        here = [place for place in places if place.reduction == reduction]
        at = {source: tuple(p.place_of(source) for p in here) for source in _sources(cell)}
        parts.append(_cell_graph(cell, name, at))
    normal, reduce = parts
    return OperatorGraph(
        nodes=normal.nodes + reduce.nodes,
        inputs=normal.inputs + reduce.inputs,
        outputs=normal.outputs + reduce.outputs,
        edges=normal.edges + reduce.edges,
    )


def network_cost(genotype: Genotype, skeleton: Skeleton) -> OperatorCost:
    """The whole network without its auxiliary head, for one image, as exact integers.

    Raises:
        InputError: no input reaches the nodes that a cell joins.
    """
    built = {
        reduction: built_cell(cell, keep_dead=skeleton.keep_dead)
        for _, cell, reduction in _cells(genotype)
    }
    total = _stem_cost(skeleton)
    for place in cell_places(genotype, skeleton):
        total += operator_cost("conv_1x1", place.older) + operator_cost("conv_1x1", place.last)
        total += _edges_cost(built[place.reduction], place)
    features = final_channels(genotype, skeleton)
    return total + OperatorCost(
        macs=features * skeleton.classes, weights=(features + 1) * skeleton.classes
    )


def _edges_cost(built: BuiltCell, place: CellPlace) -> OperatorCost:
    edges = (built.cell.edges[index] for index in built.edges)
    return sum((operator_cost(name, place.place_of(source)) for name, source, _ in edges), FREE)


def _stem_cost(skeleton: Skeleton) -> OperatorCost:
    (_, width), (older, size) = skeleton.stem_channels, skeleton.stem_sizes
    if skeleton.stem == "cifar":
        return convolution_cost(9 * skeleton.in_channels * width, size**2, 2 * width)
    half = width // 2
    first = convolution_cost(9 * skeleton.in_channels * half, _half(skeleton.size) ** 2, 2 * half)
    second = convolution_cost(9 * half * width, older**2, 2 * width)
    return first + second + convolution_cost(9 * width * width, size**2, 2 * width)


def _cells(genotype: Genotype) -> tuple[tuple[str, Cell, bool], tuple[str, Cell, bool]]:
    return ("normal", genotype.normal, False), ("reduce", genotype.reduce, True)


def _sources(cell: Cell) -> range:
    return range(INPUTS + len(cell.edges) // 2)


def _cell_graph(cell: Cell, name: str, at: dict[int, tuple[Place, ...]]) -> OperatorGraph:
    nodes = tuple(f"{name} {node}" for node in _sources(cell))
    return OperatorGraph(
        nodes=nodes,
        inputs=nodes[:INPUTS],
        outputs=(tuple(nodes[node] for node in cell.output),),
        edges=tuple(Edge(op, nodes[a], nodes[b], at[a]) for op, a, b in cell.edges),
    )


def _half(size: int) -> int:
    return -(-size // 2)
