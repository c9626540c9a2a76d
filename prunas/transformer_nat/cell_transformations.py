"""The transformations of a network of cells, as one network that holds the weights of them all.

As the search networks of DARTS and NAT: every edge of every cell is a choice between its own
operator and what may take its place. An edge of a genotype stands in many cells; its operator is
the same in all of them. Nodes that nothing reaches are joined as zeros here, so that widths stay;
the network that is built in the end leaves them out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import nn

from prunas.errors import InputError
from prunas.supernet.choice import Choice
from prunas.supernet.space import Candidate, SearchSpace
from prunas.supernet.trace import trace
from prunas.transformer_nat.cell_network import CellModule, CellNetwork
from prunas.transformer_nat.genotype import Genotype
from prunas.transformer_nat.layers import operator_module
from prunas.transformer_nat.operator_cost import operator_cost
from prunas.transformer_nat.skeleton import (
    CellPlace,
    Skeleton,
    built_cell,
    cell_graph,
    cell_places,
)
from prunas.transformer_nat.transformation import TransformationSpace, transformations
from prunas.transformer_nat.transitions import (
    Legality,
    Rule,
    never_dearer_but_identity,
    two_level,
)


@final
@dataclass(frozen=True, eq=False)
class CellTransformations:
    """What may become of a genotype; `cell_transformations` makes it.

    Attributes:
        network: holds all of it.
        space: its search space: a gene for each edge that has a choice, in each cell.
        moves: the transformations; zeros are the source.
        genes: for every edge of the graph its genes, one for each cell; none without a choice.
        genotype: the source.
    """

    network: nn.Module
    space: SearchSpace
    moves: TransformationSpace
    genes: tuple[tuple[int, ...], ...]
    genotype: Genotype

    def candidate(self, positions: Sequence[int]) -> Candidate:
        """A transformation as a candidate of `space`.

        Raises:
            InputError: it is not of this graph.
        """
        values = list(self.space.full())
        operators = self.moves.operators(self.moves.candidate(positions))
        for genes, name in zip(self.genes, operators, strict=True):
            for gene in genes:
                values[gene] = self.space.alternatives[gene].names.index(name)
        return Candidate(values)

    def transformed(self, positions: Sequence[int]) -> Genotype:
        """A transformation as cells.

        Raises:
            InputError: it is not of this graph.
        """
        return self.genotype.with_operators(self.moves.operators(self.moves.candidate(positions)))


def cell_transformations(
    genotype: Genotype,
    skeleton: Skeleton,
    *,
    rule: Rule = two_level,
    legal: Legality = never_dearer_but_identity,
    trained: CellNetwork | None = None,
    seed: int = 0,
) -> CellTransformations:
    """The space of what `rule` makes of the cells of a network, as far as it is `legal`.

    Args:
        genotype: the cells.
        skeleton: the network around them.
        rule: what is offered for an operator.
        legal: what of that an edge may have; by default nothing that is dearer.
        trained: a network of these cells, with its auxiliary head or without, from which all
            weights but those of other operators are copied.
        seed: of weights; torch's global generator is left as found.

    Raises:
        InputError: no input reaches the nodes that a cell joins, or the trained network is another
            one, or leaves out dead nodes that are joined.
        NothingToReplaceError: nothing may be replaced.
    """
    moves = transformations(cell_graph(genotype, skeleton), rule, legal=legal)
    whole = replace(skeleton, keep_dead=True)
    network = CellNetwork(genotype, whole, seed=seed)
    if trained is not None:
        _copy_weights(trained, network)
    edge_of: dict[str, int] = {}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for number, place in enumerate(cell_places(genotype, whole)):
            first = len(genotype.normal.edges) if place.reduction else 0
            cell = network.cells[number]
            assert isinstance(cell, CellModule), "cells are cells"
            for edge, (source, _) in enumerate(cell.ends):
                names = moves.options[first + edge]
                if len(names) > 1:
                    own = cell.operators[edge]
                    cell.operators[edge] = _choice(names, own, place, source)
                    edge_of[f"cells.{number}.operators.{edge}"] = first + edge
    size = (skeleton.in_channels, skeleton.size, skeleton.size)
    space = trace(network, size, genes=("operator",))
    genes: list[list[int]] = [[] for _ in moves.options]
    for gene, choice in space.alternatives.items():
        genes[edge_of[choice.path]].append(gene)
    return CellTransformations(network, space, moves, tuple(map(tuple, genes)), genotype)


def _copy_weights(trained: CellNetwork, network: CellNetwork) -> None:
    """Operators that the trained network leaves out matter nowhere, and stay as they are."""
    if not isinstance(trained, CellNetwork):
        raise InputError(
            f"the trained network is a {type(trained).__name__}; give a CellNetwork of these cells"
        )
    keep_dead = trained.skeleton.keep_dead
    given, held = _parts(trained, keep_dead=keep_dead), _parts(network, keep_dead=keep_dead)
    shapes = [
        {name: tensor.shape for name, tensor in each.state_dict().items()} for each in (given, held)
    ]
    if shapes[0] != shapes[1]:
        raise InputError(
            "the trained network is not that of these cells and this skeleton; give one that was"
            " made of them, with keep_dead=True if they join nodes that nothing reaches"
        )
    held.load_state_dict(given.state_dict())


def _parts(network: CellNetwork, *, keep_dead: bool) -> nn.ModuleList:
    """What holds weights, but the auxiliary head: of every cell the operators that are built so."""
    genotype, skeleton = network.genotype, network.skeleton
    parts = [network.stem, network.classifier]
    for number, cell in enumerate(network.cells):
        assert isinstance(cell, CellModule), "cells are cells"
        operators = list(cell.operators)
        if skeleton.keep_dead and not keep_dead:
            own = genotype.reduce if number in skeleton.reductions else genotype.normal
            operators = [operators[edge] for edge in built_cell(own).edges]
        parts += [cell.older, cell.last, nn.ModuleList(operators)]
    return nn.ModuleList(parts)


def _choice(names: Sequence[str], own: nn.Module, place: CellPlace, source: int) -> Choice:
    """The edge's own operator comes last, before it what may take its place, the cheapest first."""
    at = place.place_of(source)
    others = sorted(names[1:], key=lambda name: operator_cost(name, at).published_macs)
    return Choice({**{name: operator_module(name, at) for name in others}, names[0]: own})
