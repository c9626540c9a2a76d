"""A graph as arrays, for policies."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prunas.errors import InputError
from prunas.transformer_nat.graph import OperatorGraph
from prunas.transformer_nat.operators import Vocabulary

Indices = NDArray[np.int64]
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Encoded:
    """What a policy sees of a graph of N nodes and E edges.

    Attributes:
        inputs: (N,) number of each input among those of its part of the graph; -1 for other nodes.
        depth: (N,) edges on the longest way from an input, as a share of the longest of all.
        source: (E,) node that an edge reads.
        target: (E,) node that it is added to.
        slot: (E,) its number among the edges of its target.
        operator: (E,) its operator's number in the vocabulary.
        strided: (E,) 1 where it halves the map, else 0.
    """

    inputs: Indices
    depth: Array
    source: Indices
    target: Indices
    slot: Indices
    operator: Indices
    strided: Array


def encoded(graph: OperatorGraph, vocabulary: Vocabulary) -> Encoded:
    """The graph as arrays.

    Raises:
        InputError: an operator is not in the vocabulary.
    """
    place = {node: index for index, node in enumerate(graph.nodes)}
    source = np.array([place[edge.source] for edge in graph.edges])
    target = np.array([place[edge.target] for edge in graph.edges])
    return Encoded(
        inputs=_inputs(graph, place, source, target),
        depth=_depth(graph, source, target),
        source=source,
        target=target,
        slot=np.array([np.sum(target[:edge] == node) for edge, node in enumerate(target)]),
        operator=np.array([known(name, vocabulary) for name in graph.operators]),
        strided=np.array([float(edge.places[0].stride > 1) for edge in graph.edges]),
    )


def known(name: str, vocabulary: Vocabulary) -> int:
    """The operator's number in a vocabulary.

    Raises:
        InputError: it is not there.
    """
    if name not in vocabulary:
        raise InputError(
            f"the policy does not know the operator {name}; its vocabulary is"
            f" {', '.join(vocabulary)}: use a policy whose vocabulary has it"
        )
    return vocabulary.index(name)


def _inputs(
    graph: OperatorGraph, place: dict[str, int], source: Indices, target: Indices
) -> Indices:
    part = _parts(len(graph.nodes), source, target)
    seen: dict[int, int] = {}
    numbers = np.full(len(graph.nodes), -1)
    for node in (place[name] for name in graph.inputs):
        numbers[node] = seen.get(part[node], 0)
        seen[part[node]] = int(numbers[node]) + 1
    return numbers


def _parts(nodes: int, source: Indices, target: Indices) -> list[int]:
    """Which connected part of the graph each node is in, whatever the edges carry."""
    part = list(range(nodes))
    for a, b in zip(source.tolist(), target.tolist(), strict=True):
        old, new = part[a], part[b]
        part = [new if each == old else each for each in part]
    return part


def _depth(graph: OperatorGraph, source: Indices, target: Indices) -> Array:
    depth = np.zeros(len(graph.nodes))
    for edge in graph.order:
        depth[target[edge]] = max(depth[target[edge]], depth[source[edge]] + 1)
    return np.asarray(depth / depth.max())
