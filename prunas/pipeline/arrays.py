"""Pictures and labels in an .npz file, checked before anything is made of them."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prunas.errors import InputError
from prunas.npz import UNREADABLE
from prunas.pipeline.splits import Ints

Array = npt.NDArray[Any]

_TRAIN = (("x_train", "y_train"), ("images", "labels"))
_TEST = ("x_test", "y_test")
_CHANNELS = (1, 3, 4)


@dataclass(frozen=True, eq=False)
class Labelled:
    """`pictures` (n, C, H, W), uint8 or float32, and `labels` (n,), positions in the classes."""

    pictures: Tensor
    labels: Ints


@dataclass(frozen=True, eq=False)
class Arrays:
    """What an .npz holds; `test` is None without x_test."""

    classes: tuple[str, ...]
    train: Labelled
    test: Labelled | None


def read_arrays(path: Path) -> Arrays:
    """Read x_train, y_train (and x_test, y_test), or images, labels, never through pickle.

    Pictures are (N, H, W), (N, C, H, W) or (N, H, W, C) with 1, 3 or 4 channels; labels are
    integers or names, whose sorted set is the classes.

    Raises:
        InputError: an unreadable file, missing arrays, or types and shapes that do not fit.
    """
    stored = _read(path)
    train_pair = next((pair for pair in _TRAIN if pair[0] in stored), _TRAIN[0])
    pictures, names = _pair(path, stored, train_pair)
    classes, labels = np.unique(names, return_inverse=True)
    train = Labelled(pictures, labels.astype(np.int64))
    test = None
    if any(name in stored for name in _TEST):
        test = _test(path, stored, classes, pictures)
        _require_one_type(path, stored, train_pair[0])
    return Arrays(tuple(str(name) for name in classes), train, test)


def _test(path: Path, stored: Mapping[str, Array], classes: Array, like: Tensor) -> Labelled:
    pictures, names = _pair(path, stored, _TEST)
    if pictures.shape[1:] != like.shape[1:]:
        sizes = tuple(pictures.shape[1:]), tuple(like.shape[1:])
        raise InputError(f"{path}: x_test holds pictures of size {sizes[0]}, x_train of {sizes[1]}")
    strangers = np.setdiff1d(names, classes)
    if len(strangers):
        raise InputError(f"{path}: y_test has a class {strangers[0]!s} that y_train has not")
    return Labelled(pictures, np.searchsorted(classes, names).astype(np.int64))


def _require_one_type(path: Path, stored: Mapping[str, Array], train: str) -> None:
    """Refuse test pictures of another type than the training pictures: its scale may be another."""
    types = stored[_TEST[0]].dtype, stored[train].dtype
    if types[0] != types[1]:
        raise InputError(
            f"{path}: {_TEST[0]} is {types[0]} and {train} {types[1]}; store both as one type, on"
            " one scale"
        )


def _read(path: Path) -> dict[str, Array]:
    wanted = ("x_train", "y_train", "x_test", "y_test", "images", "labels")
    try:
        with path.open("rb") as file, zipfile.ZipFile(file):  # np.load would leave it open
            file.seek(0)
            archive = np.load(file, allow_pickle=False)
            return {name: archive[name] for name in wanted if name in archive}
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be read as .npz without pickle: {error}") from None


def _pair(path: Path, stored: Mapping[str, Array], names: tuple[str, str]) -> tuple[Tensor, Array]:
    """The checked (pictures (n, C, H, W), labels (n,)) under the two names."""
    missing = [name for name in names if name not in stored]
    if missing:
        raise InputError(
            f"{path} has no array {' and no '.join(missing)}; give x_train, y_train"
            " (and x_test, y_test), or images, labels"
        )
    raw, labels = (stored[name] for name in names)
    pictures = _picture_tensor(f"{path}: {names[0]}", raw)
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.shape != (len(pictures),) or labels.dtype.kind not in "iubUS":
        raise InputError(
            f"{path}: {names[1]} must be {len(pictures)} integers or names, one per picture;"
            f" it is {labels.dtype} of shape {labels.shape}"
        )
    return pictures, _texts(labels) if labels.dtype.kind == "S" else labels


def _texts(names: Array) -> Array:
    """Names that were stored as bytes; what is no UTF-8 stays as it can be printed."""
    return np.char.decode(names, "utf-8", "backslashreplace")


def _picture_tensor(place: str, raw: Array) -> Tensor:
    """(N, H, W), (N, C, H, W) or (N, H, W, C) as (N, C, H, W), uint8 or float32."""
    if raw.dtype.kind not in "uif" or raw.ndim not in (3, 4) or 0 in raw.shape:
        raise InputError(
            f"{place} must be numbers of shape (N, H, W), (N, C, H, W) or (N, H, W, C);"
            f" it is {raw.dtype} of shape {raw.shape}"
        )
    if raw.ndim == 3:
        raw = raw[:, None]
    elif raw.shape[1] not in _CHANNELS and raw.shape[3] in _CHANNELS:
        raw = raw.transpose(0, 3, 1, 2)
    elif raw.shape[1] not in _CHANNELS:
        raise InputError(f"{place} has shape {raw.shape}, where no dimension is 1, 3 or 4 channels")
    raw = raw if raw.dtype == np.uint8 else raw.astype(np.float32)
    pictures = torch.from_numpy(np.ascontiguousarray(raw))
    if not torch.isfinite(pictures).all():
        raise InputError(f"{place} holds values that are not finite")
    return pictures
