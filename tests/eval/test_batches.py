"""Batches in the forms that loaders yield."""

from typing import Any

import pytest
import torch

from prunas.errors import InputError
from prunas.eval.batches import pairs

IMAGES, LABELS = torch.zeros(2, 3, 4, 4), torch.tensor([0, 1])


@pytest.mark.parametrize(
    "batch",
    [
        (IMAGES, LABELS),
        [IMAGES, LABELS],
        {"image": IMAGES, "label": LABELS},
        {"pixel_values": IMAGES, "labels": LABELS, "path": ["a", "b"]},
    ],
)
def test_images_with_targets(batch: Any) -> None:
    [(images, targets)] = pairs([batch])
    assert images is IMAGES
    assert targets is LABELS


@pytest.mark.parametrize("batch", [IMAGES, (IMAGES,), [IMAGES], {"images": IMAGES}])
def test_images_alone(batch: Any) -> None:
    [(images, targets)] = pairs([batch])
    assert images is IMAGES
    assert targets is None


def test_empty_batches_are_passed_over() -> None:
    assert len(list(pairs([(IMAGES[:0], LABELS[:0]), (IMAGES, LABELS)]))) == 1


def test_refuses_a_tensor_in_place_of_batches() -> None:
    with pytest.raises(InputError, match=r"one tensor of shape \(2, 3, 4, 4\); give a list of"):
        next(pairs(IMAGES))


def test_refuses_what_yields_no_batches() -> None:
    with pytest.raises(InputError, match="the batches are 5; give a list of batches, or a loader"):
        next(pairs(5))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (7, "a batch is int"),
        ((IMAGES, LABELS, LABELS), "a batch is tuple"),
        ((7, LABELS), "begins with int"),
        ((torch.tensor(1.0), LABELS), "not with a tensor of images"),
        ((IMAGES, [0, 1]), "the targets of a batch are list"),
        ((IMAGES, LABELS[:1]), "a batch of 2 images came with 1 targets"),
        ({"picture": IMAGES}, r"a dictionary with \['picture'\]"),
    ],
)
def test_refuses_other_forms(batch: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        list(pairs([batch]))
