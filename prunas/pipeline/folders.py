"""Folders of pictures: one sub-folder per class, with or without train, val and test."""

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from prunas.errors import InputError
from prunas.pipeline.splits import Ints

Size = tuple[int, int, int]

_SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
_VALIDATION = ("val", "valid", "validation")
_PARTS = frozenset(("train", "training", *_VALIDATION, "test", "testing"))
_NAME_THEM = "name the parts train/, val/ and test/, each with one folder per class"
_LARGEST_SIDE = 224  # larger pictures are scaled down to it unless the caller names a size
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_LOOKED_AT = 1_000  # pictures, evenly spaced, whose headers say whether there is colour
_READERS = 8
_NO_SCALE = {"F": "floating-point", "I": "32-bit"}


@dataclass(frozen=True, eq=False)
class Listing:
    """Picture files and their labels (n,)."""

    files: tuple[Path, ...]
    labels: Ints


@dataclass(frozen=True)
class Listings:
    """The parts that a folder holds.

    `note` says which of its folders they are, and which folders hold no pictures.
    """

    classes: tuple[str, ...]
    train: Listing
    held_out: Listing | None
    test: Listing | None
    note: str


def list_pictures(root: Path) -> Listings:
    """List the pictures of a folder of class folders, or of train/ and val/ or test/ of these.

    With both val/ and test/, val/ is held out; with one of them, that one is the test.

    Raises:
        InputError: no class folders, no pictures, a test class that train/ has not, or parts of
            other names.
    """
    train = root / "train"
    if not _folders(train):
        classes, listing = _list(root)
        note = f"Pictures of {root}.{_empty(root, classes)}"
        return Listings(classes, listing, None, None, note)
    classes, listing = _list(train)
    validation = next((root / name for name in _VALIDATION if (root / name).is_dir()), None)
    test = root / "test" if (root / "test").is_dir() else None
    _require_used(root, (train, validation, test))
    if test is None:
        validation, test = None, validation
    return Listings(
        classes,
        listing,
        _list_known(validation, classes) if validation else None,
        _list_known(test, classes) if test else None,
        f"Pictures of {train}{_described('held out', validation)}{_described('test', test)}."
        + _empty(train, classes),
    )


def _described(role: str, folder: Path | None) -> str:
    return f", {role}: {folder.name}/" if folder else ""


def _empty(root: Path, classes: Sequence[str]) -> str:
    """A sentence on the folders without pictures, which somebody may have meant as classes."""
    empty = [f"{folder.name}/" for folder in _folders(root) if folder.name not in classes]
    if not empty:
        return ""
    return f" Without pictures, and so no class of their own: {', '.join(empty)}."


