"""Loading weights into a network: all checks first, then all tensors at once."""

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Final
from zipfile import BadZipFile

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from prunas.errors import InputError

_CONTAINERS = ("state_dict", "model")
_NAMED = 3  # how many offending tensors an error names


def digest_of(path: str | Path) -> str:
    """The SHA-256 of a weights file.

    Raises:
        InputError: the file is missing or unreadable.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no weights file {path}")
    try:
        with path.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"the weights {path} cannot be read: {error.strerror}") from None


def load_weights(network: nn.Module, path: str | Path) -> str | None:
    """Load a .safetensors file or a torch state dict into `network`, in place.

    State dicts may lie under "state_dict" or "model", with names that begin with "module.". Files
    are read without executing pickled code. A classifier for another number of classes is left
    out; the note returned then says so.

    Raises:
        InputError: the file is missing or unreadable, holds other things than tensors, or its
            names or shapes do not fit; the network is then unchanged.
    """
    path = Path(path)
    state = _state(path)
    own = network.state_dict()
    left_out = [name for name in _classifier(network, own) if not _same_shape(name, state, own)]
    state = {name: tensor for name, tensor in state.items() if name not in left_out}
    _check_fit(path, state, {name: own[name] for name in own if name not in left_out})
    network.load_state_dict(state, strict=False)
    if not left_out:
        return None
    return (
        f"The classifier in {path.name} is for another number of classes;"
        f" {' and '.join(left_out)} keep their initial values."
    )


def _state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"there is no weights file {path}")
    content = _unwrapped(_read(path))
    strangers = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if strangers or not content:
        found = f"{strangers[0]!r}, which is no tensor" if strangers else "nothing"
        raise InputError(f"{path} holds {found}; give a state dict of tensors")
    if all(name.startswith("module.") for name in content):
        return {name.removeprefix("module."): value for name, value in content.items()}
    return content


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            path.open("rb").close()  # safetensors says "no such file" of one that may not be read
            return load_file(path)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        raise InputError(
            f"{path} is a pickle that holds more than tensors, or is damaged, and pickles can"
            " run code when opened; save the state dict alone, or as .safetensors"
        ) from None
    except _UNREADABLE as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"the weights {path} cannot be read: {reason}") from None


_UNREADABLE: Final = (
    *(OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, AttributeError),
    *(AssertionError, OverflowError, MemoryError, BadZipFile, safetensors.SafetensorError),
)
"""What torch and safetensors raise on damaged files."""


def _unwrapped(content: Any) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        return {"": content}
    inner = (content[name] for name in _CONTAINERS if isinstance(content.get(name), Mapping))
    return dict(next(inner, content))


def _classifier(network: nn.Module, own: Mapping[str, Tensor]) -> list[str]:
    """Tensors of the layers that timm says give the class scores; none for other networks."""
    config = getattr(network, "pretrained_cfg", None) or {}
    layers = config.get("classifier") or ()
    layers = (layers,) if isinstance(layers, str) else layers
    return [name for name in own if name.rpartition(".")[0] in layers]


def _same_shape(name: str, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    return name not in state or state[name].shape == own[name].shape


def _check_fit(path: Path, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    needed = {name for name in own if not name.endswith("num_batches_tracked")}
    problems = [f"{name} is missing" for name in own if name in needed - state.keys()]
    problems += [f"{name} is unknown" for name in state if name not in own]
    problems += [
        f"{name} has shape {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if not _same_shape(name, state, own)
    ]
    if problems:
        more = f" and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        raise InputError(f"{path} does not fit the network: {', '.join(problems[:_NAMED])}{more}")
