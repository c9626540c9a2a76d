"""What a policy is: logits for every edge of a graph, and the odds that a space makes of them.

    pi(position j | edge e) = m_ej exp(z_ej) / sum_k m_ek exp(z_ek)

over the options of an edge in a space, the edges independent of each other (the masked softmax of
NAT++; Guo et al., TPAMI 2021). A policy has a logit for every operator of its vocabulary and one
for keeping what is there. To the latter a constant of the edge is added so that all other logits at
zero mean to keep with the odds that were asked for.

Weights are one flat array of doubles; a policy says which shapes it is cut into.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import prod
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunas.supernet.space import Candidate
from prunas.transformer_nat.encoding import Encoded, encoded, known
from prunas.transformer_nat.operators import Vocabulary
from prunas.transformer_nat.transformation import TransformationSpace

Array = NDArray[np.float64]
Shapes = Mapping[str, tuple[int, ...]]
Weights = Mapping[str, Tensor]

_START: Final = 1e-2  # of the last layer: logits start near zero, their gradients do not vanish


class Policy(Protocol):
    """A family of functions from graphs to logits. Its settings are those of a frozen dataclass."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The operators that it knows."""
        ...

    @property
    def form(self) -> str:
        """What it is, with its sizes: weights fit policies of the same form and vocabulary."""
        ...

    @property
    def shapes(self) -> Shapes:
        """Name and shape of each part of its weights, in their order in the flat array."""
        ...

    def drawn(self, rng: np.random.Generator) -> Array:
        """(n,) initial weights. The logits that they give are close to zero."""
        ...

    def logits(self, weights: Weights, graph: Encoded) -> Tensor:
        """(edges, operators + 1) logits; the last column is for keeping.

        Raises:
            InputError: the policy cannot read such a graph.
        """
        ...


@dataclass(frozen=True, eq=False)
class Offers:
    """The options of a space as a policy sees them; K is the largest number of options.

    Attributes:
        graph: the source as arrays.
        columns: (edges, K) logit of each option; the last one of the policy for keeping.
        missing: (edges, K) whether there is no such option.
        offset: (edges, K) what is added to the logits, so that zeros mean to keep with given odds.
    """

    graph: Encoded
    columns: Tensor
    missing: Tensor
    offset: Tensor


def offers(space: TransformationSpace, vocabulary: Vocabulary, keep: float) -> Offers:
    """What a space offers to a policy of that vocabulary.

    Args:
        space: the candidates.
        vocabulary: the operators that the policy knows.
        keep: probability of keeping an operator at logits of zero.

    Raises:
        InputError: an operator of the graph, or one that it offers, is not in the vocabulary.
    """
    most = max(map(len, space.options))
    columns = np.full((len(space.options), most), len(vocabulary))
    missing = np.ones(columns.shape, dtype=bool)
    offset = np.zeros(columns.shape)
    for edge, names in enumerate(space.options):
        columns[edge, 1 : len(names)] = [known(name, vocabulary) for name in names[1:]]
        missing[edge, : len(names)] = False
        offset[edge, 0] = np.log(keep / (1 - keep) * max(len(names) - 1, 1))
    graph = encoded(space.graph, vocabulary)
    return Offers(graph, *map(torch.from_numpy, (columns, missing, offset)))


def log_odds(policy: Policy, weights: Weights, offered: Offers) -> Tensor:
    """(edges, K) log probability of each option; minus infinity where there is none."""
    logits = policy.logits(weights, offered.graph)
    of_options = torch.gather(logits, 1, offered.columns) + offered.offset
    return torch.log_softmax(of_options.masked_fill(offered.missing, -torch.inf), dim=1)


def probabilities(policy: Policy, weights: Array, offered: Offers) -> Array:
    """(edges, K) probability of each option."""
    with torch.no_grad():
        odds = log_odds(policy, cut(torch.from_numpy(weights), policy.shapes), offered)
    return np.asarray(odds.exp().numpy())


def expected_gain(
    odds: Tensor, draws: Sequence[Candidate], gains: Array, *, entropy: float
) -> Tensor:
    """(1 / n) sum_i gain_i sum_e log pi(draw_i | e) + entropy * sum_e H(pi(. | e)).

    Its gradient is that of the policy gradient (Williams, 1992) with an entropy term, as in NAT.

    Args:
        odds: (edges, K) log probabilities.
        draws: n candidates drawn from them.
        gains: (n,) their rewards above a baseline.
        entropy: how much keeping the choice open is worth.
    """
    chosen = torch.tensor(draws).T  # (edges, n)
    gained = torch.gather(odds, 1, chosen).sum(dim=0) @ torch.from_numpy(gains) / len(draws)
    missing = odds.isneginf()
    finite = odds.masked_fill(missing, 0.0)
    return gained - entropy * (finite.exp() * finite).masked_fill(missing, 0.0).sum()


def gradient(
    policy: Policy, weights: Array, offered: Offers, wanted: Callable[[Tensor], Tensor]
) -> Array:
    """(n,) gradient by the weights of what is wanted of the log probabilities."""
    flat = torch.from_numpy(weights.copy()).requires_grad_()
    value = wanted(log_odds(policy, cut(flat, policy.shapes), offered))
    (slope,) = torch.autograd.grad(value, flat)
    return np.asarray(slope.numpy())


def cut(flat: Tensor, shapes: Shapes) -> dict[str, Tensor]:
    """The parts of a flat array, as views."""
    ends = list(accumulate(map(prod, shapes.values()), initial=0))
    parts = zip(shapes.items(), pairwise(ends), strict=True)
    return {name: flat[start:end].view(shape) for (name, shape), (start, end) in parts}


def drawn(shapes: Shapes, rng: np.random.Generator, *, normal: tuple[str, ...], last: str) -> Array:
    """Initial weights: offsets are zero, embeddings (`normal`) N(0, 1), layers by their inputs."""

    def part(name: str, shape: tuple[int, ...]) -> Array:
        if len(shape) == 1:
            return np.zeros(shape)
        if name in normal:
            return rng.standard_normal(shape)
        bound = shape[0] ** -0.5 * (_START if name == last else 1.0)
        return rng.uniform(-bound, bound, shape)

    return np.concatenate([part(name, shape).ravel() for name, shape in shapes.items()])
