"""Where contenders meet: the candidates of one space under one budget, and their scores."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from prunas.errors import InputError
from prunas.search.budget import Budget, Feasible
from prunas.search.prior import Prior
from prunas.search.table import Table
from prunas.supernet.space import Candidate


@dataclass(frozen=True)
class Problem:
    """One space under one budget, in figures.

    Attributes:
        space: its name.
        budget: as it was asked.
        limits: the budget in absolute terms.
        window: candidates that make use of the budget; None where they cannot be counted.
        evaluation_seeds: how many sets of scores there are.
        best: the best score within the limits under each evaluation seed; None if not known.
        best_test: the same of the test scores.
    """

    space: str
    budget: str
    limits: dict[str, int]
    window: int | None
    evaluation_seeds: int
    best: tuple[float, ...] | None
    best_test: tuple[float, ...] | None

    def evaluation_seed(self, seed: int) -> int:
        """The set of scores that runs of this seed see."""
        return seed % self.evaluation_seeds


class Arena(Protocol):
    """What a run of a contender needs."""

    @property
    def problem(self) -> Problem: ...

    @property
    def feasible(self) -> Feasible: ...

    def prior(self, name: str, evaluation_seed: int) -> Prior:
        """What is known before a search, by the name of the prior."""
        ...

    def scores(self, candidates: Sequence[Candidate], evaluation_seed: int) -> list[float]:
        """Scores in 0..1 that a search sees."""
        ...

    def test_score(self, candidate: Candidate, evaluation_seed: int) -> float:
        """The score in 0..1 that no search sees."""
        ...

    def recorded(self, candidate: Candidate) -> int | list[int]:
        """What stands for a candidate in the file of results."""
        ...


@dataclass(frozen=True, eq=False)
class TableArena:
    """An arena whose scores are all known: they are looked up.

    Args:
        table: the scores.
        text: the budget as it was asked.
        budget: the same.
    """

    table: Table
    text: str
    budget: Budget

    @cached_property
    def feasible(self) -> Feasible:
        return Feasible(self.table.space, self.budget, self.table.costs)

    @cached_property
    def window(self) -> NDArray[np.int64]:
        """Numbers of the candidates that make use of the budget."""
        return np.flatnonzero(self.feasible.in_window(self.table.candidates))

    @cached_property
    def problem(self) -> Problem:
        """Its figures.

        Raises:
            InputError: there is nothing to search.
        """
        require_choice(self.table.name, self.text, len(self.window))
        table = self.table
        inside = np.flatnonzero(self.feasible.contains(table.candidates))
        return Problem(
            table.name,
            self.text,
            dict(self.feasible.limits),
            len(self.window),
            table.seeds,
            tuple((table.held_out[:, inside].max(axis=1) / table.images).tolist()),
            tuple((table.test[:, inside].max(axis=1) / table.test_images).tolist()),
        )

    def prior(self, name: str, evaluation_seed: int) -> Prior:
        return self.table.priors[name][evaluation_seed]

    def scores(self, candidates: Sequence[Candidate], evaluation_seed: int) -> list[float]:
        found: list[float] = self.table.scores(candidates, evaluation_seed).tolist()
        return found

    def test_score(self, candidate: Candidate, evaluation_seed: int) -> float:
        return float(self.table.test_scores([candidate], evaluation_seed)[0])

    def recorded(self, candidate: Candidate) -> int | list[int]:
        return int(self.table.places(np.array([candidate]))[0])


def require_choice(space: str, budget: str, count: int) -> None:
    """Refuse a budget under which there is nothing to search.

    Raises:
        InputError: it leaves one candidate or none.
    """
    if count < 2:
        left = "1 candidate makes" if count == 1 else "no candidate makes"
        raise InputError(
            f"{left} use of the budget {budget} on {space}, so there is nothing to search; give"
            " another budget, or a larger --tolerance"
        )


def table_identity(table: Table) -> dict[str, Any]:
    """What tells a table from another: its name, and a digest of its scores and its space."""
    digest = hashlib.sha256(table.space.to_json().encode())
    digest.update(f"{table.images} {table.test_images} {table.priors!r}".encode())
    for counts in (table.held_out, table.test):
        digest.update(np.ascontiguousarray(counts).tobytes())
    return {"name": table.name, "table": digest.hexdigest()[:16], "about": dict(table.about)}
