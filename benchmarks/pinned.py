"""Independent work on all cores: one process of one thread for each, which begins no others."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any

from prunas.allocator import keep_freed_memory


def pinned(function: Callable[..., Any], work: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    """Results as they are finished."""
    keep_freed_memory()  # as the program does
    context = get_context("spawn")
    cores, queue = sorted(os.sched_getaffinity(0)), context.Queue()
    for core in cores:
        queue.put(core)
    with ProcessPoolExecutor(len(cores), context, _pin, (queue,)) as pool:
        for finished in as_completed([pool.submit(function, *each) for each in work]):
            yield finished.result()


def _pin(cores: Any) -> None:
    os.sched_setaffinity(0, {cores.get()})
