"""Looking for transformations on weights that are trained meanwhile."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, final

import numpy as np

from prunas.errors import InputError
from prunas.pipeline.progress import Progress
from prunas.pipeline.transformers import METHODS, Seeker, seeker
from prunas.supernet.space import Candidate
from prunas.transformer_nat.method import Scored
from prunas.transformer_nat.transformation import TransformationSpace

_BATCH: Final = 4  # candidates asked for at once: one update of a policy


@final
@dataclass(frozen=True)
class Settings:
    """How transformations are looked for.

    Attributes:
        method: one of `METHODS`.
        evaluations: transformations to score on the shared weights.
        epochs: of training the shared weights; 0 leaves those of the found network as they are.
        finalists: transformations that are trained alone before one is chosen, the found network
            among them; 1 takes the best score.
        seed: of everything random.
    """

    method: str = "policy"
    evaluations: int = 80
    epochs: int = 4
    finalists: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(
                f"no way to look for transformations is called {self.method!r}; choose"
                f" {', '.join(METHODS)}"
            )
        for name, least in (("evaluations", 1), ("epochs", 0), ("finalists", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(
                    f"{name}={getattr(self, name)} of the transformation must be at least {least}"
                )


class Weights(Protocol):
    """What is trained an epoch at a time, and scores transformations."""

    @property
    def done(self) -> int:
        """Epochs that were trained."""
        ...

    def train(self, epochs: int) -> None:
        """Train until so many epochs are done."""
        ...

    def score(self, positions: Candidate) -> float:
        """Of a transformation, on the weights as they are now."""
        ...


@final
@dataclass(frozen=True, eq=False)
class Seeking:
    """A search of transformations that can be stopped and repeated.

    Attributes:
        moves: the transformations.
        weights: what they are scored on.
        settings: how.
        scores: {epoch: {transformation: score}} that are known, and are not measured again.
        keep: called whenever there is a new one.
        progress: shows what is going on.
    """

    moves: TransformationSpace
    weights: Weights
    settings: Settings
    scores: dict[int, dict[Candidate, float]]
    keep: Callable[[], None]
    progress: Progress

    def ranked(self) -> list[Scored]:
        """Different transformations with scores on the same weights, the best first.

        The source is one of them; of equals the cheaper comes first. A method that learns asks
        after every epoch, others after the last one, as their scores would be about older weights.
        """
        settings = self.settings
        rng = np.random.default_rng([settings.seed, 7])
        seek = seeker(settings.method, self.moves, rng)
        rounds = max(1, settings.epochs)
        alternately = seek.learns and rounds > 1
        wanted = math.ceil(settings.evaluations / rounds) if alternately else settings.evaluations
        latest: dict[Candidate, float] = {}
        for index in range(rounds):
            self.weights.train(min(index + 1, settings.epochs))
            if alternately or index + 1 == rounds:
                seek.anew()
                latest = self._round(index, seek, wanted)
        final = [self.moves.source, *seek.proposals()]
        latest |= zip(final, self._measured(rounds - 1, final), strict=True)
        return self._sorted(latest)

    def _round(self, index: int, seek: Seeker, wanted: int) -> dict[Candidate, float]:
        latest: dict[Candidate, float] = {}
        with self.progress.task("transform") as task:
            while len(latest) < wanted and (asked := seek.ask(min(_BATCH, wanted - len(latest)))):
                scores = self._measured(index, asked)
                seek.tell([Scored(c, score) for c, score in zip(asked, scores, strict=True)])
                latest |= zip(asked, scores, strict=True)
                task.update(len(latest), wanted)
        return latest

    def _measured(self, index: int, asked: Sequence[Candidate]) -> list[float]:
        """Scores on the weights of an epoch; what cuts an output off has none (NaN)."""
        known = self.scores.setdefault(index, {})
        plain = [self._plain(each) for each in asked]
        for candidate in dict.fromkeys(each for each in plain if each not in known):
            if self.weights.done > index + 1:
                raise InputError(
                    "the record of this transformation lacks scores on weights that were trained"
                    " on since; begin anew with --fresh"
                )
            connected = self.moves.connected(candidate)
            known[candidate] = self.weights.score(candidate) if connected else math.nan
            self.keep()
        return [known[each] for each in plain]

    def _plain(self, positions: Candidate) -> Candidate:
        """The same network, with the source's operator on every edge that does not matter."""
        operators, graph = self.moves.operators(positions), self.moves.graph
        fed, used = graph.fed(operators), graph.used(operators)
        return Candidate(
            place if edge.source in fed and edge.target in used else 0
            for place, edge in zip(positions, graph.edges, strict=True)
        )

    def _sorted(self, scores: Mapping[Candidate, float]) -> list[Scored]:
        distinct = {self._plain(each): score for each, score in scores.items()}
        rows = [Scored(each, s) for each, s in distinct.items() if math.isfinite(s)]
        return sorted(rows, key=lambda row: (-row.score, *self._price(row.candidate)))

    def _price(self, positions: Candidate) -> tuple[int, int]:
        cost = self.moves.cost(positions)
        return cost.macs, cost.params
