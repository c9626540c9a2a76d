"""Final training: the found network and the uniform one, by the same recipe and seeds."""

import hashlib
import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from prunas.errors import InputError
from prunas.eval.accuracy import accuracy
from prunas.eval.recalibration import recalibrate_
from prunas.eval.statistics import paired
from prunas.pipeline.artifact import save
from prunas.pipeline.files import write_text
from prunas.pipeline.progress import Progress
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.stages import Job, sort_channels, train_full, train_shared
from prunas.pipeline.training import train
from prunas.supernet.cut import cut
from prunas.supernet.space import Candidate

KINDS = ("found", "uniform")


@dataclass(frozen=True)
class Final:
    """One finished final training: accuracies in 0..1."""

    kind: str
    seed: int
    held_out: float
    test: float
    recipe: dict[str, Any]


def train_finals(job: Job) -> dict[str, Any]:
    """Train what the search found beside the uniform network, and read the test set.

    Both start from the shared weights, are taught by the full network, and see the same images in
    the same order for each seed. Finished trainings are kept and not repeated. The found network
    of the seed with the best held-out accuracy becomes the artifact in model/.

    Returns:
        The "result" of run.json, which is written.

    Raises:
        InputError: the run has no search result yet.
        RunError: a training diverges, or the disk is full.
    """
    result = dict(job.folder.read().get("result") or {})
    if "candidate" not in result:
        raise InputError(f"{job.folder.path} has no found network yet; run its search first")
    work = [(kind, seed) for seed in range(job.request.seeds) for kind in KINDS]
    with job.folder.stage("train the found and the uniform network"):
        finals = _all(job, work)
    full = accuracy(train_full(job), job.fixed(job.data.test))
    best = max(finals["found"], key=lambda final: final.held_out)
    save(_final_network(job, "found", best.seed), job.folder.model)
    result |= _compared(finals, full)
    entries = {**job.folder.read(), "result": result}
    result["seconds"] = round(sum(stage["seconds"] for stage in entries["stages"]), 3)
    job.folder.update({"result": result})
    return result


def _compared(finals: dict[str, list[Final]], full: float) -> dict[str, Any]:
    found, uniform = ([final.test for final in finals[kind]] for kind in KINDS)
    rows = [
        {"seed": final.seed, "full": full, "uniform": other, "found": final.test}
        for final, other in zip(finals["found"], uniform, strict=True)
    ]
    means = {"full": full, "uniform": float(np.mean(uniform)), "found": float(np.mean(found))}
    entries: dict[str, Any] = {"accuracy": means, "seeds": rows}
    if len(rows) > 1:
        test = paired(found, uniform)
        entries["paired"] = {
            "mean": test.mean,
            "low": test.low,
            "high": test.high,
            "p_value": test.p_value,
            "n": test.n,
            "sentence": test.sentence,
        }
    return entries


def _all(job: Job, work: list[tuple[str, int]]) -> dict[str, list[Final]]:
    """The finished trainings by kind, each in the order of the seeds."""
    done: list[Final] = []
    with job.progress.task("final training") as task:
        for final in _trained(job, work):
            done.append(final)
            task.update(len(done), len(work))
    ordered = sorted(done, key=lambda final: final.seed)
    return {kind: [final for final in ordered if final.kind == kind] for kind in KINDS}


def _trained(job: Job, work: list[tuple[str, int]]) -> Iterator[Final]:
    open_work = [entry for entry in work if _finished(job, *entry) is None]
    yield from (final for entry in work if (final := _finished(job, *entry)) is not None)
    cores = os.cpu_count() or 1
    # two processes of one thread finish more training than one process of two threads; the number
    # of threads changes the last bits, so it must not depend on what an interruption left to do
    threads = max(1, cores // len(work))
    processes = min(cores, len(open_work))
    if job.device.type != "cpu" or processes < 2:
        with _threads(threads):
            yield from (_train_one(job, kind, seed) for kind, seed in open_work)
        return
    context = multiprocessing.get_context("spawn")
    with _deaf_to_interrupts():
        pool = context.Pool(processes, _begin_worker, (str(job.folder.path), threads))
    with pool:
        yield from pool.imap_unordered(_work, open_work)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes begun here never see Ctrl-C: the parent does, and ends them.

    A worker that ignored the signal by itself could only do so after its imports. A signal that
    arrives meanwhile waits for the parent.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_worker_job: Job | None = None


def _begin_worker(folder: str, threads: int) -> None:
    global _worker_job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # also where signals cannot be masked
    torch.set_num_threads(threads)
    _worker_job = Job(RunFolder.open(Path(folder)), torch.device("cpu"), Progress())


def _work(entry: tuple[str, int]) -> Final:
    assert _worker_job is not None, "the pool calls _begin_worker first"
    return _train_one(_worker_job, *entry)


def _checkpoint(job: Job, kind: str, seed: int) -> Path:
    """The weights of a training; a longer one, or of what a longer search found, is another."""
    decisive = [_candidate(job, kind), asdict(job.request.final_recipe())]
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
    return job.folder.checkpoint(f"final-{kind}-{seed}-{digest[:8]}")


def _candidate(job: Job, kind: str) -> Candidate:
    result = job.folder.read()["result"]
    return Candidate(result["candidate" if kind == "found" else "uniform_candidate"])


def _record(job: Job, kind: str, seed: int) -> Path:
    return _checkpoint(job, kind, seed).with_suffix(".json")


def _finished(job: Job, kind: str, seed: int) -> Final | None:
    """The recorded result of a training."""
    file = _record(job, kind, seed)
    return Final(**json.loads(file.read_text())) if file.exists() else None


def _train_one(job: Job, kind: str, seed: int) -> Final:
    network = _final_network(job, kind, seed)
    final = Final(
        kind,
        seed,
        accuracy(network, job.fixed(job.data.held_out)),
        accuracy(network, job.fixed(job.data.test)),
        asdict(job.request.final_recipe()),
    )
    write_text(_record(job, kind, seed), json.dumps(asdict(final)))
    return final


def _final_network(job: Job, kind: str, seed: int) -> nn.Module:
    """The trained network; its checkpoint, where there is one, is taken up."""
    teacher, prior = sort_channels(job, train_full(job))
    supernet = train_shared(job, teacher, prior)
    network = cut(supernet.network, job.space, _candidate(job, kind))
    # statistics of its own to start from: a short training would keep those of the full network
    recalibrate_(network, job.fixed(job.data.train, job.request.calibration))
    train(
        network,
        job.data.train,
        job.request.final_recipe(),
        seed=seed,
        teacher=teacher,
        device=job.device,
        checkpoint=_checkpoint(job, kind, seed),
    )
    return network
