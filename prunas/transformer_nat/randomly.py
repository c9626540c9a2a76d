"""Random transformation: the control that any policy has to beat."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prunas.supernet.space import Candidate
from prunas.transformer_nat.method import Scored, State, begin, propose, told
from prunas.transformer_nat.transformation import TransformationSpace


@dataclass(frozen=True)
class RandomTransformation:
    """Ask for candidates drawn uniformly: every option of every edge is equally likely."""

    def start(self, space: TransformationSpace, rng: np.random.Generator) -> State:
        return begin(space, rng)

    def ask(self, state: State, n: int) -> tuple[State, list[Candidate]]:
        return propose(state, n, state.space.sample)

    def tell(self, state: State, scored: Sequence[Scored]) -> State:
        return told(state, scored)
