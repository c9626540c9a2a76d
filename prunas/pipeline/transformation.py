"""Between search and final training: redundant operators of the found network are replaced.

One set of weights holds the found network and all that may take the place of its operators. A
policy learns on it which replacements help, alternately with the weights; other methods search when
the weights are trained, since their scores would be about older ones. The best few are then trained
alone for a while, the found network itself among them, and compared on held-out images: the
cheapest that is right there as often as the found network is chosen.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from torch import nn

from prunas.errors import InputError
from prunas.eval.cost import Cost
from prunas.eval.latency.whole import measured
from prunas.eval.peak import PeakMemory
from prunas.pipeline.alone import Training, told, train_alone
from prunas.pipeline.artifact import require_replaceable, save
from prunas.pipeline.files import writing
from prunas.pipeline.finals import save_found
from prunas.pipeline.found import found_network
from prunas.pipeline.seeking import Seeking, entrants
from prunas.pipeline.shared_weights import Course, SharedWeights
from prunas.pipeline.sources import train_source
from prunas.pipeline.stages import Job, sort_channels, train_full
from prunas.pipeline.transformation_record import Record, replacements_of
from prunas.supernet.elastic import Elastic
from prunas.supernet.resolution import side_of
from prunas.supernet.skeleton import copied
from prunas.supernet.space import Candidate
from prunas.supernet.tensors import tensors_of
from prunas.supernet.trace import trace
from prunas.transformer_nat.method import Scored
from prunas.transformer_nat.replacement import replaced
from prunas.transformer_nat.traced import TracedTransformations, traced_transformations


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
    require_replaceable(job.folder.model)
    found = Candidate(result["candidate"])
    record = Record.of(job, found, stated, fresh=fresh)
    if fresh:
        with writing(record.file):
            record.file.unlink(missing_ok=True)
            job.folder.checkpoint("transformation").unlink(missing_ok=True)
    done = None if fresh else job.folder.read().get("transformation")
    if done and done.get("key") == record.key:
        _give(job, done)
        return dict(done)
    work = _Work(job, found, record)
    work.traced  # noqa: B018 - refused here if nothing may be replaced
    record.keep()  # so that it goes on with these settings wherever it is stopped
    with job.folder.stage("replace redundant operators"):
        scores = work.searched()
    entry = work.entry(scores, work.last_round(scores))
    _give(job, entry)
    return entry


def preferred(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Networks that were trained alike, the one to choose first.

    First those that are right at least as often on held-out images as the source, the cheapest
    first and of equally cheap ones the most accurate; then the others, the most accurate first.

    Args:
        rows: "held_out" (accuracy), "macs" and "params" of each; the source comes first.
    """
    bar = rows[0]["held_out"]
    passed = (row for row in rows if row["held_out"] >= bar)
    failed = (row for row in rows if row["held_out"] < bar)
    return [
        *sorted(passed, key=lambda row: (row["macs"], row["params"], -row["held_out"])),
        *sorted(failed, key=lambda row: (-row["held_out"], row["macs"], row["params"])),
    ]


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
    trained = result.get("accuracy", {})
    if before and not rows and "found" in trained:
        save_found(job, result)
    elif (rows or before) and "transformed" not in trained:  # else the artifact is the trained one
        found = Candidate(result["candidate"])
        network = found_network(job, _source(job), found, replacements_of(result))
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


def _source(job: Job) -> Elastic:
    """The weights that the found network was found with."""
    full, prior = sort_channels(job, train_full(job))
    return train_source(job, full, prior)


# -- the work --------------------------------------------------------------------------------------


@final
class _Work:
    """A transformation of the found network that is going on."""

    def __init__(self, job: Job, found: Candidate, record: Record) -> None:
        self.job, self.found, self.record = job, found, record
        self.settings = record.settings

    @cached_property
    def network(self) -> nn.Module:
        return found_network(self.job, _source(self.job), self.found)

    @cached_property
    def traced(self) -> TracedTransformations:
        held = tensors_of(self.network)
        keep = [p for p in self.job.request.keep if _matches(p, held)]
        return traced_transformations(self.network, self.job.sees(self.found), keep=keep)

    def searched(self) -> list[Scored]:
        """Transformations with scores on the same weights, different ones, the best first."""
        settings, record = self.settings, self.record
        weights = SharedWeights(
            self.traced,
            self._course(),
            file=self.job.folder.checkpoint("transformation"),
            owner=json.dumps(record.key, sort_keys=True),
            progress=self.job.progress,
        )
        moves, progress = self.traced.moves, self.job.progress
        return Seeking(moves, weights, settings, record.scores, record.keep, progress).ranked()

    def _course(self) -> Course:
        job, request = self.job, self.job.request
        return Course(
            train=job.data.train,
            calibration=job.fixed(job.data.train, request.calibration),
            held_out=job.fixed(job.data.held_out, request.scoring),
            recipe=request.ranking_recipe(max(1, self.settings.epochs)),
            seed=self.settings.seed,
            paths=self.settings.paths,
            device=job.device,
            side=side_of(job.space, self.found),
        )

    # -- choosing ----------------------------------------------------------------------------------

    def last_round(self, ranked: Sequence[Scored]) -> list[dict[str, Any]]:
        """The finalists with their held-out accuracies, the chosen one first (`preferred`)."""
        job, moves = self.job, self.traced.moves
        if self.settings.finalists == 1:
            inside = (r for r in ranked if r.candidate == moves.source or self._fits(r.candidate))
            return [self._finalist(next(inside), None)]
        entered = entrants(moves, ranked, self.settings, self._fits)
        trainings = [self._training(row.candidate) for row in entered]
        with (
            job.folder.stage("train the transformed networks that score best"),
            job.progress.task("finalists") as task,
        ):
            trained = train_alone(job, trainings, lambda n: task.update(n, len(trainings)))
        rows = [
            self._finalist(row, result.held_out)
            for row, result in zip(entered, trained, strict=True)
        ]
        return preferred(rows)

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
        """Whether limits of memory and latency are kept too; other costs never grow."""
        limits = self.job.feasible.limits
        memory, latency = limits.get("memory"), limits.get("latency")
        return (memory is None or self._memory(positions) <= memory) and (
            latency is None or self._nanoseconds(positions) <= latency
        )

    def _memory(self, positions: Candidate) -> int:
        network = replaced(self.network, self.traced.replacements(positions))
        space = trace(network, self.job.sees(self.found), genes=("width",))
        return int(PeakMemory(network, space).bytes([space.full()])[0])

    def _nanoseconds(self, positions: Candidate) -> float:
        """Measured beside the found network, whose time is what it was when it was found."""
        job, traced = self.job, self.traced
        assert job.stopwatch is not None, "budgets of latency have one"
        own, changed = measured(
            copied(traced.network, lambda tensor: tensor.detach().cpu()).eval(),
            traced.space,
            [traced.space.full(), traced.candidate(positions)],
            job.stopwatch.backend,
            np.random.default_rng([self.settings.seed, 10]),
            batch=job.request.latency_batch,
            told=job.progress.say,
        )
        found: float = job.folder.read()["result"]["latency"]
        return 1e6 * found * changed.milliseconds / own.milliseconds

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
