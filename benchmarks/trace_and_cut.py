"""CPU time of finding and cutting the channel groups, beside Torch-Pruning's pruner.

Both halve every width of the same networks, alternately in one process: prunas traces the network
and cuts the uniform half, Torch-Pruning builds a magnitude pruner (which traces) and steps once.
Torch-Pruning also computes importances and takes a fresh copy, since it prunes in place; the copy
is not timed.

    python benchmarks/trace_and_cut.py           four networks at 224 pixels, medians of 7
    python benchmarks/trace_and_cut.py zoo 100   so many of those that Torch-Pruning handles (the
                                                 rows "ok" of its table), at the size it handled
                                                 them, medians of 3
"""

import copy
import csv
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any, Final

import numpy as np

import prunas

import timm  # isort: skip - prunas declares what timm's imports need
import torch
import torch_pruning
from torch import nn

FOUR: Final = tuple(
    (name, 224) for name in ("mobilenetv2_100", "resnet50", "efficientnet_b0", "convnext_tiny")
)
TABLE: Final = Path(__file__).with_name("torch_pruning_1.6.1_timm_1.0.31.csv")

Work = Callable[[nn.Module, int], None]


def by_prunas(network: nn.Module, side: int) -> None:
    space = prunas.trace(network, (3, side, side))
    prunas.cut(network, space, space.uniform(0.5))


def by_torch_pruning(network: nn.Module, side: int) -> None:
    classifier = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1:]
    heads: Any = {
        part.qkv: part.num_heads
        for part in network.modules()
        if isinstance(getattr(part, "qkv", None), nn.Linear)
        and isinstance(getattr(part, "num_heads", None), int)
    }
    pruner = torch_pruning.pruner.MagnitudePruner(
        network,
        torch.randn(1, 3, side, side),
        importance=torch_pruning.importance.MagnitudeImportance(),
        pruning_ratio=0.5,
        ignored_layers=classifier,
        num_heads=heads,
    )
    pruner.step()


def milliseconds(work: Work, network: nn.Module, side: int) -> float:
    start = time.process_time()
    work(network, side)
    return 1e3 * (time.process_time() - start)


def compare(models: Iterable[tuple[str, int]], repeats: int) -> None:
    ratios = {}
    print(f"{'network':36} {'prunas':>8} {'torch-pruning':>14} {'ratio':>6}   (ms of CPU, medians)")
    for name, side in models:
        network = timm.create_model(name).eval()
        ours, theirs = [], []
        for _ in range(repeats):
            ours.append(milliseconds(by_prunas, network, side))
            theirs.append(milliseconds(by_torch_pruning, copy.deepcopy(network), side))
        ratios[name] = median(theirs) / median(ours)
        print(
            f"{name:36} {median(ours):8.0f} {median(theirs):14.0f} {ratios[name]:6.2f}", flush=True
        )
    print(
        f"geometric mean of {len(ratios)}: {geometric_mean(ratios.values()):.2f} x faster;", end=" "
    )
    slower = [name for name, ratio in ratios.items() if ratio < 0.5]
    print(
        f"more than 2 x slower: {', '.join(slower) or 'none'}; slowest {min(ratios.values()):.2f}"
    )


def handled() -> list[tuple[str, int]]:
    """Networks that Torch-Pruning handles, with the size at which it did."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["status"] == "ok"]
    return [(row["model"], int(row["input_px"])) for row in rows]


def main() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="torch_pruning")
    if sys.argv[1:2] != ["zoo"]:
        compare(FOUR, 7)
        return
    models = handled()
    count = int(sys.argv[2]) if len(sys.argv) > 2 else len(models)
    drawn = np.random.default_rng(0).permutation(len(models))[:count]
    compare([models[index] for index in sorted(drawn)], 3)


if __name__ == "__main__":
    main()
