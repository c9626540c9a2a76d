import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import IterableDataset

from prunas.errors import InputError
from prunas.pipeline import data
from prunas.pipeline.data import Data, load_data
from prunas.pipeline.folders import require_readable
from prunas.pipeline.splits import Split


def pictures_of(split: Split) -> torch.Tensor:
    return torch.cat([pictures for pictures, _ in split.batches(64)])


def read_all(path: Path) -> None:
    loaded = load_data(path, seed=0)
    for split in (loaded.train, loaded.held_out, loaded.test):
        pictures_of(split)


def write_folder(root: Path, counts: dict[str, int], size: tuple[int, int] = (12, 10)) -> Path:
    """Grey pictures, each of its own shade, `counts[class]` of them (size: width, height)."""
    for place, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            Image.new("L", size, 20 * place + index).save(root / name / f"{index}.png")
    return root


def write_npz(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def check_sound(loaded: Data) -> None:
    """What holds for every data set."""
    classes = len(loaded.classes)
    held = np.bincount(loaded.held_out.labels, minlength=classes)
    assert held.min() == held.max() > 0
    assert np.bincount(loaded.train.labels, minlength=classes).min() > 0
    assert set(loaded.test.labels) <= set(range(classes))
    for split in (loaded.train, loaded.held_out, loaded.test):
        pictures = pictures_of(split)
        assert pictures.shape == (len(split), *loaded.input_size)
        assert pictures.dtype == torch.float32
    train = pictures_of(loaded.train)
    torch.testing.assert_close(
        train.mean((0, 2, 3)), torch.zeros(train.shape[1]), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(train.std((0, 2, 3)), torch.ones(train.shape[1]), atol=1e-2, rtol=0)


def test_digits_split_is_disjoint_complete_and_stratified() -> None:
    loaded = load_data("digits", seed=3)
    check_sound(loaded)
    splits = (loaded.train, loaded.held_out, loaded.test)
    indices = np.concatenate([split.indices for split in splits])
    assert sorted(indices) == list(range(1797))
    assert loaded.input_size == (1, 8, 8)
    assert np.ptp(np.bincount(loaded.test.labels)) <= 2  # classes of 174 to 183
    assert not loaded.train.preparation.flip


def test_the_seed_decides_the_split() -> None:
    first, again, other = (load_data("digits", seed=seed).test.indices for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_digits_can_be_enlarged_and_coloured() -> None:
    loaded = load_data("digits", seed=0, input_size=(3, 16, 12))
    check_sound(loaded)
    pictures = pictures_of(loaded.test)
    torch.testing.assert_close(pictures[:, 0], pictures[:, 2])


def test_a_single_side_keeps_the_channels_that_pictures_come_with(tmp_path: Path) -> None:
    assert load_data("digits", seed=0, input_size=16).input_size == (1, 16, 16)
    colour = write_npz(tmp_path / "a.npz", images=COLOUR, labels=LABELS)
    assert load_data(colour, seed=0, input_size=9).input_size == (3, 9, 9)
    folder = write_folder(tmp_path / "folder", {"a": 8, "b": 8})
    assert load_data(folder, seed=0, input_size=9).input_size == (1, 9, 9)


def test_photos() -> None:
    pytest.importorskip("skimage", reason="the photographs come with scikit-image")
    loaded = load_data("photos", seed=0)
    check_sound(loaded)
    per_class = [
        len(s) // len(loaded.classes) for s in (loaded.train, loaded.held_out, loaded.test)
    ]
    assert per_class == [205, 51, 64]
    assert loaded.train.preparation.flip


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(3, 30), min_size=2, max_size=5),
    st.floats(0.05, 0.9),
    st.floats(0.05, 0.9),
)
def test_any_class_counts_and_shares_give_sound_splits(
    counts: list[int], held_out: float, test: float
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    rng = np.random.default_rng(0)
    train, tested = data._divided(
        np.arange(len(labels)), labels, data._in_proportion(labels, test), rng
    )
    train, held = data._divided(train, labels, data._balanced(labels[train], held_out), rng)
    assert sorted(np.concatenate([train, held, tested])) == list(range(len(labels)))
    for part in (train, held, tested):
        assert np.bincount(labels[part], minlength=len(counts)).min() >= 1
    assert len(set(np.bincount(labels[held]))) == 1


# --- folders ---------------------------------------------------------------------------------


def test_folder_of_classes(tmp_path: Path) -> None:
    counts = {"class10": 8, "class2": 10, "class1": 9}
    loaded = load_data(write_folder(tmp_path, counts), seed=0)
    assert loaded.classes == ("class1", "class2", "class10")
    assert loaded.input_size == (1, 10, 12)
    check_sound(loaded)
    total = sum(map(len, (loaded.train, loaded.held_out, loaded.test)))
    assert total == 27


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_of_folders_and_pictures_may_be_no_text(tmp_path: Path) -> None:
    """As on disks that were written with another code page."""
    strange = os.fsdecode(b"caf\xe9")
    write_folder(tmp_path, {strange: 8, "tea": 8})
    (tmp_path / "tea" / "0.png").rename(tmp_path / "tea" / f"{strange}.png")
    loaded = load_data(tmp_path, seed=0)
    check_sound(loaded)
    assert loaded.classes == (strange, "tea")


def test_folder_labels_belong_to_their_pictures(tmp_path: Path) -> None:
    loaded = load_data(write_folder(tmp_path, {"a": 10, "b": 10}), seed=0)
    mean, std = loaded.train.preparation.mean[0], loaded.train.preparation.std[0]
    shades = pictures_of(loaded.train)[:, 0, 0, 0] * std + mean
    assert np.array_equal(shades.numpy() >= 19.5, loaded.train.labels == 1)


@pytest.mark.parametrize(
    ("extra", "held_from_val", "tested"),
    [(("val",), False, 8), (("test",), False, 8), (("valid", "test"), True, 8), ((), False, 2)],
)
def test_folder_with_parts(
    tmp_path: Path, extra: tuple[str, ...], held_from_val: bool, tested: int
) -> None:
    write_folder(tmp_path / "train", {"a": 6, "b": 6})
    for name in extra:
        write_folder(tmp_path / name, {"a": 3, "b": 5})
    loaded = load_data(tmp_path, seed=0)
    check_sound(loaded)
    assert len(loaded.test) == tested
    assert (len(loaded.train) == 12) == held_from_val
    assert len(loaded.held_out) == (6 if held_from_val else 2)


def test_large_colour_pictures_become_224_squares(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for index in range(3):
            Image.new("RGB", (300, 100), (index, 50, 90)).save(tmp_path / name / f"{index}.jpg")
    assert load_data(tmp_path, seed=0).input_size == (3, 224, 224)


def test_unreadable_picture_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "b" / "1.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"1\.png cannot be read"):
        load_data(tmp_path, seed=0)


def test_truncated_picture_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 4, "b": 4}, size=(200, 200))
    file = tmp_path / "a" / "2.png"
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(InputError, match=r"2\.png cannot be read"):
        read_all(tmp_path)


def write_pictures(root: Path, *pictures: np.ndarray, suffix: str = "png") -> Path:
    """Two classes, each of these pictures."""
    for name in "ab":
        (root / name).mkdir(parents=True)
        for index, picture in enumerate(pictures):
            Image.fromarray(picture).save(root / name / f"{index}.{suffix}")
    return root


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_pictures_of_16_bits_are_scaled_to_8(tmp_path: Path, suffix: str) -> None:
    deep = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    loaded = load_data(write_pictures(tmp_path, *[deep] * 4, suffix=suffix), seed=0)
    assert loaded.input_size == (1, 16, 16)
    raw = next(loaded.train.fetch([np.array([0])], torch.device("cpu")))
    assert raw.flatten().tolist() == list(range(256))  # 257 * 255 = 65535


@pytest.mark.parametrize(
    ("kind", "words"), [(np.float32, "floating-point pixels"), (np.int32, "32-bit pixels")]
)
def test_pictures_without_a_scale_are_refused(
    tmp_path: Path, kind: type[np.generic], words: str
) -> None:
    root = write_pictures(tmp_path, *[np.zeros((8, 8), kind)] * 4, suffix="tif")
    with pytest.raises(InputError, match=rf"0\.tif holds {words}; save it with 8 bits, or give an"):
        load_data(root, seed=0)


def test_one_grey_picture_does_not_take_colour_from_the_others(tmp_path: Path) -> None:
    grey, colour = np.zeros((8, 8), np.uint8), np.full((8, 8, 3), (250, 0, 9), np.uint8)
    loaded = load_data(write_pictures(tmp_path, grey, *[colour] * 3), seed=0)
    assert loaded.input_size == (3, 8, 8)
    assert "Some are grey, some in colour; all are taken as colour." in loaded.note
    same = load_data(tmp_path, seed=0, input_size=(1, 8, 8))
    assert "all are taken as grey." in same.note


def test_class_only_in_test(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"a": 3, "b": 3})
    write_folder(tmp_path / "test", {"a": 3, "c": 3})
    with pytest.raises(InputError, match="class 'c'"):
        load_data(tmp_path, seed=0)


