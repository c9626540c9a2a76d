"""Images a second in training: precision, memory format and compilation, side by side.

A step is forward, cross entropy, backward and SGD with momentum, on images that lie on the device
already. Every variant has a network of its own with the same weights; rounds are interleaved, and
what is compiled is compiled before the first. Then a step of the shared weights (the full network
and one path, of another shape each step) against the same work on two plain networks.

Run: python benchmarks/training_throughput.py [MODEL] [--batch 128] [--side 32] [--device cuda]
"""

import copy
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from itertools import cycle, product
from statistics import median, quantiles
from time import perf_counter

import numpy as np
import torch
from measuring import interleaved, ratio
from torch import Tensor, nn
from torch.nn import functional as F

import prunas
from prunas.pipeline.networks import create_network
from prunas.search import Budget, Feasible
from prunas.supernet.elastic import Supernet

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
MODES = ("eager", "compile")
PATHS = 64

Step = Callable[[], None]
Forward = Callable[[Tensor], Tensor]


def main() -> None:
    asked = _asked()
    device = torch.device(asked.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = asked.tf32
    side = asked.side
    network = create_network(asked.model, classes=asked.classes, input_size=(3, side, side))
    space = prunas.trace(network, (3, side, side), genes=("width",))  # as the main job does
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    print(
        f"{asked.model}, batches of {asked.batch} images of {side} x {side}, {name},"
        f" torch {torch.__version__}, {torch.get_num_threads()} threads,"
        f" tf32 {'on' if asked.tf32 else 'off'}",
        flush=True,
    )
    network.to(device)
    _variants(network, asked, device)
    for precision in asked.precisions:
        _shared(network, space, precision, asked, device)


def _asked() -> Namespace:
    parser = ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    cuda = torch.cuda.is_available()
    parser.add_argument("model", nargs="?", default="mobilenetv2_100")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=TYPES)
    parser.add_argument("--layouts", nargs="+", default=list(LAYOUTS), choices=LAYOUTS)
    # compiling takes minutes on few cores, so there it is for those who ask
    parser.add_argument(
        "--modes", nargs="+", default=list(MODES) if cuda else ["eager"], choices=MODES
    )
    parser.add_argument("--tf32", action="store_true", help="for float32 products on CUDA")
    parser.add_argument("--share", type=float, default=0.4, help="MACs of the paths")
    parser.add_argument("--steps", type=int, default=20 if cuda else 4, help="in one timing")
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


def _variants(network: nn.Module, asked: Namespace, device: torch.device) -> None:
    """Every precision, layout and mode; the first of each is what the others are compared with."""
    work: dict[str, Step] = {}
    for precision, layout, mode in product(asked.precisions, asked.layouts, asked.modes):
        name = f"{precision} {layout} {mode}"
        own = copy.deepcopy(network).to(memory_format=LAYOUTS[layout])  # type: ignore[call-overload]
        start = perf_counter()
        step = _step(own, torch.compile(own) if mode == "compile" else own, precision, asked)
        step()
        _wait(device)
        if mode == "compile":
            print(f"{name}: first step after {perf_counter() - start:.1f} s", flush=True)
        work[name] = _many(step, asked.steps, device)
    _report(work, asked, images=asked.batch)


def _shared(
    network: nn.Module,
    space: prunas.SearchSpace,
    precision: str,
    asked: Namespace,
    device: torch.device,
) -> None:
    """A step of shared weights against steps of the full network and of one that is cut out."""
    costs = prunas.Cost(space)
    feasible = Feasible(space, Budget.parse(f"macs={asked.share:.0%}"), costs)
    paths = feasible.sample(np.random.default_rng(0), PATHS)
    full = copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    small = prunas.cut(network, space, paths[0]).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    of_full, of_small = (_step(each, each, precision, asked) for each in (full, small))

    def both() -> None:
        of_full()
        of_small()

    shared = _shared_step(network, space, paths, precision, asked)
    for _ in paths:
        shared()  # shapes that later steps have again
    work = {"two plain networks": both, "shared weights": shared}
    print(f"a step of the full network and of a path of {asked.share:.0%} MACs, {precision}")
    _report(
        {name: _many(step, asked.steps, device) for name, step in work.items()},
        asked,
        images=asked.batch,
    )


def _shared_step(
    network: nn.Module,
    space: prunas.SearchSpace,
    paths: list[prunas.Candidate],
    precision: str,
    asked: Namespace,
) -> Step:
    own = copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    supernet, optimizer, coming = Supernet(own.train(), space), _optimizer(own), cycle(paths)
    images, labels = _batch(own, asked)

    def step() -> None:
        optimizer.zero_grad()
        for candidate in (space.full(), next(coming)):
            with supernet.running(candidate) as path:
                _loss(path, images, labels, precision).backward()
        optimizer.step()

    return step


def _step(network: nn.Module, forward: Forward, precision: str, asked: Namespace) -> Step:
    optimizer = _optimizer(network.train())
    images, labels = _batch(network, asked)
    scaler = torch.amp.GradScaler(images.device.type, enabled=precision == "fp16")

    def step() -> None:
        optimizer.zero_grad()
        scaler.scale(_loss(forward, images, labels, precision)).backward()
        scaler.step(optimizer)
        scaler.update()

    return step


def _loss(forward: Forward, images: Tensor, labels: Tensor, precision: str) -> Tensor:
    wanted = TYPES[precision]
    with torch.autocast(images.device.type, wanted, enabled=precision != "fp32"):
        logits = forward(images)
    return F.cross_entropy(logits.float(), labels)


def _optimizer(network: nn.Module) -> torch.optim.SGD:
    # a rate at which nothing becomes too large: what is timed stays the same work
    return torch.optim.SGD(network.parameters(), 1e-4, momentum=0.9, nesterov=True, fused=True)


def _batch(network: nn.Module, asked: Namespace) -> tuple[Tensor, Tensor]:
    """Random images in the memory format of the network's weights."""
    weight = next(p for p in network.parameters() if p.ndim == 4)
    last = weight.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(asked.batch, 3, asked.side, asked.side, generator=generator)
    labels = torch.randint(0, asked.classes, (asked.batch,), generator=generator)
    return images.to(weight.device).contiguous(memory_format=layout), labels.to(weight.device)


def _many(step: Step, count: int, device: torch.device) -> Step:
    def steps() -> None:
        for _ in range(count):
            step()
        _wait(device)

    return steps


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _report(work: Mapping[str, Step], asked: Namespace, *, images: int) -> None:
    seconds = interleaved(work, asked.rounds)
    first = next(iter(work))
    for name, spent in seconds.items():
        rates = [images * asked.steps / each for each in spent]
        low, _, high = quantiles(rates, n=4)
        line = f"{name}: {median(rates):.0f} images/s (quartiles {low:.0f} to {high:.0f})"
        if name != first:
            line += f", time {ratio(seconds, name, first)} of {first}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
