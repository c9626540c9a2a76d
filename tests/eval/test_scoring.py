"""Scores of candidates: those of the cut network, none depending on another."""

import numpy as np
import torch
from torch import nn

import prunas
from prunas.eval.accuracy import accuracy
from prunas.eval.recalibration import recalibrate_
from prunas.eval.scoring import scorer
from prunas.supernet.elastic import Supernet
from prunas.supernet.grid import EVERY


def _made() -> tuple[Supernet, list[tuple[torch.Tensor, torch.Tensor]]]:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = nn.Sequential(
            nn.Conv2d(1, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Flatten(), nn.Linear(192, 4)
        )
        batches = [(torch.randn(32, 1, 6, 6), torch.randint(0, 4, (32,))) for _ in range(3)]
    return Supernet(network, prunas.trace(network, (1, 6, 6), grid=EVERY)), batches


def test_a_score_is_the_accuracy_of_the_cut_recalibrated_network() -> None:
    supernet, batches = _made()
    candidates = supernet.space.sample(np.random.default_rng(0), 4)
    scores = list(scorer(supernet, batches[:2], batches)(candidates))
    for candidate, score in zip(candidates, scores, strict=True):
        small = prunas.cut(supernet.network, supernet.space, candidate)
        recalibrate_(small, batches[:2])
        assert score == accuracy(small, batches)


def test_nothing_leaks_from_one_candidate_to_the_next() -> None:
    supernet, batches = _made()
    before = {name: tensor.clone() for name, tensor in supernet.network.state_dict().items()}
    first, second = supernet.space.full(), supernet.space.smallest()
    score = scorer(supernet, batches[:2], batches)
    together = list(score([first, second, first]))
    assert together == [*score([first]), *score([second]), *score([first])]
    for name, tensor in supernet.network.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert supernet.network.training
