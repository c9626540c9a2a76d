"""A training step on generated weights against one on shared weights, and a tight budget.

One step is a single random candidate: forward, backward, momentum SGD. Every source sees the same
candidates and images in a round.

Run: OMP_NUM_THREADS=1 python benchmarks/pruning_net.py [lean|published]
"""

import sys
from collections.abc import Callable, Iterator
from itertools import cycle
from statistics import median
from time import perf_counter

import numpy as np
import torch
from measuring import interleaved, ratio
from torch import nn
from torch.nn import functional as F

import prunas
from prunas.pipeline.networks import create_network
from prunas.pruningnet.forms import lean_net, published_net
from prunas.pruningnet.published import PUBLISHED
from prunas.search import Budget, Feasible
from prunas.supernet.elastic import Elastic, Supernet
from prunas.supernet.space import SearchSpace

ROUNDS = 15
CANDIDATES = 4
SIZES = ((16, 224), (64, 32))
"""Images in a batch, and their side."""


def main(which: str) -> None:
    torch.set_num_threads(1)
    if which in ("lean", "both"):
        for batch, side in SIZES:
            lean("mobilenetv2_100", batch, side)
    if which in ("published", "both"):
        for batch, side in SIZES:
            published(batch, side)
        tight()


def lean(name: str, batch: int, side: int) -> None:
    def network() -> nn.Module:
        made = create_network(name, classes=10, input_size=(3, side, side), small_images="never")
        return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    space = prunas.trace(network(), (3, side, side), genes=("width",))
    sources = {"supernet": Supernet(network(), space), "lean": lean_net(network(), space)}
    own = sum(p.numel() for p in sources["supernet"].learnt.parameters())
    all_of_it = sum(p.numel() for p in sources["lean"].learnt.parameters())
    print(f"{name}: lean PruningNet {all_of_it / own:.2f} x the network's {own} parameters")
    compare(f"{name}, lean, batch {batch}, side {side}", sources, space, batch, side)


def published(batch: int, side: int) -> None:
    """The paper's MobileNetV2, its perceptrons with 64 units as published."""
    paper = PUBLISHED["mobilenetv2"]

    def network() -> nn.Module:
        return paper.network(classes=10).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    space = paper.space(network(), (3, side, side))
    sources = {
        "supernet": Supernet(network(), space),
        "published": published_net(network(), space, hidden=paper.hidden, start="random"),
    }
    compare(
        f"MobileNetV2 1.4 x, published, batch {batch}, side {side}", sources, space, batch, side
    )


def compare(
    title: str, sources: dict[str, Elastic], space: SearchSpace, batch: int, side: int
) -> None:
    images = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch) % 10
    candidates = space.sample(np.random.default_rng(0), CANDIDATES)
    steps = {n: step(source, images, labels, cycle(candidates)) for n, source in sources.items()}
    for once in steps.values():
        for _ in candidates:
            once()  # else the first source compiles the kernels that the second one uses
    seconds = interleaved(steps, ROUNDS)
    plain, other = sources
    print(
        f"{title}: one step {ratio(seconds, other, plain)}; median"
        f" {1000 * median(seconds[other]):.0f} ms against {1000 * median(seconds[plain]):.0f} ms",
        flush=True,
    )


def step(
    source: Elastic,
    images: torch.Tensor,
    labels: torch.Tensor,
    candidates: Iterator[prunas.Candidate],
) -> Callable[[], None]:
    source.network.train()
    optimizer = torch.optim.SGD(source.learnt.parameters(), 0.01, momentum=0.9, fused=True)

    def once() -> None:
        optimizer.zero_grad()
        with source.running(next(candidates)) as network:
            F.cross_entropy(network(images), labels).backward()
        optimizer.step()

    return once


def tight() -> None:
    """The first population at 45 M multiply-accumulates, which rejection never finds."""
    with torch.device("meta"):
        network = PUBLISHED["mobilenetv2"].network()
    space = PUBLISHED["mobilenetv2"].space(network)
    cost = prunas.Cost(space)
    seconds = []
    for seed in range(9):
        began = perf_counter()
        found = Feasible(space, Budget.parse("macs=45M"), cost).sample(
            np.random.default_rng(seed), 50
        )
        seconds.append(perf_counter() - began)
        assert len(set(found)) == 50
        assert (cost.macs(found) <= 45e6).all()
    print(f"50 candidates within 45 M: median {median(seconds):.3f} s, most {max(seconds):.3f} s")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "both")
