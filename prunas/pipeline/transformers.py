"""Whatever can look for transformations: the methods of NAT, and every search of prunas."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, final

import numpy as np

from prunas.errors import InputError
from prunas.search import method as searching
from prunas.search.budget import Budget, Feasible
from prunas.search.methods import SEARCHES
from prunas.supernet.space import Candidate
from prunas.transformer_nat.genes import WINDOW, TransformationGenes
from prunas.transformer_nat.method import Scored, State, Transformer, forgotten
from prunas.transformer_nat.methods import TRANSFORMERS, transformers_for
from prunas.transformer_nat.policy_search import PolicySearch
from prunas.transformer_nat.transformation import TransformationSpace

METHODS: Final = (*TRANSFORMERS, *(name for name in SEARCHES if name not in TRANSFORMERS))
"""Names of all of them; "random" is that of transformations."""

_PROPOSALS: Final = 10  # as in the code of NAT


class Seeker(Protocol):
    """Asks for transformations and is told their scores."""

    def ask(self, n: int) -> list[Candidate]:
        """Up to `n` to score, none twice between two calls of `anew`."""
        ...

    def tell(self, scored: Sequence[Scored]) -> None:
        """Scores of what was asked."""
        ...

    @property
    def learns(self) -> bool:
        """Whether it knows more than scores, so that something is left after `anew`."""
        ...

    def anew(self) -> None:
        """Forget all scores, since the weights have changed."""
        ...

    def proposals(self) -> list[Candidate]:
        """What it would choose now, to be scored in the end."""
        ...


def seeker(name: str, moves: TransformationSpace, rng: np.random.Generator) -> Seeker:
    """The method of that name, one of `METHODS`, before its first question.

    Raises:
        InputError: there is no such method.
    """
    if name in TRANSFORMERS:
        method = transformers_for(moves)[name]
        return _Transforming(method, method.start(moves, rng), rng)
    if name in SEARCHES:
        return _Searching(SEARCHES[name], TransformationGenes(moves), rng)
    raise InputError(
        f"no way to look for transformations is called {name!r}; choose {', '.join(METHODS)}"
    )


@final
@dataclass
class _Transforming:
    method: Transformer
    state: State
    rng: np.random.Generator

    def ask(self, n: int) -> list[Candidate]:
        self.state, asked = self.method.ask(self.state, n)
        return asked

    def tell(self, scored: Sequence[Scored]) -> None:
        self.state = self.method.tell(self.state, scored)

    @property
    def learns(self) -> bool:
        return self.state.learnt is not None

    def anew(self) -> None:
        self.state = forgotten(self.state)

    def proposals(self) -> list[Candidate]:
        if not isinstance(self.method, PolicySearch):
            return []
        return self.method.proposals(self.state, _PROPOSALS, self.rng)


@final
class _Searching:
    """A search of prunas, on the genes of the transformations."""

    def __init__(
        self, search: searching.Search, genes: TransformationGenes, rng: np.random.Generator
    ) -> None:
        self.search, self.genes = search, genes
        everything = Budget((("macs", 1.0),), tolerance=WINDOW)
        self.feasible = Feasible(genes.space, everything, genes)
        self.state = search.start(genes.space, self.feasible, None, rng)

    def ask(self, n: int) -> list[Candidate]:
        self.state, asked = self.search.ask(self.state, n)
        return [self.genes.positions(each) for each in asked]

    def tell(self, scored: Sequence[Scored]) -> None:
        told = [
            searching.Scored(self.genes.candidate(entry.candidate), entry.score) for entry in scored
        ]
        self.state = self.search.tell(self.state, told)

    @property
    def learns(self) -> bool:
        return False

    def anew(self) -> None:
        self.state = searching.unasked(self.state)

    def proposals(self) -> list[Candidate]:
        return []
