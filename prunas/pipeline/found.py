"""The found network: everything up to it, and what run.json says of it."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch import nn

from prunas.eval.latency.worth import Worth
from prunas.eval.recalibration import recalibrate_
from prunas.pipeline.alone import told
from prunas.pipeline.artifact import require_replaceable, save
from prunas.pipeline.finalists import Finalist, last_round
from prunas.pipeline.networks import untrained
from prunas.pipeline.scores import evaluator
from prunas.pipeline.sources import train_source
from prunas.pipeline.stages import Job, search, sort_channels, train_full
from prunas.pipeline.transformation_record import replacements_of
from prunas.search.budget import as_values
from prunas.search.costs import COSTS
from prunas.search.method import Scored
from prunas.search.nsga2 import front
from prunas.supernet.elastic import Elastic
from prunas.supernet.resolution import seeing, side_of
from prunas.supernet.space import Candidate
from prunas.transformer_nat.replacement import Replacement, replaced


def run_search_stages(job: Job) -> Candidate:
    """Everything up to the found network, which is in run.json and, untrained, in model/.

    Stages that are finished are read from the folder instead of repeated.

    Raises:
        InputError: the request cannot be met (budget out of reach, nothing prunable, ...).
        RunError: a training diverges, or the disk is full.
    """
    require_replaceable(job.folder.model)
    job.progress.say(f"{job.request.model} on {job.data.name}: {job.space!r}")
    limits = ", ".join(f"{n}: {COSTS[n].written(v)}" for n, v in job.feasible.limits.items())
    job.progress.say(f"budget: {limits}")  # refused here if out of reach
    if note := untrained(job.blank, given=True):
        job.progress.say(note)
    network, prior = sort_channels(job, train_full(job))
    source = train_source(job, network, prior)
    with evaluator(job, source, job.request.source) as executor:
        scored = search(job, executor, prior)
    finalists = last_round(job, scored, prior)
    found = finalists[0].candidate
    entries = _entries(job, scored, finalists)
    before = job.folder.read().get("result") or {}
    if before.get("candidate") == list(found):  # the same network: what was trained stays valid
        entries["result"] = {**before, **entries["result"]}
    if "accuracy" not in entries["result"]:
        small = found_network(job, source, found, replacements_of(entries["result"]))
        save(told(small, job.sees(found)), job.folder.model)
    job.folder.update(entries)
    return found


def found_network(
    job: Job, source: Elastic, found: Candidate, changes: Sequence[Replacement] = ()
) -> nn.Module:
    """The found network, some operators replaced, with its part of the weights of `source`.

    Its batch norms have statistics of its own.
    """
    network = replaced(source.alone(found), changes)
    with seeing(network, side_of(job.space, found)):
        recalibrate_(network, job.fixed(job.data.train, job.request.calibration))
    return network


def _entries(job: Job, scored: Sequence[Scored], finalists: Sequence[Finalist]) -> dict[str, Any]:
    """The entries of run.json that the search decides."""
    found = finalists[0].candidate
    smaller = job.smaller_input
    table = as_values([job.space.full(), job.uniform, found, smaller or found])
    macs, params = job.cost.macs(table).tolist(), job.cost.params(table).tolist()
    memory = job.prices.memory(table).tolist() if "memory" in job.feasible.limits else []
    pareto = front(scored, job.cost)
    return {
        "device": str(job.device),
        "budget": dict(job.feasible.limits),
        "network": _network_entry(job),
        "space": {
            "size": str(job.space.size),
            "genes": [asdict(gene) for gene in job.space.genes],
            "pinned": [asdict(entry) for entry in job.space.pinned],
            "notes": list(job.space.notes),
        },
        "result": {
            "candidate": list(found),
            "uniform_candidate": list(job.uniform),
            "macs": macs[2],
            "macs_full": macs[0],
            "macs_uniform": macs[1],
            "params": params[2],
            "params_full": params[0],
            "params_uniform": params[1],
            "input_size": list(job.sees(found)),
            **dict(zip(("memory_full", "memory_uniform", "memory"), memory, strict=False)),
            **_times(job, found, macs[2] / macs[0]),
            **(
                {
                    "smaller_candidate": list(smaller),
                    "macs_smaller": macs[3],
                    "params_smaller": params[3],
                }
                if smaller
                else {}
            ),
            "score": finalists[0].score,
            "finalists": [
                {**asdict(each), "candidate": list(each.candidate)} for each in finalists
            ],
            "evaluations": len(scored),
            "failed": sum(math.isnan(entry.score) for entry in scored),
            "front": [
                {"macs": int(job.cost.macs([entry.candidate])[0]), "score": entry.score}
                for entry in pareto
            ],
        },
    }


def _times(job: Job, found: Candidate, macs_share: float) -> dict[str, Any]:
    """What the full, the uniform and the found network take, in milliseconds, and what it says."""
    if job.stopwatch is None:
        return {}
    with job.folder.stage("measure the found network"):
        full, uniform, own = job.stopwatch.times([job.space.full(), job.uniform, found])
    worth = Worth(full, own, macs_share)
    job.progress.say(worth.sentence)
    return {
        "latency": own.milliseconds,
        "latency_spread": [own.low, own.high],
        "latency_full": full.milliseconds,
        "latency_uniform": uniform.milliseconds,
        "latency_device": job.stopwatch.backend.device.sentence,
        "latency_batch": job.request.latency_batch,
        "latency_worth": worth.sentence,
    }


def _network_entry(job: Job) -> dict[str, Any]:
    origin: Any = job.blank.prunas_origin
    form = origin["small_images"]
    return {
        "name": job.request.model,
        "input_size": list(job.data.input_size),
        "classes": list(job.data.classes),
        "small_images": form["sentence"] if form else None,
        "data": job.data.note,
    }
