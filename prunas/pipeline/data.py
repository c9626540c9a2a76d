"""Data sets by name or path, split into train, held-out and test pictures."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from timm.data.dataset_factory import create_dataset
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import IterableDataset

from prunas.errors import InputError
from prunas.pipeline import arrays, folders, patches
from prunas.pipeline.contents import Contents, contents_of
from prunas.pipeline.seeding import require_seed
from prunas.pipeline.splits import Fetch, Ints, Preparation, Split, from_memory, from_reader

Size = tuple[int, int, int]

_USUAL = "use digits, photos, a path, or a data set of timm such as torch/cifar10"
_CHANNELS = (1, 3, 4)
_TIMM_PREFIXES = ("torch/", "hfds/", "hfids/", "tfds/", "wds/")
_PICTURES_FOR_STATISTICS = 5_000
_PATCHES_PER_CLASS = 320
_SYMBOLS = ("mnist", "svhn", "digit", "letter", "char")  # whose mirror image means something else


@final
@dataclass(frozen=True)
class Data:
    """Three disjoint splits of one data set.

    `input_size` is (channels, height, width). The held-out split has equally many pictures of
    every class; candidates are scored on it. The test split is for the end. `note` says in
    sentences where the splits come from and how training pictures are varied. `contents` is of
    all of it, whatever the seed and the size; `files` are held-out and test pictures that lie in
    files, which nobody may have looked at yet.
    """

    name: str
    classes: tuple[str, ...]
    input_size: Size
    train: Split
    held_out: Split
    test: Split
    note: str
    contents: Contents
    files: tuple[Path, ...] = ()


@dataclass(frozen=True, eq=False)
class _Source:
    """Pictures that can be fetched by index, and their labels.

    `files` are where they lie, if each lies in one; `identity` tells them from others, as far as
    that can be known without looking at each.
    """

    fetch: Fetch
    labels: Ints
    files: tuple[Path, ...] = ()
    identity: bytes = b""


@dataclass(frozen=True)
class _Parts:
    """What a data set brings itself; missing parts are taken out of `train`."""

    classes: tuple[str, ...]
    input_size: Size
    note: str
    flip: bool
    train: _Source
    held_out: _Source | None = None
    test: _Source | None = None


def load_data(
    name_or_path: str | Path,
    *,
    seed: int,
    input_size: Size | int | None = None,
    held_out: float = 0.2,
    test: float = 0.2,
    root: str | Path | None = None,
) -> Data:
    """Load a data set; the same seed gives the same splits.

    Args:
        name_or_path: "digits" (1,797 handwritten digits, 8 x 8, bundled with scikit-learn),
            "photos" (patches of bundled photographs, 32 x 32, see `patches`), a folder with one
            sub-folder of pictures per class (or train/ and val/ or test/ of that form), an .npz
            with x_train, y_train (and x_test, y_test) or images, labels, or a name that
            `timm.data.create_dataset` takes, such as "torch/cifar10".
        seed: decides which pictures go to which split.
        input_size: (channels, height, width) to convert pictures to, or the side of a square with
            the channels as they come; as they come by default.
        held_out: share of the training pictures held out, equally many of each class.
        test: share taken for the test where the data set has no test pictures of its own,
            in proportion to the classes.
        root: where timm's data sets lie, or are downloaded to; those of torchvision go to
            ~/.cache/prunas if it is not given.

    Raises:
        InputError: the data cannot be used; the sentence says why.
    """
    _check_shares(held_out, test)
    _check_size(input_size)
    require_seed(seed)
    name = str(name_or_path)
    if not name:
        raise InputError(f"the data have no name; {_USUAL}, or . for the folder that you are in")
    rng = np.random.default_rng(seed)
    if name == "photos":
        parts = _photos(held_out, test, input_size, rng)
    elif name == "digits":
        parts = _digits(input_size)
    elif name.lower().startswith(_TIMM_PREFIXES):
        parts = _timm(name, root, input_size)
    else:
        parts = _from_path(Path(name_or_path).expanduser(), input_size)
    return _assemble(name, parts, held_out, test, rng)


def _check_shares(held_out: float, test: float) -> None:
    for name, share in (("held_out", held_out), ("test", test)):
        if not 0 < share < 1:
            raise InputError(f"{name}={share} is no share of the pictures; choose between 0 and 1")


def _check_size(input_size: Size | int | None) -> None:
    if input_size is None:
        return
    square = isinstance(input_size, int | float | str)
    size: Any = (3, input_size, input_size) if square else input_size
    channels, *sides = size
    if len(sides) != 2 or not all(map(_is_side, sides)):
        raise InputError(
            f"input_size={input_size!r} is no size of pictures; give (channels, height, width) or"
            " the side of a square, all whole numbers from 1 on"
        )
    if channels not in _CHANNELS:
        raise InputError(f"input_size={input_size}: pictures have 1, 3 or 4 channels")


def _is_side(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _from_path(path: Path, input_size: Size | int | None) -> _Parts:
    if not _exists(path):
        raise _nothing_called(path)
    if path.is_dir():
        return _folder(path, input_size)
    if path.is_file() and path.suffix == ".npz":
        return _npz(path, input_size)
    raise InputError(f"{path} is neither a folder of pictures nor an .npz file")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; mend that, or give another name") from None


def _nothing_called(path: Path) -> InputError:
    names = ["digits", "photos", *(entry.name for entry in _entries(path.parent))]
    near = get_close_matches(path.name, names, n=3)
    advice = f"did you mean {' or '.join(near)}?" if near else _USUAL
    return InputError(f"there is no data set, folder or .npz called {str(path)!r}; {advice}")


def _entries(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [entry for entry in folder.iterdir() if entry.is_dir() or entry.suffix == ".npz"]


# --- the sources -----------------------------------------------------------------------------


def _digits(input_size: Size | int | None) -> _Parts:
    bunch = load_digits()
    pictures = _resized(torch.from_numpy(bunch.images.astype(np.float32))[:, None], input_size)
    return _Parts(
        classes=tuple(str(name) for name in bunch.target_names),
        input_size=_size(pictures),
        note="1,797 handwritten digits (UCI, bundled with scikit-learn).",
        flip=False,
        train=_Source(from_memory(pictures), bunch.target.astype(np.int64)),
    )


def _photos(
    held_out: float, test: float, input_size: Size | int | None, rng: np.random.Generator
) -> _Parts:
    shares = ((1 - test) * (1 - held_out), (1 - test) * held_out, test)
    sizes = tuple(max(3, round(share * _PATCHES_PER_CLASS)) for share in shares)
    sets = patches.cut_patches(sizes, shares, rng)
    tensors = [_resized(torch.from_numpy(each.pictures), input_size) for each in sets]
    train, held, tested = (
        _Source(from_memory(tensor), each.labels)
        for tensor, each in zip(tensors, sets, strict=True)
    )
    return _Parts(
        classes=patches.CLASSES,
        input_size=_size(tensors[0]),
        note=f"Grey {patches.SIDE} x {patches.SIDE} patches of {len(patches.CLASSES)} photographs"
        " (bundled with scikit-image and scikit-learn), from separate regions for each split.",
        flip=True,
        train=train,
        held_out=held,
        test=tested,
    )


def _folder(path: Path, input_size: Size | int | None) -> _Parts:
    listing = folders.list_pictures(path)
    files = listing.train.files
    channels = folders.channels_of(files)
    size = _wanted(folders.natural_size(files[0], channels), input_size)
    taken = "grey" if size[0] == 1 else "colour"
    mixed = f" Some are grey, some in colour; all are taken as {taken}."

    def source(part: folders.Listing) -> _Source:
        names = "\n".join(file.relative_to(path).as_posix() for file in part.files)
        fetch = from_reader(folders.reader(part.files, size))
        return _Source(fetch, part.labels, part.files, names.encode("utf-8", "surrogateescape"))

    return _Parts(
        classes=listing.classes,
        input_size=size,
        note=listing.note + (mixed if len(channels) > 1 else ""),
        flip=True,
        train=source(listing.train),
        held_out=source(listing.held_out) if listing.held_out else None,
        test=source(listing.test) if listing.test else None,
    )


def _npz(path: Path, input_size: Size | int | None) -> _Parts:
    stored = arrays.read_arrays(path)
    size = _wanted(_size(stored.train.pictures), input_size)

    def source(part: arrays.Labelled) -> _Source:
        values = part.pictures.numpy()
        identity = f"{values.shape} {values.dtype} {zlib.crc32(values.data)}"
        fetch = from_memory(_resized(part.pictures, size))
        return _Source(fetch, part.labels, identity=identity.encode())

    return _Parts(
        classes=stored.classes,
        input_size=size,
        note=f"Arrays of {path.name}.",
        flip=size[0] == 3,  # grey arrays are often characters
        train=source(stored.train),
        test=source(stored.test) if stored.test else None,
    )


def _timm(name: str, root: str | Path | None, input_size: Size | int | None) -> _Parts:
    train = _timm_split(name, root, "train")
    tested = _timm_split(name, root, "validation")
    if isinstance(train, IterableDataset) or isinstance(tested, IterableDataset):
        raise InputError(
            f"{name} is a stream that cannot be indexed, so no pictures can be held out;"
            " save it as a folder of pictures and give its path"
        )
    size = _wanted(folders.size_of(_timm_picture(train, 0)), input_size)
    labels = _timm_labels(train)
    names = getattr(train, "classes", None) or [str(each) for each in range(labels.max() + 1)]
    return _Parts(
        classes=tuple(str(each) for each in names),
        input_size=size,
        note=f"{name} through timm; test pictures are its validation split.",
        flip=not any(word in name.lower() for word in _SYMBOLS),
        train=_Source(from_reader(_timm_reader(train, size)), labels),
        test=_Source(from_reader(_timm_reader(tested, size)), _timm_labels(tested)),
    )


def _timm_split(name: str, root: str | Path | None, split: str) -> Any:
    download = name.lower().startswith("torch/")
    usual = str(Path("~/.cache/prunas").expanduser()) if download else None
    place = usual if root is None else str(root)
    try:
        return create_dataset(name, root=place, split=split, download=download)
    except (OSError, RuntimeError, ValueError, TypeError, AssertionError, ImportError) as error:
        raise InputError(f"timm cannot open {name!r} ({split}, root={place}): {error}") from None


def _timm_labels(dataset: Any) -> Ints:
    """The labels, from the list that torchvision's data sets keep, or else picture by picture."""
    known = getattr(dataset, "targets", None)
    known = (dataset[index][1] for index in range(len(dataset))) if known is None else known
    return np.array([int(label) for label in known], dtype=np.int64)


