"""Mixed precision: products in a narrower type, weights and losses in float32."""

import json
import os
from typing import Any, Final, final

import torch
from torch import Tensor

from prunas.errors import InputError

PRECISIONS: Final = ("auto", "no", "bf16", "fp16")
"""auto: what `accelerate launch --mixed_precision` names; else bf16 on CUDA and no on a CPU."""

_TYPES: Final = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def require_precision(name: str) -> None:
    """Refuse what is none of `PRECISIONS`.

    Raises:
        InputError: as said.
    """
    if name not in PRECISIONS:
        raise InputError(f"no precision is called {name!r}; choose {', '.join(PRECISIONS)}")


@final
class Mixed:
    """Autocast on a device, and for float16 the scale of the loss, which has state.

    In float16 gradients below 6e-8 are 0. So the loss is multiplied by a scale that is halved
    when a gradient overflows, which skips the step, and doubled after 2000 steps without
    (Micikevicius et al., ICLR 2018, section 3.2).

    Args:
        precision: one of `PRECISIONS`.
        device: where products are computed.
    """

    def __init__(self, precision: str, device: torch.device) -> None:
        self.device = device
        self.type = _TYPES[_chosen(precision, device)]
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.type is torch.float16)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.type, enabled=self.type is not None)

    def backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        self.scaler.step(optimizer)
        self.scaler.update()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Gradients as they are without the scale, for those who look at them before the step."""
        self.scaler.unscale_(optimizer)

    def to_json(self) -> str:
        return json.dumps(self.scaler.state_dict())

    def load_json(self, text: str) -> None:
        state: dict[str, Any] = json.loads(text)
        if state:  # none without a scale
            self.scaler.load_state_dict(state)


def _chosen(precision: str, device: torch.device) -> str:
    if precision != "auto":
        return precision
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if launched in _TYPES and launched != "no":  # which is what it says when it was not asked
        return launched
    return "bf16" if device.type == "cuda" else "no"
