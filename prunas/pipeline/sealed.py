"""JSON objects in files, with a checksum: a flipped bit can leave JSON that says something else."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from prunas.json_text import parsed
from prunas.pipeline.files import require_regular, write_text

Version = tuple[str, int]
"""The entry that says of which version a file is, and the version that is read."""

SEAL: Final = "checksum"
"""The name of the entry with the checksum, here and in files of tensors."""

_LARGEST: Final = 64 * 2**20  # bytes; no file of prunas comes near, and a JSON bomb is larger


def sealed(entries: Mapping[str, Any]) -> dict[str, Any]:
    """The entries with their checksum, which replaces one that is there."""
    bare = {name: value for name, value in entries.items() if name != SEAL}
    return {**bare, SEAL: _digest(bare)}


def unsealed(text: str | bytes, version: Version | None = None) -> dict[str, Any]:
    """The entries in a text, without their checksum; texts without one are taken as they are.

    Raises:
        ValueError: the text holds no JSON object, one of another version, or one that was changed.
    """
    entries = parsed(text)
    if version is not None:
        name, wanted = version
        found = entries.get(name) if isinstance(entries, dict) else None
        if found != wanted:
            raise ValueError(
                f"it has {name} {found}, this prunas reads {wanted}; use the prunas that wrote it"
            )
    if not isinstance(entries, dict):
        raise ValueError("it holds no JSON object")
    known = entries.pop(SEAL, None)
    if known not in (None, _digest(entries)) or is_seal_damaged(entries):
        raise ValueError(
            f"it was changed after it was written; if you did that on purpose, take {SEAL!r} out"
        )
    return entries


def is_seal_damaged(names: Iterable[str]) -> bool:
    """Whether the checksum's own name was hit: one of these is nearly it."""
    return bool(get_close_matches(SEAL, [name for name in names if name != SEAL], cutoff=0.6))


def write_sealed(file: Path, entries: Mapping[str, Any]) -> None:
    """Write the entries and their checksum, aside and then renamed.

    Raises:
        RunError: the file cannot be written; an earlier one is kept.
    """
    write_text(file, json.dumps(sealed(entries), indent=1))


def read_sealed(file: Path, version: Version | None = None) -> dict[str, Any]:
    """The entries that `write_sealed` wrote, or a person did, without a checksum.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no regular file, holds no JSON object, one of another version or one
            that was changed, or far too much.
    """
    require_regular(file)
    if (size := file.stat().st_size) > _LARGEST:
        raise ValueError(f"its {size:,} bytes are more than prunas ever writes")
    return unsealed(file.read_bytes(), version)


def _digest(entries: Mapping[str, Any]) -> str:
    """Of what the entries are once they have been written and read."""
    plain = json.loads(json.dumps(entries))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]
