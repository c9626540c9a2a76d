from importlib.machinery import ModuleSpec

import numpy as np
import pytest

from prunas.errors import InputError
from prunas.pipeline import patches

pytest.importorskip("skimage", reason="the photographs come with scikit-image")


def test_patches_are_balanced_standardised_and_seeded() -> None:
    first, second = patches.cut_patches((5, 3), (0.7, 0.3), np.random.default_rng(1))
    again, _ = patches.cut_patches((5, 3), (0.7, 0.3), np.random.default_rng(1))
    other, _ = patches.cut_patches((5, 3), (0.7, 0.3), np.random.default_rng(2))
    assert first.pictures.shape == (5 * len(patches.CLASSES), 1, patches.SIDE, patches.SIDE)
    assert np.bincount(second.labels).tolist() == [3] * len(patches.CLASSES)
    np.testing.assert_allclose(first.pictures.mean((1, 2, 3)), 0, atol=1e-4)
    assert np.quantile(first.pictures.std((1, 2, 3)), 0.1) == pytest.approx(1, abs=1e-3)
    assert np.array_equal(first.pictures, again.pictures)
    assert not np.array_equal(first.pictures, other.pictures)


def test_no_pixel_is_in_two_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A photograph whose every pixel is unique tells where a patch comes from."""
    height, width = 400, 500
    places = np.arange(height * width, dtype=np.float32).reshape(height, width)
    monkeypatch.setattr(patches, "_photograph", lambda name: places)
    monkeypatch.setattr(patches, "CLASSES", ("only",))
    means: list[np.ndarray] = []

    def corner(photograph: np.ndarray, block: int, columns: int, rng: object) -> np.ndarray:
        means.append(np.array([len(means), block]))
        return cut(photograph, block, columns, rng)  # type: ignore[arg-type]

    cut = patches._patch
    monkeypatch.setattr(patches, "_patch", corner)
    sizes = (40, 20, 20)
    patches.cut_patches(sizes, (0.6, 0.2, 0.2), np.random.default_rng(0))
    blocks = np.array(means)[:, 1]
    parts = [set(part) for part in np.split(blocks, np.cumsum(sizes)[:-1])]
    assert all(parts)
    assert sum(map(len, parts)) == len(set().union(*parts))


def test_a_patch_stays_within_its_block() -> None:
    rows = np.arange(96, dtype=np.float32)[:, None].repeat(144, 1)
    columns = np.arange(144, dtype=np.float32)[None].repeat(96, 0)
    inside = ((rows // 48) * 3 + columns // 48) == 4
    rng = np.random.default_rng(0)
    for _ in range(50):
        patch = patches._patch(inside.astype(np.float32), 4, 3, rng)
        assert np.ptp(patch) == 0  # all inside: nothing of another block


def test_without_scikit_image_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(name: str) -> ModuleSpec | None:
        return None

    monkeypatch.setattr(patches, "find_spec", absent)
    with pytest.raises(InputError, match="pip install"):
        patches.cut_patches((1,), (1.0,), np.random.default_rng(0))
