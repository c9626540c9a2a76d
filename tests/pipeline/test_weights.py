import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from prunas.errors import InputError
from prunas.pipeline.weights import load_weights


class Small(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, classes)
        self.pretrained_cfg = {"classifier": "head"}


def saved(state: object, path: Path) -> Path:
    torch.save(state, path)
    return path


def state_of(classes: int = 2) -> dict[str, Tensor]:
    return {name: torch.randn(v.shape) for name, v in Small(classes).state_dict().items()}


FORMS = {
    "plain": lambda state: state,
    "wrapped": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state},
    "parallel": lambda state: {f"module.{name}": value for name, value in state.items()},
    "ordered": OrderedDict,
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_state_dicts(form: object, tmp_path: Path) -> None:
    network, state = Small(2), state_of()
    assert load_weights(network, saved(form(state), tmp_path / "w.pt")) is None  # type: ignore[operator]
    assert torch.equal(network.get_parameter("body.0.weight"), state["body.0.weight"])
    assert torch.equal(network.get_parameter("head.bias"), state["head.bias"])


def test_safetensors_without_batch_counts(tmp_path: Path) -> None:
    network, state = Small(2), state_of()
    del state["body.1.num_batches_tracked"]
    save_file(state, tmp_path / "w.safetensors")
    assert load_weights(network, tmp_path / "w.safetensors") is None
    assert torch.equal(network.get_parameter("head.weight"), state["head.weight"])


def test_another_class_count_leaves_the_classifier(tmp_path: Path) -> None:
    network, state = Small(2), state_of(5)
    head = network.get_parameter("head.weight").clone()
    note = load_weights(network, saved(state, tmp_path / "w.pt"))
    assert note is not None
    assert "head.weight and head.bias keep their initial values" in note
    assert torch.equal(network.get_parameter("head.weight"), head)
    assert torch.equal(network.get_parameter("body.0.weight"), state["body.0.weight"])


def without(name: str) -> dict[str, Tensor]:
    state = state_of()
    del state[name]
    return state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (without("body.0.bias"), "body.0.bias is missing"),
        ({**state_of(), "more": torch.zeros(1)}, "more is unknown"),
        ({**state_of(), "body.0.bias": torch.zeros(9)}, r"has shape \(9,\), not \(4,\)"),
        ({f"x{i}": torch.zeros(1) for i in range(9)}, "and 14 more"),
        ({"epoch": 3}, "'epoch', which is no tensor"),
        (torch.zeros(3), "does not fit"),
        ({}, "holds nothing"),
    ],
)
def test_what_does_not_fit_is_named_and_changes_nothing(
    state: object, message: str, tmp_path: Path
) -> None:
    network = Small(2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(InputError, match=message):
        load_weights(network, saved(state, tmp_path / "w.pt"))
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


class Danger:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("never"),))  # type: ignore[return-value]


@pytest.mark.parametrize("protocol", [2, 4])
def test_pickled_code_is_not_run(protocol: int, tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(pickle.dumps({"a": Danger()}, protocol=protocol))
    with pytest.raises(InputError, match="pickle"):
        load_weights(Small(2), tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("keep", [0, 5, 300])
def test_truncated_files(name: str, keep: int, tmp_path: Path) -> None:
    whole = tmp_path / f"whole_{name}"
    if name == "w.pt":
        torch.save(state_of(), whole)
    else:
        save_file(state_of(), whole)
    (tmp_path / name).write_bytes(whole.read_bytes()[:keep])
    with pytest.raises(InputError):
        load_weights(Small(2), tmp_path / name)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no weights file"):
        load_weights(Small(2), tmp_path / "w.pt")
