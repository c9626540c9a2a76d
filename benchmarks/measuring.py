"""Side-by-side timing: interleaved rounds in one process, medians, ratios per round."""

from collections.abc import Callable, Mapping
from statistics import median, quantiles
from time import perf_counter

from prunas.allocator import keep_freed_memory

keep_freed_memory()  # as the program does


def interleaved(work: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each piece of work in each round; every round runs all of them once."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for piece in work.values():
        piece()  # warm-up: allocations, caches, lazy imports
    for _ in range(rounds):
        for name, piece in work.items():
            start = perf_counter()
            piece()
            seconds[name].append(perf_counter() - start)
    return seconds


def ratio(seconds: Mapping[str, list[float]], numerator: str, denominator: str) -> str:
    """Median of the per-round ratios with the quartiles."""
    ratios = [a / b for a, b in zip(seconds[numerator], seconds[denominator], strict=True)]
    low, _, high = quantiles(ratios, n=4)
    return f"{median(ratios):.3f} (quartiles {low:.3f} to {high:.3f}, {len(ratios)} rounds)"
