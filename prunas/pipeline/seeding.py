"""Seeding torch for a while: dropout and initial weights draw from its global generators."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