def _timm_reader(dataset: Any, size: Size) -> Callable[[int], Tensor]:
    return lambda index: folders.fitted(_timm_picture(dataset, index), size)


def _timm_picture(dataset: Any, index: int) -> Image.Image:
    return folders.eight_bits(dataset[index][0], f"picture {index}")


# --- from parts to splits --------------------------------------------------------------------


def _assemble(
    name: str, parts: _Parts, held_out: float, test: float, rng: np.random.Generator
) -> Data:
    _check_counts(name, parts)
    labels = parts.train.labels
    train = np.arange(len(labels))
    if parts.test is None:
        train, tested = _divided(train, labels, _in_proportion(labels, test), rng)
    else:
        tested = np.arange(len(parts.test.labels))
    if parts.held_out is None:
        train, held = _divided(train, labels, _balanced(labels[train], held_out), rng)
    else:
        every = np.arange(len(parts.held_out.labels))
        equal = np.bincount(parts.held_out.labels, minlength=len(parts.classes)).min()
        sizes = np.full(len(parts.classes), equal)
        _, held = _divided(every, parts.held_out.labels, sizes, rng)
    preparation = _preparation(parts, train)

    def split(source: _Source | None, indices: Ints) -> Split:
        chosen = source or parts.train
        return Split(chosen.fetch, indices, chosen.labels[indices], preparation)

    unseen = ((parts.held_out or parts.train, held), (parts.test or parts.train, tested))
    return Data(
        name=name,
        classes=parts.classes,
        input_size=parts.input_size,
        train=split(None, train),
        held_out=split(parts.held_out, held),
        test=split(parts.test, tested),
        note=f"{parts.note} {_variation(preparation)}",
        contents=_contents(parts),
        files=tuple(source.files[i] for source, some in unseen if source.files for i in some),
    )


