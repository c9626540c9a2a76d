"""REINFORCE: a softmax over the choices of each gene, all genes independent.

Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement
learning", Machine Learning 8, 1992; settings as for the widths of NATS-Bench (Dong et al., TPAMI
2021): logits start from 1e-3 N(0, 1), Adam at 0.01, one candidate an update, an exponential
moving average of the rewards as the baseline, with decay 0.9.

What differs here. A draw outside the window is repaired, and the policy learns from what it drew:
repair is part of the problem, as the score is. No candidate is scored twice, so draws seen before
are drawn again. The average corrects for its start at zero. With a prior, its allocation is the
first candidate, and in the beginning each gene takes the allocation's choice with odds of a half.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from prunas.given_numbers import refuse_outside
from prunas.search.adam import ascended
from prunas.search.budget import Feasible, as_candidates, as_values
from prunas.search.learnt import Array, Learnt
from prunas.search.method import (
    Scored,
    State,
    allocated,
    allocation,
    begin_informed,
    generator,
    propose,
    told,
)
from prunas.search.pending import recalled, remembered, rewards
from prunas.search.prior import Prior
from prunas.search.randomly import window
from prunas.supernet.space import Candidate, SearchSpace

_START: Final = 1e-3


@dataclass(frozen=True)
class Reinforce:
    """Ask for draws of the policy, and move it towards those that score above average.

    Attributes:
        rate: learning rate of Adam.
        decay: of the moving average of rewards.

    Raises:
        InputError: a setting that no search can be made with.
    """

    rate: float = 0.01
    decay: float = 0.9

    def __post_init__(self) -> None:
        refuse_outside("[0, inf)", "REINFORCE", rate=self.rate)
        refuse_outside("[0, 1)", "REINFORCE", decay=self.decay)

    def start(
        self, space: SearchSpace, budget: Feasible, prior: Prior | None, rng: np.random.Generator
    ) -> State:
        state = begin_informed(budget, prior, rng)
        stream = generator(state)
        logits = _START * stream.standard_normal(_offered(budget).shape)
        for best in allocation(state):
            places = budget.positions(as_values([best]))[0]
            others = np.maximum(budget.last, 1)  # log of their number makes the odds a half
            logits[np.arange(len(places)), places] += np.log(others)
        learnt = state.learnt.changed(logits=logits, rewards=[0.0, 0.0])
        return replace(state, stream=dict(stream.bit_generator.state), learnt=learnt)

    def ask(self, state: State, n: int) -> tuple[State, list[Candidate]]:
        feasible = state.feasible
        odds = probabilities(state)
        drawn: dict[Candidate, NDArray[np.float64]] = {}

        def draw(rng: np.random.Generator, n: int) -> list[Candidate]:
            chosen = (np.cumsum(odds, axis=1) < rng.random((n, len(odds), 1))).sum(axis=2)
            chosen = np.minimum(chosen, feasible.last)  # the sum may miss 1 by a rounding
            candidates = as_candidates(feasible.repair(feasible.values(chosen), rng))
            slopes = np.eye(odds.shape[1])[chosen] - odds  # of the log probability, by logit
            for candidate, slope in zip(candidates, slopes, strict=True):
                drawn.setdefault(candidate, slope.ravel())
            return candidates

        state, asked = propose(state, n, allocated(state), draw, feasible.sample, window(feasible))
        return remembered(state, {c: drawn[c] for c in asked if c in drawn}), asked

    def tell(self, state: State, scored: Sequence[Scored]) -> State:
        state, slopes = recalled(told(state, scored), scored)
        learnt = state.learnt
        latest = rewards(state)[len(state.told) - len(scored) :]
        for slope, reward in zip(slopes, latest.tolist(), strict=True):
            learnt = self._learnt(learnt, slope, reward)
        return replace(state, learnt=learnt)

    def _learnt(self, learnt: Learnt, slope: Array | None, reward: float) -> Learnt:
        """One update; what the policy did not draw only moves the average."""
        fresh = np.array([reward, 1.0])
        total, weight = average = self.decay * learnt["rewards"] + (1 - self.decay) * fresh
        result = learnt.changed(rewards=average)
        if slope is None:
            return result
        gradient = (reward - total / weight) * slope.reshape(learnt["logits"].shape)
        return ascended(result, "logits", gradient, self.rate)


def probabilities(state: State) -> NDArray[np.float64]:
    """(genes, most choices) of the policy; 0 where a gene has fewer choices."""
    logits = state.learnt["logits"]
    weights = np.exp(logits - logits.max(axis=1, keepdims=True)) * _offered(state.feasible)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _offered(feasible: Feasible) -> NDArray[np.bool_]:
    """(genes, most choices) whether a gene has that many choices."""
    return np.asarray(np.arange(feasible.last.max() + 1) <= feasible.last[:, None])
