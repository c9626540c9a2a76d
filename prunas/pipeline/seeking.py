"""Looking for transformations on weights that are trained meanwhile."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, final

import numpy as np

from prunas.errors import InputError
from prunas.pipeline.progress import Progress
from prunas.pipeline.seeding import require_seed
from prunas.pipeline.transformers import METHODS, Seeker, seeker
from prunas.supernet.space import Candidate
from prunas.transformer_nat.method import Scored
from prunas.transformer_nat.transformation import TransformationSpace

_BATCH: Final = 4  # candidates asked for at once: one update of a policy
_ROUNDS: Final = 4
"""Of a policy, in the course of training; half of all scores are left for the trained weights."""
_PROPOSALS: Final = 10
"""Scores of the last round, at most half of them, that are left for what a policy proposes."""
_LEAST: Final = {"evaluations": 1, "epochs": 0, "finalists": 1, "paths": 1}


@final
@dataclass(frozen=True)
class Settings:
    """How transformations are looked for.

    Attributes:
        method: one of `METHODS`.
        evaluations: transformations to score on the shared weights, at most.
        epochs: of training the shared weights; 0 leaves those of the found network as they are.
        finalists: transformations that are trained alone before one is chosen, the found network
            among them; 1 takes what ranks first.
        seed: of everything random.
        paths: transformations in a step of the shared training, beside the network itself.
        thrift: what a network without multiply-accumulates would be worth more, in score: 0.2 takes
            two right answers in a hundred for a tenth of the work. 0 looks for accuracy alone, as
            NAT does. Scores are on shared weights, where replacements cost three to seven times
            what they do in networks that are trained alone (docs/transformer_nat.md), so that it
            stands for as much less there. It is a matter of looking; see `preferred` for choosing.
    """

    method: str = "policy"
    evaluations: int = 80
    epochs: int = 20
    finalists: int = 4
    seed: int = 0
    paths: int = 3
    thrift: float = 0.2

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(
                f"no way to look for transformations is called {self.method!r}; choose"
                f" {', '.join(METHODS)}"
            )
        require_seed(self.seed)
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise InputError(
                    f"{name}={getattr(self, name)} of the transformation must be at least {least}"
                )
        if not 0 <= self.thrift <= 1:
            raise InputError(f"thrift={self.thrift} of the transformation must be between 0 and 1")


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
        scores: {epochs: {transformation: score}} that are known, and are not measured again.
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
        """Different transformations with scores on the same weights, the one worth most first.

        A transformation is worth its score, and `thrift` times the share of the source's
        multiply-accumulates that it saves; that is also what methods are told. The source is one of
        them; of equals the cheaper comes first. A method that learns asks four times in the course
        of the training, most at the end, others then only: their scores would be about older
        weights.
        """
        settings = self.settings
        rng = np.random.default_rng([settings.seed, 7])
        seek = seeker(settings.method, self.moves, rng)
        plan = self._plan(seek.learns)
        latest: dict[Candidate, float] = {}
        for epochs, wanted in plan:
            self.weights.train(epochs)
            seek.anew()
            latest = self._round(epochs, seek, wanted)
        left = settings.evaluations - sum(wanted for _, wanted in plan)
        final = self._new(seek.proposals(), latest)[:left]
        latest |= zip(final, self._measured(settings.epochs, final), strict=True)
        return self._sorted(latest)

    def _plan(self, learns: bool) -> list[tuple[int, int]]:
        """After how many epochs how many transformations are asked for, the source among them."""
        epochs, evaluations = self.settings.epochs, self.settings.evaluations
        early = min(_ROUNDS, epochs) - 1 if learns else 0
        each = evaluations // (2 * early) if early > 0 else 0
        rounds = [(epochs * (i + 1) // (early + 1), each) for i in range(early)] if each else []
        last = evaluations - each * len(rounds)
        return [*rounds, (epochs, last - min(_PROPOSALS, last // 2) if learns else last)]

    def _round(self, epochs: int, seek: Seeker, wanted: int) -> dict[Candidate, float]:
        """Scores of what is asked for, and of the source, for which there is room in any case."""
        source = self.moves.source
        latest: dict[Candidate, float] = {}
        with self.progress.task("transform") as task:
            while (room := wanted - len({source, *latest})) and (
                asked := seek.ask(min(_BATCH, room))
            ):
                scores = self._measured(epochs, asked)
                seek.tell(list(map(self._worth, asked, scores)))
                latest |= zip(asked, scores, strict=True)
                task.update(len(latest), wanted)
        return latest | dict(zip([source], self._measured(epochs, [source]), strict=True))

    def _new(
        self, asked: Sequence[Candidate], latest: Mapping[Candidate, float]
    ) -> list[Candidate]:
        """Those that are other networks than the latest."""
        known = set(map(self.moves.plain, latest))
        return [each for each in dict.fromkeys(map(self.moves.plain, asked)) if each not in known]

    def _worth(self, positions: Candidate, score: float) -> Scored:
        """What a method is told of a transformation."""
        return Scored(positions, worth(self.moves, Scored(positions, score), self.settings.thrift))

    def _measured(self, epochs: int, asked: Sequence[Candidate]) -> list[float]:
        """Scores on the weights after so many epochs; what cuts an output off has none (NaN)."""
        known = self.scores.setdefault(epochs, {})
        plain = [self.moves.plain(each) for each in asked]
        for candidate in dict.fromkeys(each for each in plain if each not in known):
            if self.weights.done > epochs:
                raise InputError(
                    "the record of this transformation lacks scores on weights that were trained"
                    " on since; begin anew with --fresh"
                )
            connected = self.moves.connected(candidate)
            known[candidate] = self.weights.score(candidate) if connected else math.nan
            self.keep()
        return [known[each] for each in plain]

    def _sorted(self, scores: Mapping[Candidate, float]) -> list[Scored]:
        distinct = {self.moves.plain(each): score for each, score in scores.items()}
        rows = [Scored(each, s) for each, s in distinct.items() if math.isfinite(s)]
        return by_worth(self.moves, rows, self.settings.thrift)


def worth(moves: TransformationSpace, row: Scored, thrift: float) -> float:
    """score + thrift * (1 - MACs / MACs of the source)."""
    whole = moves.cost(moves.source).macs
    saved = 1 - moves.cost(row.candidate).macs / whole if whole else 0.0
    return row.score + thrift * saved


def by_worth(moves: TransformationSpace, rows: Iterable[Scored], thrift: float) -> list[Scored]:
    """The one worth most first; of equals the cheaper."""

    def place(row: Scored) -> tuple[float, int, int, int]:
        cost = moves.cost(row.candidate)
        return -worth(moves, row, thrift), cost.macs, cost.params, cost.published_macs

    return sorted(rows, key=place)


def entrants(
    moves: TransformationSpace,
    ranked: Sequence[Scored],
    settings: Settings,
    fits: Callable[[Candidate], bool] = lambda positions: True,
) -> list[Scored]:
    """Whom to train alone: the source, and `finalists - 1` others.

    Shared weights tell what is best among equally dear networks better than how dear a network has
    to be: they have seen the source most. So the others differ in that. Each is worth most of what
    is left at another thrift, twice that of the next one, around the one that was looked with.

    Args:
        moves: the transformations.
        ranked: them, with their scores; the source among them.
        settings: how many, and their thrift.
        fits: what may be chosen at all; the source is not asked about.
    """
    left = {row.candidate: row for row in ranked}
    chosen = [left.pop(moves.source)]
    others = settings.finalists - 1
    for step in range(others):
        thrift = settings.thrift * 2 ** ((others - 1) / 2 - step)
        for row in by_worth(moves, left.values(), thrift):
            del left[row.candidate]
            if fits(row.candidate):
                chosen.append(row)
                break
    return chosen
