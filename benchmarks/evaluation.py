"""One candidate evaluation and one supernet step against what they cannot be faster than.

Run: OMP_NUM_THREADS=1 python benchmarks/evaluation.py
"""

import copy
from statistics import median

import numpy as np
import torch
from measuring import interleaved, ratio
from torch.nn import functional as F

import prunas
from prunas.eval.accuracy import accuracy
from prunas.eval.recalibration import recalibrate_
from prunas.eval.scoring import scorer
from prunas.pipeline.networks import create_network
from prunas.search import Budget, Feasible
from prunas.supernet.elastic import Supernet
from prunas.supernet.resolution import resized, side_of

ROUNDS = 9
COLD, WARM = 40, 40  # training steps
SIDE = 32
GENES = ("width", "depth", "operator", "kernel")
Batch = tuple[torch.Tensor, torch.Tensor]


def main() -> None:
    torch.set_num_threads(1)
    for name in ("mobilenetv2_100", "resnet18"):
        network = create_network(name, classes=10, input_size=(3, SIDE, SIDE))
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        space = prunas.trace(network, (3, SIDE, SIDE), genes=("width",))  # as the main job does
        middle = space.uniform(0.6)
        evaluation(name, Supernet(network, space), middle)
        step(name, Supernet(network, space), middle)
    for name in ("mobilenetv2_100", "mobilenetv3_small_100", "resnet18"):
        joint(name)


def joint(name: str) -> None:
    """Evaluations with genes of all kinds, of random candidates.

    Shared weights resize images on the way in, as the main job does; the bare network is given
    small ones.
    """
    network = create_network(name, classes=10, input_size=(3, SIDE, SIDE))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    sides = (SIDE // 2, 3 * SIDE // 4)
    space = prunas.trace(network, (3, SIDE, SIDE), genes=GENES, resolutions=sides)
    kinds = ", ".join(sorted({gene.kind for gene in space.genes}))
    for candidate in space.sample(np.random.default_rng(0), 4):
        print(f"{kinds}, images of side {side_of(space, candidate)}: ", end="")
        evaluation(name, Supernet(network, space), candidate)


def images(count: int, batch: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    result = []
    for _ in range(count // batch):
        pictures = torch.randn(batch, 3, SIDE, SIDE, generator=generator)
        labels = torch.randint(0, 10, (batch,), generator=generator)
        result.append((pictures.contiguous(memory_format=torch.channels_last), labels))
    return result


def evaluation(name: str, supernet: Supernet, candidate: prunas.Candidate) -> None:
    """Recalibration on 128 images and accuracy on 256: on shared weights, and on the cut network.

    Both sides run in one round; the cut network is made beforehand, which costs nothing here.
    """
    calibration, held_out = images(128, 128), images(256, 128)
    score = scorer(supernet, calibration, held_out)
    small = prunas.cut(supernet.network, supernet.space, candidate)
    small.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    side = side_of(supernet.space, candidate)
    small_ones = [
        [(resized(pictures, side), labels) for pictures, labels in batches]
        for batches in (calibration, held_out)
    ]

    def bare() -> None:
        recalibrate_(small, small_ones[0])
        accuracy(small, small_ones[1])

    seconds = interleaved({"ours": lambda: list(score([candidate])), "bare": bare}, ROUNDS)
    print(f"{name}, one evaluation: {ratio(seconds, 'ours', 'bare')}", end="; ")
    print(f"median {median(seconds['ours']):.3f} s against {median(seconds['bare']):.3f} s")


def step(name: str, supernet: Supernet, candidate: prunas.Candidate) -> None:
    """A single-path training step on shared weights, and on a network of the same MACs.

    Every step has a path of its own. The first steps of a training compile kernels for shapes
    that later ones share; they are reported apart, since a training has thousands of steps.
    """
    (pictures, labels), *_ = images(64, 64)
    small = prunas.cut(supernet.network, supernet.space, candidate).train()
    small.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    shared = copy.deepcopy(supernet.network).train()
    elastic = Supernet(shared, supernet.space)
    ours = torch.optim.SGD(shared.parameters(), 0.01, momentum=0.9, fused=True)
    theirs = torch.optim.SGD(small.parameters(), 0.01, momentum=0.9, fused=True)
    # the paths of one budget: equal MACs, other shapes each step
    feasible = Feasible(
        supernet.space,
        Budget((("macs", int(prunas.Cost(supernet.space).macs([candidate])[0])),)),
        prunas.Cost(supernet.space),
    )
    paths = iter(feasible.sample(np.random.default_rng(0), COLD + WARM + 2))

    def single_path() -> None:
        ours.zero_grad()
        with elastic.running(next(paths)) as path:
            loss = F.cross_entropy(path(pictures), labels)
        loss.backward()
        ours.step()

    def plain() -> None:
        theirs.zero_grad()
        F.cross_entropy(small(pictures), labels).backward()
        theirs.step()

    work = {"ours": single_path, "plain": plain}
    for when, rounds in ((f"the first {COLD}", COLD), (f"the {WARM} after them", WARM)):
        seconds = interleaved(work, rounds)
        print(f"{name}, one training step, {when}: {ratio(seconds, 'ours', 'plain')}", flush=True)


if __name__ == "__main__":
    main()
