"""What every search has in common: explicit state, ask and tell.

A search is three pure functions and some settings:

    state = search.start(space, feasible, prior, rng)
    state, candidates = search.ask(state, 50)
    state = search.tell(state, [Scored(candidate, score) for ...])

All of them share one state: the position of the random stream, what was asked, what was told, and
what was learnt. Populations, parents and fronts follow from what was told; policies and other
models that would be costly to learn anew are arrays. So a state can be saved, compared and resumed.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, product
from typing import Any, Final, Protocol

import numpy as np

from prunas.errors import InputError
from prunas.given_numbers import plain_score, saved_place, saved_score
from prunas.json_text import parsed
from prunas.search.belonging import refuse_strange
from prunas.search.budget import Feasible
from prunas.search.history import History
from prunas.search.learnt import Learnt
from prunas.search.prior import Prior, allocate
from prunas.supernet.space import Candidate, SearchSpace

# in all ten times what is wanted, where MetaPruning and SPOS cap the tries too; more and more at
# once, as in a small space few are new and one costs as much as many
_ROUNDS: Final = (1, 2, 3, 4)


@dataclass(frozen=True)
class Scored:
    """A candidate and its score; higher is better.

    NaN means that it could not be scored, and so does what is infinite.
    """

    candidate: Candidate
    score: float


def _itself(candidate: Candidate) -> Candidate:
    return candidate


def _candidate_of(entry: Scored) -> Candidate:
    return entry.candidate


_NOTHING_ASKED: Final = History(_itself)
_NOTHING_TOLD: Final = History(_candidate_of)


@dataclass(frozen=True)
class State:
    """A search at one moment: a plain value, apart from the problem that it is about.

    Attributes:
        feasible: the candidates to search, and their budget.
        prior: what was known before the search, if anything.
        stream: state of the random bit generator.
        asked: every candidate proposed so far, in that order; no candidate appears twice.
        told: every score so far, in the order told. What is not finite is kept as minus infinity.
        learnt: what the method alone knows: a policy, a critic; empty for most.
    """

    feasible: Feasible = field(compare=False, repr=False)
    prior: Prior | None = field(compare=False, repr=False)
    stream: dict[str, Any]
    asked: History[Candidate] = _NOTHING_ASKED
    told: History[Scored] = _NOTHING_TOLD
    learnt: Learnt = field(default_factory=Learnt)


class Search(Protocol):
    """A way to search. To add one, write these three and a row in tests/search/test_contract.py.

    Laws: the same seed gives the same candidates; no candidate is proposed twice or outside the
    budget; `ask` returns fewer than `n` only where it finds no further one, so an exhausted space
    ends the search; arguments and global random generators are left as found.
    """

    def start(
        self, space: SearchSpace, budget: Feasible, prior: Prior | None, rng: np.random.Generator
    ) -> State:
        """The state before the first question. `rng` only gives the seed of the search.

        Args:
            space: the candidates.
            budget: those of the same space that are allowed.
            prior: what the criteria know about the network, or None.
            rng: advanced by one draw.
        """
        ...

    def ask(self, state: State, n: int) -> tuple[State, list[Candidate]]:
        """The next state and up to `n` candidates to score."""
        ...

    def tell(self, state: State, scored: Sequence[Scored]) -> State:
        """The state that knows these scores of candidates asked before.

        Raises:
            ValueError: a candidate was never asked, or told before.
            InputError: a score that is no number.
        """
        ...


Draw = Callable[[np.random.Generator, int], Iterable[Candidate]]
"""Proposes about `n` candidates inside the budget; they may repeat earlier ones."""


def begin(budget: Feasible, prior: Prior | None, rng: np.random.Generator) -> State:
    """The state of a search that has asked nothing, with a random stream of its own."""
    seed = rng.integers(2**63, size=2).tolist()
    return State(budget, prior, dict(np.random.PCG64(seed).state.items()))


def begin_informed(budget: Feasible, prior: Prior | None, rng: np.random.Generator) -> State:
    """As `begin`; with a prior, the state knows its best allocation (`allocation`)."""
    state = begin(budget, prior, rng)
    if prior is None:
        return state
    best = allocate(prior.values, budget)  # once: it costs milliseconds
    return replace(state, learnt=state.learnt.changed(allocation=best))


def allocation(state: State) -> list[Candidate]:
    """The prior's best allocation; nothing without a prior."""
    best = state.learnt.get("allocation")
    return [] if best is None else [Candidate(int(value) for value in best)]


