"""What every search of transformations has in common: explicit state, ask and tell.

As in `prunas.search`, a method is three functions and some settings:

    state = method.start(space, rng)
    state, candidates = method.ask(state, 8)
    state = method.tell(state, [Scored(candidate, score) for ...])
    best = chosen(state)

The source is the first candidate of every method, so that nothing worse than it is chosen.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import numpy as np

from prunas.errors import InputError
from prunas.given_numbers import plain_score, saved_place, saved_score
from prunas.json_text import parsed
from prunas.supernet.space import Candidate
from prunas.transformer_nat.learnt import Learnt
from prunas.transformer_nat.transformation import TransformationSpace

_ROUNDS: Final = 40


@dataclass(frozen=True)
class Scored:
    """A candidate and its score; higher is better.

    NaN means that it could not be scored, and so does what is infinite.
    """

    candidate: Candidate
    score: float


@dataclass(frozen=True)
class State:
    """A search at one moment: a plain value, apart from the space that it is about.

    Attributes:
        space: the candidates.
        stream: state of the random bit generator.
        asked: every candidate proposed so far, in that order; none appears twice.
        told: every score so far, in the order told. What is not finite is kept as minus infinity.
        learnt: what a policy has learnt; None for methods that learn nothing.
    """

    space: TransformationSpace = field(compare=False, repr=False)
    stream: dict[str, Any]
    asked: tuple[Candidate, ...] = ()
    told: tuple[Scored, ...] = ()
    learnt: Learnt | None = None


class Transformer(Protocol):
    """A way to search transformations. A new one is one file and a row in `TRANSFORMERS`.

    Laws: the same seed gives the same candidates; the source comes first; no candidate is proposed
    twice, and none that cuts an output off; `ask` returns fewer than `n` only where it finds no
    further one; arguments and global random generators are left as found.
    """

    def start(self, space: TransformationSpace, rng: np.random.Generator) -> State:
        """The state before the first question. `rng` gives the seed and advances by one draw."""
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
"""Proposes about `n` connected candidates; they may repeat earlier ones."""


def begin(space: TransformationSpace, rng: np.random.Generator) -> State:
    """The state of a search that has asked nothing, with a random stream of its own."""
    seed = rng.integers(2**63, size=2).tolist()
    return State(space, dict(np.random.PCG64(seed).state.items()))


def generator(state: State) -> np.random.Generator:
    """A generator at the position of the state's stream."""
    rng = np.random.Generator(np.random.PCG64(0))
    rng.bit_generator.state = state.stream
    return rng


def advanced(state: State, rng: np.random.Generator) -> State:
    """The state with its stream where that generator is now."""
    return replace(state, stream=dict(rng.bit_generator.state))


def propose(state: State, n: int, draw: Draw) -> tuple[State, list[Candidate]]:
    """Up to `n` candidates never asked before: the source, then what `draw` gives in 40 tries."""
    rng = generator(state)
    fresh: dict[Candidate, None] = {}
    known = set(state.asked)
    found: Iterable[Candidate] = [state.space.source]
    for _ in range(_ROUNDS):
        fresh |= dict.fromkeys(candidate for candidate in found if candidate not in known)
        if len(fresh) >= n:
            break
        found = draw(rng, n)
    asked = list(fresh)[:n]
    return replace(advanced(state, rng), asked=state.asked + tuple(asked)), asked


def told(state: State, scored: Sequence[Scored]) -> State:
    """`state` with the scores appended; this is `tell` of every method that learns nothing.

    Raises:
        ValueError: a candidate was never asked, or told before.
        InputError: a score that is no number.
    """
    waiting = set(state.asked) - {known.candidate for known in state.told}
    for entry in scored:
        if entry.candidate not in waiting:
            raise ValueError(f"{entry.candidate} was never asked, or its score was told before")
        waiting.remove(entry.candidate)
    plain = tuple(Scored(entry.candidate, plain_score(entry.score)) for entry in scored)
    return replace(state, told=state.told + plain)


def forgotten(state: State) -> State:
    """The state without its questions and scores: what was learnt is kept.

    For weights that are trained alternately with a policy: old scores are about older weights.
    """
    learnt = state.learnt and replace(state.learnt, drawn=())
    return replace(state, asked=(), told=(), learnt=learnt)


def rank(space: TransformationSpace, entry: Scored) -> tuple[float, int, int, int]:
    """What is greater is better: the score, then fewer multiply-accumulates, then parameters.

    Pools and identities have neither: the published count tells them apart.
    """
    cost = space.cost(entry.candidate)
    return entry.score, -cost.macs, -cost.params, -cost.published_macs


def chosen(state: State) -> Candidate:
    """The best candidate told, the cheaper one of equals; the source where none has a score.

    Raises:
        InputError: nothing was told yet.
    """
    if not state.told:
        raise InputError("no score was told yet, so that nothing can be chosen; ask and tell first")
    best = max(state.told, key=lambda entry: rank(state.space, entry))
    return best.candidate if math.isfinite(best.score) else state.space.source


def state_to_json(state: State) -> str:
    """The plain part of a state as text; of the space, only which one it is."""
    place = {candidate: index for index, candidate in enumerate(state.asked)}
    rows = [[place[entry.candidate], _number(entry.score)] for entry in state.told]
    learnt = state.learnt and state.learnt.to_data()
    plain = {"stream": state.stream, "asked": state.asked, "told": rows, "learnt": learnt}
    return json.dumps({"space": state.space.digest, **plain})


def state_from_json(text: str, space: TransformationSpace) -> State:
    """What `state_to_json` wrote, on the space that it is about.

    Raises:
        InputError: the text is no such state, or its space is another one.
    """
    try:
        data = parsed(text)
        if data["space"] == space.digest:
            return _read(data, space)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"the text is not a saved search of transformations ({error})") from None
    raise InputError(
        "the saved search belongs to another graph or to other options, so that its candidates"
        " would be other networks here; give the space that it began with"
    )


def _read(data: Mapping[str, Any], space: TransformationSpace) -> State:
    asked = tuple(space.candidate(row) for row in data["asked"])
    if len(set(asked)) < len(asked):
        raise ValueError("a candidate was asked twice")
    rows = [
        Scored(asked[saved_place(place, len(asked))], saved_score(score))
        for place, score in data["told"]
    ]
    state = State(space, data["stream"], asked, learnt=_read_learnt(data["learnt"], space))
    return told(advanced(state, generator(state)), rows)  # the generator refuses a wrong stream


def _read_learnt(data: Any, space: TransformationSpace) -> Learnt | None:
    if data is None:
        return None
    learnt = Learnt.from_data(data)
    return replace(learnt, drawn=tuple(map(space.candidate, learnt.drawn)))


def _number(score: float) -> float | str:
    """JSON has no infinities; `float` reads both forms."""
    return score if math.isfinite(score) else str(score)
