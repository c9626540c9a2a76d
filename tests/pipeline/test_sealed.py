"""JSON and tensors with checksums: what comes back is what was written, or nothing does."""

import json
import os
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from prunas.errors import InputError
from prunas.pipeline.sealed import read_sealed, sealed, unsealed, write_sealed
from prunas.pipeline.tensor_file import read_tensors, write_tensors

ENTRIES = {"accuracy": 0.983, "list": [1, None], "nested": {"b": "ü", "a": float("inf")}}
TENSORS = {
    "weight": torch.arange(12.0).reshape(3, 4).T,
    "half": torch.ones(2, 3, dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "none": torch.zeros(0, 4),
    "mask": torch.tensor([True, False]),
}


def test_entries_come_back(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    write_sealed(file, ENTRIES)
    assert read_sealed(file) == ENTRIES
    write_sealed(file, {**read_sealed(file), "more": 1})
    assert read_sealed(file) == {**ENTRIES, "more": 1}
    assert json.loads(file.read_text()).keys() == {*ENTRIES, "more", "checksum"}


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.text().filter(lambda name: name != "checksum"), _VALUES))
def test_any_entries_come_back(entries: dict[str, object]) -> None:
    found = unsealed(json.dumps(sealed(entries)))
    assert repr(found) == repr(json.loads(json.dumps(entries)))  # NaN is NaN in texts


def test_what_a_person_wrote_needs_no_checksum() -> None:
    assert unsealed('{"a": 1}') == {"a": 1}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "Expecting property name"),
        ("[]", "holds no JSON object"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("9" * 100_000, "Exceeds the limit"),
        (b'{"a": "\xff"}', "can't decode"),
        (json.dumps({**sealed({"a": 0.903}), "a": 0.983}), "changed after it was written"),
        (json.dumps(sealed({"a": 1})).replace("checksum", "cjecksum"), "changed after it was"),
    ],
)
def test_what_is_not_what_was_written_is_refused(text: str | bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        unsealed(text)


def test_the_version_is_looked_at_first() -> None:
    newer = json.dumps({**sealed({"schema": 1}), "schema": 2})
    with pytest.raises(ValueError, match="it has schema 2, this prunas reads 1"):
        unsealed(newer, ("schema", 1))


def test_pipes_and_bombs_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for read in (read_sealed, lambda file: read_tensors(file, advice="")):
        with pytest.raises(ValueError, match="no regular file"):
            read(tmp_path / "pipe")
    with (tmp_path / "bomb").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match="more than prunas ever writes"):
        read_sealed(tmp_path / "bomb")


def test_tensors_come_back(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    digest = write_tensors(file, TENSORS, {"owner": "me"})
    for known in (None, digest):
        tensors, notes = read_tensors(file, advice="", digest=known)
        assert notes == {"owner": "me"}
        assert tensors.keys() == TENSORS.keys()
        for name, tensor in tensors.items():
            assert torch.equal(tensor, TENSORS[name])
            assert tensor.dtype == TENSORS[name].dtype
    with pytest.raises(InputError, match="is not what was written; train it again"):
        read_tensors(file, advice="train it again", digest="another")


def test_tensors_without_a_checksum_are_taken_as_they_are(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "w.safetensors")
    assert read_tensors(tmp_path / "w.safetensors", advice="")[0]["a"] == 1


@pytest.mark.parametrize("change", ["bit", "name", "note", "shape", "type", "seal"])
def test_changed_tensors_are_refused(change: str, tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    write_tensors(file, {"weight": torch.ones(2, 3)}, {"owner": "me"})
    with safe_open(file, "pt") as opened:
        tensor, notes = opened.get_tensor("weight"), opened.metadata()
    name = "weights" if change == "name" else "weight"
    notes |= {"owner": "you"} if change == "note" else {}
    if change == "seal":
        notes["chEcksum"] = notes.pop("checksum")
    if change == "bit":
        tensor[1, 1] += 2**-20
    tensor = {"shape": tensor.T.contiguous(), "type": tensor.view(torch.int32)}.get(change, tensor)
    save_file({name: tensor}, file, notes)
    with pytest.raises(InputError, match="is not what was written"):
        read_tensors(file, advice="")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no weights file"):
        read_tensors(tmp_path / "none", advice="")
