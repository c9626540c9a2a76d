import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from prunas.errors import InputError
from prunas.pipeline.networks import create_network, rebuild, untrained


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("mobilenetv2_035", (1, 8, 8)),
        ("mobilenetv2_035", (3, 96, 160)),
        ("resnet10t", (3, 32, 32)),
        ("vit_tiny_patch16_224", (1, 32, 32)),
        ("xcit_nano_12_p16_224", (1, 8, 8)),
    ],
)
def test_rebuild_gives_the_same_network(name: str, size: tuple[int, int, int]) -> None:
    network = create_network(name, classes=5, input_size=size).eval()
    origin = json.loads(json.dumps(network.prunas_origin))
    again = rebuild(origin).eval()
    again.load_state_dict(network.state_dict())
    pictures = torch.randn(2, *size)
    with torch.no_grad():
        assert torch.equal(network(pictures), again(pictures))
        assert network(pictures).shape == (2, 5)
    assert again.prunas_origin == network.prunas_origin


def test_initial_weights_follow_the_seed_and_leave_the_global_generator() -> None:
    state = torch.get_rng_state()
    first, again, other = (
        create_network("mobilenetv2_035", classes=2, input_size=(1, 8, 8), seed=seed)
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.conv_stem.weight, again.conv_stem.weight)  # type: ignore[union-attr, arg-type]
    assert not torch.equal(first.conv_stem.weight, other.conv_stem.weight)  # type: ignore[union-attr, arg-type]


def test_small_images_can_be_refused() -> None:
    network = create_network(
        "mobilenetv2_035", classes=2, input_size=(1, 32, 32), small_images="never"
    )
    assert network.get_submodule("conv_stem").stride == (2, 2)
    assert network.prunas_origin["small_images"] is None  # type: ignore[index]


def test_large_pictures_leave_timm_s_network() -> None:
    network = create_network("resnet10t", classes=1000, input_size=(3, 224, 224))
    assert str(network) == str(timm.create_model("resnet10t"))


def test_patches_shrink_with_the_picture() -> None:
    network = create_network("vit_tiny_patch16_224", classes=2, input_size=(1, 8, 8))
    assert network.patch_embed.patch_size == (4, 4)  # type: ignore[union-attr]
    assert "4 x 4 instead of 16 x 16" in network.prunas_origin["small_images"]["sentence"]  # type: ignore[index]
    plain = create_network(
        "vit_tiny_patch16_224", classes=2, input_size=(1, 32, 32), small_images="never"
    )
    assert plain.patch_embed.patch_size == (16, 16)  # type: ignore[union-attr]


def test_weights_are_loaded_and_their_note_kept(tmp_path: Path) -> None:
    trained = create_network("mobilenetv2_035", classes=7, input_size=(1, 8, 8), seed=5)
    path = tmp_path / "w.safetensors"
    save_file(trained.state_dict(), path)
    network = create_network("mobilenetv2_035", classes=2, input_size=(1, 8, 8), weights=path)
    assert torch.equal(network.conv_head.weight, trained.conv_head.weight)  # type: ignore[union-attr, arg-type]
    assert "classifier" in network.prunas_origin["weights"]  # type: ignore[index]


@pytest.mark.parametrize(("classes", "told"), [(1000, False), (2, True)])
def test_a_classifier_that_timm_cannot_give(
    classes: int, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = timm.create_model
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda name, pretrained=False, **given: made(name, **given),  # nothing is downloaded
    )
    network = create_network(
        "test_resnet", classes=classes, input_size=(3, 64, 64), pretrained=True
    )
    note = untrained(network, given=True)
    assert (note is not None) == told
    if note:
        assert note.startswith("Timm's classifier is for 1000 classes, not 2; the new one has")


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("mobilenetv2_36", (1, 8, 8), "did you mean mobilenetv2"),
        ("§", (1, 8, 8), "list_models"),
        ("resnet18.a1_in2k", (3, 64, 64), r"'resnet18\.a1_in2k'; did you mean resnet18\.a1_in1k"),
        ("test_resnet.☃", (3, 64, 64), r"did you mean test_resnet\.r160_in1k\?"),
        ("mobilenetv2_035.x", (3, 64, 64), r"'mobilenetv2_035\.x'; leave out \.x"),
        ("local-dir:/nowhere", (3, 64, 64), "finds no network at 'local-dir:/nowhere'"),
        ("levit_128s", (1, 8, 8), "made for one picture size"),
        ("inception_v3", (1, 8, 8), "does not take pictures of size"),
    ],
)
def test_errors(name: str, size: tuple[int, int, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_network(name, classes=2, input_size=size)


def test_timm_refuses_to_build(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> nn.Module:
        raise OSError("no connection\nmore")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(InputError, match=r"pretrained weights: no connection$"):
        create_network("resnet10t", classes=2, input_size=(3, 224, 224), pretrained=True)


def test_rebuild_refuses_other_origins() -> None:
    with pytest.raises(InputError, match="origin 'mine'"):
        rebuild({"kind": "mine"})
    with pytest.raises(InputError, match="no network 'gone'"):
        rebuild({"kind": "timm", "name": "gone", "arguments": {}})
    for name in ("hf-hub:evil/x", "hf_hub:evil/x", "local-dir:/any/path"):
        with pytest.raises(InputError, match=f"not looked for at '{name}'; make it yourself"):
            rebuild({"kind": "timm", "name": name, "arguments": {}, "small_images": None})


@pytest.mark.parametrize(
    "arguments",
    [{"layers": [10**5] * 3}, {"layers": [200, 200, 101]}, {"depths": [2, [501]]}, {"depth": 501}],
)
def test_rebuild_refuses_depths_without_end(arguments: dict[str, object]) -> None:
    origin = {"kind": "timm", "name": "test_resnet", "arguments": arguments, "small_images": None}
    with pytest.raises(InputError, match="cannot have been built with"):
        rebuild(origin)


def test_a_network_of_a_folder_is_built_again_without_it(tmp_path: Path) -> None:
    config = {
        "architecture": "test_resnet",
        "pretrained_cfg": {"input_size": [3, 64, 64], "num_classes": 7},
        "model_args": {"layers": [1, 2, 1, 1]},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    network = create_network(f"local-dir:{tmp_path}", classes=5, input_size=(3, 64, 64))
    (tmp_path / "config.json").unlink()
    origin: dict[str, object] = json.loads(json.dumps(network.prunas_origin))
    assert str(tmp_path) not in json.dumps(origin)
    assert str(rebuild(origin)) == str(network)
    assert len(network.get_submodule("layer2")) == 2  # type: ignore[arg-type]