def _require_used(root: Path, parts: Sequence[Path | None]) -> None:
    """Refuse a part that would be left out because of its name."""
    used = {part.name for part in parts if part is not None}
    for folder in _folders(root):
        if folder.name.lower() in _PARTS - used:
            raise InputError(f"{folder} would be left out; {_NAME_THEM}")


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    inside = (entry for entry in root.iterdir() if entry.is_dir())
    return sorted((entry for entry in inside if entry.name[0] != "."), key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    """A key that sorts class 2 before class 10."""
    pieces = re.findall(r"\d+|\D+", path.name)
    return [(int(piece), "") if piece.isdecimal() else (0, piece) for piece in pieces]


def _list(root: Path) -> tuple[tuple[str, ...], Listing]:
    _require_classes(root)
    found = {folder.name: _pictures(folder) for folder in _folders(root)}
    found = {name: files for name, files in found.items() if files}
    if not found:
        raise InputError(
            f"{root} holds no pictures in class folders; make one folder per class,"
            f" with files such as {root / 'cat' / '1.png'}"
        )
    labels = np.repeat(np.arange(len(found)), [len(files) for files in found.values()])
    return tuple(found), Listing(tuple(file for files in found.values() for file in files), labels)


def _require_classes(root: Path) -> None:
    """Refuse parts in the place of classes; "train" may also be a class, of vehicles."""
    for folder in _folders(root):
        name = folder.name.lower()
        if name in _PARTS and (name != "train" or _folders(folder)):
            raise InputError(f"{folder} would be taken as a class; {_NAME_THEM}")


def _list_known(root: Path, classes: tuple[str, ...]) -> Listing:
    """The pictures of `root`, labelled by the classes of the training folder."""
    names, listing = _list(root)
    strangers = [name for name in names if name not in classes]
    if strangers:
        raise InputError(f"{root} has a class {strangers[0]!r} that the training folder has not")
    return Listing(listing.files, np.array([classes.index(name) for name in names])[listing.labels])


def _pictures(folder: Path) -> list[Path]:
    """The pictures in a folder and below it; hidden ones are what other programs keep there."""
    found: list[Path] = []
    for place, below, names in os.walk(folder):
        below[:] = _shown(below)
        found += (Path(place, name) for name in _shown(names))
    return sorted(file for file in found if file.suffix.lower() in _SUFFIXES)


def _shown(names: Iterable[str]) -> list[str]:
    return [name for name in names if name[0] != "."]


def channels_of(files: Sequence[Path]) -> frozenset[int]:
    """How many channels pictures have, 1 or 3, by the headers of a thousand of them at most."""
    step = -(-len(files) // _LOOKED_AT)
    return frozenset(map(_look, files[::step]))


def require_readable(files: Sequence[Path]) -> None:
    """Read the header of every picture.

    Raises:
        InputError: one has none, or cannot be used.
    """
    shares = [files[start::_READERS] for start in range(_READERS)]
    with ThreadPoolExecutor(_READERS) as pool:  # disks answer several questions at a time
        list(pool.map(lambda share: list(map(_look, share)), shares))


def _look(file: Path) -> int:
    """The channels of a picture that can be used, by its header."""
    with _reading(file), Image.open(file) as image:
        _require_scale(image, f"the picture {file}")
        return _channels(image)


def natural_size(file: Path, channels: frozenset[int]) -> Size:
    """The (channels, height, width) to use when nobody names one: the sides of a first picture.

    Where some of the pictures are grey and some in colour, it is colour.
    """
    _, height, width = size_of(_opened(file))
    return max(channels), height, width


def size_of(image: Image.Image) -> Size:
    """Grey or colour as it is; its own sides, or a square of 224 where it is larger than that."""
    if max(image.size) > _LARGEST_SIDE:
        return _channels(image), _LARGEST_SIDE, _LARGEST_SIDE
    return _channels(image), image.height, image.width


def _channels(image: Image.Image) -> int:
    return 1 if image.mode in ("1", "L", "F") or image.mode.startswith("I") else 3


def reader(files: Sequence[Path], size: Size) -> Callable[[int], Tensor]:
    """read(index) -> uint8 (C, H, W); raises InputError naming a file that cannot be decoded."""
    return lambda index: fitted(_opened(files[index]), size)


def fitted(image: Image.Image, size: Size) -> Tensor:
    """Convert to `size` as uint8 (C, H, W): scaled to cover it, the middle kept."""
    channels, height, width = size
    if channels not in _MODES:
        raise InputError(f"input_size={size}: pictures have 1, 3 or 4 channels")
    fit = ImageOps.fit(image.convert(_MODES[channels]), (width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(fit).reshape(height, width, channels)).permute(2, 0, 1)


def eight_bits(image: Image.Image, name: str) -> Image.Image:
    """A grey picture of 16 bits with 8, 65535 becoming 255; any other as it is.

    Pillow itself would clip at 255.

    Raises:
        InputError: nothing says what is white in it.
    """
    _require_scale(image, name)
    if not _has_sixteen_bits(image):
        return image
    return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))


def _require_scale(image: Image.Image, name: str) -> None:
    if image.mode in _NO_SCALE and not _has_sixteen_bits(image):
        raise InputError(
            f"{name} holds {_NO_SCALE[image.mode]} pixels; save it with 8 bits, or give an .npz"
        )


def _has_sixteen_bits(image: Image.Image) -> bool:
    """By its mode; pictures of formats that have no more bits may come in mode I as well."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def _opened(file: Path) -> Image.Image:
    with _reading(file), Image.open(file) as image:
        image.load()
        return eight_bits(image, f"the picture {file}")


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise OSError("it is a pipe or a device")  # which could be waited for for ever
        yield
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"the picture {file} cannot be read: {error}") from None
