"""Made pictures that a small network can learn."""

from pathlib import Path

import numpy as np


def bright_pictures(folder: Path) -> Path:
    """An .npz of three classes that differ in where they are bright."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 40)
    images = rng.integers(0, 90, (120, 16, 16)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[5 * label : 5 * label + 5] += 120
    file = folder / "bright.npz"
    np.savez(file, images=images, labels=labels)
    return file
