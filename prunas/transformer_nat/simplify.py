"""Leaving out what does not matter: null edges, and nodes that nothing reaches or nobody uses."""

from prunas.transformer_nat.graph import OperatorGraph


def simplified(graph: OperatorGraph) -> OperatorGraph:
    """The graph without null edges and dead nodes.

    A node is dead if no input reaches it through other than null edges, or if it reaches no output.
    A dead node among those that an output joins goes too, so that the output gets narrower.

    Operators on zeros go with them. In a network they could still bring constants: a norm makes its
    shift of zeros. That is a bias that the living edges have as well.

    The inputs stay, used or not. Nothing gets dearer: edges and nodes are only left out.
    """
    live = graph.live(graph.operators)
    edges = tuple(graph.edges[index] for index in live)
    ends = {node for edge in edges for node in (edge.source, edge.target)}
    kept = ends | set(graph.inputs)
    return OperatorGraph(
        nodes=tuple(node for node in graph.nodes if node in kept),
        inputs=graph.inputs,
        outputs=tuple(tuple(n for n in joined if n in kept) for joined in graph.outputs),
        edges=edges,
    )
