"""Transformations as a search space, so that every search of `prunas.search` can drive them.

    genes = TransformationGenes(moves)
    everything = Budget((("macs", 1.0),), tolerance=WINDOW)
    feasible = Feasible(genes.space, everything, genes)
    state = SEARCHES["evolution"].start(genes.space, feasible, None, rng)

One gene for each edge that has a choice; its values number the options from the end, so that the
last one keeps what is there. Searches of `prunas.search` make use of a whole budget; with the
tolerance `WINDOW` every candidate does, and none costs more than the source.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from prunas.supernet.blocks import Alternatives
from prunas.supernet.space import Candidate, Gene, SearchSpace
from prunas.transformer_nat.operator_cost import OperatorCost
from prunas.transformer_nat.operators import NULL
from prunas.transformer_nat.transformation import TransformationSpace

WINDOW: Final = 1 - 1e-9
"""The tolerance of a budget below which everything is in its window."""


@final
@dataclass(frozen=True, eq=False)
class TransformationGenes:
    """The genes of a space of transformations, and their prices.

    Attributes:
        moves: the transformations.
    """

    moves: TransformationSpace

    @cached_property
    def edges(self) -> tuple[int, ...]:
        """The edge of each gene."""
        return tuple(edge for edge, names in enumerate(self.moves.options) if len(names) > 1)

    @cached_property
    def space(self) -> SearchSpace:
        """One gene for each edge that has a choice. There is no network: nothing can be cut."""
        rows = [(edge, self.moves.options[edge]) for edge in self.edges]
        graph = self.moves.graph
        names = [f"{graph.edges[e].source} > {graph.edges[e].target} [{e}]" for e, _ in rows]
        return SearchSpace(
            genes=tuple(
                Gene(name, "operator", tuple(range(len(options))))
                for name, (_, options) in zip(names, rows, strict=True)
            ),
            widths=tuple(len(options) - 1 for _, options in rows),
            pinned=(),
            network="transformations of a graph",
            inputs=None,
            outputs=None,
            shapes={},
            parameters=frozenset(),
            aliases={},
            slots={},
            attributes=(),
            contractions=(),
            taps=(),
            alternatives={
                gene: Alternatives(name, options[::-1])
                for gene, (name, (_, options)) in enumerate(zip(names, rows, strict=True))
            },
        )

    def positions(self, candidate: Sequence[int]) -> Candidate:
        """A candidate of `space` as a transformation.

        Raises:
            InputError: it is not of that space.
        """
        values = self.space.candidate(candidate)
        positions = [0] * len(self.moves.options)
        for edge, value in zip(self.edges, values, strict=True):
            positions[edge] = len(self.moves.options[edge]) - 1 - value
        return self.moves.candidate(positions)

    def candidate(self, positions: Sequence[int]) -> Candidate:
        """A transformation as a candidate of `space`.

        Raises:
            InputError: it is not of these transformations.
        """
        known = self.moves.candidate(positions)
        return Candidate(len(self.moves.options[edge]) - 1 - known[edge] for edge in self.edges)

    def macs(self, candidates: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) multiply-accumulates, counted as in the papers, as pools and identities cost too."""
        return self._totals(candidates, lambda cost: cost.published_macs)

    def params(self, candidates: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) parameters of what may be replaced."""
        return self._totals(candidates, lambda cost: cost.params)

    def _totals(
        self, candidates: NDArray[np.int64], price: Callable[[OperatorCost], int]
    ) -> NDArray[np.int64]:
        """(n,) sums over the living edges, as `TransformationSpace.cost`, for many at once."""
        values = np.asarray(candidates, dtype=np.int64)
        total = np.zeros(len(values), dtype=np.int64)
        for edge, (alive, positions) in enumerate(self._living(values)):
            prices = np.array([price(cost) for cost in self.moves.costs[edge]], dtype=np.int64)
            total += np.where(alive, prices[positions], 0)
        return total

    def _living(
        self, values: NDArray[np.int64]
    ) -> list[tuple[NDArray[np.bool_], NDArray[np.int64]]]:
        """For each edge whether it matters, and which of its options it carries; (n,) both."""
        graph, options = self.moves.graph, self.moves.options
        positions = np.zeros((len(options), len(values)), dtype=np.int64)
        for gene, edge in enumerate(self.edges):
            positions[edge] = len(options[edge]) - 1 - values[:, gene]
        nulls = [np.array([name == NULL for name in names]) for names in options]
        cut = [null[row] for null, row in zip(nulls, positions, strict=True)]
        ends = {node for joined in graph.outputs for node in joined}
        every = np.ones(len(values), dtype=bool)
        fed = {node: every & (node in graph.inputs) for node in graph.nodes}
        used = {node: every & (node in ends) for node in graph.nodes}
        for index in graph.order:
            source, target = graph.edges[index].source, graph.edges[index].target
            fed[target] = fed[target] | (fed[source] & ~cut[index])
        for index in reversed(graph.order):
            source, target = graph.edges[index].source, graph.edges[index].target
            used[source] = used[source] | (used[target] & ~cut[index])
        return [
            (~cut[index] & fed[edge.source] & used[edge.target], positions[index])
            for index, edge in enumerate(graph.edges)
        ]
