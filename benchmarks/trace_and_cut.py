"""CPU time of finding and cutting the channel groups, beside Torch-Pruning's pruner.

Both halve every width of the same networks at 224 pixels, alternately in one process: prunas traces
the network and cuts the uniform half, Torch-Pruning builds a magnitude pruner (which traces) and
steps once. Torch-Pruning also computes importances and takes a fresh copy, since it prunes in
place; the copy is not timed.

    pip install torch-pruning==1.6.1
    python benchmarks/trace_and_cut.py
"""

import copy
import time
from collections.abc import Callable
from statistics import geometric_mean, median

import prunas

import timm  # isort: skip - prunas declares what timm's imports need
import torch
import torch_pruning
from torch import nn

MODELS = ("mobilenetv2_100", "resnet50", "efficientnet_b0", "convnext_tiny")
REPEATS = 7
INPUT_SIZE = (3, 224, 224)


def by_prunas(network: nn.Module) -> None:
    space = prunas.trace(network, INPUT_SIZE)
    prunas.cut(network, space, space.uniform(0.5))


def by_torch_pruning(network: nn.Module) -> None:
    classifier = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
    pruner = torch_pruning.pruner.MagnitudePruner(
        network,
        torch.randn(1, *INPUT_SIZE),
        importance=torch_pruning.importance.MagnitudeImportance(),
        pruning_ratio=0.5,
        ignored_layers=[classifier],
    )
    pruner.step()


def milliseconds(work: Callable[[nn.Module], None], network: nn.Module) -> float:
    start = time.process_time()
    work(network)
    return 1e3 * (time.process_time() - start)


def main() -> None:
    torch.set_num_threads(1)
    ratios = []
    print(
        f"{'network':20} {'prunas':>10} {'torch-pruning':>14} {'ratio':>7}   (ms of CPU, medians)"
    )
    for name in MODELS:
        network = timm.create_model(name).eval()
        ours, theirs = [], []
        for _ in range(REPEATS):
            ours.append(milliseconds(by_prunas, network))
            theirs.append(milliseconds(by_torch_pruning, copy.deepcopy(network)))
        ratios.append(median(theirs) / median(ours))
        print(f"{name:20} {median(ours):10.0f} {median(theirs):14.0f} {ratios[-1]:7.2f}")
    print(f"{'geometric mean':46} {geometric_mean(ratios):7.2f}")


if __name__ == "__main__":
    main()
