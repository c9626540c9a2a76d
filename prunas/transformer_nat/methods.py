"""The searches of transformations, by name."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from prunas.transformer_nat.graph_convolution import GraphConvolution
from prunas.transformer_nat.greedy_removal import GreedyRemoval
from prunas.transformer_nat.lstm import Lstm
from prunas.transformer_nat.method import Transformer
from prunas.transformer_nat.operators import EVERY_OPERATOR, OF_NETWORKS, Vocabulary
from prunas.transformer_nat.policy_search import PolicySearch
from prunas.transformer_nat.randomly import RandomTransformation
from prunas.transformer_nat.transformation import TransformationSpace


def transformers(
    vocabulary: Vocabulary = EVERY_OPERATOR, *, keep: float = 0.8
) -> Mapping[str, Transformer]:
    """The methods by name.

    Args:
        vocabulary: the operators that policies know.
        keep: probability with which a policy keeps each operator in the beginning.
    """
    return MappingProxyType(
        {
            "policy": PolicySearch(GraphConvolution(vocabulary), keep=keep),
            "lstm": PolicySearch(Lstm(vocabulary), keep=keep),
            "random": RandomTransformation(),
            "greedy": GreedyRemoval(),
        }
    )


TRANSFORMERS: Final[Mapping[str, Transformer]] = transformers()
"""What is on offer: the policy of NAT, and its controls. For cells; see `transformers_for`."""

_CHANGES: Final = 3  # operators replaced in a policy's first draws, however many there are


def transformers_for(moves: TransformationSpace) -> Mapping[str, Transformer]:
    """The methods for these transformations: of cells, `TRANSFORMERS`, or of a traced network.

    In the latter, policies know the operators of networks, and replace three of them in the mean at
    first: in a long network a fifth of all, as in cells, would leave none that works.
    """
    if set(EVERY_OPERATOR).issuperset(name for names in moves.options for name in names):
        return TRANSFORMERS
    edges = sum(len(names) > 1 for names in moves.options)
    return transformers(OF_NETWORKS, keep=1 - min(0.2, _CHANGES / edges))
