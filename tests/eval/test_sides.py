"""What images of smaller sides are worth."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import prunas
from prunas.eval.criteria.discriminant import Scatter, relative_ridge
from prunas.eval.criteria.selection import di_prior
from prunas.eval.criteria.sides import answers_left
from prunas.eval.criteria.weights import magnitude
from prunas.supernet.resolution import resized

SIDES = (4, 6, 8)


class Reader(nn.Module):
    """Answers with the mean of a convolution, behind a batch norm."""

    def __init__(self, channels: int = 3, *, pairs: bool = False) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.head, self.pairs = nn.Linear(6, channels), pairs

    def forward(self, images: Tensor) -> Any:
        maps = F.relu(self.norm(self.conv(images)))
        answers = self.head(maps.mean((2, 3)))
        return (answers, -answers) if self.pairs else answers


def batches(n: int = 3) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((20 * n, 1, 8, 8), generator=generator)
    labels = torch.randint(3, (20 * n,), generator=generator)
    return list(zip(images.split(20), labels.split(20), strict=True))


def test_shares_against_ridge_regression_by_hand() -> None:
    torch.manual_seed(0)
    network, given = Reader().eval(), batches()
    shares = answers_left(network, SIDES, given, device="cpu")
    assert shares is not None
    with torch.no_grad():
        whole = torch.cat([network(images) for images, _ in given]).double()
        small = [resized(images, 4) for images, _ in given]
        maps = [network.conv(images) for images in small]
        means, spreads = zip(*[(m.mean((0, 2, 3)), m.var((0, 2, 3))) for m in maps], strict=True)
        network.norm.running_mean = torch.stack(means).mean(0)
        network.norm.running_var = torch.stack(spreads).mean(0)
        seen = torch.cat([network(images) for images in small]).double()
    shares_by_hand = explained(seen, whole) / explained(whole, whole)
    assert shares[0] == pytest.approx(shares_by_hand, rel=1e-5)
    assert shares[-1] == 1
    assert (np.diff(shares) >= 0).all()


def explained(features: Tensor, targets: Tensor) -> float:
    x, z = features - features.mean(0), targets - targets.mean(0)
    ridge = relative_ridge(Scatter.of(features.numpy(), targets.numpy()))
    weights = torch.linalg.solve(x.T @ x + ridge * torch.eye(3), x.T @ z)
    return float((x.T @ z * weights).sum())


def test_the_network_is_left_alone() -> None:
    network = Reader().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    answers_left(network, SIDES, batches(), device="cpu")
    assert network.training
    assert network.norm.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not network._forward_pre_hooks


def test_answers_that_do_not_depend_on_size_lose_nothing() -> None:
    """The mean of a constant image is what it was."""

    class Mean(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean((2, 3))

    flat = [(torch.rand(20, 3, 1, 1).expand(20, 3, 8, 8), torch.zeros(20)) for _ in range(2)]
    shares = answers_left(Mean(), SIDES, flat, device="cpu")
    assert shares == pytest.approx([1, 1, 1], abs=1e-3)


def test_answers_that_cannot_be_compared() -> None:
    assert answers_left(Reader(pairs=True), SIDES, batches(), device="cpu") is None
    silent = Reader()
    nn.init.zeros_(silent.head.weight)
    assert answers_left(silent, SIDES, batches(), device="cpu") is None


def test_the_prior_values_sides_by_all_that_passes_through_them() -> None:
    torch.manual_seed(0)
    network, given = Reader(), batches()
    space = prunas.trace(network, (1, 8, 8), resolutions=(4, 6))
    (place,) = [at for at, gene in enumerate(space.genes) if gene.kind == "resolution"]
    values = di_prior(network, space, given, device="cpu").values
    shares = answers_left(network, SIDES, given, device="cpu")
    assert shares is not None
    others = sum(worth[-1] for gene, worth in enumerate(values) if gene != place)
    assert [values[place][side] for side in SIDES] == pytest.approx((shares * others).tolist())
    assert values[place][0] == 0
    assert (np.diff(values[place]) >= 0).all()


def test_the_prior_without_comparable_answers_says_so() -> None:
    network = Reader(pairs=True)
    space = prunas.trace(network, (1, 8, 8), resolutions=(4, 6))
    found = di_prior(network, space, batches(), device="cpu", criterion=magnitude)
    assert any("sides of images are valued by their length" in note for note in found.notes)
    assert found.values[-1][-1] > 0
