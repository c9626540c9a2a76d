"""A policy that reads the edges one after the other and never sees the graph: a control.

An LSTM (Hochreiter & Schmidhuber, 1997) over the edges in their order; what it knows after an edge
gives the edge's logits. NAT compares with such a policy and says no more about it, so that all its
sizes are ours.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunas.given_numbers import refuse_below
from prunas.transformer_nat.encoding import Encoded
from prunas.transformer_nat.operators import EVERY_OPERATOR, Vocabulary
from prunas.transformer_nat.policy import Shapes, Weights, drawn

Array = NDArray[np.float64]


@final
@dataclass(frozen=True)
class Lstm:
    """Logits from an LSTM over the edges.

    Attributes:
        vocabulary: the operators that it knows.
        embedding: numbers that stand for an operator.
        hidden: what it remembers.

    Raises:
        InputError: a size that is no whole number, or below 1.
    """

    vocabulary: Vocabulary = EVERY_OPERATOR
    embedding: int = 16
    hidden: int = 64

    def __post_init__(self) -> None:
        refuse_below(1, "the policy", embedding=self.embedding, hidden=self.hidden)

    @property
    def form(self) -> str:
        return f"Lstm({self.embedding}, {self.hidden})"

    @property
    def shapes(self) -> Shapes:
        actions = len(self.vocabulary) + 1
        return {
            "operators": (len(self.vocabulary), self.embedding),
            "gates": (self.embedding + 1 + self.hidden, 4 * self.hidden),
            "gates offset": (4 * self.hidden,),
            "head": (self.hidden, actions),
            "head offset": (actions,),
        }

    def drawn(self, rng: np.random.Generator) -> Array:
        """Embeddings N(0, 1), layers U(-1, 1) / sqrt(inputs); the last one is nearly zero."""
        return drawn(self.shapes, rng, normal=("operators",), last="head")

    def logits(self, weights: Weights, graph: Encoded) -> Tensor:
        strided = torch.from_numpy(graph.strided)[:, None]
        edges = torch.cat([weights["operators"][graph.operator], strided], dim=1)
        said = cell = torch.zeros(self.hidden, dtype=torch.float64)
        states = []
        for edge in edges:
            gates = torch.cat([edge, said]) @ weights["gates"] + weights["gates offset"]
            let_in, forget, let_out, new = gates.chunk(4)
            cell = forget.sigmoid() * cell + let_in.sigmoid() * new.tanh()
            said = let_out.sigmoid() * cell.tanh()
            states.append(said)
        return torch.stack(states) @ weights["head"] + weights["head offset"]
