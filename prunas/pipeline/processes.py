"""Several processes: how many there may be, and how Ctrl-C leaves them to their parent."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

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


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Processes begun here never see Ctrl-C: the parent does, and ends them.

    A worker that ignored the signal by itself could only do so after its imports. A signal that
    arrives meanwhile waits for the parent.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # now: where it begins, it lets SIGINT through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
