"""Splits: labelled pictures that come in batches, from memory or from disk."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Final, Protocol, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Batch = tuple[Tensor, Tensor]

_RESIDENT_BYTES = 1 << 30  # pictures up to this size stay on the device between batches
_READERS = min(8, os.cpu_count() or 1)
_BATCHES_AHEAD = 2


class Fetch(Protocol):
    """Reads raw pictures: for each array of indices one tensor (n, C, H, W), in that order.

    Raw means in the source's own units and type (uint8 0..255 or float32); the tensors lie on
    `device` or on the CPU.
    """

    def __call__(self, picks: Sequence[Ints], device: torch.device) -> Iterator[Tensor]: ...


def from_memory(pictures: Tensor) -> Fetch:
    """Fetch from one tensor (N, C, H, W), a whole batch at a time."""

    @lru_cache(maxsize=1)
    def resident(device: torch.device) -> Tensor:
        return pictures.to(device)

    def fetch(picks: Sequence[Ints], device: torch.device) -> Iterator[Tensor]:
        fits = pictures.nbytes <= _RESIDENT_BYTES
        source = resident(device) if fits else pictures
        for pick in picks:
            yield source[torch.from_numpy(pick).to(source.device)]

    return fetch


def from_reader(read: Callable[[int], Tensor]) -> Fetch:
    """Fetch through `read(index) -> (C, H, W)`, a few batches ahead of the caller.

    Threads rather than a DataLoader's processes: decoding releases the interpreter lock, an
    unreadable file raises its own error in the caller, and nothing need be pickled.
    """

    def fetch(picks: Sequence[Ints], device: torch.device) -> Iterator[Tensor]:
        waiting: deque[list[Future[Tensor]]] = deque()
        coming = iter(picks)
        with ThreadPoolExecutor(_READERS) as pool:
            try:
                for pick in islice(coming, _BATCHES_AHEAD):
                    waiting.append([pool.submit(read, int(index)) for index in pick])
                while waiting:
                    yield torch.stack([future.result() for future in waiting.popleft()])
                    for pick in islice(coming, 1):
                        waiting.append([pool.submit(read, int(index)) for index in pick])
            finally:  # a caller who stops early, or a broken file, must not wait for the rest
                pool.shutdown(wait=False, cancel_futures=True)

    return fetch


def shifted(pictures: Tensor, limit: int, offsets: Ints) -> Tensor:
    """Move every picture by its own offset in [-limit, limit]^2; zeros come in.

    `pictures` is (n, C, H, W), `offsets` is (2, n), down and right, each with `limit` added; the
    result has the shape of the pictures, in channels-last memory.
    """
    count, _, height, width = pictures.shape
    padded = F.pad(pictures, (limit,) * 4).permute(0, 2, 3, 1)
    moves = torch.from_numpy(offsets).to(pictures.device)
    rows = moves[0, :, None, None] + torch.arange(height, device=pictures.device)[:, None]
    columns = moves[1, :, None, None] + torch.arange(width, device=pictures.device)
    which = torch.arange(count, device=pictures.device)[:, None, None]
    return padded[which, rows, columns].permute(0, 3, 1, 2)


def flipped(pictures: Tensor, mirrored: Flags) -> Tensor:
    """Mirror those of the pictures (n, C, H, W) left to right that `mirrored` (n,) names."""
    chosen = torch.from_numpy(mirrored).to(pictures.device)
    return torch.where(chosen[:, None, None, None], pictures.flip(3), pictures)


@final
@dataclass(frozen=True)
class Variation:
    """How the pictures of a batch are varied: offsets (2, n) and mirror images (n,), if any."""

    offsets: Ints | None
    mirrored: Flags | None

    def of(self, some: Ints) -> "Variation":
        """That of some of the pictures."""
        return Variation(
            None if self.offsets is None else self.offsets[:, some],
            None if self.mirrored is None else self.mirrored[some],
        )


@final
@dataclass(frozen=True)
class Preparation:
    """What turns raw pictures into the network's input: x' = (x - mean) / std, per channel.

    Augmentation, where asked for, comes first: shifts by up to `shift` pixels, and mirror images
    with probability 1/2 if `flip`.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    shift: int
    flip: bool

    def variation(self, count: int, rng: np.random.Generator) -> Variation:
        """Drawn for `count` pictures."""
        offsets = rng.integers(0, 2 * self.shift + 1, (2, count)) if self.shift else None
        return Variation(offsets, rng.random(count) < 0.5 if self.flip else None)

    def varied(self, pictures: Tensor, variation: Variation) -> Tensor:
        if variation.offsets is not None:
            pictures = shifted(pictures, self.shift, variation.offsets)
        return pictures if variation.mirrored is None else flipped(pictures, variation.mirrored)

    def normalised(self, pictures: Tensor) -> Tensor:
        mean = torch.tensor(self.mean, device=pictures.device)[:, None, None]
        std = torch.tensor(self.std, device=pictures.device)[:, None, None]
        return pictures.float().sub_(mean).div_(std)


