"""Files of tensors with notes, and when a training writes one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import final

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from prunas.errors import InputError
from prunas.pipeline.files import replacing


def write_tensors(file: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> None:
    """Write a .safetensors file aside and rename it: a crash leaves the old one.

    Raises:
        RunError: it cannot be written.
    """
    plain = {  # contiguous and unshared, as the format needs them
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    with replacing(file) as aside:
        save_file(plain, aside, dict(notes))


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What `write_tensors` wrote, on the CPU.

    Raises:
        InputError: there is no such file, or it is damaged.
    """
    if not file.exists():
        raise InputError(f"there is no weights file {file}")
    try:
        with safetensors.safe_open(file, "pt") as opened:
            names = opened.keys()
            return {name: opened.get_tensor(name) for name in names}, opened.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{file} cannot be read ({error}); delete it to redo it") from None


@final
@dataclass(frozen=True)
class Every:
    """How often a training is written down between the ends of its epochs.

    Attributes:
        seconds: after so many since the last time.
        steps: or after so many steps; None: time alone decides.
    """

    seconds: float = 600.0
    steps: int | None = None

    def __post_init__(self) -> None:
        if not self.seconds >= 0 or (self.steps is not None and self.steps < 1):
            raise InputError(
                f"checkpoints cannot be written every {self.seconds} seconds or {self.steps}"
                " steps; give seconds from 0, and steps from 1"
            )


@final
class Pace:
    """Whether it is time, as `Every` says."""

    def __init__(self, every: Every) -> None:
        self._every, self._steps, self._since = every, 0, perf_counter()

    def due(self) -> bool:
        """To be asked after every step."""
        self._steps += 1
        by_steps = self._every.steps is not None and self._steps >= self._every.steps
        if not by_steps and perf_counter() - self._since < self._every.seconds:
            return False
        self.rest()
        return True

    def rest(self) -> None:
        """It has just been done."""
        self._steps, self._since = 0, perf_counter()
