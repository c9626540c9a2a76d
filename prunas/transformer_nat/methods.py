"""The searches of transformations, by name."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from prunas.transformer_nat.graph_convolution import GraphConvolution
from prunas.transformer_nat.greedy_removal import GreedyRemoval
from prunas.transformer_nat.lstm import Lstm
from prunas.transformer_nat.method import Transformer
from prunas.transformer_nat.policy_search import PolicySearch
from prunas.transformer_nat.randomly import RandomTransformation

TRANSFORMERS: Final[Mapping[str, Transformer]] = MappingProxyType(
    {
        "policy": PolicySearch(GraphConvolution()),
        "lstm": PolicySearch(Lstm()),
        "random": RandomTransformation(),
        "greedy": GreedyRemoval(),
    }
)
"""What is on offer: the policy of NAT, and its controls."""
