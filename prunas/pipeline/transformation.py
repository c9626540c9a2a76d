"""Between search and final training: redundant operators of the found network are replaced.

One set of weights holds the found network and all that may take the place of its operators. A
policy learns on it which replacements help, alternately with the weights; other methods search when
the weights are trained, since their scores would be about older ones. The best few are then trained
alone for a while, the found network itself among them, and compared on held-out images. So what is
chosen is never worse there, and never dearer.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import torch
from torch import nn

from prunas.errors import InputError
from prunas.eval.cost import Cost
from prunas.eval.peak import PeakMemory
from prunas.eval.recalibration import recalibrate_
from prunas.eval.scoring import scorer
from prunas.pipeline.alone import Training, told, train_alone
from prunas.pipeline.artifact import save
from prunas.pipeline.files import write_text
from prunas.pipeline.shared_weights import SharedWeights
from prunas.pipeline.sources import train_source
from prunas.pipeline.stages import Job, sort_channels, train_full
from prunas.pipeline.transformers import METHODS, Seeker, seeker
from prunas.supernet.resolution import seeing, side_of
from prunas.supernet.space import Candidate
from prunas.supernet.tensors import tensors_of
from prunas.supernet.trace import trace
from prunas.transformer_nat.method import Scored
from prunas.transformer_nat.replacement import Replacement, replaced
from prunas.transformer_nat.traced import TracedTransformations, traced_transformations

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


def transform(job: Job, stated: Mapping[str, Any], *, fresh: bool = False) -> dict[str, Any]:
    """Replace redundant operators of the run's found network; the result goes to model/.

    A transformation that is done is read back; one that was stopped goes on, to the result of an
    uninterrupted one.

    Args:
        job: its search is done.
        stated: fields of `Settings`; what is not there is as it was, or its default.
        fresh: forget an earlier transformation.

    Returns:
        The "transformation" of run.json, which is written.

    Raises:
        InputError: there is no found network, nothing in it may be replaced, or the run was
            transformed with other settings.
        RunError: a training diverges, or the disk is full.
    """
    result = job.folder.read().get("result") or {}
    if "candidate" not in result:
        raise InputError(f"{job.folder.path} has no found network yet; run its search first")
    found = Candidate(result["candidate"])
    record = Record.of(job, found, stated, fresh=fresh)
    done = job.folder.read().get("transformation")
    if done and done.get("key") == record.key:
        _give(job, done)
        return dict(done)
    work = _Work(job, found, record)
    work.traced  # noqa: B018 - refused here if nothing may be replaced
    with job.folder.stage("replace redundant operators"):
        scores = work.searched()
    entry = work.entry(scores, work.last_round(scores))
    _give(job, entry)
    return entry


def replacements_of(result: Mapping[str, Any]) -> tuple[Replacement, ...]:
    """What is replaced in the found network, by the "result" of run.json; nothing by default."""
    return tuple(map(Replacement.from_json, result.get("replacements", ())))


def _give(job: Job, entry: Mapping[str, Any]) -> None:
    """Write the transformed network and what run.json says of it."""
    result = dict(job.folder.read()["result"])
    rows, before = entry["replacements"], result.get("replacements", [])
    if rows != before:
        _forget_transformed(result)
    result.pop("replacements", None)
    if rows:
        result |= {
            "replacements": rows,
            "macs_transformed": entry["macs"],
            "params_transformed": entry["params"],
        }
    trained = "transformed" in result.get("accuracy", {})
    if (rows or before) and not trained:  # else the artifact is the trained one
        found = Candidate(result["candidate"])
        network = replaced(_found_network(job, found), replacements_of(result))
        _calibrate(job, network, found)
        save(told(network, job.sees(found)), job.folder.model)
    job.folder.update({"transformation": dict(entry), "result": result})


def _forget_transformed(result: dict[str, Any]) -> None:
    """What was measured of an earlier transformation."""
    for name in ("macs_transformed", "params_transformed", "paired_transformed"):
        result.pop(name, None)
    accuracy = {k: v for k, v in result.get("accuracy", {}).items() if k != "transformed"}
    seeds = [{k: v for k, v in r.items() if k != "transformed"} for r in result.get("seeds", ())]
    for name, value in (("accuracy", accuracy), ("seeds", seeds)):
        if name in result:
            result[name] = value


def _found_network(job: Job, found: Candidate) -> nn.Module:
    """The found network with the weights that it was found with, its statistics its own."""
    full, prior = sort_channels(job, train_full(job))
    network = train_source(job, full, prior).alone(found)
    _calibrate(job, network, found)
    return network


def _calibrate(job: Job, network: nn.Module, found: Candidate) -> None:
    with seeing(network, side_of(job.space, found)):
        recalibrate_(network, job.fixed(job.data.train, job.request.calibration))


# -- what is on record -----------------------------------------------------------------------------


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
        f"{job.folder.path} was transformed with {name}={before[name]}, now it is {after[name]};"
        " repeat its settings, or transform it anew with --fresh"
    )


# -- the work --------------------------------------------------------------------------------------


@final
class _Work:
    """A transformation of the found network that is going on."""

    def __init__(self, job: Job, found: Candidate, record: Record) -> None:
        self.job, self.found, self.record = job, found, record
        self.settings = record.settings

    @cached_property
    def network(self) -> nn.Module:
        return _found_network(self.job, self.found)

    @cached_property
    def traced(self) -> TracedTransformations:
        held = tensors_of(self.network)
        keep = [p for p in self.job.request.keep if _matches(p, held)]
        return traced_transformations(self.network, self.job.sees(self.found), keep=keep)

    @cached_property
    def shared(self) -> SharedWeights:
        settings, side = self.settings, side_of(self.job.space, self.found)
        return SharedWeights(
            self.job, self.traced, self.record.key, settings.epochs, seed=settings.seed, side=side
        )

    def searched(self) -> list[Scored]:
        """Transformations with scores on the same weights, different ones, the best first."""
        settings, moves = self.settings, self.traced.moves
        rng = np.random.default_rng([settings.seed, 7])
        seek = seeker(settings.method, moves, rng)
        rounds = max(1, settings.epochs)
        share = math.ceil(settings.evaluations / rounds)
        alternately = seek.learns and rounds > 1
        latest: dict[Candidate, float] = {}
        for index in range(rounds):
            self.shared.train(index + 1)
            if alternately or index + 1 == rounds:
                seek.anew()
                latest = self._round(index, seek, share if alternately else settings.evaluations)
        final = [moves.source, *seek.proposals()]
        latest |= zip(final, self._scores(rounds - 1, final), strict=True)
        return self._ranked(latest)

    def _round(self, index: int, seek: Seeker, wanted: int) -> dict[Candidate, float]:
        latest: dict[Candidate, float] = {}
        with self.job.progress.task("transform") as task:
            while len(latest) < wanted and (asked := seek.ask(min(_BATCH, wanted - len(latest)))):
                scores = self._scores(index, asked)
                seek.tell([Scored(c, score) for c, score in zip(asked, scores, strict=True)])
                latest |= zip(asked, scores, strict=True)
                task.update(len(latest), wanted)
        return latest

    def _scores(self, index: int, asked: Sequence[Candidate]) -> list[float]:
        """Scores on the weights of a round; those on record are not measured again.

        What differs only where it no longer matters is the same network.
        """
        known = self.record.scores.setdefault(index, {})
        plain = [self._plain(each) for each in asked]
        if any(each not in known for each in plain) and self.shared.done > index + 1:
            raise InputError(
                f"{self.record.file} lacks scores on weights that were trained on; transform the"
                " run anew with --fresh"
            )
        for candidate in dict.fromkeys(each for each in plain if each not in known):
            known[candidate] = self._score(candidate)
            self.record.keep()
        return [known[each] for each in plain]

    def _plain(self, positions: Candidate) -> Candidate:
        """The same network, with the source's operator on every edge that does not matter."""
        moves = self.traced.moves
        fed = moves.graph.fed(moves.operators(positions))
        pairs = zip(positions, moves.graph.edges, strict=True)
        return Candidate(place if edge.source in fed else 0 for place, edge in pairs)

    def _score(self, positions: Candidate) -> float:
        job, traced = self.job, self.traced
        with seeing(traced.network, side_of(job.space, self.found)):
            return next(self._scorer([traced.candidate(positions)]))

    @cached_property
    def _scorer(self) -> Callable[[Sequence[Candidate]], Iterator[float]]:
        job, request = self.job, self.job.request
        return scorer(
            self.shared.source,
            job.fixed(job.data.train, request.calibration),
            job.fixed(job.data.held_out, request.scoring),
        )

    def _ranked(self, scores: Mapping[Candidate, float]) -> list[Scored]:
        moves = self.traced.moves
        distinct = {self._plain(each): score for each, score in scores.items()}
        rows = [Scored(each, s) for each, s in distinct.items() if math.isfinite(s)]
        return sorted(rows, key=lambda row: (-row.score, *self._price(row.candidate, moves)))

    def _price(self, positions: Candidate, moves: Any) -> tuple[int, int]:
        cost = moves.cost(positions)
        return cost.macs, cost.params

    # -- choosing ----------------------------------------------------------------------------------

    def last_round(self, ranked: Sequence[Scored]) -> list[dict[str, Any]]:
        """The finalists with their held-out accuracies, the best first; of equals the cheaper."""
        job, count = self.job, self.settings.finalists
        source = self.traced.moves.source
        inside = [row for row in ranked if row.candidate == source or self._fits(row.candidate)]
        if count == 1:
            return [self._finalist(row, None) for row in inside[:1]]
        others = [row for row in inside if row.candidate != source][: count - 1]
        entrants = [*(row for row in inside if row.candidate == source), *others]
        trainings = [self._training(row.candidate) for row in entrants]
        with (
            job.folder.stage("train the transformed networks that score best"),
            job.progress.task("finalists") as task,
        ):
            trained = train_alone(job, trainings, lambda n: task.update(n, len(trainings)))
        rows = [
            self._finalist(row, result.held_out)
            for row, result in zip(entrants, trained, strict=True)
        ]
        return sorted(rows, key=lambda row: (-row["held_out"], row["macs"], row["params"]))

    def _training(self, positions: Candidate) -> Training:
        request = self.job.request
        purpose: Any = "scratch-finalist" if request.from_scratch else "finalist"
        return Training(
            self.found,
            request.finalist_recipe(),
            request.seed,
            purpose,
            self.traced.replacements(positions),
        )

    def _finalist(self, row: Scored, held_out: float | None) -> dict[str, Any]:
        macs, params = self._totals(row.candidate)
        return {
            "positions": list(row.candidate),
            "score": row.score,
            "held_out": held_out,
            "macs": macs,
            "params": params,
        }

    def _totals(self, positions: Candidate) -> tuple[int, int]:
        """Multiply-accumulates and parameters of the whole network."""
        cost, candidate = self._cost, self.traced.candidate(positions)
        return int(cost.macs([candidate])[0]), int(cost.params([candidate])[0])

    @cached_property
    def _cost(self) -> Cost:
        return Cost(self.traced.space)

    def _fits(self, positions: Candidate) -> bool:
        """Whether the budget's limit of memory is kept too; other costs never grow."""
        limit = self.job.feasible.limits.get("memory")
        if limit is None:
            return True
        network = replaced(self.network, self.traced.replacements(positions))
        space = trace(network, self.job.sees(self.found), genes=("width",))
        return int(PeakMemory(network, space).bytes([space.full()])[0]) <= limit

    # -- what run.json says ------------------------------------------------------------------------

    def entry(self, ranked: Sequence[Scored], rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The entry of run.json."""
        traced, best = self.traced, rows[0]
        source = traced.moves.source
        chosen = Candidate(best["positions"])
        score = {row.candidate: row.score for row in ranked}
        held_out = {Candidate(row["positions"]): row["held_out"] for row in rows}
        macs, params = self._totals(source)
        return {
            "key": self.record.key,
            "method": self.settings.method,
            "evaluations": sum(map(len, self.record.scores.values())),
            "size": str(traced.moves.size),
            "macs_before": macs,
            "params_before": params,
            "macs": best["macs"],
            "params": best["params"],
            "score_before": score.get(source),
            "score": best["score"],
            "held_out_before": held_out.get(source),
            "held_out": best["held_out"],
            "finalists": rows,
            "replacements": [asdict(each) for each in traced.replacements(chosen)],
            "graph": self._picture(chosen),
        }

    def _picture(self, chosen: Candidate) -> dict[str, Any]:
        """The graph before and after, as data."""
        moves = self.traced.moves
        after = moves.operators(chosen)
        live = set(moves.graph.live(after))
        rows = []
        triples = zip(self.traced.paths, moves.graph.edges, after, strict=True)
        for index, (path, edge, name) in enumerate(triples):
            place, now = edge.places[0], edge.cost_of(name)
            rows.append(
                {
                    "path": path,
                    "source": edge.source,
                    "target": edge.target,
                    "before": edge.operator,
                    "after": name,
                    "live": index in live,
                    "options": len(moves.options[index]),
                    "channels": [place.in_channels, place.out_channels],
                    "size": list(place.out_size),
                    "macs": [edge.cost.macs, now.macs if index in live else 0],
                    "params": [edge.cost.params, now.params if index in live else 0],
                }
            )
        return {"nodes": list(moves.graph.nodes), "edges": rows}


def _matches(pattern: str, names: Mapping[str, torch.Tensor]) -> bool:
    return any(fnmatchcase(n, pattern) or fnmatchcase(n, f"{pattern}.*") for n in names)
