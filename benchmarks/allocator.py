"""What keeping freed memory saves: forwards and training steps in processes with and without.

Run: OMP_NUM_THREADS=1 python benchmarks/allocator.py [rounds]
"""

import json
import subprocess
import sys
from collections.abc import Callable
from statistics import median, quantiles
from time import perf_counter
from typing import Final

import torch
from torch.nn import functional as F

import prunas  # noqa: F401
from prunas.allocator import keep_freed_memory
from prunas.eval.accuracy import evaluating
from prunas.pipeline.networks import create_network

NETWORKS: Final = ("mobilenetv2_100", "resnet18")
SIDE, BATCH, STEPS = 64, 64, 12


def main(rounds: int) -> None:
    for name in NETWORKS:
        found = [(measured(name, "kept"), measured(name, "default")) for _ in range(rounds)]
        for work in ("forward", "training step"):
            ratios = [kept[work] / default[work] for kept, default in found]
            low, _, high = quantiles(ratios, n=4)
            seconds = median(default[work] for _, default in found)
            print(
                f"{name}, {work}: {median(ratios):.2f} of the time (quartiles {low:.2f} to"
                f" {high:.2f}, {rounds} rounds), {1000 * seconds:.0f} ms by default",
                flush=True,
            )


def measured(name: str, way: str) -> dict[str, float]:
    command = [sys.executable, __file__, name, way]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(output)
    return found


def one_process(name: str, way: str) -> dict[str, float]:
    """Median seconds of a forward and of a training step after it."""
    if way == "kept" and not keep_freed_memory():
        raise SystemExit("the C library is not glibc, or its settings are chosen already")
    torch.set_num_threads(1)
    network = create_network(name, classes=10, input_size=(3, SIDE, SIDE))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    images = torch.randn(BATCH, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(BATCH) % 10

    def forward() -> None:
        with evaluating(network):
            network(images)

    def training_step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()

    return {
        "forward": median(_seconds(forward) for _ in range(STEPS)),
        "training step": median(_seconds(training_step) for _ in range(STEPS)),
    }


def _seconds(work: Callable[[], None]) -> float:
    began = perf_counter()
    work()
    return perf_counter() - began


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1] in NETWORKS:
        print(json.dumps(one_process(sys.argv[1], sys.argv[2])))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
