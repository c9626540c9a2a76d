"""What a policy needs to know of a candidate when its score comes, and the scores as rewards.

A policy learns from what it drew, which repair may have changed since. So each candidate that a
policy proposes leaves a row of numbers in the state, until it is told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from prunas.search.learnt import Array
from prunas.search.method import Scored, State
from prunas.supernet.space import Candidate

HUGE: Final = 1e100
"""Scores beyond are clipped: what learns from them takes their squares."""


def remembered(state: State, rows: Mapping[Candidate, NDArray[Any]]) -> State:
    """`state` with a row for each of these candidates; all rows of a search are equally long."""
    added = [np.concatenate([candidate, row]) for candidate, row in rows.items()]
    return _with_rows(state, [*state.learnt.get("pending", ()), *added])


def recalled(state: State, scored: Sequence[Scored]) -> tuple[State, list[Array | None]]:
    """The rows of these candidates, None for those without, and the state that forgets them."""
    genes = len(state.feasible.space.genes)
    pending = {
        Candidate(int(value) for value in row[:genes]): row
        for row in state.learnt.get("pending", ())
    }
    rows = [pending.pop(entry.candidate, None) for entry in scored]
    found = [None if row is None else row[genes:] for row in rows]
    return _with_rows(state, list(pending.values())), found


def _with_rows(state: State, rows: Sequence[Array]) -> State:
    return replace(state, learnt=state.learnt.changed(pending=rows))


def rewards(state: State) -> Array:
    """(told,) every score so far; where there is none it is the worst of the others.

    Beyond `HUGE` they are clipped.
    """
    scores = np.array([scored.score for scored in state.told])
    finite = scores[np.isfinite(scores)]
    low, high = (finite.min(), finite.max()) if len(finite) > 0 else (0.0, 0.0)
    return np.asarray(np.clip(np.clip(scores, low, high), -HUGE, HUGE))
