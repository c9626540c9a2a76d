"""Files of arrays."""

import zipfile
import zlib
from typing import Final

UNREADABLE: Final = (
    *(OSError, EOFError, ValueError, LookupError, TypeError, AttributeError),
    *(zipfile.BadZipFile, zlib.error, MemoryError, NotImplementedError, RuntimeError),
)
"""What numpy and zipfile raise on .npz files that are none, or say of themselves what is not so."""
