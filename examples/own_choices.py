"""Operators of one's own as genes, searched together with the widths on shared weights.

Every block may be a 3 x 3 convolution, a depthwise one, or nothing at all. One set of weights is
trained for all candidates; a search asks it for the best inside a budget, which is cut out and
trained alone.

Run: python examples/own_choices.py
"""

import numpy as np
import torch
from own_network import SIZE, digits, right, train
from torch import nn

import prunas
from prunas.eval.scoring import scorer
from prunas.search.budget import Budget, Feasible
from prunas.search.method import Scored
from prunas.search.methods import SEARCHES
from prunas.supernet.elastic import Supernet
from prunas.supernet.schedules.sandwich import Sandwich
from prunas.supernet.training import PlainDescent, train_supernet


def convolved(width: int, groups: int = 1) -> nn.Module:
    layer = nn.Conv2d(width, width, 3, padding=1, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(width), nn.ReLU())


def block(width: int) -> nn.Module:
    depthwise = convolved(width, groups=width)
    return prunas.Choice(
        {"nothing": nn.Identity(), "depthwise": depthwise, "whole": convolved(width)}
    )


def network(width: int = 24, blocks: int = 4) -> nn.Module:
    stem = [nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]
    return nn.Sequential(*stem, *(block(width) for _ in range(blocks)), *head)


def main() -> None:
    torch.manual_seed(0)
    batches, unseen = digits()
    learn, held_out = batches[:-4], batches[-4:]
    full = network()
    space = prunas.trace(full, SIZE, genes=("width", "operator"))
    print(space)
    feasible = Feasible(space, Budget.parse("macs=30%"), prunas.Cost(space))

    epochs = 4
    shared = Supernet(full, space)
    rates = torch.linspace(0.05, 0.001, epochs * len(learn)).tolist()
    optimizer = torch.optim.SGD(shared.learnt.parameters(), 0.05, momentum=0.9, nesterov=True)
    train_supernet(
        shared,
        learn * epochs,
        Sandwich(space.full(), lambda rng, n: feasible.sample(rng, n), paths=2),
        steps=epochs * len(learn),
        descent=PlainDescent(optimizer, lambda step: rates[step]),
        label_smoothing=0.0,
        rng=np.random.default_rng(0),
    )

    score = scorer(shared, calibration=learn[:4], held_out=held_out)
    search = SEARCHES["evolution"]
    state = search.start(space, feasible, None, np.random.default_rng(0))
    for _ in range(6):
        state, asked = search.ask(state, 10)
        scores = zip(asked, score(asked), strict=True)
        state = search.tell(state, [Scored(candidate, each) for candidate, each in scores])
    best = max(state.told, key=lambda entry: entry.score)

    small = prunas.cut(full, space, best.candidate)
    train(small, batches, epochs=4, rate=0.02)
    macs, whole = prunas.Cost(space).macs([best.candidate, space.full()])
    for gene, value in zip(space.genes, best.candidate, strict=True):
        module = full.get_submodule(gene.name)
        said = module.names[value] if isinstance(module, prunas.Choice) else value
        print(f"{gene.kind} of {gene.name}: {said}")
    print(f"{right(small, *unseen):.3f} at {macs:,} of {whole:,} multiply-adds")


if __name__ == "__main__":
    main()
