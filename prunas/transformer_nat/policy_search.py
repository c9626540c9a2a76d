"""A policy as a search: draw, score, learn (NAT and NAT++).

Guo et al., NeurIPS 2019, section 3, and TPAMI 2021. The reward of a network is its score; the
papers subtract that of the source, which no baseline here can tell from zero.

    theta += Adam of (1 / n) sum_i (R_i - b_i) grad log pi(draw_i) + entropy * grad H(pi)

over `samples` draws of one source at a time, with b_i the mean reward of the other draws. NAT draws
one at a time, where b is a running mean instead; `samples=1` does the same, without the defect
described in `prunas.transformer_nat.baseline`.

Draws that cut an output off are no networks and are not asked for: the policy learns from them as
from the worst score told. No candidate is scored twice either: draws seen before count with the
score that they had (`forgotten` is for weights that change). What the policy does not find any more
is drawn uniformly, and it does not learn from that.
"""

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from prunas.errors import InputError
from prunas.given_numbers import is_whole
from prunas.supernet.space import Candidate
from prunas.transformer_nat.baseline import averaged, corrected, leave_one_out
from prunas.transformer_nat.canonical import canonical
from prunas.transformer_nat.graph import OperatorGraph
from prunas.transformer_nat.learnt import Adam, Learnt, unpacked
from prunas.transformer_nat.method import (
    Scored,
    State,
    advanced,
    begin,
    generator,
    propose,
    told,
)
from prunas.transformer_nat.policy import (
    Offers,
    Policy,
    expected_gain,
    gradient,
    offers,
    probabilities,
)
from prunas.transformer_nat.transformation import TransformationSpace

_GROUPS: Final = 20  # groups of draws without a new candidate before the search looks elsewhere

PUBLISHED_ADAM: Final = Adam(rate=3e-4, decays=(0.5, 0.999), weight_decay=5e-4)
"""As in the code of NAT, for tens of thousands of updates."""


