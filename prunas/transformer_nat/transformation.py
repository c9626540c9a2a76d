"""All networks that transitions make of one: what a search of transformations searches."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from prunas.errors import InputError
from prunas.given_numbers import is_whole
from prunas.supernet.space import Candidate
from prunas.transformer_nat.graph import Edge, OperatorGraph
from prunas.transformer_nat.operator_cost import FREE, OperatorCost
from prunas.transformer_nat.transitions import (
    Legality,
    Rule,
    as_published,
    never_dearer_but_identity,
    two_level,
)

_TRIES = 100


class NothingToReplaceError(InputError):
    """No operator of a network has another one to offer that may take its place."""


@dataclass(frozen=True)
class TransformationSpace:
    """The transformations of a graph; `transformations` makes it.

    A candidate holds one position in the options of every edge, so zeros are the source itself.

    Attributes:
        graph: the source.
        options: for every edge, its own operator and then what may take its place.

    Raises:
        NothingToReplaceError: nothing may be replaced without cutting an output off.
    """

    graph: OperatorGraph
    options: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if not self._anything_to_replace():
            carried = ", ".join(sorted(set(self.graph.operators)))
            raise NothingToReplaceError(
                "nothing in this network may be replaced: no edge has a cheaper operator to offer"
                f" that cuts no output off (they carry {carried}); give another network, or a rule"
                " that offers more"
            )

    def _anything_to_replace(self) -> bool:
        """Whether some replacement cuts nothing off; if no single one does, no several do."""
        own = self.graph.operators
        return any(
            not self.graph.dead_outputs((*own[:edge], name, *own[edge + 1 :]))
            for edge, names in enumerate(self.options)
            for name in names[1:]
        )

    @cached_property
    def digest(self) -> str:
        """Of the graph and the options: equal where candidates mean the same networks."""
        text = json.dumps([asdict(self.graph), self.options], default=int)  # numpy's numbers too
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def size(self) -> int:
        """Number of candidates, those that cut off an output included."""
        return prod(map(len, self.options))

    @property
    def source(self) -> Candidate:
        """Every operator as it is."""
        return Candidate([0] * len(self.options))

    def candidate(self, positions: Sequence[int]) -> Candidate:
        """`positions` as a candidate of this space.

        Raises:
            InputError: wrong number of positions, or one that its edge does not offer.
        """
        if len(positions) != len(self.options):
            raise InputError(
                f"the candidate has {len(positions)} positions but the graph has"
                f" {len(self.options)} edges; it belongs to another graph"
            )
        for edge, names, position in zip(self.graph.edges, self.options, positions, strict=True):
            if not is_whole(position) or not 0 <= position < len(names):
                raise InputError(
                    f"{position!r} is no position in the options of the edge {edge.operator} from"
                    f" {edge.source!r} to {edge.target!r}; choose one of 0..{len(names) - 1}"
                )
        return Candidate(int(position) for position in positions)

    def with_operators(self, operators: Sequence[str]) -> Candidate:
        """The candidate that puts these operators on the edges.

        Raises:
            InputError: wrong number of operators, or one that its edge does not offer.
        """
        if len(operators) != len(self.options):
            raise InputError(f"{len(operators)} operators were given for {len(self.options)} edges")
        for names, name in zip(self.options, operators, strict=True):
            if name not in names:
                raise InputError(
                    f"{names[0]} cannot become {name} here; it may become {', '.join(names[1:])}"
                )
        pairs = zip(self.options, operators, strict=True)
        return Candidate(names.index(name) for names, name in pairs)

    def operators(self, candidate: Sequence[int]) -> tuple[str, ...]:
        """What every edge carries in the candidate."""
        pairs = zip(self.options, candidate, strict=True)
        return tuple(names[position] for names, position in pairs)

    def transformed(self, candidate: Sequence[int]) -> OperatorGraph:
        """The candidate as a graph; the nodes and edges are those of the source.

        Raises:
            InputError: the candidate is not of this space, or cuts an output off.
        """
        return self.graph.with_operators(self.operators(self.candidate(candidate)))

    def connected(self, candidate: Sequence[int]) -> bool:
        """Whether every output is still reached; if not, the candidate is no network."""
        return not self.graph.dead_outputs(self.operators(candidate))

    def plain(self, candidate: Sequence[int]) -> Candidate:
        """The same network, with the source's operator on every edge that does not matter."""
        operators = self.operators(candidate)
        fed, used = self.graph.fed(operators), self.graph.used(operators)
        return Candidate(
            position if edge.source in fed and edge.target in used else 0
            for position, edge in zip(candidate, self.graph.edges, strict=True)
        )

    def cost(self, candidate: Sequence[int]) -> OperatorCost:
        """Sum over the edges that still matter (`simplified`), at all their places."""
        live = self.graph.live(self.operators(candidate))
        return sum((self.costs[index][candidate[index]] for index in live), FREE)

    def sample(self, rng: np.random.Generator, n: int) -> list[Candidate]:
        """`n` independent candidates that cut nothing off, all others being equally likely.

        The source stands in for one that was not found in 100 tries.
        """
        counts = np.array([len(names) for names in self.options])
        return [self._drawn(rng, counts) for _ in range(n)]

    def _drawn(self, rng: np.random.Generator, counts: NDArray[np.int64]) -> Candidate:
        for _ in range(_TRIES):
            candidate = Candidate(rng.integers(counts).tolist())
            if self.connected(candidate):
                return candidate
        return self.source

    @cached_property
    def costs(self) -> tuple[tuple[OperatorCost, ...], ...]:
        """For every edge what each of its options costs."""
        pairs = zip(self.graph.edges, self.options, strict=True)
        return tuple(tuple(edge.cost_of(name) for name in names) for edge, names in pairs)


def transformations(
    graph: OperatorGraph, rule: Rule = two_level, *, legal: Legality = never_dearer_but_identity
) -> TransformationSpace:
    """The space of what `rule` makes of a graph, as far as it is `legal`.

    Edges of dead nodes offer nothing: were a null edge the first to feed such a node, or the first
    to use it, what stands behind or before it would come to life with all its cost. As published,
    they do.

    Raises:
        NothingToReplaceError: nothing may be replaced.
    """
    alive = graph.fed(graph.operators) & graph.used(graph.operators)
    reached = alive | set(graph.inputs)

    def options(edge: Edge) -> tuple[str, ...]:
        matters = edge.source in reached and edge.target in alive
        if not matters and legal is not as_published:
            return (edge.operator,)
        return (edge.operator, *(name for name in rule(edge.operator) if legal(edge, name)))

    return TransformationSpace(graph, tuple(options(edge) for edge in graph.edges))
