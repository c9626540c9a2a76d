"""Price a million candidates of mobilenetv2_100; check integers on six networks.

Run: python benchmarks/cost.py
"""

import copy
from statistics import median
from time import perf_counter

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import prunas  # before timm and thop: see prunas/torchvision_schemas.py

# isort: split
import thop
import timm

NETWORKS = (
    "mobilenetv2_100",
    "resnet50",
    "efficientnet_b0",
    "regnety_002",
    "densenet121",
    "convnext_atto",
)
CANDIDATES = 200


def main() -> None:
    torch.set_num_threads(2)
    speed()
    for name in NETWORKS:
        agreement(name)


def speed() -> None:
    network = timm.create_model("mobilenetv2_100").eval()
    space = prunas.trace(network, (3, 224, 224))
    cost = prunas.Cost(space)
    rng = np.random.default_rng(0)
    columns = [rng.choice(np.array(gene.choices), size=1_000_000) for gene in space.genes]
    table = np.column_stack(columns)
    rates = []
    for _ in range(7):
        start = perf_counter()
        cost.macs(table)
        rates.append(len(table) / (perf_counter() - start))
    print(f"mobilenetv2_100: {median(rates) / 1e6:.2f} M candidates/s, median of {len(rates)}")
    print(f"  runs, lowest {min(rates) / 1e6:.2f}, highest {max(rates) / 1e6:.2f}")


def agreement(name: str) -> None:
    """Random candidates: our integers, half of torch's count on the cut network, and thop's."""
    network = timm.create_model(name).eval()
    size = (3, 224, 224)
    space = prunas.trace(network, size)
    cost = prunas.Cost(space)
    candidates = space.sample(np.random.default_rng(1), CANDIDATES)
    ours = cost.macs(candidates)
    torch_same = thop_same = 0
    for candidate, macs in zip(candidates, ours.tolist(), strict=True):
        meta = prunas.cut(network, space, candidate).to("meta")
        image = torch.empty(1, *size, device="meta")
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            meta(image)
        torch_same += counter.get_total_flops() == 2 * macs
        thop_same += thop_macs(meta, image) == macs
    print(f"{name}: equal to torch on {torch_same} of {CANDIDATES}, to thop's convolution and")
    print(f"  linear entries on {thop_same} of {CANDIDATES}")


def thop_macs(network: nn.Module, image: torch.Tensor) -> int:
    """What thop's rules for convolutions and linears count, without those for other layers."""
    free = {
        type(m): lambda *_: None
        for m in network.modules()
        if not isinstance(m, nn.Conv2d | nn.Linear) and not list(m.children())
    }
    subclasses = {
        type(m): thop.profile.__globals__["register_hooks"][nn.Conv2d]
        for m in network.modules()
        if isinstance(m, nn.Conv2d)
    }
    with torch.no_grad():
        macs, _ = thop.profile(
            copy.deepcopy(network), (image,), custom_ops={**free, **subclasses}, verbose=False
        )
    return int(macs)


if __name__ == "__main__":
    main()