@final
@dataclass(frozen=True)
class PolicySearch:
    """Ask for draws of a policy, and move it towards those that score above the others.

    Attributes:
        policy: gives the odds.
        samples: draws for one update.
        entropy: what keeping the choice open is worth, in units of the score; 0.003 is that of NAT.
        keep: probability of keeping each operator in the beginning.
        adam: how the weights are moved.
        decay: of the running mean of rewards that stands in where `samples` is 1.

    Raises:
        InputError: a setting that no policy can learn with.
    """

    policy: Policy
    samples: int = 4
    entropy: float = 0.003
    keep: float = 0.8
    adam: Adam = field(default=Adam(rate=0.01, decays=(0.5, 0.999), weight_decay=5e-4))
    decay: float = 0.99

    def __post_init__(self) -> None:
        if not is_whole(self.samples) or self.samples < 1:
            raise InputError(
                f"{self.samples!r} samples make no update; give a whole number, at least 1"
            )
        if not 0 <= self.entropy < math.inf:
            raise InputError(
                f"entropy={self.entropy} of the policy must be a finite number, 0 or more"
            )
        if not 0 < self.keep < 1:
            raise InputError(f"the odds {self.keep} to keep an operator are outside (0, 1)")
        if not 0 <= self.decay < 1:
            raise InputError(f"decay={self.decay} of the mean reward must be in [0, 1)")

    def start(self, space: TransformationSpace, rng: np.random.Generator) -> State:
        """The state before the first question; see `Transformer`.

        Raises:
            InputError: the policy cannot read the graph, or does not know an operator of the space.
        """
        state = begin(space, rng)
        stream = generator(state)
        weights = self.policy.drawn(stream)
        learnt = Learnt.fresh(self.policy.form, self.policy.vocabulary, weights)
        self._odds(learnt, self._offers(state))  # raises where the policy cannot read the graph
        return replace(advanced(state, stream), learnt=learnt)

    def moved(self, state: State, space: TransformationSpace) -> State:
        """The state with what it has learnt on another source, where nothing was asked yet.

        Raises:
            InputError: the policy cannot read that graph, or does not know an operator of the
                space; or the state belongs to a policy for other operators.
        """
        learnt = self._learnt(state)
        moved = State(space, state.stream, learnt=replace(learnt, drawn=()))
        self._odds(learnt, self._offers(moved))  # raises where the policy cannot read the graph
        return moved

    def ask(self, state: State, n: int) -> tuple[State, list[Candidate]]:
        """See `Transformer`.

        Raises:
            InputError: the state belongs to a policy for other operators.
        """
        learnt, offered = self._learnt(state), self._offers(state)
        rng = generator(state)
        known = {entry.candidate: entry.score for entry in state.told}
        asked: dict[Candidate, None] = {}
        if state.space.source not in state.asked:
            asked[state.space.source] = None
        before = set(state.asked)
        idle = 0
        while len(asked) < n and idle < _GROUPS:
            fresh = [each for each in _waiting(learnt, state.space, before) if each not in asked]
            if not fresh:
                learnt = self._settled(learnt, state.space, offered, known)
                odds = self._odds(learnt, offered)
                draws = [_drawn(odds, rng) for _ in range(self.samples)]
                learnt = replace(learnt, drawn=(*learnt.drawn, *draws))
                idle += 1
                continue
            asked |= dict.fromkeys(fresh[: n - len(asked)])
            idle = 0
        found = list(asked)[:n]
        state = replace(advanced(state, rng), learnt=learnt, asked=state.asked + tuple(found))
        state, more = propose(state, n - len(found), state.space.sample)
        return state, found + more

    def tell(self, state: State, scored: Sequence[Scored]) -> State:
        """See `Transformer`.

        Raises:
            InputError: the state belongs to a policy for other operators.
        """
        learnt, state = self._learnt(state), told(state, scored)
        known = {entry.candidate: entry.score for entry in state.told}
        return replace(state, learnt=self._settled(learnt, state.space, self._offers(state), known))

    def proposals(self, state: State, n: int, rng: np.random.Generator) -> list[Candidate]:
        """What to choose from in the end: the source, and what `n` draws of the policy give.

        Draws that cut an output off are left out. Of candidates that are the same architecture, the
        first one is kept. The choice among them is by score, then by cost: see `chosen`.

        Raises:
            InputError: the state belongs to a policy for other operators.
        """
        odds = self._odds(self._learnt(state), self._offers(state))
        draws = [_drawn(odds, rng) for _ in range(n)]
        connected = [each for each in draws if state.space.connected(each)]
        return without_duplicates(state.space, [state.space.source, *connected])

    def odds(self, state: State) -> NDArray[np.float64]:
        """(edges, most options) probability of each option of each edge.

        Raises:
            InputError: the state belongs to a policy for other operators.
        """
        return self._odds(self._learnt(state), self._offers(state))

    def _learnt(self, state: State) -> Learnt:
        if state.learnt is None:
            raise InputError("the state belongs to a search without a policy; start one with this")
        size = sum(map(math.prod, self.policy.shapes.values()))
        state.learnt.refuse_unless(self.policy.form, self.policy.vocabulary, size)
        return state.learnt

    def _offers(self, state: State) -> Offers:
        return offers(state.space, self.policy.vocabulary, self.keep)

    def _odds(self, learnt: Learnt, offered: Offers) -> NDArray[np.float64]:
        return probabilities(self.policy, unpacked(learnt.weights), offered)

    def _settled(
        self,
        learnt: Learnt,
        space: TransformationSpace,
        offered: Offers,
        known: Mapping[Candidate, float],
    ) -> Learnt:
        """After an update for every group of draws none of which waits for a score."""
        waiting = set(_waiting(learnt, space, known))
        while learnt.drawn and waiting.isdisjoint(learnt.drawn[: self.samples]):
            draws, rest = learnt.drawn[: self.samples], learnt.drawn[self.samples :]
            updated = self._updated(learnt, offered, draws, _rewards(draws, known))
            learnt = replace(updated, drawn=rest)
        return learnt

    def _updated(
        self,
        learnt: Learnt,
        offered: Offers,
        draws: Sequence[Candidate],
        rewards: NDArray[np.float64],
    ) -> Learnt:
        if self.samples == 1:
            gains = rewards - corrected(learnt.average, rewards[0])
            average = averaged(learnt.average, rewards[0], self.decay)
            learnt = replace(learnt, average=average)
        else:
            gains = rewards - leave_one_out(rewards)
        slope = gradient(
            self.policy,
            unpacked(learnt.weights),
            offered,
            lambda odds: expected_gain(odds, draws, gains, entropy=self.entropy),
        )
        return learnt.stepped(slope, self.adam)


def without_duplicates(
    space: TransformationSpace, candidates: Sequence[Candidate]
) -> list[Candidate]:
    """The candidates, the first one of each architecture; see `canonical`."""
    plain: dict[Candidate, Candidate] = {}
    for each in candidates:  # most that are alike differ in what does not matter, and nothing else
        plain.setdefault(space.plain(each), each)
    found: dict[OperatorGraph, Candidate] = {}
    for each in plain.values():
        found.setdefault(canonical(space.transformed(each)), each)
    return list(found.values())


def _waiting(
    learnt: Learnt, space: TransformationSpace, known: Container[Candidate]
) -> list[Candidate]:
    """The draws that are networks and not known yet."""
    return [each for each in learnt.drawn if each not in known and space.connected(each)]


def _drawn(odds: NDArray[np.float64], rng: np.random.Generator) -> Candidate:
    """One option for each edge, which need not make a connected network."""
    steps = np.cumsum(odds, axis=1)
    steps[:, -1] = 1  # may be missed by a rounding
    last = (odds > 0).cumsum(axis=1).argmax(axis=1)
    return Candidate(np.minimum((steps < rng.random((len(odds), 1))).sum(axis=1), last).tolist())


def _rewards(draws: Sequence[Candidate], known: Mapping[Candidate, float]) -> NDArray[np.float64]:
    """(n,) scores; where there is none, or minus infinity, the worst that is known."""
    finite = [score for score in known.values() if np.isfinite(score)]
    scores = np.array([known.get(each, -np.inf) for each in draws])
    return np.where(np.isfinite(scores), scores, min(finite, default=0.0))
