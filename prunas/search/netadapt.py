"""NetAdapt: each gene in turn pays for the whole of the next reduction; the best one does.

Yang et al., "NetAdapt: Platform-Aware Neural Network Adaptation for Mobile Applications", ECCV
2018. Iteration i takes 2.5 % * 0.96^i of the full network's cost, as in the authors' code.

What differs here. Proposals are completed to the budget before they are scored (`greedy`). There
is no fine-tuning between iterations. The steps are so small that budgets below 37.5 % cannot be
reached by them alone, and where no gene can pay for a step the shrinking ends; then come local
exchanges. With several limits the cost is the mean of the limited ones. With a prior, its
allocation is the first candidate.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prunas.given_numbers import refuse_outside
from prunas.search.budget import Feasible, Positions
from prunas.search.greedy import ask_greedily, begin_greedy
from prunas.search.method import Scored, State, told
from prunas.search.prior import Prior
from prunas.supernet.space import Candidate, SearchSpace


@dataclass(frozen=True)
class NetAdapt:
    """Ask for networks that one gene alone has made cheaper, completed to the budget.

    Attributes:
        reduction: of the first iteration, as a share of the full network's cost.
        decay: of the reduction, an iteration.

    Raises:
        InputError: a setting that no search can be made with.
    """

    reduction: float = 0.025
    decay: float = 0.96

    def __post_init__(self) -> None:
        refuse_outside("(0, 1]", "NetAdapt", reduction=self.reduction, decay=self.decay)

    def start(
        self, space: SearchSpace, budget: Feasible, prior: Prior | None, rng: np.random.Generator
    ) -> State:
        return begin_greedy(budget, prior, rng)

    def ask(self, state: State, n: int) -> tuple[State, list[Candidate]]:
        return ask_greedily(state, n, self.step)

    def tell(self, state: State, scored: Sequence[Scored]) -> State:
        return told(state, scored)

    def step(self, state: State, present: Positions, iteration: int) -> Positions:
        """(proposals, genes) each gene alone shrunk as little as meets the reduction."""
        feasible, genes = state.feasible, np.arange(len(present))
        most = feasible.load(present[None])[0] - self.reduction * self.decay**iteration
        low, high = np.zeros_like(present), present - 1
        trial = np.tile(present, (len(present), 1))
        while (low < high).any():
            trial[genes, genes] = (low + high + 1) // 2
            fits = feasible.load(trial) <= most
            low = np.where(fits, np.maximum(low, trial[genes, genes]), low)
            high = np.where(fits, high, np.minimum(high, trial[genes, genes] - 1))
        trial[genes, genes] = np.maximum(low, 0)
        shrunk = present > 0  # a reduction may be too small to tell
        return np.asarray(trial[shrunk & (feasible.load(trial) <= most)])
