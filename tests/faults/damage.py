"""Content of files damaged by chance or on purpose."""

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from prunas.pipeline.sealed import sealed

Rng = np.random.Generator


@dataclass(frozen=True)
class Damage:
    """What was done to a content, the content afterwards, and whether somebody meant it."""

    name: str
    content: bytes
    meant: bool


def damaged(content: bytes, rng: Rng, *, others: Sequence[bytes], form: str) -> Damage:
    """Half of it by chance, half on purpose where the form of the file is known."""
    meant = form in _ON_PURPOSE and rng.random() < 0.5
    ways = _ON_PURPOSE[form] if meant else _BY_CHANCE
    name = str(rng.choice(list(ways)))
    return Damage(name, ways[name](content, rng, others), meant)


Way = Callable[[bytes, Rng, Sequence[bytes]], bytes]


def _flip(content: bytes, rng: Rng, others: Sequence[bytes]) -> bytes:
    changed = bytearray(content)
    for place in rng.integers(0, len(changed), rng.integers(1, 9)):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _cut_off(content: bytes, rng: Rng, others: Sequence[bytes]) -> bytes:
    return content[: rng.integers(0, len(content))]


def _overwrite(content: bytes, rng: Rng, others: Sequence[bytes]) -> bytes:
    start, length = int(rng.integers(len(content))), int(rng.integers(1, 600))
    filling = bytes(length) if rng.random() < 0.5 else rng.bytes(length)
    return content[:start] + filling + content[start + length :]


def _remove(content: bytes, rng: Rng, others: Sequence[bytes]) -> bytes:
    start, length = int(rng.integers(len(content))), int(rng.integers(1, 600))
    return content[:start] + content[start + length :]


def _splice(content: bytes, rng: Rng, others: Sequence[bytes]) -> bytes:
    """A piece of another file, or of this one, in a wrong place."""
    source = others[int(rng.integers(len(others)))] if others and rng.random() < 0.7 else content
    start, place = (int(rng.integers(len(each))) for each in (source, content))
    piece = source[start : start + int(rng.integers(1, 4096))]
    return content[:place] + piece + content[place + len(piece) * int(rng.integers(2)) :]


_BY_CHANCE: Final[Mapping[str, Way]] = {
    "bits flipped": _flip,
    "cut off": _cut_off,
    "overwritten": _overwrite,
    "removed": _remove,
    "spliced": _splice,
}


# -- on purpose: JSON ------------------------------------------------------------------------------


_STRANGE: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 2**31, 10**30, 1.5, float("nan"), float("inf"), "", "x", "../../etc",
    "/dev/zero", "os.system", "hf-hub:", "__class__", "\x00", [], [[]], [None], {}, {"a": {}},
    {"kind": "class", "module": "os", "name": "abort"},
    {"kind": "class", "module": "tests.faults.trap", "name": "Trap"},
    {"kind": "timm", "name": "test_resnet", "arguments": {"checkpoint_path": "x"}},
)  # fmt: skip


def _other_value(content: bytes, rng: Rng, others: Sequence[bytes]) -> bytes:
    """One value of an object replaced, removed or added, and a checksum that says it is right."""
    try:
        entries = json.loads(content)
    except ValueError:
        return _flip(content, rng, others)
    places = list(_places(entries))
    holder, key = places[rng.integers(len(places))]
    strange = _STRANGE[rng.integers(len(_STRANGE))]
    chance = rng.random()
    if chance < 0.15:
        del holder[key]
    elif chance < 0.3 and isinstance(holder, dict):
        holder[str(strange)] = strange
    else:
        holder[key] = strange
    return json.dumps(sealed(entries) if isinstance(entries, dict) else entries).encode()


def _places(value: Any) -> Any:
    """(holder, key) of everything in a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in list(inside):
        yield value, key
        if isinstance(each, dict | list):
            yield from _places(each)


def _bomb(content: bytes, rng: Rng, others: Sequence[bytes]) -> bytes:
    depth = int(rng.integers(500, 200_000))
    bombs = (b"[" * depth, b'{"a":' * depth, b"9" * depth, b'{"schema": 1, "request": ' * depth)
    return bombs[rng.integers(len(bombs))]


# -- on purpose: safetensors -----------------------------------------------------------------------


def _lying_header(content: bytes, rng: Rng, others: Sequence[bytes]) -> bytes:
    """Offsets, shapes, types and names that are not those of the data; or a length that is not."""
    try:
        length = int.from_bytes(content[:8], "little")
        header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    except ValueError:
        return _flip(content, rng, others)
    places = list(_places(header))
    for _ in range(int(rng.integers(1, 4))):
        holder, key = places[rng.integers(len(places))]
        if isinstance(holder, list):
            holder[key] = int(rng.choice([0, 1, 7, 2**31, 2**62])) if len(holder) > key else 0
        else:
            strange = (*_STRANGE, "F32", "I64", "BF16", [2, 3], [0, 8])
            holder[key] = strange[rng.integers(len(strange))]
    text = json.dumps(header).encode()
    said = len(text) if rng.random() < 0.7 else int(rng.choice([0, 1, 2**20, 2**62]))
    return struct.pack("<Q", said) + text + data


_JSON: Final[Mapping[str, Way]] = {"another value": _other_value, "a bomb": _bomb}
_ON_PURPOSE: Final[Mapping[str, Mapping[str, Way]]] = {
    ".json": _JSON,
    ".jsonl": {"a bomb": _bomb},
    ".safetensors": {"a lying header": _lying_header},
}
