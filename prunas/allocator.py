"""Memory that the C library keeps instead of handing it back after every layer.

By default glibc takes each tensor of a few megabytes fresh from the system and hands it back when
it is freed, so that every layer waits while its pages are mapped and zeroed again: four tenths of
the time of a forward of MobileNetV2, and a third of a training step's (benchmarks/RESULTS.md).
Kept, the memory of one layer is that of the next. The price is that a process stays as large as
it once was, which is why the program `prunas` asks for it and importing the package does not.
"""

import ctypes
import os
from collections.abc import MutableMapping
from typing import Final

_TRIM: Final = ("MALLOC_TRIM_THRESHOLD_", -1, 2**31 - 1)
_MAP: Final = ("MALLOC_MMAP_THRESHOLD_", -3, 2**28)  # larger tensors are rare, and handed back
_USUAL_MAP: Final = 2**25  # the most that glibc comes to by itself
_OTHERS: Final = ("GLIBC_TUNABLES", "LD_PRELOAD")


def keep_freed_memory(environment: MutableMapping[str, str] = os.environ) -> bool:
    """Let this process, and those that it starts, keep freed memory for what comes next.

    Args:
        environment: where the settings for further processes go.

    Returns:
        Whether anything was changed: not where the C library is another than glibc, nor where the
        user has chosen settings or another allocator.
    """
    names = [name for name, _, _ in (_TRIM, _MAP)]
    if any(name in environment for name in (*names, *_OTHERS)):
        return False
    if not _is_glibc():
        return False
    library = ctypes.CDLL(None)
    for name, parameter, size in (_TRIM, _MAP):
        environment[name] = str(size)
        library.mallopt(parameter, size)
    return True


def hand_back_large_tensors() -> None:
    """Take back what `keep_freed_memory` did to tensors above 32 MiB, in this process.

    For one with a limit on its memory: an aligned tensor may not fit where an equal one was, by
    luck of addresses, and a network of large layers then takes their memory again and again.
    """
    if _is_glibc():
        ctypes.CDLL(None).mallopt(_MAP[1], _USUAL_MAP)


def _is_glibc() -> bool:
    try:
        return hasattr(ctypes.CDLL(None), "gnu_get_libc_version")
    except (OSError, TypeError):  # Windows has no library of that name
        return False
