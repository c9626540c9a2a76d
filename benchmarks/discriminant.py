"""Discriminant information: leaving features out against recomputing, and all groups of a network
against the forward passes that it watches.

Run: OMP_NUM_THREADS=1 python benchmarks/discriminant.py [images]
"""

import sys
import warnings
from statistics import median
from time import perf_counter

import numpy as np
import torch
from measuring import interleaved, ratio

import prunas
from prunas.eval.accuracy import evaluating
from prunas.eval.criteria.dependence import discriminant
from prunas.eval.criteria.discriminant import Scatter, discriminant_information, leave_out
from prunas.pipeline.networks import create_network

FEATURES, SAMPLES, CLASSES = 512, 2048, 10
SIDE, BATCH = 64, 64
ROUNDS = 3


def main(images: int) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # 2,048 samples are few for 512 features: not the point here
    leaving_out()
    for name in ("mobilenetv2_100", "resnet50"):
        all_groups(name, images)


def leaving_out() -> None:
    """All leave-one-out drops from one factorisation, against DI without each feature anew."""
    rng = np.random.default_rng(0)
    labels = rng.integers(CLASSES, size=SAMPLES)
    centres = rng.standard_normal((CLASSES, FEATURES))
    features = rng.standard_normal((SAMPLES, FEATURES)) + centres[labels]
    targets = np.eye(CLASSES)[labels]
    scatter = Scatter.of(features, targets)
    whole = discriminant_information(scatter, ridge=1.0)
    began = perf_counter()
    naive = [
        whole - discriminant_information(_without(scatter, feature), ridge=1.0)
        for feature in range(FEATURES)
    ]
    slow = perf_counter() - began
    seconds = []
    for _ in range(9):
        began = perf_counter()
        fast = leave_out(scatter, ridge=1.0)
        seconds.append(perf_counter() - began)
    difference = float((np.abs(fast - naive) / np.abs(naive)).max())
    print(
        f"leave-one-out, {FEATURES} features, {SAMPLES} samples: {slow / median(seconds):.0f} x"
        f" faster than recomputing ({slow:.2f} s), relative difference {difference:.1e}"
    )


def _without(scatter: Scatter, feature: int) -> Scatter:
    left = np.delete(np.arange(len(scatter.total)), feature)
    return Scatter(
        scatter.count,
        scatter.feature_mean[left],
        scatter.target_mean,
        scatter.total[np.ix_(left, left)],
        scatter.cross[left],
        scatter.target_squares,
    )


def all_groups(name: str, images: int) -> None:
    """Watching every layer and eliminating every group's channels, beyond the bare forwards."""
    network = create_network(name, classes=CLASSES, input_size=(3, SIDE, SIDE))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    space = prunas.trace(network, (3, SIDE, SIDE), genes=("width",))
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(BATCH, 3, SIDE, SIDE, generator=generator)
    batch = batch.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(BATCH) % CLASSES
    batches = [(batch + 0.01 * i, labels) for i in range(images // BATCH)]

    def bare() -> None:
        with evaluating(network):
            for pictures, _ in batches:
                network(pictures)

    def watched() -> None:
        discriminant(network, space, batches, device="cpu")

    seconds = interleaved({"watched": watched, "bare": bare}, ROUNDS)
    print(
        f"{name}, {images} images of {SIDE} x {SIDE}, {len(space.genes)} groups: all of it against"
        f" the bare forwards {ratio(seconds, 'watched', 'bare')}, {median(seconds['bare']):.1f} s",
        flush=True,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4096)
