"""Accuracy against counting by hand; the network is left as found."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from prunas.errors import InputError
from prunas.eval.accuracy import Batches, accuracy, evaluating, per_class, running

Measure = Callable[[nn.Module, Batches], object]


def one_hot_batches(predicted: list[int], labels: list[int], size: int, classes: int) -> Batches:
    """Batches that `nn.Identity` classifies as `predicted`."""
    logits, targets = torch.eye(classes)[predicted], torch.tensor(labels)
    return list(zip(logits.split(size), targets.split(size), strict=True))


def test_share_of_right_labels_over_uneven_batches() -> None:
    batches = one_hot_batches([0, 1, 2, 2, 1], [0, 1, 2, 0, 0], size=2, classes=3)
    assert accuracy(nn.Identity(), batches) == 3 / 5


def test_per_class_and_a_class_without_images() -> None:
    batches = one_hot_batches([0, 1, 2, 2, 1], [0, 1, 2, 0, 0], size=2, classes=4)
    np.testing.assert_array_equal(per_class(nn.Identity(), batches), [1 / 3, 1, 1, np.nan])


def test_nan_logits_are_wrong_and_infinite_ones_are_not() -> None:
    nan, inf = float("nan"), float("inf")
    logits = torch.tensor([[nan, 0.0], [nan, nan], [inf, 0.0], [-inf, 1.0]])
    labels = torch.tensor([0, 0, 0, 1])
    assert accuracy(nn.Identity(), [(logits, labels)]) == 0.5


@pytest.mark.parametrize("measure", [accuracy, per_class])
def test_evaluation_mode_without_gradients_and_then_as_found(measure: Measure) -> None:
    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.frozen = nn.Dropout(), nn.Dropout()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            states.append((self.training, self.inner.training, torch.is_grad_enabled()))
            return images

    states: list[tuple[bool, bool, bool]] = []
    network = Watched()
    network.frozen.eval()
    measure(network, one_hot_batches([0, 1], [0, 1], size=1, classes=2))
    assert states == [(False, False, False)] * 2
    assert network.training
    assert network.inner.training
    assert not network.frozen.training
    assert torch.is_grad_enabled()


def test_flags_come_back_after_a_failure() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), evaluating(network):
        network(torch.zeros(1, 3))
    assert network.training
    assert network[1].training


@pytest.mark.parametrize("measure", [accuracy, per_class])
@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (torch.zeros(2, 3, 4), torch.zeros(2), r"gave \(2, 3, 4\) for labels \(2,\)"),
        (torch.zeros(2, 3), torch.zeros(2, 3), r"gave \(2, 3\) for labels \(2, 3\)"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), "labels run from 0 to 3 but the network has 3"),
        (torch.zeros(2, 3), torch.tensor([-1, 0]), "labels run from -1 to 0"),
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), "no images"),
    ],
)
def test_refusals(measure: Measure, images: torch.Tensor, labels: torch.Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        measure(nn.Identity(), [(images, labels)])


def test_refuses_no_batches() -> None:
    with pytest.raises(InputError, match="no images"):
        accuracy(nn.Identity(), [])
    with pytest.raises(InputError, match="the batches are None; give a list of batches"):
        accuracy(nn.Identity(), None)  # type: ignore[arg-type]


def test_refuses_labels_that_are_no_tensor() -> None:
    with pytest.raises(InputError, match="the labels of a batch are list, not a tensor"):
        accuracy(nn.Identity(), [(torch.zeros(2, 3), [0, 1])])  # type: ignore[list-item]


def test_running_out_of_memory_is_not_the_fault_of_the_images() -> None:
    with pytest.raises(RuntimeError, match="allocate memory"), running(nn.ReLU(), torch.zeros(1)):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
