"""Waiting for the disk."""

import os
from pathlib import Path


def flush(path: Path) -> None:
    """Wait until what is in a file, or the names in a folder, is on the disk.

    Raises:
        OSError: there is nothing, or the disk cannot tell.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
