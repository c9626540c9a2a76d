"""One evaluation, as a value and as a row of the archive."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, final
from zlib import crc32

from prunas.supernet.space import Candidate

COLUMNS: Final = "candidate, score, macs, params, seconds, asked_at"
_MOST: Final = 2**31  # no width comes near; larger numbers fit no table


@final
@dataclass(frozen=True)
class Evaluation:
    """One scored candidate.

    Attributes:
        candidate: what was evaluated.
        score: higher is better; NaN if it has none.
        macs: multiply-accumulates of one image.
        params: number of parameters.
        seconds: how long the evaluation took.
        asked_at: the step of the search that asked for it, from 0.
    """

    candidate: Candidate
    score: float
    macs: int
    params: int
    seconds: float
    asked_at: int

    def same_score(self, other: float) -> bool:
        """Whether the other score is this one; NaN is NaN."""
        return self.score == other or (math.isnan(self.score) and math.isnan(other))

    def to_row(self) -> tuple[str, float | None, int, int, float, int]:
        """The values of `COLUMNS`; SQLite has no NaN, which is NULL there."""
        score = None if math.isnan(self.score) else float(self.score)
        return (
            json.dumps(self.candidate),
            score,
            int(self.macs),
            int(self.params),
            float(self.seconds),
            int(self.asked_at),
        )

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> "Evaluation":
        """Read the values of `COLUMNS`.

        Raises:
            ValueError: they are not those of an evaluation.
        """
        text, score, macs, params, seconds, asked_at = row
        whole, real = (macs, params, asked_at), (0.0 if score is None else score, seconds)
        if not all(type(each) is int for each in whole):
            raise ValueError(f"{whole} are not three whole numbers")
        if not all(isinstance(each, int | float) for each in real):
            raise ValueError(f"{real} are not two numbers")
        known = math.nan if score is None else float(score)
        return cls(_candidate(text), known, macs, params, float(seconds), asked_at)


def checksum(run: int, row: Sequence[Any]) -> int:
    """A CRC-32 of a row of `COLUMNS` and of whose it is: SQLite does not see a flipped bit."""
    return crc32(repr((run, *row)).encode("utf-8", "surrogateescape"))


def _candidate(text: Any) -> Candidate:
    try:
        values = json.loads(text)
    except (TypeError, RecursionError):
        raise ValueError(f"{str(text)[:40]!r} is no candidate") from None
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise ValueError(f"{text[:40]!r} is no candidate")
    if not all(0 <= value < _MOST for value in values):
        raise ValueError(f"{text[:40]!r} is no candidate: its values are not within 0 and 2**31")
    return Candidate(values)
