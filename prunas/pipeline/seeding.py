"""Seeding torch for a while: dropout and initial weights draw from its global generators."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

from prunas.errors import InputError

_LARGEST: Final = 2**63 - 1
"""Torch takes up to twice that, but tables of runs have columns of 64 bits with a sign."""


def require_seed(seed: int) -> None:
    """Raises InputError for what torch cannot be seeded with."""
    if not 0 <= seed <= _LARGEST:
        raise InputError(f"seed={seed} cannot be used; give one from 0 to {_LARGEST}")


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """torch's CPU generator, and that of a CUDA `device`, seeded inside and restored after."""
    device = torch.device(device)
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng([device] if on_cuda else []):
        seed_torch(seed, device)
        yield


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed torch's CPU generator, and that of a CUDA `device`, for good."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
