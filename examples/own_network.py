"""A network and a training loop of one's own: cut at once, then trained a little more.

A residual network for scikit-learn's digits keeps a quarter of its multiply-adds. Nothing about it
is told to prunas: one run shows which channels belong together.

Run: python examples/own_network.py [FOLDER]
"""

import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import prunas  # before anything that imports torchvision, where torch is a CPU-only build

SIZE = (1, 8, 8)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(width), nn.BatchNorm2d(width)])

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norms[0](self.first(x)))
        return F.relu(x + self.norms[1](self.second(inner)))


def network() -> nn.Module:
    stem = [nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)]
    return nn.Sequential(*stem, Block(32), Block(32), *head)


def digits() -> tuple[list[tuple[Tensor, Tensor]], tuple[Tensor, Tensor]]:
    """Batches to learn from, and pictures to be judged on."""
    found = load_digits()
    pictures = torch.tensor(found.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(found.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    learn, judge = order[:1408], order[1408:]
    return [(pictures[i], labels[i]) for i in learn.split(64)], (pictures[judge], labels[judge])


def train(model: nn.Module, batches: list[tuple[Tensor, Tensor]], epochs: int, rate: float) -> None:
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9, nesterov=True)
    model.train()
    for _ in range(epochs):
        for pictures, labels in batches:
            optimizer.zero_grad()
            F.cross_entropy(model(pictures), labels).backward()
            optimizer.step()
    model.eval()


def right(model: nn.Module, pictures: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return (model(pictures).argmax(1) == labels).float().mean().item()


def main(folder: Path) -> None:
    torch.manual_seed(0)
    batches, unseen = digits()
    full = network()
    train(full, batches, epochs=4, rate=0.05)

    space = prunas.trace(full, SIZE)
    print(space)  # two residual blocks share one group; each has a width of its own inside
    found = prunas.prune(full, space, "macs=25%", batches=batches)
    before = right(found.network, *unseen)
    train(found.network, batches, epochs=2, rate=0.01)

    print(f"full network      {right(full, *unseen):.3f} at {found.macs[1]:,} multiply-adds")
    print(f"cut, not trained  {before:.3f} at {found.macs[0]:,}")
    print(f"cut and trained   {right(found.network, *unseen):.3f}")
    prunas.save(found.network, folder)
    again = prunas.load(folder, network=network())  # a class of yours is not on record
    assert torch.equal(again(unseen[0]), found.network(unseen[0]))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "own-network"))
