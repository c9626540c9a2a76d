"""A policy that looks at the graph: two graph convolutions.

    H = A ReLU(A X W_0 + b_0) W_1 + b_1
    z = [H, ReLU(X)] W_2 + b_2, read as (slots, operators + 1) logits for the edges into each node

Guo et al., NeurIPS 2019, after Kipf & Welling, ICLR 2017. The features X of a node are the
embeddings of the operators on its incoming edges, side by side, or for an input a vector of its
own, times a matrix.

What differs here. In the code of NAT, A has no ones on its diagonal, so that two convolutions look
exactly two nodes up and never at the operators that they decide about (`released` reproduces it);
here it has, is symmetric and normalised, so that a node hears of those that use it as well. Nodes
know besides how deep they are and which of their edges halve the map: without it, equal blocks of a
long chain look all the same. And the last layer reads X too: two normalised convolutions of a small
graph make its nodes nearly equal, and a policy that cannot tell them apart learns for all at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunas.errors import InputError
from prunas.given_numbers import refuse_below
from prunas.transformer_nat.encoding import Encoded
from prunas.transformer_nat.operators import EVERY_OPERATOR, NAT_PLUS, Vocabulary
from prunas.transformer_nat.policy import Shapes, Weights, drawn

Array = NDArray[np.float64]
Adjacency = Callable[[Encoded], Array]
"""Graph -> (N, N) how much each node (row) takes from each (column)."""

INPUTS: Final = 2


def released(graph: Encoded) -> Array:
    """As in the code of NAT: the number of edges from column to row; nothing on the diagonal."""
    count = np.zeros((len(graph.inputs), len(graph.inputs)))
    np.add.at(count, (graph.target, graph.source), 1.0)
    return count


def directed(graph: Encoded) -> Array:
    """A + I, every row divided by its sum: a node sees itself and what it reads."""
    count = released(graph) + np.eye(len(graph.inputs))
    return np.asarray(count / count.sum(axis=1, keepdims=True))


def symmetric(graph: Encoded) -> Array:
    """D^-1/2 (A + A^T + I) D^-1/2: a node sees itself, what it reads and what reads it."""
    count = released(graph)
    count = count + count.T + np.eye(len(count))
    scale = count.sum(axis=1) ** -0.5
    return np.asarray(scale[:, None] * count * scale)


@final
@dataclass(frozen=True)
class GraphConvolution:
    """Logits from two graph convolutions.

    Attributes:
        vocabulary: the operators that it knows.
        embedding: numbers that stand for an operator.
        features: numbers that stand for a node.
        hidden: the same after each convolution.
        slots: most edges that a node may have coming in.
        waves: pairs of sine and cosine of a node's depth among its features; 0 leaves both the
            depth and the strides out.
        own: whether the last layer reads the features of the node itself.
        adjacency: how nodes see each other.

    Raises:
        InputError: a size that is no whole number, or too small.
    """

    vocabulary: Vocabulary = EVERY_OPERATOR
    embedding: int = 16
    features: int = 64
    hidden: int = 64
    slots: int = 2
    waves: int = 4
    own: bool = True
    adjacency: Adjacency = symmetric

    def __post_init__(self) -> None:
        sizes = {"embedding": self.embedding, "features": self.features, "hidden": self.hidden}
        refuse_below(1, "the policy", **sizes, slots=self.slots)
        refuse_below(0, "the policy", waves=self.waves)

    @property
    def form(self) -> str:
        sizes = (self.embedding, self.features, self.hidden, self.slots, self.waves, self.own)
        return f"GraphConvolution({', '.join(map(str, sizes))}, {self.adjacency.__name__})"

    @property
    def shapes(self) -> Shapes:
        actions = len(self.vocabulary) + 1
        return {
            "operators": (len(self.vocabulary), self.embedding),
            "inputs": (INPUTS, self.slots * self.embedding),
            "to features": (self.slots * self.embedding + self._positions, self.features),
            "features": (self.features,),
            "first": (self.features, self.hidden),
            "first offset": (self.hidden,),
            "second": (self.hidden, self.hidden),
            "second offset": (self.hidden,),
            "head": (self.hidden + self.own * self.features, self.slots * actions),
            "head offset": (self.slots * actions,),
        }

    def drawn(self, rng: np.random.Generator) -> Array:
        """Embeddings N(0, 1), layers U(-1, 1) / sqrt(inputs); the last one is nearly zero."""
        return drawn(self.shapes, rng, normal=("operators", "inputs"), last="head")

    def logits(self, weights: Weights, graph: Encoded) -> Tensor:
        self._check(graph)
        around = torch.from_numpy(self.adjacency(graph))
        rows = self._rows(weights, graph) @ weights["to features"] + weights["features"]
        hidden = torch.relu(around @ (rows @ weights["first"]) + weights["first offset"])
        hidden = around @ (hidden @ weights["second"]) + weights["second offset"]
        if self.own:
            hidden = torch.cat([hidden, torch.relu(rows)], dim=1)
        logits = hidden @ weights["head"] + weights["head offset"]
        by_slot = logits.view(len(graph.inputs), self.slots, -1)
        return by_slot[graph.target, graph.slot]

    @property
    def _positions(self) -> int:
        return 2 * self.waves + self.slots if self.waves else 0

    def _rows(self, weights: Weights, graph: Encoded) -> Tensor:
        """(N, slots * embedding + positions) what is known of each node."""
        nodes = len(graph.inputs)
        slots = torch.zeros(nodes, self.slots, self.embedding, dtype=torch.float64)
        carried = weights["operators"][graph.operator]
        slots = slots.index_put((_t(graph.target), _t(graph.slot)), carried)
        given = graph.inputs >= 0
        rows = slots.view(nodes, -1).index_put(
            (_t(np.flatnonzero(given)),), weights["inputs"][graph.inputs[given]]
        )
        if not self.waves:
            return rows
        return torch.cat([rows, torch.from_numpy(self._where(graph))], dim=1)

    def _where(self, graph: Encoded) -> Array:
        """(N, positions) waves of the depth, and which edges halve the map."""
        angles = np.pi * graph.depth[:, None] * 2.0 ** np.arange(self.waves)
        strides = np.zeros((len(graph.inputs), self.slots))
        strides[graph.target, graph.slot] = graph.strided
        return np.hstack([np.sin(angles), np.cos(angles), strides])

    def _check(self, graph: Encoded) -> None:
        most = int(graph.slot.max()) + 1
        if most > self.slots:
            raise InputError(
                f"a node has {most} incoming edges and the policy reads {self.slots};"
                f" make it with slots={most}"
            )
        if graph.inputs.max() >= INPUTS:
            raise InputError(
                f"a part of the graph has {graph.inputs.max() + 1} inputs and the policy knows"
                f" {INPUTS}; join inputs, or split the graph"
            )


def released_graph_convolution(vocabulary: Vocabulary = NAT_PLUS) -> GraphConvolution:
    """The policy with the sizes and the adjacency of NAT's code: blind to what it decides about.

    The logit for keeping, which is ours, has a column of its own here too.
    """
    return GraphConvolution(
        vocabulary,
        embedding=100,
        features=1024,
        hidden=100,
        waves=0,
        own=False,
        adjacency=released,
    )


def _t(indices: NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(indices)
