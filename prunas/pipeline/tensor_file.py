"""Tensors and notes in a .safetensors file, with a checksum: the format itself has none."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from prunas.errors import InputError
from prunas.pipeline.files import replacing, require_regular, require_text
from prunas.pipeline.sealed import SEAL, is_seal_damaged

Tensors = dict[str, Tensor]
Notes = dict[str, str]


def write_tensors(file: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> str:
    """Write copies of the tensors, contiguous and unshared, aside and then renamed.

    Args:
        file: a .safetensors file; one that is there is replaced.
        tensors: on any device.
        notes: what is to be known of them.

    Returns:
        The checksum of tensors and notes.

    Raises:
        RunError: the file cannot be written; an earlier one is kept.
    """
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    digest = _digest(plain, notes)
    with replacing(file) as aside:
        save_file(plain, aside, {**notes, SEAL: digest})
    return digest


def read_tensors(
    file: Path, *, advice: str = "delete it to redo it", digest: str | None = None
) -> tuple[Tensors, Notes]:
    """The tensors and notes of a file; one without a checksum is taken as it is.

    Args:
        file: a .safetensors file.
        advice: what to do if it cannot be read, for the error.
        digest: what `write_tensors` returned, if that is known.

    Raises:
        InputError: the file is missing, damaged, or another one than `digest` is of, may not be
            read, or its name is no text.
    """
    require_text(file)
    try:
        require_regular(file)
        file.open("rb").close()  # safetensors would say that there is none if it may not be read
        with safetensors.safe_open(file, "pt") as opened:
            notes = dict(opened.metadata() or {})
            names = opened.keys()
            tensors = {name: opened.get_tensor(name) for name in names}
    except FileNotFoundError:
        raise InputError(f"there is no weights file {file}") from None
    except PermissionError:
        raise InputError(f"{file} may not be read by you; ask its owner to permit it") from None
    except _UNREADABLE as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{file} cannot be read ({reason}); {advice}") from None
    known = notes.pop(SEAL, None)
    wanted = {each for each in (known, digest) if each is not None}
    if (wanted and wanted != {_digest(tensors, notes)}) or is_seal_damaged(notes):
        raise InputError(f"{file} is damaged: it is not what was written; {advice}")
    return tensors, notes


_UNREADABLE: Final = (OSError, ValueError, RuntimeError, safetensors.SafetensorError)


def _digest(tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> str:
    found = hashlib.sha256()
    for name, note in sorted(notes.items()):
        found.update(repr((name, note)).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        found.update(tensor.flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]