def _contents(parts: _Parts) -> Contents:
    sources = [each for each in (parts.train, parts.held_out, parts.test) if each is not None]
    facts = [fact for each in sources for fact in (each.labels.tobytes(), each.identity)]
    names = [name.encode("utf-8", "surrogateescape") for name in parts.classes]
    return contents_of(sum(len(each.labels) for each in sources), [*names, *facts])


def _check_counts(name: str, parts: _Parts) -> None:
    counts = np.bincount(parts.train.labels, minlength=len(parts.classes))
    if len(counts) < 2:
        raise InputError(f"{name} has only the class {parts.classes[0]!r}; two or more are needed")
    if counts.min() < 3:
        fewest = parts.classes[int(counts.argmin())]
        raise InputError(
            f"{name} has {counts.min()} pictures of the class {fewest!r} to train with;"
            " three or more of every class are needed to split them"
        )
    if parts.held_out and len(np.unique(parts.held_out.labels)) < len(counts):
        raise InputError(f"{name}: a class has no held-out pictures; give some, or no val folder")


def _in_proportion(labels: Ints, share: float) -> Ints:
    """Per class, how many to take: in proportion, at least one, leaving at least two."""
    counts = np.bincount(labels)
    return np.clip(np.round(share * counts), 1, counts - 2).astype(np.int64)


