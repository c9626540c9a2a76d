"""The transformations of a traced network: its operators as a graph, and as genes of one space.

Replaceable are residual blocks (their branch may go), gates (likewise) and convolutions, for which
there is what `substitute` makes. Each of these is an edge of an operator graph, with what it and
all that may take its place really cost; and it is one gene of a search space over one network that
holds them all, with blocks as genes of depth, gates as genes of operators, and choice blocks in the
place of convolutions. So shared weights, costs, evaluation and every search of prunas work on it
as on any other.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, final

from torch import nn

from prunas.errors import InputError
from prunas.eval.cost import Cost
from prunas.supernet.blocks import lies_in
from prunas.supernet.choice import Choice, choices_of
from prunas.supernet.cut import copied_with
from prunas.supernet.skeleton import skeleton
from prunas.supernet.space import Candidate, SearchSpace
from prunas.supernet.tensors import tensors_of
from prunas.supernet.trace import trace
from prunas.supernet.tying import tied
from prunas.transformer_nat.dataflow import Flow, Joint, Role, flow_of
from prunas.transformer_nat.graph import Edge, OperatorGraph
from prunas.transformer_nat.layer_prices import layer_prices, meta_images
from prunas.transformer_nat.operator_cost import FREE, OperatorCost
from prunas.transformer_nat.operators import BRANCH, GATE, NULL, SKIP
from prunas.transformer_nat.replacement import Replacement
from prunas.transformer_nat.substitutes import require_finite, substitute
from prunas.transformer_nat.transformation import (
    NothingToReplaceError,
    TransformationSpace,
    transformations,
)
from prunas.transformer_nat.transitions import Rule, never_dearer, two_level_of_networks

_ITSELF: Final = "kept"
"""The name of what was there, among the alternatives of a choice."""


@final
@dataclass(frozen=True, eq=False)
class TracedTransformations:
    """What may be replaced in a network; `traced_transformations` makes it.

    Attributes:
        network: a copy in which every replaceable layer is a choice.
        space: its search space, with one gene for each replaceable operator. The full candidate is
            the source.
        moves: the same candidates as transformations of a graph; zeros are the source.
        paths: for every edge of the graph the module that it is; empty where nothing is replaced.
        genes: for every edge its gene, -1 where there is none.
    """

    network: nn.Module
    space: SearchSpace
    moves: TransformationSpace
    paths: tuple[str, ...]
    genes: tuple[int, ...]

    def candidate(self, positions: Sequence[int]) -> Candidate:
        """A transformation as a candidate of `space`.

        Raises:
            InputError: it is not of this graph.
        """
        values = list(self.space.full())
        operators = self.moves.operators(self.moves.candidate(positions))
        for gene, position, name in zip(self.genes, positions, operators, strict=True):
            if position:
                values[gene] = self._value(gene, name)
        return Candidate(values)

    def replacements(self, positions: Sequence[int]) -> tuple[Replacement, ...]:
        """What a transformation replaces, where it still matters.

        Nothing is listed that is inside of what goes as a whole.

        Raises:
            InputError: it is not of this graph.
        """
        operators = self.moves.operators(self.moves.candidate(positions))
        alone = {block.path: block.alone for block in self.space.blocks.values()}
        gone = {path for path, name in zip(self.paths, operators, strict=True) if name == NULL}
        return tuple(
            Replacement(path, edge.operator, name, alone.get(path, True))
            for path, edge, name in zip(self.paths, self.moves.graph.edges, operators, strict=True)
            if name != edge.operator and not lies_in(path.rpartition(".")[0], gone)
        )

    def _value(self, gene: int, name: str) -> int:
        choice = self.space.alternatives.get(gene)
        return 0 if choice is None else choice.names.index(name)


def traced_transformations(
    network: nn.Module,
    input_size: Sequence[int],
    *,
    rule: Rule = two_level_of_networks,
    keep: Sequence[str] = (),
) -> TracedTransformations:
    """The space of what `rule` makes of a network, never dearer at any place.

    Args:
        network: any module of images; it is not modified.
        input_size: (channels, height, width) of one image.
        rule: what is offered for an operator.
        keep: patterns of layers that stay untouched; see `prunas.trace`.

    Raises:
        InputError: the network cannot be traced, has choice blocks of its own, or weights that are
            not finite in a layer that could be replaced.
        NothingToReplaceError: nothing in it may be replaced.
    """
    if next(choices_of(network), None) is not None:
        raise InputError(
            f"{type(network).__name__} holds choice blocks, so that its operators are not decided"
            " yet; cut a candidate out of it first (prunas.cut)"
        )
    fixed = _kept(network, keep)
    edges = layer_prices(network, input_size, rule)
    edges = {path: edge for path, edge in edges.items() if path not in fixed}
    while True:
        choosing = _with_choices(network, edges)
        space = _space(choosing, input_size, keep, network)
        gates = [block for gene, block in space.blocks.items() if _is_gate(space, gene)]
        lost = _undecided(space, edges) | {p for p in edges if any(b.holds(p) for b in gates)}
        if not lost:
            break
        edges = {path: edge for path, edge in edges.items() if path not in lost}
    bare = skeleton(choosing).eval()
    images = meta_images(bare, input_size)
    flow = flow_of(bare, images, _roles(space, edges))
    if flow.entered:
        space = _without_blocks(space, flow.entered, network)
        flow = flow_of(bare, images, _roles(space, edges))
    known = _priced(space, edges)
    graph = _graph(flow, known)
    gene_of = {block.path: gene for gene, block in space.blocks.items()}
    gene_of |= {choice.path: gene for gene, choice in space.alternatives.items()}
    paths = tuple(joint.path if joint.role else "" for joint in flow.joints)
    moves = transformations(graph, rule, legal=never_dearer)
    return TracedTransformations(
        choosing, space, moves, paths, tuple(gene_of.get(path, -1) for path in paths)
    )


def _kept(network: nn.Module, keep: Sequence[str]) -> set[str]:
    """The modules of which a tensor matches."""
    return {
        name.rpartition(".")[0]
        for name in tensors_of(network)
        if any(fnmatchcase(name, p) or fnmatchcase(name, f"{p}.*") for p in keep)
    }


def _is_gate(space: SearchSpace, gene: int) -> bool:
    return space.genes[gene].kind == "operator"


def _space(
    choosing: nn.Module, input_size: Sequence[int], keep: Sequence[str], network: nn.Module
) -> SearchSpace:
    try:
        return trace(choosing, input_size, keep=keep, genes=("depth", "operator"))
    except InputError as error:
        if "can be pruned" not in str(error):
            raise
        raise _nothing_in(network) from None


def _nothing_in(network: nn.Module) -> NothingToReplaceError:
    return NothingToReplaceError(
        f"nothing in {type(network).__name__} may be replaced: it has no residual block, no gate,"
        " and no convolution that something cheaper of the same shape could stand in for"
    )


def _without_blocks(space: SearchSpace, paths: Set[str], network: nn.Module) -> SearchSpace:
    """`space` without the genes of these blocks."""
    genes = (gene for gene, block in space.blocks.items() if block.path in paths)
    space = tied(space, whole=[space.genes[gene].name for gene in genes])
    if not space.genes:
        raise _nothing_in(network)
    return space


def _roles(space: SearchSpace, edges: Iterable[str]) -> dict[str, Role]:
    roles: dict[str, Role] = dict.fromkeys(edges, "layer")
    return roles | {
        block.path: "gate" if _is_gate(space, gene) else "block"
        for gene, block in space.blocks.items()
    }


def _undecided(space: SearchSpace, edges: Iterable[str]) -> set[str]:
    """Layers whose choice did not become a gene."""
    return set(edges) - {choice.path for choice in space.alternatives.values()}


def _with_choices(network: nn.Module, edges: Mapping[str, Mapping[str, OperatorCost]]) -> nn.Module:
    """A copy in which each of these layers is a choice, the layer itself being the last one."""
    result = copied_with(network, {})
    for path, prices in edges.items():
        layer = result.get_submodule(path)
        assert isinstance(layer, nn.Conv2d), "only convolutions are layers here"
        require_finite(layer, path)
        cheapest_first = sorted(list(prices)[1:], key=lambda name: _rank(prices[name]))
        alternatives = {name: substitute(layer, name) for name in cheapest_first}
        modules = {name: m for name, m in alternatives.items() if m is not None}
        choice = Choice({**modules, _ITSELF: layer})
        result.set_submodule(path, choice.train(layer.training))
    return result


def _rank(cost: OperatorCost) -> tuple[int, int]:
    return cost.macs, cost.params


# -- the graph -------------------------------------------------------------------------------------


def _priced(
    space: SearchSpace, layers: Mapping[str, Mapping[str, OperatorCost]]
) -> dict[str, Mapping[str, OperatorCost]]:
    """{path: costs of what can be there} of everything that may be replaced.

    A block costs what the network saves without it; its branch costs what of that is not inside an
    edge of its own.
    """
    cost = Cost(space)
    rows = [space.full(), *(_without(space, gene) for gene in space.blocks)]
    macs, params = cost.macs(rows), cost.params(rows)
    blocks = {block.path: block for block in space.blocks.values()}
    whole = {
        path: OperatorCost(macs=int(macs[0] - macs[place]), weights=int(params[0] - params[place]))
        for place, path in enumerate(blocks, 1)
    }
    whole |= {path: next(iter(prices.values())) for path, prices in layers.items()}
    known = dict(layers)
    for gene, block in space.blocks.items():
        if _is_gate(space, gene):
            known[block.path] = {GATE: whole[block.path], SKIP: FREE}
            continue
        inside = [path for path in whole if path != block.path and block.holds(path)]
        between = [blocks[path] for path in inside if path in blocks]
        direct = (p for p in inside if not any(b.path != p and b.holds(p) for b in between))
        own = whole[block.path]
        for path in direct:
            own = OperatorCost(own.macs - whole[path].macs, own.weights - whole[path].weights)
        known[block.path] = {BRANCH: own, NULL: FREE}
    return known


def _without(space: SearchSpace, gene: int) -> Candidate:
    return Candidate(0 if index == gene else v for index, v in enumerate(space.full()))


def _graph(flow: Flow, known: Mapping[str, Mapping[str, OperatorCost]]) -> OperatorGraph:
    return OperatorGraph(
        nodes=tuple(flow.nodes),
        inputs=(flow.nodes[0],),
        outputs=((flow.nodes[-1],),),
        edges=tuple(_edge(joint, known) for joint in flow.joints),
    )


def _edge(joint: Joint, known: Mapping[str, Mapping[str, OperatorCost]]) -> Edge:
    if joint.role is None:
        prices: Mapping[str, OperatorCost] = {joint.operator: FREE}
    else:
        prices = known[joint.path]
    name = joint.operator or next(iter(prices))
    return Edge(name, joint.source, joint.target, (joint.place,), tuple(prices.items()))
