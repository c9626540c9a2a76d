"""Recipes of workers that travel to other processes, and misbehave as their tasks say."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Literal

from prunas.errors import InputError, RunError
from prunas.search.executors import Work
from prunas.supernet.space import Candidate
from tests.search.toys import landscape

Mood = Literal["well", "dies", "hangs", "NaN", "raises", "wrong input", "wrong run"]


@dataclass(frozen=True)
class Job:
    """A task: `mood` the first `times` it is tried, then well; its result is its value."""

    value: float
    mood: Mood = "well"
    times: int = 0


def moody(place: str) -> Work[Job, float]:
    """Work on jobs; how often each was tried is counted in a folder that all workers see."""

    def work(job: Job) -> float:
        if _tried_before(Path(place), job) >= job.times:
            return job.value
        return _MOODS[job.mood]()

    return work


def _tried_before(place: Path, job: Job) -> int:
    for tries in range(100):
        try:
            place.joinpath(f"{job.value}-{tries}").touch(exist_ok=False)
        except FileExistsError:
            continue
        return tries
    raise AssertionError("a job was tried a hundred times")


def _dies() -> float:
    os._exit(7)


def _hangs() -> float:
    Event().wait()
    raise AssertionError("nobody ends a hang")


def _raises() -> float:
    raise MemoryError("no room for 3 TB")


def _wrong_input() -> float:
    raise InputError("these are no pictures")


def _wrong_run() -> float:
    raise RunError("the loss diverges")


_MOODS: dict[Mood, Callable[[], float]] = {
    "dies": _dies,
    "hangs": _hangs,
    "NaN": lambda: math.nan,
    "raises": _raises,
    "wrong input": _wrong_input,
    "wrong run": _wrong_run,
}


def scores() -> Work[Candidate, float]:
    return landscape


def holding(pipe: str) -> Work[str, float]:
    """Work that has a named pipe open, which it tells its process, and never ends."""

    def work(task: str) -> float:
        with open(pipe, "wb", buffering=0) as opened:
            opened.write(f"{os.getpid()}".encode())
            return _hangs()

    return work


def stillborn() -> Work[Job, float]:
    raise OSError("there is no data")


def refusing() -> Work[Job, float]:
    raise InputError("this is no run")


def threads_and_environment() -> Work[str, tuple[int, str | None]]:
    """What a worker sees of the machine."""
    import torch

    return lambda name: (torch.get_num_threads(), os.environ.get(name))
