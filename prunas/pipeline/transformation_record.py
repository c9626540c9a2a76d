"""What is on record of a transformation: the scores so far, and what they depend on."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, final

from prunas.errors import InputError
from prunas.pipeline.files import write_text
from prunas.pipeline.seeking import Settings
from prunas.pipeline.stages import Job
from prunas.supernet.space import Candidate


@final
@dataclass(frozen=True)
class Record:
    """Scores that were found so far, on disk.

    Attributes:
        file: where they are.
        key: what they depend on, as JSON holds it.
        scores: {round: {transformation: score}}.
    """

    file: Path
    key: dict[str, Any]
    scores: dict[int, dict[Candidate, float]]

    @property
    def settings(self) -> Settings:
        return Settings(**self.key["settings"])

    @classmethod
    def of(cls, job: Job, found: Candidate, stated: Mapping[str, Any], *, fresh: bool) -> "Record":
        """The record of this transformation; a new one if there is none, or none that counts.

        Raises:
            InputError: there is one with other settings, or it is damaged.
        """
        file = job.folder.path / "checkpoints" / "transformation.json"
        owner = {"run": job.request.fingerprint(), "candidate": list(found)}
        known = None if fresh else _read(file)
        if known is not None and known["key"] | owner == known["key"]:
            settings = replace(Settings(**known["key"]["settings"]), **stated)
            key = {**owner, "settings": asdict(settings)}
            if key != known["key"]:
                raise InputError(_differing(job, known["key"]["settings"], asdict(settings)))
            scores = {
                int(round_): {Candidate(row): float(score) for row, score in rows}
                for round_, rows in known["scores"].items()
            }
            return cls(file, key, scores)
        settings = replace(Settings(seed=job.request.seed), **stated)
        return cls(file, {**owner, "settings": asdict(settings)}, {})

    def keep(self) -> None:
        """Write it."""
        rows = {
            round_: [[list(candidate), score] for candidate, score in known.items()]
            for round_, known in self.scores.items()
        }
        write_text(self.file, json.dumps({"key": self.key, "scores": rows}))


def _read(file: Path) -> dict[str, Any] | None:
    if not file.exists():
        return None
    try:
        known = json.loads(file.read_text())
        if set(known["key"]["settings"]) != {field.name for field in fields(Settings)}:
            return None  # of another version
        dict(known["scores"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} cannot be read ({error}); delete it to redo it") from None
    return dict(known)


def _differing(job: Job, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    name = next(name for name in after if after[name] != before[name])
    return (
        f"{job.folder.path} has a transformation with {name}={before[name]}, now it is"
        f" {after[name]}; repeat its settings, or begin anew with --fresh"
    )