@final
@dataclass(frozen=True)
class Share:
    """What one of several processes has of every batch; all of it by default.

    The batch is cut into parts, and each of them into a piece for every process, all as equal as
    can be: so how many processes there are does not change what is in a part.

    Attributes:
        index: of the process.
        count: of processes.
        parts: of a batch.
    """

    index: int = 0
    count: int = 1
    parts: int = 1

    def pieces(self, size: int) -> list[Ints]:
        """The positions of the images of each part, in a batch of `size`."""
        parts = np.array_split(np.arange(size), self.parts)
        return [np.array_split(part, self.count)[self.index] for part in parts]

    def of(self, size: int) -> Ints:
        """The positions of all its images, part after part."""
        return np.concatenate(self.pieces(size))


WHOLE: Final = Share()


@final
@dataclass(frozen=True, eq=False)
class Split:
    """Some pictures of a source: those at `indices`, with their labels (n,), int64."""

    fetch: Fetch
    indices: Ints
    labels: Ints
    preparation: Preparation

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> "Split":
        """The first `count` pictures, in a fixed order that mixes the classes."""
        order = np.random.default_rng(0).permutation(len(self))[:count]
        return Split(self.fetch, self.indices[order], self.labels[order], self.preparation)

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: np.random.Generator | None = None,
        augment: bool = False,
        device: torch.device | str = "cpu",
        channels_last: bool = False,
        skip: int = 0,
        share: Share = WHOLE,
    ) -> Iterator[Batch]:
        """Yield (pictures float32 (n, C, H, W), labels int64 (n,)) on `device`.

        With `shuffle` the order, and the augmentation, are drawn from that generator, and the
        last incomplete batch is left out (batch normalisation suffers from tiny batches), unless
        it is the only one. Without it every picture comes once, in order.

        The first `skip` batches are left out, and of the others all but a `share`. Neither is
        read, and both are drawn: what comes is what would have come without.

        Raises:
            ValueError: `augment` without a generator, or a batch size below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}; take 1 or more")
        if augment and shuffle is None:
            raise ValueError("augment=True needs a generator; pass shuffle=rng")
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return self._batches(
            batch_size, shuffle, augment, torch.device(device), layout, skip, share
        )

    def _batches(
        self,
        batch_size: int,
        rng: np.random.Generator | None,
        augment: bool,
        device: torch.device,
        layout: torch.memory_format,
        skip: int,
        share: Share,
    ) -> Iterator[Batch]:
        order = _order(len(self), batch_size, rng)
        mine = [chosen[share.of(len(chosen))] for chosen in order[skip:]]
        fetched = self.fetch([self.indices[chosen] for chosen in mine], device)
        variations = self._variations(map(len, order), rng if augment else None, share)
        for chosen, raw, variation in zip(
            mine, fetched, islice(variations, skip, None), strict=True
        ):
            pictures = raw.to(device, non_blocking=True)
            if variation is not None:
                pictures = self.preparation.varied(pictures, variation)
            pictures = self.preparation.normalised(pictures)
            labels = torch.from_numpy(self.labels[chosen]).to(device)
            yield pictures.contiguous(memory_format=layout), labels

    def _variations(
        self, sizes: Iterable[int], rng: np.random.Generator | None, share: Share
    ) -> Iterator[Variation | None]:
        for size in sizes:
            drawn = None if rng is None else self.preparation.variation(size, rng)
            yield drawn and drawn.of(share.of(size))


def _order(count: int, batch_size: int, rng: np.random.Generator | None) -> list[Ints]:
    """Positions of each batch: in order, or permuted and only in whole batches."""
    if rng is None:
        order = np.arange(count)
        return [order[start : start + batch_size] for start in range(0, count, batch_size)]
    order = rng.permutation(count)
    last = max(1, count - batch_size + 1)
    return [order[start : start + batch_size] for start in range(0, last, batch_size)]
