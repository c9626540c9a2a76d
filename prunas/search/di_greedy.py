"""The greedy allocation of Hou & Kung: equal reductions of cost, the best gene pays.

As in the code released with their pruning by discriminant information (arXiv 2005.13796): a step
takes 0.5 % of the full network's multiply-accumulates from one gene, by extrapolating what the
gene saves with a tenth less of its width; the best of all genes' proposals is kept; a gene that
has lost 90 % of its width is frozen.

What differs here. Proposals are completed to the budget before they are scored, and local
exchanges follow when it is reached (`greedy`). There is no training between steps. A step is at
least one choice. The order of channels is the search space's own. With several limits the cost is
the mean of the limited ones. The proposals of a step come in the order of lost worth for cost
saved, by the prior's values or else by the share of width; this matters when a question asks for
fewer. With a prior, its allocation is the first candidate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from prunas.given_numbers import refuse_outside
from prunas.search.budget import Feasible, Positions
from prunas.search.costs import Values
from prunas.search.greedy import ask_greedily, begin_greedy
from prunas.search.method import Scored, State, told
from prunas.search.prior import Prior
from prunas.supernet.space import Candidate, SearchSpace

_PROBE: Final = 0.1  # share of a gene's width that the extrapolation is from
_FROZEN: Final = 0.9
_LEAST_SAVING: Final = 1e-12


@dataclass(frozen=True)
class DiGreedy:
    """Ask for networks that one gene has made cheaper by a step, completed to the budget.

    Attributes:
        reduction: of a step, as a share of the full network's cost.

    Raises:
        InputError: a setting that no search can be made with.
    """

    reduction: float = 0.005

    def __post_init__(self) -> None:
        refuse_outside("(0, 1]", "the greedy allocation", reduction=self.reduction)

    def start(
        self, space: SearchSpace, budget: Feasible, prior: Prior | None, rng: np.random.Generator
    ) -> State:
        return begin_greedy(budget, prior, rng)

    def ask(self, state: State, n: int) -> tuple[State, list[Candidate]]:
        return ask_greedily(state, n, self.step)

    def tell(self, state: State, scored: Sequence[Scored]) -> State:
        return told(state, scored)

    def step(self, state: State, present: Positions, iteration: int) -> Positions:
        """(proposals, genes) each gene alone shrunk by its step, least worth for cost first."""
        feasible, full = state.feasible, np.array(state.feasible.space.full())
        values = feasible.values(present[None])[0]
        probes = _alone(feasible, present, values - _PROBE * full)
        widths = values - np.diagonal(feasible.values(probes))
        slopes = _saved(feasible, present, probes) / np.maximum(widths, 1)
        steps = np.maximum(self.reduction / np.maximum(slopes, _LEAST_SAVING), 1)
        rows = _alone(feasible, present, values - steps)
        free = (present > 0) & (1 - values / full < _FROZEN)
        chosen = np.flatnonzero(free)
        losses = worths(state, values) - worths(state, np.diagonal(feasible.values(rows)))
        rates = losses / np.maximum(_saved(feasible, present, rows), _LEAST_SAVING)
        return rows[chosen[np.argsort(rates[chosen], kind="stable")]]


def worths(state: State, values: Values) -> NDArray[np.float64]:
    """(genes,) what the prior says each gene is worth at its value; the share of width without."""
    if state.prior is None:
        return np.asarray(values / np.array(state.feasible.space.full()))
    rows = zip(state.prior.values, values.tolist(), strict=True)
    return np.array([worth[value] for worth, value in rows])


def _alone(feasible: Feasible, present: Positions, targets: NDArray[np.float64]) -> Positions:
    """(genes, genes) row g is `present` with gene g at its largest choice up to `targets[g]`."""
    rows = np.tile(present, (len(present), 1))
    below = feasible.positions(np.floor(targets)[None].astype(np.int64))[0]
    np.fill_diagonal(rows, below)
    return rows


def _saved(feasible: Feasible, present: Positions, rows: Positions) -> NDArray[np.float64]:
    """(n,) how much lighter the rows are, as shares of the full network's cost."""
    return np.asarray(feasible.load(present[None]) - feasible.load(rows))