def _balanced(labels: Ints, share: float) -> Ints:
    """Per class, how many to take: equally many, at least one, at most half of the smallest."""
    counts = np.bincount(labels)
    equal = round(share * len(labels) / len(counts))
    return np.full(len(counts), np.clip(equal, 1, counts.min() // 2), dtype=np.int64)


def _divided(
    indices: Ints, labels: Ints, sizes: Ints, rng: np.random.Generator
) -> tuple[Ints, Ints]:
    """Split `indices` into (rest, taken), both ascending, with sizes[c] of class c taken."""
    shuffled = rng.permutation(indices)
    taken = [shuffled[labels[shuffled] == c][:size] for c, size in enumerate(sizes)]
    taken_indices = np.sort(np.concatenate(taken))
    return np.setdiff1d(indices, taken_indices), taken_indices


def _preparation(parts: _Parts, train: Ints) -> Preparation:
    """Per-channel mean and standard deviation of the training pictures (evenly spaced sample)."""
    step = max(1, len(train) // _PICTURES_FOR_STATISTICS)
    sample = train[::step]
    picks = [sample[start : start + 500] for start in range(0, len(sample), 500)]
    total = squares = torch.zeros(parts.input_size[0], dtype=torch.float64)
    for raw in parts.train.fetch(picks, torch.device("cpu")):
        values = raw.double()
        total = total + values.sum((0, 2, 3))
        squares = squares + values.square().sum((0, 2, 3))
    pixels = len(sample) * parts.input_size[1] * parts.input_size[2]
    mean = total / pixels
    std = (squares / pixels - mean.square()).clamp(min=0).sqrt()
    std = torch.where(std > 0, std, 1.0)  # a constant channel stays at 0
    shift = max(1, min(parts.input_size[1:]) // 8)
    return Preparation(tuple(mean.tolist()), tuple(std.tolist()), shift, parts.flip)


def _variation(preparation: Preparation) -> str:
    mirrored = " and mirrors them" if preparation.flip else ""
    pixels = f"{preparation.shift} pixel{'s' * (preparation.shift != 1)}"
    return f"Augmentation shifts training pictures by up to {pixels}{mirrored}."


def _size(pictures: Tensor) -> Size:
    _, channels, height, width = pictures.shape
    return channels, height, width


def _wanted(own: Size, asked: Size | int | None) -> Size:
    """The size to use for pictures that come in their `own`."""
    if asked is None:
        return own
    return (own[0], asked, asked) if isinstance(asked, int) else asked


def _resized(pictures: Tensor, asked: Size | int | None) -> Tensor:
    """(N, C, H, W) converted to what is asked: grey repeated or colours averaged, then bilinear."""
    size = _wanted(_size(pictures), asked)
    if _size(pictures) == size:
        return pictures
    channels = size[0]
    if pictures.shape[1] != channels:
        pictures = pictures.float().mean(1, keepdim=True).expand(-1, channels, -1, -1)
    if tuple(pictures.shape[2:]) == size[1:]:
        return pictures.contiguous()
    return F.interpolate(pictures.float(), size[1:], mode="bilinear", antialias=True)
