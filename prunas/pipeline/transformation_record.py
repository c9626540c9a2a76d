"""What is on record of a transformation: the scores so far, and what they depend on."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, final

from prunas.errors import InputError
from prunas.pipeline.sealed import read_sealed, write_sealed
from prunas.pipeline.seeking import Settings
from prunas.pipeline.stages import Job
from prunas.supernet.space import Candidate
from prunas.transformer_nat.replacement import Replacement


@final
@dataclass(frozen=True)
class Record:
    """Scores that were found so far, on disk.

    Attributes:
        file: where they are.
        key: what they depend on, as JSON holds it.
        scores: {epochs: {transformation: score}}.
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
        if known is None or {**known.key, **owner} != known.key:
            usual = Settings(epochs=job.request.supernet_epochs, seed=job.request.seed)
            settings = replace(usual, **stated)
            return cls(file, {**owner, "settings": asdict(settings)}, {})
        before = asdict(known.settings)
        after = asdict(replace(known.settings, **stated))
        for name in after:
            if after[name] != before[name]:
                raise InputError(
                    f"{job.folder.path} has a transformation with {name}={before[name]}, now it is"
                    f" {after[name]}; repeat its settings, or begin anew with --fresh"
                )
        return known

    def keep(self) -> None:
        """Write it."""
        rows = {
            epochs: [[list(candidate), score] for candidate, score in known.items()]
            for epochs, known in self.scores.items()
        }
        write_sealed(self.file, {"key": self.key, "scores": rows})


def replacements_of(result: Mapping[str, Any]) -> tuple[Replacement, ...]:
    """What is replaced in the found network, by the "result" of run.json; nothing by default."""
    return tuple(map(Replacement.from_json, result.get("replacements", ())))


def _read(file: Path) -> Record | None:
    """What was kept there; nothing of another version."""
    if not file.exists():
        return None
    try:
        data = read_sealed(file)
        scores = {
            int(epochs): {Candidate(row): float(score) for row, score in rows}
            for epochs, rows in data["scores"].items()
        }
        known = Record(file, dict(data["key"]), scores)
        if set(known.key["settings"]) != {field.name for field in fields(Settings)}:
            return None
        known.settings  # noqa: B018 - raises where they make no sense
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} cannot be read ({error}); delete it to redo it") from None
    return known
