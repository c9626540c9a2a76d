"""Processors and threads: how many there are, and how many are used."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


def cores() -> int:
    """How many this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(allowed(0)) if allowed else os.cpu_count() or 1


@contextmanager
def threads(count: int) -> Iterator[None]:
    """`count` threads for torch inside; as found afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def single_threaded() -> Iterator[None]:
    """One thread for torch and for every library of linear algebra; as found afterwards.

    The number of threads decides in which order sums are taken, and so their last bits.
    """
    with threads(1), threadpool_limits(1):
        yield
