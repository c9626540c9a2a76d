from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prunas.errors import InputError
from prunas.pipeline.splits import (
    Ints,
    Preparation,
    Share,
    Split,
    from_memory,
    from_reader,
    shifted,
)

PLAIN = Preparation((0.0,), (1.0,), shift=1, flip=False)


def numbered(count: int, preparation: Preparation = PLAIN) -> Split:
    """Pictures of one pixel whose value and label are their index."""
    pictures = torch.arange(count, dtype=torch.uint8)[:, None, None, None]
    return Split(from_memory(pictures), np.arange(count), np.arange(count), preparation)


def one_by_one(pictures: Tensor, offsets: Ints) -> Tensor:
    """The obvious oracle of `shifted`: copy pixel by pixel."""
    moved = torch.zeros_like(pictures)
    _, _, height, width = pictures.shape
    for n, (down, right) in enumerate(offsets.T):
        for row in range(height):
            for column in range(width):
                if 0 <= row + down < height and 0 <= column + right < width:
                    moved[n, :, row, column] = pictures[n, :, row + down, column + right]
    return moved


@given(
    st.integers(1, 4), st.integers(1, 3), st.integers(2, 6), st.integers(2, 6), st.integers(0, 2)
)
def test_shift_equals_the_pixel_loop(n: int, c: int, h: int, w: int, limit: int) -> None:
    pictures = torch.arange(1, n * c * h * w + 1).reshape(n, c, h, w)
    offsets = np.random.default_rng(n).integers(0, 2 * limit + 1, (2, n))
    assert torch.equal(shifted(pictures, limit, offsets), one_by_one(pictures, offsets - limit))


def test_flip_mirrors_about_half_and_leaves_the_rest() -> None:
    pictures = torch.arange(400 * 6).reshape(400, 1, 2, 3)
    preparation = Preparation((0.0,), (1.0,), shift=0, flip=True)
    after = preparation.varied(pictures, preparation.variation(400, np.random.default_rng(0)))
    mirrored, same = ((after == each).all((1, 2, 3)) for each in (pictures.flip(3), pictures))
    assert torch.equal(mirrored, ~same)
    assert 150 < mirrored.sum() < 250


@given(st.integers(1, 40), st.integers(1, 12))
def test_without_shuffle_every_picture_comes_once_in_order(count: int, size: int) -> None:
    batches = list(numbered(count).batches(size))
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(count))
    assert torch.cat([pictures for pictures, _ in batches]).flatten().tolist() == list(range(count))


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 5))
def test_shuffled_batches_are_whole_without_repeats(count: int, size: int, seed: int) -> None:
    batches = list(numbered(count).batches(size, shuffle=np.random.default_rng(seed)))
    labels = torch.cat([labels for _, labels in batches])
    assert len(batches) == max(1, count // size)
    assert len(labels.unique()) == len(labels)
    for pictures, own in batches:
        assert len(own) == min(size, count)
        assert torch.equal(pictures.flatten().long(), own)


def test_order_and_augmentation_follow_the_generator() -> None:
    split = numbered(50, Preparation((0.0,), (1.0,), shift=1, flip=True))

    def run(seed: int) -> Tensor:
        rng = np.random.default_rng(seed)
        return torch.cat([x for x, _ in split.batches(10, shuffle=rng, augment=True)])

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


@settings(deadline=None)
@given(
    count=st.integers(1, 40),
    size=st.integers(1, 12),
    skip=st.integers(0, 9),
    ranks=st.integers(1, 4),
    parts=st.integers(1, 3),
    augment=st.booleans(),
)
def test_shares_and_the_end_of_an_epoch_are_what_they_are_in_the_whole(
    count: int, size: int, skip: int, ranks: int, parts: int, augment: bool
) -> None:
    pictures = torch.arange(count * 9, dtype=torch.float32).reshape(count, 1, 3, 3)
    preparation = Preparation((0.0,), (1.0,), shift=1, flip=True)
    split = Split(from_memory(pictures), np.arange(count), np.arange(count), preparation)

    def batches(**options: Any) -> list[tuple[Tensor, Tensor]]:
        rng = np.random.default_rng(count)
        return list(split.batches(size, shuffle=rng, augment=augment, **options))

    shares = [Share(rank, ranks, parts) for rank in range(ranks)]
    theirs = [batches(skip=skip, share=share) for share in shares]
    whole = batches()[skip:]
    assert [len(each) for each in theirs] == [len(whole)] * ranks
    for batch, *several in zip(whole, *theirs, strict=True):
        sizes = [[len(piece) for piece in share.pieces(len(batch[1]))] for share in shares]
        for tensor, of_ranks in zip(batch, zip(*several, strict=True), strict=True):
            pieces = [each.split(own) for each, own in zip(of_ranks, sizes, strict=True)]
            for part, *of_part in zip(tensor.tensor_split(parts), *pieces, strict=True):
                assert torch.equal(torch.cat(of_part), part)
                assert max(map(len, of_part)) - min(map(len, of_part)) <= 1


def test_pictures_are_normalised_float32_in_the_layout_asked_for() -> None:
    pictures = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    preparation = Preparation((1.0, 2.0, 3.0), (2.0, 4.0, 8.0), shift=1, flip=True)
    split = Split(from_memory(pictures), np.arange(5), np.zeros(5, dtype=np.int64), preparation)
    (plain, _), (last, _) = (
        next(iter(split.batches(5, channels_last=layout))) for layout in (False, True)
    )
    expected = (pictures.float() - torch.tensor([1, 2, 3]).view(3, 1, 1)) / torch.tensor(
        [2, 4, 8]
    ).view(3, 1, 1)
    torch.testing.assert_close(plain, expected)
    assert torch.equal(plain, last)
    assert plain.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)


def test_reading_gives_what_memory_gives() -> None:
    pictures = torch.randint(0, 256, (23, 1, 3, 3), dtype=torch.uint8)
    picks = [np.array([4, 2, 2]), np.array([0]), np.arange(23)]
    device = torch.device("cpu")
    slow = from_reader(lambda index: pictures[index])(picks, device)
    for read, held in zip(slow, from_memory(pictures)(picks, device), strict=True):
        assert torch.equal(read, held)


def test_a_reader_s_error_arrives_as_it_is() -> None:
    def broken(index: int) -> Tensor:
        raise InputError(f"picture {index} is broken")

    with pytest.raises(InputError, match="picture 7 is broken"):
        list(from_reader(broken)([np.array([7])], torch.device("cpu")))


def test_a_caller_may_stop_early() -> None:
    asked: list[int] = []

    def read(index: int) -> Tensor:
        asked.append(index)
        return torch.zeros(1, 1, 1)

    picks = [np.array([index]) for index in range(1000)]
    stream = from_reader(read)(picks, torch.device("cpu"))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert len(asked) < 10


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="batch_size=0"):
        numbered(3).batches(0)
    with pytest.raises(ValueError, match="needs a generator"):
        numbered(3).batches(1, augment=True)
