"""Errors that nobody turned into a sentence where they arose: of the system, and of memory."""

import errno
import os
import re
import sys
from typing import Final

import torch

from prunas.pipeline.streams import is_stuck

_OF_NAMES: Final = frozenset(
    (
        errno.EACCES,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EPERM,
    )
)
_NO_MEMORY: Final = ("DefaultCPUAllocator: can't allocate memory", "CUDA error: out of memory")
"""Of which torch makes a RuntimeError like any other."""


def mishap(error: OSError | MemoryError | RuntimeError) -> tuple[str, int] | None:
    """A sentence and the exit code; None for what can only be a defect of the program."""
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return _of_memory(error), 1
    if any(text in str(error) for text in _NO_MEMORY):
        return _of_memory(error), 1
    return None


def _of_system(error: OSError) -> tuple[str, int]:
    if isinstance(error, FileNotFoundError) and _is_nowhere():
        return "the folder that you are in is gone; go to another one", 2
    stuck = error.filename is None and is_stuck(sys.stdout)
    name = "standard output" if stuck else error.filename
    said = f"{'' if name is None else f'{name}: '}{error.strerror or error}"
    if error.errno in _OF_NAMES:
        return f"{said}; mend that, or give another name", 2
    return f"{said}; what was finished is kept", 1


def _is_nowhere() -> bool:
    """Whether the working folder has been deleted."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _of_memory(error: Exception) -> str:
    found = re.search(r"allocate (\d\S* \w+)", str(error))
    asked = f" ({found[1]} more were asked for)" if found else ""
    return (
        f"there is not enough memory{asked}; take less with --batch-size, --accumulate or"
        " --input-size, whichever the command has; what was finished is kept"
    )
