"""Whole cut networks, measured side by side on a backend."""

from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from prunas.errors import InputError
from prunas.eval.cost import Cost
from prunas.eval.latency.backends import Backend
from prunas.eval.latency.timing import Clock, Plan, Timed, Told, Work, quiet, timed
from prunas.supernet.cut import cut
from prunas.supernet.resolution import resized, side_of
from prunas.supernet.space import Candidate, SearchSpace
from prunas.supernet.tensors import require_values

TOGETHER: Final = 2**28
"""Parameters that are in memory at once: a gigabyte, and what a runtime makes of them."""


def measured(
    network: nn.Module,
    space: SearchSpace,
    candidates: Sequence[Candidate],
    backend: Backend,
    rng: np.random.Generator,
    *,
    batch: int = 1,
    plan: Plan | None = None,
    clock: Clock = perf_counter,
    told: Told = quiet,
) -> tuple[Timed, ...]:
    """How long candidates take on a backend, cut and run whole, on images of the side they see.

    Images are resized before, which is not timed.

    All are interleaved (`prunas.eval.latency.timing`). Where they do not fit into memory together
    they are measured in groups, each with the first candidate for reference: times of a group are
    multiplied by what makes the reference equally fast in all groups.

    Args:
        network: the traced network, on the CPU, with weights; it is not changed.
        space: its search space.
        candidates: which.
        backend: what runs them.
        rng: the images, and the order within each round.
        batch: images at a time.
        plan: how carefully to time.
        clock: seconds.
        told: hears when the device is busy.

    Raises:
        InputError: no candidates, a batch below 1, a network that takes anything else than one
            tensor of images, or that the backend cannot run.
        RunError: the device is too busy.
    """
    if not candidates:
        raise InputError("there is nothing to measure; give one candidate or more")
    require_values(network)
    images = _images(space, batch, rng)
    groups = [[candidates[0], *group] for group in _groups(space, candidates)]
    found = []
    for group in groups:
        work = [_prepared(network, space, each, backend, images) for each in group]
        found.append(timed(work, rng, plan=plan, clock=clock, told=told))
    reference = float(np.median([times[0].milliseconds for times in found]))
    first = found[0][0].scaled(reference / found[0][0].milliseconds)
    rest = [
        entry.scaled(reference / times[0].milliseconds) for times in found for entry in times[1:]
    ]
    return (first, *rest)


def _prepared(
    network: nn.Module, space: SearchSpace, each: Candidate, backend: Backend, images: torch.Tensor
) -> Work:
    small = cut(network, space, each).eval()
    return backend.prepared(small, resized(images, side_of(space, each)))


def image_shape(space: SearchSpace) -> tuple[int, ...]:
    """(channels, height, width) of the images that the space was traced with.

    Raises:
        InputError: its network takes anything else than one tensor of floating numbers.
    """
    given: Any = space.inputs
    if not isinstance(given, dict) or "float" not in str(given.get("dtype")):
        raise InputError(
            f"{space.network} was not traced with one tensor of images, so that its latency cannot"
            " be measured; wrap it in a module that takes one"
        )
    return tuple(given["shape"][1:])


def _images(space: SearchSpace, batch: int, rng: np.random.Generator) -> torch.Tensor:
    if batch < 1:
        raise InputError(f"a batch of {batch} images cannot be run; take 1 or more")
    values = rng.standard_normal((batch, *image_shape(space)), dtype=np.float32)
    return torch.from_numpy(values)


def _groups(space: SearchSpace, candidates: Sequence[Candidate]) -> Iterator[list[Candidate]]:
    """The candidates after the first, in groups whose parameters fit together."""
    params = Cost(space).params(candidates)
    group: list[Candidate] = []
    held = int(params[0])
    for candidate, count in zip(candidates[1:], params[1:].tolist(), strict=True):
        if group and held + count > TOGETHER:
            yield group
            group, held = [], int(params[0])
        group.append(candidate)
        held += count
    yield group