@pytest.mark.parametrize("names", [("Train", "Val"), ("training", "testing"), ("TEST",)])
def test_parts_are_not_taken_as_classes(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        write_folder(tmp_path / name, {"a": 5, "b": 5})
    write_folder(tmp_path, {"cat": 5, "dog": 5})
    with pytest.raises(InputError, match="would be taken as a class; name the parts train/, val/"):
        load_data(tmp_path, seed=0)


@pytest.mark.parametrize("name", ["Val", "testing", "Validation"])
def test_a_part_of_another_name_is_not_left_out(name: str, tmp_path: Path) -> None:
    for part in ("train", name):
        write_folder(tmp_path / part, {"a": 5, "b": 5})
    with pytest.raises(InputError, match=f"{name} would be left out; name the parts"):
        load_data(tmp_path, seed=0)


def test_a_train_may_be_a_vehicle(tmp_path: Path) -> None:
    write_folder(tmp_path, {"bus": 5, "train": 5})
    assert load_data(tmp_path, seed=0).classes == ("bus", "train")


def test_hidden_files_and_folders_are_no_pictures(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 5, "b": 5})
    before = load_data(tmp_path, seed=0).contents
    write_folder(tmp_path / "a", {".ipynb_checkpoints": 2})
    (tmp_path / "a" / "._0.png").write_bytes(b"no picture")
    (tmp_path / "a" / "folder.png").mkdir()
    assert load_data(tmp_path, seed=0).contents == before


