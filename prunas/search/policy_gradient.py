"""Policy gradient on keep ratios: OUR RECONSTRUCTION of the allocation of Hou & Kung (ICPR 2020).

An abstract of theirs says that a reward-maximisation problem discovers the importance of layers,
which a budget per layer follows from, and that policy gradient solves it. Neither text nor code
is available, so everything else is ours, and no result of this search is a result of theirs:

    importances  s ~ N(mu, sigma^2 I), one for each gene
    keep ratios  r_g = sigmoid(s_g + tau), tau by bisection: the largest that meets the budget
    update       mu += Adam of (1 / n) sum_i (R_i - mean of the others' R) (s_i - mu) / sigma^2

A ratio r means the first r * choices choices of a gene, so that all choices have the same room,
and a block is left out below a half. What rounding leaves of the budget is filled at random.
Sigma falls from 0.5 to 0.1 geometrically over the first 500 scores. With a prior, its allocation
is the first candidate and what mu stands for in the beginning.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from prunas.given_numbers import refuse_below, refuse_outside
from prunas.search.adam import ascended
from prunas.search.budget import Feasible, Positions, as_candidates, as_values
from prunas.search.learnt import Array, Learnt
from prunas.search.method import (
    Scored,
    State,
    allocated,
    allocation,
    begin_informed,
    propose,
    told,
)
from prunas.search.pending import recalled, remembered, rewards
from prunas.search.prior import Prior
from prunas.search.randomly import window
from prunas.supernet.space import Candidate, SearchSpace


@dataclass(frozen=True)
class PolicyGradient:
    """Ask for draws around a vector of importances, and move it towards those that score better.

    Attributes:
        samples: how many scores make one update.
        rate: learning rate of Adam.
        widest: sigma in the beginning.
        narrowest: sigma in the end.
        horizon: after how many scores that is.

    Raises:
        InputError: a setting that no search can be made with.
    """

    samples: int = 10
    rate: float = 0.05
    widest: float = 0.5
    narrowest: float = 0.1
    horizon: int = 500

    def __post_init__(self) -> None:
        refuse_below(2, "policy gradient", samples=self.samples)
        refuse_below(1, "policy gradient", horizon=self.horizon)
        refuse_outside("[0, inf)", "policy gradient", rate=self.rate)
        refuse_outside("(0, inf)", "policy gradient", widest=self.widest, narrowest=self.narrowest)

    def start(
        self, space: SearchSpace, budget: Feasible, prior: Prior | None, rng: np.random.Generator
    ) -> State:
        state = begin_informed(budget, prior, rng)
        mean = np.zeros(len(space.genes))
        for best in allocation(state):
            share = (budget.positions(as_values([best]))[0] + 0.5) / (budget.last + 1)
            mean = np.log(share / (1 - share))
        return replace(state, learnt=state.learnt.changed(mean=mean))

    def sigma(self, state: State) -> float:
        """Standard deviation of the policy."""
        done = min(len(state.told) / self.horizon, 1.0)
        return float(self.widest * (self.narrowest / self.widest) ** done)

    def ask(self, state: State, n: int) -> tuple[State, list[Candidate]]:
        feasible, mean, sigma = state.feasible, state.learnt["mean"], self.sigma(state)
        drawn: dict[Candidate, NDArray[np.float64]] = {}

        def draw(rng: np.random.Generator, n: int) -> list[Candidate]:
            noise = rng.standard_normal((n, len(mean)))
            kept = feasible.values(on_budget(feasible, mean + sigma * noise))
            candidates = as_candidates(feasible.repair(kept, rng))
            for candidate, each in zip(candidates, noise, strict=True):
                drawn.setdefault(candidate, each / sigma)  # = (s - mean) / sigma^2
            return candidates

        state, asked = propose(state, n, allocated(state), draw, feasible.sample, window(feasible))
        return remembered(state, {c: drawn[c] for c in asked if c in drawn}), asked

    def tell(self, state: State, scored: Sequence[Scored]) -> State:
        state, slopes = recalled(told(state, scored), scored)
        latest = rewards(state)[len(state.told) - len(scored) :]
        fresh = [
            np.append(slope, reward)
            for slope, reward in zip(slopes, latest, strict=True)
            if slope is not None
        ]
        waiting = [*state.learnt.get("waiting", ()), *fresh]
        learnt = state.learnt
        while len(waiting) >= self.samples:
            learnt = self._learnt(learnt, np.array(waiting[: self.samples]))
            waiting = waiting[self.samples :]
        return replace(state, learnt=learnt.changed(waiting=waiting))

    def _learnt(self, learnt: Learnt, rows: Array) -> Learnt:
        return ascended(learnt, "mean", gradient(rows[:, :-1], rows[:, -1]), self.rate)


def gradient(slopes: Array, rewards: Array) -> Array:
    """Mean of slopes (n, genes) of the log density, weighted by rewards (n,) above the others'."""
    n = len(rewards)
    others = (rewards.sum() - rewards) / (n - 1)
    return np.asarray((rewards - others) @ slopes / n)


def on_budget(feasible: Feasible, importances: NDArray[np.float64]) -> Positions:
    """(n, genes) positions of keep ratios sigmoid(importance + tau), at the last tau that fits."""
    counts = feasible.last + 1
    margin = np.log(counts.max()) + 1  # beyond, every gene has its first choice, or its last one

    def at(tau: NDArray[np.float64]) -> Positions:
        ratios = 1 / (1 + np.exp(-(importances + tau)))
        return np.minimum(ratios * counts, feasible.last).astype(np.int64)

    low = -importances.max(axis=1, keepdims=True) - margin
    high = -importances.min(axis=1, keepdims=True) + margin
    return feasible.last_inside(at, low, high)