def allocated(state: State) -> Draw:
    """The first draw of a search that uses a prior: `propose` takes the allocation from it once.

    That is also where other scores were given before the search; not where its own score was.
    """
    best = allocation(state)
    return lambda rng, n: best


def generator(state: State) -> np.random.Generator:
    """A generator at the position of the state's stream."""
    rng = np.random.Generator(np.random.PCG64(0))
    rng.bit_generator.state = state.stream
    return rng


def propose(state: State, n: int, *draws: Draw) -> tuple[State, list[Candidate]]:
    """Up to `n` candidates never asked before, from the first draw that still has some.

    Each draw has ten times `n` tries before the next one is used.
    """
    rng, seen = generator(state), state.asked
    found: dict[Candidate, None] = {}
    for draw, tries in product(draws, _ROUNDS):
        missing = n - len(found)
        if missing <= 0:
            break
        fresh = (c for c in draw(rng, n * tries) if not seen.has(c) and c not in found)
        found |= dict.fromkeys(islice(dict.fromkeys(fresh), missing))
    asked = list(found)
    return replace(state, stream=dict(rng.bit_generator.state), asked=seen + asked), asked


def told(state: State, scored: Sequence[Scored]) -> State:
    """`state` with the scores appended; this is `tell` of every search here.

    Raises:
        ValueError: a candidate was never asked, or told before.
        InputError: a score that is no number.
    """
    known = state.told
    for entry in scored:
        if not state.asked.has(entry.candidate) or known.has(entry.candidate):
            raise ValueError(f"{entry.candidate} was never asked, or its score was told before")
        known += [Scored(entry.candidate, plain_score(entry.score))]
    return replace(state, told=known)


def unasked(state: State) -> State:
    """The state with nothing asked or told, where scores became void; what was learnt stays."""
    return replace(state, asked=_NOTHING_ASKED, told=_NOTHING_TOLD)


def given(state: State, scored: Sequence[Scored]) -> State:
    """`state` with candidates that were scored before the search began.

    Each counts as asked and told, so that none is proposed again. What a method makes of them is
    its own affair; an empty search only.

    Raises:
        ValueError: something was asked already.
        InputError: a score that is no number.
    """
    if state.asked:
        raise ValueError(f"{len(state.asked)} candidates were asked already; give scores first")
    asked = dict.fromkeys(entry.candidate for entry in scored)
    return told(replace(state, asked=state.asked + asked), scored)


def state_to_json(state: State) -> str:
    """The plain part of a state as text; the problem (space, budget, prior) is not in it."""
    place = {candidate: index for index, candidate in enumerate(state.asked)}
    told_rows = [[place[s.candidate], _number(s.score)] for s in state.told]
    rows = {"stream": state.stream, "asked": state.asked[:], "told": told_rows}
    return json.dumps({**rows, "learnt": state.learnt.to_json()})


def state_from_json(text: str, start: State) -> State:
    """What `state_to_json` wrote, on the problem of `start` (a fresh state will do).

    Raises:
        InputError: the text is no such state, or it is about another space or of another method.
    """
    try:
        return _read(parsed(text), start)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"the text is not a saved search of this method on this space ({error})"
        ) from None


def _read(data: Mapping[str, Any], start: State) -> State:
    space = start.feasible.space
    asked = [space.candidate(row) for row in data["asked"]]
    if len(set(asked)) < len(asked):
        raise ValueError("a candidate was asked twice")
    rows = [
        Scored(asked[saved_place(place, len(asked))], saved_score(score))
        for place, score in data["told"]
    ]
    learnt = Learnt.from_json(data["learnt"])
    refuse_strange(learnt, start.learnt, len(space.genes))
    state = replace(unasked(start), stream=data["stream"], learnt=learnt)
    stream = generator(state).bit_generator.state  # the generator refuses a wrong one
    return told(replace(state, stream=dict(stream), asked=state.asked + asked), rows)


def _number(score: float) -> float | str:
    """JSON has no infinities; `float` reads both forms."""
    return score if math.isfinite(score) else str(score)
