"""Artifacts of transformed networks: with every kind of substitute, of timm and of one's own."""

import json
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

import prunas
from prunas.errors import InputError
from prunas.pipeline.export import export_onnx, export_timm, export_torch
from prunas.pipeline.networks import create_network
from prunas.transformer_nat import Replacement, replaced, traced_transformations
from tests.transformer_nat.traced_networks import plain

SIZE = (1, 32, 32)
CHANGES = (
    Replacement("layer2.0.conv1", "conv_3x3", "ds_conv_3x3"),
    Replacement("conv1.3", "conv_3x3", "max_pool_3x3"),
    Replacement("layer1.0.conv1", "conv_3x3", "conv_1x1"),
    Replacement("layer1.0.conv2", "conv_3x3", "skip_connect"),
    Replacement("layer2.0.conv2", "conv_3x3", "avg_pool_3x3"),
)


def transformed() -> nn.Module:
    network = create_network("test_resnet", classes=5, input_size=SIZE)
    space = prunas.trace(network, SIZE)
    small = prunas.cut(network, space, space.uniform(0.75))
    return replaced(small, CHANGES).eval()


def test_a_transformed_network_comes_back(tmp_path: Path) -> None:
    network, images = transformed(), torch.randn(2, *SIZE)
    prunas.save(network, tmp_path / "model")
    loaded = prunas.load(tmp_path / "model")
    torch.testing.assert_close(loaded(images), network(images))
    assert loaded.state_dict().keys() == network.state_dict().keys()
    assert not loaded.training
    prunas.save(loaded, tmp_path / "again")  # and once more, from what was loaded
    torch.testing.assert_close(prunas.load(tmp_path / "again")(images), network(images))


def test_a_network_that_is_transformed_again_comes_back(tmp_path: Path) -> None:
    size = (3, 32, 32)
    network = create_network("test_efficientnet", classes=5, input_size=size)
    once = replaced(network, [Replacement("conv_stem", "conv_3x3", "ds_conv_3x3")]).eval()
    found = traced_transformations(once, size)
    assert not any(path.startswith("conv_stem") for path in found.paths)
    last = [len(names) - 1 for names in found.moves.options]
    twice, images = replaced(once, found.replacements(last)), torch.randn(2, *size)
    prunas.save(twice, tmp_path / "model")
    torch.testing.assert_close(prunas.load(tmp_path / "model")(images), twice(images))


def test_artifacts_without_substitutes_are_what_they_were(tmp_path: Path) -> None:
    network = create_network("test_resnet", classes=5, input_size=SIZE)
    prunas.save(network, tmp_path / "model")
    assert "substituted" not in json.loads((tmp_path / "model" / "arch.json").read_text())


def test_a_network_of_ones_own_needs_its_parent(tmp_path: Path) -> None:
    changes = (
        Replacement("1", "conv_3x3", "ds_conv_3x3"),
        Replacement("4", "conv_3x3", "avg_pool_3x3"),
        Replacement("7", "conv_5x5", "skip_connect"),
    )
    network, images = replaced(plain(), changes).eval(), torch.randn(2, 3, 16, 16)
    prunas.save(network, tmp_path / "model")
    loaded = prunas.load(tmp_path / "model", network=plain())
    torch.testing.assert_close(loaded(images), network(images))
    with pytest.raises(InputError, match="pass"):
        prunas.load(tmp_path / "model")


def test_damaged_substitutes_are_refused(tmp_path: Path) -> None:
    prunas.save(transformed(), tmp_path / "model")
    file = tmp_path / "model" / "arch.json"
    arch = json.loads(file.read_text())
    del arch["checksum"]  # changed on purpose
    for rows in (
        [["nowhere.conv", [["Conv2d", {}]]]],
        [["layer2.0.conv1", [["Linear", {}]]]],
        [["layer2.0.conv1", [["Conv2d", {"in_channels": 1}]]]],
    ):
        file.write_text(json.dumps({**arch, "substituted": rows}))
        with pytest.raises(InputError, match="does not fit ResNet"):
            prunas.load(tmp_path / "model")


def test_transformed_networks_are_exported(tmp_path: Path) -> None:
    network = transformed()
    assert export_onnx(network, SIZE, tmp_path / "model.onnx").difference < 1e-4
    assert export_torch(network, SIZE, tmp_path / "model.pt2").difference < 1e-4
    with pytest.raises(InputError, match=r"cannot express the shapes.*export it as onnx or torch"):
        export_timm(network, SIZE, tmp_path / "model.txt")


def test_timm_networks_that_prunas_did_not_create(tmp_path: Path) -> None:
    parent = timm.create_model("test_resnet", num_classes=3, in_chans=1).eval()
    network, images = replaced(parent, CHANGES), torch.randn(2, 1, 64, 64)
    prunas.save(network, tmp_path / "model")
    torch.testing.assert_close(prunas.load(tmp_path / "model")(images), network(images))
