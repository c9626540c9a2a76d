"""The "photos" data set: grey patches of photographs that scikit-image and scikit-learn bundle.

A class is a photograph; a patch must be told apart by its texture and structure alone, since
every patch is brought to mean 0 and standard deviation 1. Each photograph is cut into square
blocks, and each block belongs to one split only, so that no pixel is shared between splits.
Nothing is downloaded: the files are those inside the two installed packages.
"""

from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
from PIL import Image

from prunas.errors import InputError

Floats = npt.NDArray[np.float32]

SIDE = 32
_BLOCK = 48  # a patch moves by up to 16 pixels within its block
_PHOTOGRAPHS = {
    "astronaut": ("skimage.data", "astronaut.png"),
    "brick": ("skimage.data", "brick.png"),
    "camera": ("skimage.data", "camera.png"),
    "cat": ("skimage.data", "chelsea.png"),
    "china": ("sklearn.datasets.images", "china.jpg"),
    "coffee": ("skimage.data", "coffee.png"),
    "coins": ("skimage.data", "coins.png"),
    "flower": ("sklearn.datasets.images", "flower.jpg"),
    "grass": ("skimage.data", "grass.png"),
    "gravel": ("skimage.data", "gravel.png"),
    "moon": ("skimage.data", "moon.png"),
    "motorcycle": ("skimage.data", "motorcycle_left.png"),
    "retina": ("skimage.data", "retina.jpg"),
    "rocket": ("skimage.data", "rocket.jpg"),
    "text": ("skimage.data", "text.png"),
    "tissue": ("skimage.data", "ihc.png"),
}
CLASSES = tuple(_PHOTOGRAPHS)


@dataclass(frozen=True, eq=False)
class Patches:
    """`pictures` (n, 1, SIDE, SIDE), each of mean 0 and standard deviation 1; `labels` (n,)."""

    pictures: Floats
    labels: npt.NDArray[np.int64]


def cut_patches(
    sizes: tuple[int, ...], shares: tuple[float, ...], rng: np.random.Generator
) -> tuple[Patches, ...]:
    """Cut one set per entry of `sizes` (patches a class), from disjoint blocks of each photograph.

    Set s gets about `shares[s]` of every photograph's blocks, and at least one.

    Raises:
        InputError: scikit-image is not installed.
    """
    per_class = [_cut(_photograph(name), sizes, shares, rng) for name in CLASSES]
    return tuple(
        Patches(np.concatenate(sets), np.repeat(np.arange(len(CLASSES)), size))
        for sets, size in zip(zip(*per_class, strict=True), sizes, strict=True)
    )


def _photograph(name: str) -> Floats:
    """A photograph in grey, (height, width), its shorter side at most 400 pixels."""
    package, file = _PHOTOGRAPHS[name]
    if find_spec(package.partition(".")[0]) is None:
        raise InputError("the data set 'photos' needs scikit-image: pip install 'prunas[photos]'")
    with (files(package) / file).open("rb") as stream:
        image = Image.open(stream).convert("L")
    image.thumbnail((_longest(image), _longest(image)), Image.Resampling.LANCZOS)
    return np.asarray(image, dtype=np.float32)


def _longest(image: Image.Image) -> int:
    return round(400 * max(image.size) / min(image.size))


def _cut(
    photograph: Floats,
    sizes: tuple[int, ...],
    shares: tuple[float, ...],
    rng: np.random.Generator,
) -> list[Floats]:
    rows, columns = (side // _BLOCK for side in photograph.shape)
    blocks = rng.permutation(rows * columns)
    ends = np.round(np.cumsum(shares) / sum(shares) * len(blocks)).astype(int)[:-1]
    return [
        np.stack([_patch(photograph, int(block), columns, rng) for block in _dealt(group, size)])
        for group, size in zip(np.split(blocks, ends), sizes, strict=True)
    ]


def _dealt(blocks: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """`size` blocks, every one as often as the others (to within one)."""
    return np.resize(blocks, size)


def _patch(photograph: Floats, block: int, columns: int, rng: np.random.Generator) -> Floats:
    top, left = np.array(divmod(block, columns)) * _BLOCK + rng.integers(0, _BLOCK - SIDE + 1, 2)
    patch: Floats = photograph[top : top + SIDE, left : left + SIDE]
    spread = max(float(patch.std()), 1.0)  # one grey level: a flat patch stays flat
    patch = (patch - patch.mean()) / spread
    return patch[None]