@pytest.mark.parametrize("part", ["", "train"])
def test_a_class_folder_without_pictures_is_told(part: str, tmp_path: Path) -> None:
    write_folder(tmp_path / part, {"a": 5, "b": 5, "c": 0, "d": 0})
    loaded = load_data(tmp_path, seed=0)
    assert loaded.classes == ("a", "b")
    assert "Without pictures, and so no class of their own: c/, d/." in loaded.note


def test_all_classes_have_pictures(tmp_path: Path) -> None:
    assert "Without" not in load_data(write_folder(tmp_path, {"a": 5, "b": 5}), seed=0).note


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes have names here")
def test_a_pipe_is_no_picture(tmp_path: Path) -> None:
    """To open it would wait for a writer."""
    write_folder(tmp_path, {"a": 5, "b": 5})
    (tmp_path / "a" / "9.png").symlink_to(tmp_path / "a" / "0.png")
    assert load_data(tmp_path, seed=0).contents.pictures == 11
    os.mkfifo(tmp_path / "b" / "3.5.png")
    with pytest.raises(InputError, match=r"3\.5\.png cannot be read: it is a pipe or a device"):
        load_data(tmp_path, seed=0)


def test_class_without_held_out_pictures(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"a": 3, "b": 3})
    write_folder(tmp_path / "val", {"a": 3})
    write_folder(tmp_path / "test", {"a": 3, "b": 3})
    with pytest.raises(InputError, match="no held-out pictures"):
        load_data(tmp_path, seed=0)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "no pictures in class folders"),
        ({"a": 0}, "no pictures in class folders"),
        ({"a": 5}, "only the class 'a'"),
        ({"a": 5, "b": 2}, "2 pictures of the class 'b'"),
    ],
)
def test_folders_too_poor(tmp_path: Path, counts: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_data(write_folder(tmp_path, counts), seed=0)


@pytest.mark.parametrize("channels", [0, 2, 5])
@pytest.mark.parametrize("source", ["folder", "digits"])
def test_pictures_of_other_channel_counts_are_refused(
    source: str, channels: int, tmp_path: Path
) -> None:
    place = write_folder(tmp_path, {"a": 3, "b": 3}) if source == "folder" else source
    with pytest.raises(InputError, match="1, 3 or 4 channels"):
        load_data(place, seed=0, input_size=(channels, 8, 8))


@pytest.mark.parametrize(
    "size", [0, -3, 8.5, True, "8", (3, 8), (3, 0, 8), (3, 8, 8.0), (3, 8, 8, 8)]
)
@pytest.mark.parametrize("source", ["folder", "digits"])
def test_sizes_that_no_picture_has(source: str, size: Any, tmp_path: Path) -> None:
    place = write_folder(tmp_path, {"a": 3, "b": 3}) if source == "folder" else source
    with pytest.raises(InputError, match="is no size of pictures; give"):
        load_data(place, seed=0, input_size=size)


@pytest.mark.parametrize(
    ("name", "seed", "message"),
    [
        ("digits", -1, "seed=-1 cannot be used; give one from 0 to 9223372036854775807"),
        ("x" * 5000, 0, "x: File name too long; mend that, or give another name"),
        ("", 0, "the data have no name; use digits, photos, a path"),
    ],
)
def test_seeds_and_names_that_are_none(name: str, seed: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_data(name, seed=seed)


# --- arrays ----------------------------------------------------------------------------------

LABELS = np.arange(24) % 3
GREY = np.arange(24 * 6 * 5, dtype=np.uint8).reshape(24, 6, 5)
COLOUR = np.arange(24 * 6 * 5 * 3, dtype=np.uint8).reshape(24, 6, 5, 3)


@pytest.mark.parametrize(
    ("pictures", "size"),
    [
        (GREY, (1, 6, 5)),
        (GREY.astype(np.float64) / 255, (1, 6, 5)),
        (COLOUR, (3, 6, 5)),
        (COLOUR.transpose(0, 3, 1, 2), (3, 6, 5)),
    ],
)
def test_npz_layouts(tmp_path: Path, pictures: np.ndarray, size: tuple[int, int, int]) -> None:
    loaded = load_data(write_npz(tmp_path / "a.npz", images=pictures, labels=LABELS), seed=0)
    check_sound(loaded)
    assert loaded.input_size == size
    assert loaded.train.preparation.flip == (size[0] == 3)


def test_npz_of_both_layouts_holds_the_same_pictures(tmp_path: Path) -> None:
    last = write_npz(tmp_path / "last.npz", images=COLOUR, labels=LABELS)
    first = write_npz(tmp_path / "first.npz", images=COLOUR.transpose(0, 3, 1, 2), labels=LABELS)
    a, b = (pictures_of(load_data(path, seed=0).test) for path in (last, first))
    assert torch.equal(a, b)


def test_npz_with_its_own_test_and_named_classes(tmp_path: Path) -> None:
    names = np.array(["cat", "dog", "ape"])
    path = write_npz(
        tmp_path / "a.npz",
        x_train=GREY,
        y_train=names[LABELS],
        x_test=GREY[:4],
        y_test=names[[1, 1, 0, 2]][:, None],
    )
    loaded = load_data(path, seed=0)
    check_sound(loaded)
    assert loaded.classes == ("ape", "cat", "dog")
    assert loaded.test.labels.tolist() == [2, 2, 1, 0]
    assert len(loaded.train) + len(loaded.held_out) == 24
    resized = load_data(path, seed=0, input_size=(1, 12, 10))
    assert pictures_of(resized.test).shape == (4, 1, 12, 10)


@pytest.mark.parametrize("train", ["S", "U"])
@pytest.mark.parametrize("test", ["S", "U"])
def test_npz_with_names_in_bytes(tmp_path: Path, train: str, test: str) -> None:
    names = np.array(["cat", "dog", "ape"])[LABELS]
    arrays = {"y_train": names.astype(train), "y_test": names[:4].astype(test)}
    path = write_npz(tmp_path / "a.npz", x_train=GREY, x_test=GREY[:4], **arrays)
    loaded = load_data(path, seed=0)
    assert loaded.classes == ("ape", "cat", "dog")
    assert loaded.test.labels.tolist() == [1, 2, 0, 1]


def test_npz_with_bytes_that_are_no_text(tmp_path: Path) -> None:
    names = np.array([b"caf\xe9", b"tea", b"kaffee"])[LABELS]
    loaded = load_data(write_npz(tmp_path / "a.npz", images=GREY, labels=names), seed=0)
    assert loaded.classes == ("caf\\xe9", "kaffee", "tea")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": GREY}, "no array labels"),
        ({"pictures": GREY}, "no array x_train and no y_train"),
        ({"images": GREY, "labels": LABELS[:5]}, "24 integers or names"),
        ({"images": GREY, "labels": LABELS + 0.5}, "24 integers or names"),
        ({"images": GREY[0], "labels": LABELS[:6]}, "must be numbers of shape"),
        ({"images": GREY[:0], "labels": LABELS[:0]}, "must be numbers of shape"),
        ({"images": GREY.astype(str), "labels": LABELS}, "must be numbers of shape"),
        ({"images": np.zeros((24, 6, 5, 7)), "labels": LABELS}, "no dimension is 1, 3 or 4"),
        ({"images": np.full((24, 6, 5), np.nan), "labels": LABELS}, "not finite"),
        ({"images": GREY.astype(object), "labels": LABELS}, "without pickle"),
        ({"images": GREY, "labels": LABELS * 0}, "only the class '0'"),
        (
            {"x_train": GREY, "y_train": LABELS, "x_test": GREY, "y_test": LABELS + 1},
            "a class 3 that y_train has not",
        ),
        (
            {"x_train": GREY, "y_train": LABELS, "x_test": COLOUR, "y_test": LABELS},
            "x_test holds pictures of size",
        ),
        ({"x_train": GREY, "y_train": LABELS, "x_test": GREY}, "no array y_test"),
        ({"x_train": GREY, "y_train": LABELS, "y_test": LABELS}, "no array x_test"),
        ({"images": GREY, "labels": LABELS, "y_test": LABELS}, "no array x_test"),
        (
            {"x_train": GREY, "y_train": LABELS, "x_test": GREY / 255, "y_test": LABELS},
            "x_test is float64 and x_train uint8; store both as one type, on one scale",
        ),
    ],
)
def test_npz_that_does_not_fit(tmp_path: Path, arrays: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_data(write_npz(tmp_path / "a.npz", **arrays), seed=0)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut short"])
def test_damaged_npz(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as"):
        load_data(tmp_path / "a.npz", seed=0)


# --- what a data set holds -------------------------------------------------------------------


def test_contents_are_of_the_pictures_and_not_of_seed_or_size(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", {"a": 6, "b": 6})
    array = write_npz(tmp_path / "a.npz", images=COLOUR, labels=LABELS)
    for source in (folder, array, "digits"):
        first = load_data(source, seed=0).contents
        assert load_data(source, seed=1, input_size=9).contents == first
        first.require(first.to_json(), "it")
    assert load_data("digits", seed=0).contents.pictures == 1797


def _remove(root: Path) -> None:
    (root / "a" / "2.png").unlink()


def _rename(root: Path) -> None:
    (root / "a" / "2.png").rename(root / "a" / "9.png")


def _relabel(root: Path) -> None:
    (root / "a" / "5.png").rename(root / "b" / "6.png")
    (root / "b" / "0.png").rename(root / "a" / "5.png")


@pytest.mark.parametrize(
    ("change", "what"), [(_remove, "11 pictures, were 12"), (_rename, "other"), (_relabel, "other")]
)
def test_a_folder_that_has_changed_is_refused(
    change: Callable[[Path], None], what: str, tmp_path: Path
) -> None:
    write_folder(tmp_path, {"a": 6, "b": 6})
    before = load_data(tmp_path, seed=0).contents
    change(tmp_path)
    with pytest.raises(InputError, match=rf"^x is not what this run was made with: .*{what}"):
        load_data(tmp_path, seed=0).contents.require(before.to_json(), "x")


@pytest.mark.parametrize("name", ["x_train", "y_train", "x_test", "y_test"])
def test_an_npz_that_has_changed_is_refused(name: str, tmp_path: Path) -> None:
    arrays: list[np.ndarray] = [GREY, LABELS, GREY[:6], LABELS[:6]]
    stored = dict(zip(("x_train", "y_train", "x_test", "y_test"), arrays, strict=True))
    before = load_data(write_npz(tmp_path / "a.npz", **stored), seed=0).contents
    other = {key: value[::-1] if key == name else value for key, value in stored.items()}
    after = load_data(write_npz(tmp_path / "a.npz", **other), seed=0).contents
    with pytest.raises(InputError, match="as many pictures, but other ones or other labels"):
        after.require(before.to_json(), "x")


def test_files_are_the_pictures_that_are_not_trained_on(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"a": 8, "b": 8})
    write_folder(tmp_path / "test", {"a": 3, "b": 3})
    loaded = load_data(tmp_path, seed=0)
    names = [file.relative_to(tmp_path).parts for file in loaded.files]
    assert [parts[0] for parts in names] == ["train"] * len(loaded.held_out) + ["test"] * 6
    assert [parts[1] for parts in names[:-6]] == ["ab"[each] for each in loaded.held_out.labels]
    require_readable(loaded.files)
    loaded.files[-1].write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"2\.png cannot be read"):
        require_readable(loaded.files)


# --- names -----------------------------------------------------------------------------------


def test_unknown_name_suggests_near_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean digits"):
        load_data("digit", seed=0)
    (tmp_path / "flowers").mkdir()
    with pytest.raises(InputError, match="did you mean flowers"):
        load_data(tmp_path / "flower", seed=0)
    with pytest.raises(InputError, match="use digits, photos, a path, or a data set of timm"):
        load_data(tmp_path / "nowhere" / "zzz", seed=0)


def test_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(InputError, match=r"neither a folder of pictures nor an \.npz"):
        load_data(tmp_path / "a.txt", seed=0)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_shares_out_of_range(share: float) -> None:
    with pytest.raises(InputError, match="held_out="):
        load_data("digits", seed=0, held_out=share)
    with pytest.raises(InputError, match="test="):
        load_data("digits", seed=0, test=share)


# --- timm ------------------------------------------------------------------------------------


def test_through_timm(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"a": 6, "b": 6})
    write_folder(tmp_path / "validation", {"a": 3, "b": 4})
    loaded = load_data("torch/image_folder", seed=0, root=tmp_path)
    check_sound(loaded)
    assert loaded.classes == ("a", "b")
    assert loaded.input_size == (3, 10, 12)
    assert (len(loaded.train), len(loaded.held_out), len(loaded.test)) == (10, 2, 7)


