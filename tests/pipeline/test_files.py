"""What is written is whole or not there."""

import os
from pathlib import Path

import pytest

from prunas.errors import RunError
from prunas.pipeline.files import replacing, write_text


def _write_half(file: Path, error: type[BaseException]) -> None:
    with replacing(file) as aside:
        aside.write_text("half of the n")
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_write_leaves_the_old_file_alone(
    error: type[BaseException], tmp_path: Path
) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")
    with pytest.raises(error):
        _write_half(file, error)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_what_is_written_appears_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "made" / "a.txt"
    with replacing(file) as aside:
        aside.write_text("new")
        assert not file.exists()
    assert file.read_text() == "new"
    assert list(file.parent.iterdir()) == [file]


def test_a_file_gets_the_usual_permissions(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "")
    (tmp_path / "b").write_text("")
    modes = [os.stat(tmp_path / name).st_mode for name in "ab"]
    assert modes[0] == modes[1]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="cannot be written"):
        write_text(tmp_path / "file" / "a.txt", "text")