def test_timm_labels_are_read_one_by_one_where_no_list_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pictures = [(Image.new("L", (8, 8), index), index % 2) for index in range(12)]
    monkeypatch.setattr(data, "create_dataset", lambda *_, **__: pictures)
    loaded = load_data("hfds/some/digits", seed=0)
    check_sound(loaded)
    assert loaded.classes == ("0", "1")
    assert not loaded.train.preparation.flip


def test_timm_pictures_of_16_bits_are_scaled_to_8(monkeypatch: pytest.MonkeyPatch) -> None:
    deep = Image.fromarray(np.full((8, 8), 65535, np.uint16))
    monkeypatch.setattr(data, "create_dataset", lambda *_, **__: [(deep, i % 2) for i in range(12)])
    loaded = load_data("hfds/some/depths", seed=0)
    assert loaded.input_size == (1, 8, 8)
    assert loaded.train.preparation.mean == (255.0,)


@pytest.mark.parametrize("given", [False, True])
def test_data_sets_of_torchvision_go_to_the_cache(
    given: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "there" if given else tmp_path / ".cache" / "prunas"
    asked = []

    def create(name: str, **options: Any) -> list[tuple[Image.Image, int]]:
        asked.append(options)
        return [(Image.new("L", (8, 8), index), index % 2) for index in range(12)]

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(data, "create_dataset", create)
    load_data("torch/cifar10", seed=0, root=place if given else None)
    assert [(each["root"], each["download"]) for each in asked] == [(str(place), True)] * 2


def test_timm_streams_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream(IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            return iter(())

    monkeypatch.setattr(data, "create_dataset", lambda *_, **__: Stream())
    with pytest.raises(InputError, match="cannot be indexed"):
        load_data("tfds/cifar10", seed=0)


def test_timm_cannot_open(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="timm cannot open 'torch/nothing'"):
        load_data("torch/nothing", seed=0, root=tmp_path)
