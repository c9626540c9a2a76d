"""Artifacts: what is saved comes back, and nothing half-written or foreign does."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

import prunas
from prunas.pipeline import artifact
from prunas.pipeline.networks import create_network, rebuild
from prunas.pipeline.sealed import read_sealed, write_sealed


def _cut(name: str = "test_efficientnet") -> nn.Module:
    network = create_network(name, classes=5, input_size=(1, 32, 32))
    space = prunas.trace(network, (1, 32, 32))
    return prunas.cut(network, space, space.uniform(0.5)).eval()


def _image() -> torch.Tensor:
    return torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_byobnet"])
def test_a_cut_network_comes_back_in_another_process(name: str, tmp_path: Path) -> None:
    small = _cut(name)
    prunas.save(small, tmp_path / "model")
    script = (
        "import sys, prunas, torch\n"
        f"network = prunas.load({str(tmp_path / 'model')!r})\n"
        "image = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))\n"
        f"torch.save(network(image).detach(), {str(tmp_path / 'answer')!r})\n"
    )
    if name == "test_efficientnet":  # one process is enough to see that nothing is remembered
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
        answer = torch.load(tmp_path / "answer", weights_only=True)
    else:
        answer = prunas.load(tmp_path / "model")(_image())
    torch.testing.assert_close(answer, small(_image()))


def test_the_class_and_the_names_are_the_parents(tmp_path: Path) -> None:
    small = _cut()
    prunas.save(small, tmp_path / "model")
    loaded = prunas.load(tmp_path / "model")
    assert type(loaded) is type(small)
    assert loaded.state_dict().keys() == timm.create_model("test_efficientnet").state_dict().keys()
    assert {path.name for path in (tmp_path / "model").iterdir()} == {
        "arch.json",
        "weights.safetensors",
    }


def test_a_network_timm_made_itself_needs_no_origin(tmp_path: Path) -> None:
    network = timm.create_model("test_resnet", num_classes=3, in_chans=2).eval()
    space = prunas.trace(network, (2, 64, 64))
    small = prunas.cut(network, space, space.smallest())
    prunas.save(small, tmp_path / "model")
    image = torch.ones(1, 2, 64, 64)
    torch.testing.assert_close(prunas.load(tmp_path / "model")(image), small(image))


class Plain(nn.Module):
    """A class that can be built without arguments."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3)
        self.second = nn.Conv2d(width, 4, 1)
        self.second.weight.requires_grad_(False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.second(self.first(image).relu()).mean((2, 3))
        return result


class Demanding(Plain):
    """A class that cannot."""

    def __init__(self, width: int, *, depth: int) -> None:
        super().__init__(width)


def test_a_class_of_the_users_own(tmp_path: Path) -> None:
    network = Plain().eval()
    space = prunas.trace(network, (3, 8, 8))
    small = prunas.cut(network, space, space.uniform(0.5))
    prunas.save(small, tmp_path / "model")
    loaded = prunas.load(tmp_path / "model")
    torch.testing.assert_close(loaded(torch.ones(1, 3, 8, 8)), small(torch.ones(1, 3, 8, 8)))
    assert loaded.get_submodule("first").out_channels == 6
    assert not loaded.get_parameter("second.weight").requires_grad


def test_a_class_with_arguments_is_asked_for(tmp_path: Path) -> None:
    network = Demanding(16, depth=2)
    space = prunas.trace(network, (3, 8, 8))
    small = prunas.cut(network, space, space.smallest()).eval()
    prunas.save(small, tmp_path / "model")
    with pytest.raises(prunas.InputError, match=r"pass one: prunas.load\(folder, network="):
        prunas.load(tmp_path / "model")
    loaded = prunas.load(tmp_path / "model", network=Demanding(16, depth=2))
    torch.testing.assert_close(loaded(torch.ones(1, 3, 8, 8)), small(torch.ones(1, 3, 8, 8)))


class Residual(nn.Module):
    """Keeps a size in an attribute, has blocks that can go, and a parent that must be given."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.stem = nn.Sequential(nn.Conv2d(3, width, 1), nn.Identity())
        self.blocks = nn.Sequential(*(Shortcut(width) for _ in range(3)))
        self.head = nn.Linear(width, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        positions = self.blocks(self.stem(image)).reshape(len(image), self.width, -1)
        result: torch.Tensor = self.head(positions.mean(2))
        return result


class Shortcut(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU())

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = image + self.layers(image)
        return result


@pytest.mark.parametrize("parent", [24, 16])
def test_sizes_and_missing_blocks_of_a_class_with_arguments(tmp_path: Path, parent: int) -> None:
    network = Residual(24).eval()
    space = prunas.trace(network, (3, 8, 8))
    candidate = prunas.Candidate(
        gene.choices[0] if gene.name == "blocks.1" else 16 if gene.choices[-1] == 24 else value
        for gene, value in zip(space.genes, space.full(), strict=True)
    )
    small = prunas.cut(network, space, candidate)
    assert isinstance(small.get_submodule("blocks.1"), nn.Identity)
    prunas.save(small, tmp_path / "model")
    loaded = prunas.load(tmp_path / "model", network=Residual(parent))
    image = torch.ones(1, 3, 8, 8)
    assert torch.equal(loaded(image), small(image))
    assert loaded.width == 16


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    network = Tied().eval()
    space = prunas.trace(network, (6,))
    small = prunas.cut(network, space, space.smallest())
    prunas.save(small, tmp_path / "model")
    loaded = prunas.load(tmp_path / "model")
    assert loaded.get_parameter("one.weight") is loaded.get_parameter("two.weight")
    torch.testing.assert_close(loaded(torch.ones(2, 6)), small(torch.ones(2, 6)))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 10)
        self.one = nn.Linear(10, 10)
        self.two = nn.Linear(10, 10)
        self.two.weight = self.one.weight
        self.leave = nn.Linear(10, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.leave(self.two(self.one(self.enter(x)).relu()).relu())
        return result


def test_the_steps_of_a_spectral_norm_are_not_taken(tmp_path: Path) -> None:
    network = _normed()
    space = prunas.trace(network, (3, 8, 8))
    small = prunas.cut(network, space, space.uniform(0.5)).train()
    prunas.save(small, tmp_path / "model")
    loaded = prunas.load(tmp_path / "model", network=_normed().train())
    for name, tensor in small.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def _normed() -> nn.Module:
    return nn.Sequential(spectral_norm(nn.Conv2d(3, 16, 3)), nn.ReLU(), nn.Conv2d(16, 4, 3)).eval()


# -- what must fail, with a sentence, and leave what was there ---------------------------------


@pytest.mark.parametrize("name", ["test_convnext", "test_resnet", "test_vit"])
def test_blocks_that_were_left_out_stay_out(name: str, tmp_path: Path) -> None:
    small = _without_a_block(name, tmp_path / "model")
    loaded = prunas.load(tmp_path / "model")
    assert torch.equal(loaded(_pictures(3)), small(_pictures(3)))
    assert loaded.state_dict().keys() == small.state_dict().keys()
    space = prunas.trace(loaded, (3, 160, 160))  # and once more
    again = prunas.cut(loaded, space, space.uniform(0.5)).eval()
    prunas.save(again, tmp_path / "again")
    assert torch.equal(prunas.load(tmp_path / "again")(_pictures(3)), again(_pictures(3)))


def test_the_folder_that_one_is_in_is_no_place_for_an_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be replaced, and whoever is in it be nowhere."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(prunas.InputError, match="is the folder that you are in, which would be"):
        prunas.save(nn.Linear(2, 2), ".")
    assert not list(tmp_path.iterdir())


def test_an_artifact_is_replaced_but_nothing_else_is(tmp_path: Path) -> None:
    small = _cut()
    prunas.save(small, tmp_path / "model")
    prunas.save(small, tmp_path / "model")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("mine")
    with pytest.raises(prunas.InputError, match="holds something else than an artifact"):
        prunas.save(small, tmp_path / "notes")
    assert (tmp_path / "notes" / "diary.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "notes"]


def test_an_artifact_behind_a_link_is_replaced_there(tmp_path: Path) -> None:
    model, place = tmp_path / "model", tmp_path / "elsewhere"
    place.mkdir()
    model.symlink_to("elsewhere/kept")
    for network in (_cut(), _cut(), Plain()):
        prunas.save(network, model)
    assert model.is_symlink()
    assert [path.name for path in place.iterdir()] == ["kept"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "model"]
    (place / "kept").rename(place / ".kept.old")  # a kill between the renames
    assert type(prunas.load(model)) is Plain


def test_a_file_beside_an_artifact_is_not_deleted(tmp_path: Path) -> None:
    small = _cut()
    folder = prunas.save(small, tmp_path / "model")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(
        prunas.InputError, match=r"something else than an artifact, notes\.txt; move"
    ):
        prunas.save(small, folder)
    assert (folder / "notes.txt").read_text() == "mine"
    with pytest.raises(prunas.InputError, match=r"notes\.txt is no folder; give another one"):
        prunas.save(small, folder / "notes.txt")


def test_the_old_artifact_stays_where_the_new_one_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = _cut()
    prunas.save(small, tmp_path / "model")
    before = (tmp_path / "model" / "arch.json").read_text()
    monkeypatch.setattr(artifact, "restore", lambda parent, attributes: None)
    with pytest.raises(prunas.InputError, match="was not restored from its artifact: "):
        prunas.save(small, tmp_path / "model")
    assert (tmp_path / "model" / "arch.json").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def _with_another_layer(network: nn.Module) -> None:
    network.extra = nn.Linear(2, 2)


def _with_another_pooling(network: nn.Module) -> None:
    network.set_submodule("global_pool.pool", nn.AdaptiveMaxPool2d(1))


def _with_another_tensor(network: nn.Module) -> None:
    network.register_buffer("extra", torch.ones(2))


def _with_another_function(network: nn.Module) -> None:
    network.extra = torch.nn.functional.relu  # type: ignore[assignment]


@pytest.mark.parametrize(
    "change",
    [_with_another_layer, _with_another_pooling, _with_another_tensor, _with_another_function],
)
def test_a_timm_network_that_its_name_does_not_give_needs_its_parent(
    tmp_path: Path, change: Callable[[nn.Module], None]
) -> None:
    network = timm.create_model("resnet10t").eval()
    change(network)
    space = prunas.trace(network, (3, 64, 64))
    small = prunas.cut(network, space, space.uniform(0.5))
    prunas.save(small, tmp_path / "model")
    with pytest.raises(prunas.InputError, match="cannot be built without its arguments; pass one"):
        prunas.load(tmp_path / "model")
    parent = timm.create_model("resnet10t")
    change(parent)
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(prunas.load(tmp_path / "model", parent)(image), small(image))


def test_plain_attributes_are_restored_with_their_types(tmp_path: Path) -> None:
    network = timm.create_model("resnet10t").eval()
    mine = {"a": 1, "b": True, "c": (1, 2), "d": "text", "e": float("nan"), "f": None, "g": (0.5,)}
    network.layer1.__dict__.update(mine)
    network.drop_rate = 0.25  # type: ignore[assignment]
    prunas.save(network, tmp_path / "model")
    loaded = prunas.load(tmp_path / "model")
    held = loaded.get_submodule("layer1").__dict__
    assert repr({name: held[name] for name in mine}) == repr(mine)
    assert loaded.drop_rate == 0.25


def test_attributes_of_the_users_own_go_with_a_new_classifier(tmp_path: Path) -> None:
    network = timm.create_model("resnet10t").eval()
    network.layer1.__dict__["mine"] = (1, 2)
    prunas.save(network, tmp_path / "model")
    loaded = prunas.load(tmp_path / "model", num_classes=3)
    assert loaded.get_submodule("layer1").__dict__["mine"] == (1, 2)
    assert loaded.get_parameter("fc.weight").shape[0] == 3


def test_a_timm_network_for_another_image_size(tmp_path: Path) -> None:
    network = timm.create_model("swin_tiny_patch4_window7_224", img_size=64).eval()
    space = prunas.trace(network, (3, 64, 64))
    small = prunas.cut(network, space, space.uniform(0.5))
    prunas.save(small, tmp_path / "model")
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(prunas.load(tmp_path / "model")(image), small(image))


def test_loading_needs_no_memory_for_the_weights_of_the_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prunas.save(_cut(), tmp_path / "model")
    parents: list[nn.Module] = []

    def seen(origin: Mapping[str, Any]) -> nn.Module:
        parents.append(network := rebuild(origin))
        assert all(p.untyped_storage().nbytes() <= 4 for p in network.parameters())
        return network

    monkeypatch.setattr(artifact, "rebuild", seen)
    loaded = prunas.load(tmp_path / "model")
    assert loaded is parents[0]
    assert all(p.untyped_storage().nbytes() == 4 * p.numel() for p in loaded.parameters())


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda f: (f / "arch.json").unlink(), "arch.json is missing"),
        (lambda f: (f / "arch.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "arch.json").write_text("[]"), "has format None"),
        (lambda f: (f / "weights.safetensors").unlink(), "there is no weights file"),
        (
            lambda f: (f / "weights.safetensors").write_bytes(
                (f / "weights.safetensors").read_bytes()[:-9]
            ),
            "cannot be read",
        ),
    ],
)
def test_a_damaged_artifact_is_refused(tmp_path: Path, damage: object, sentence: str) -> None:
    prunas.save(_cut(), tmp_path / "model")
    assert callable(damage)
    damage(tmp_path / "model")
    with pytest.raises(prunas.InputError, match=sentence):
        prunas.load(tmp_path / "model")


def test_an_artifact_of_another_version_or_network_is_refused(tmp_path: Path) -> None:
    prunas.save(_cut(), tmp_path / "model")
    file = tmp_path / "model" / "arch.json"
    arch = json.loads(file.read_text())
    file.write_text(json.dumps({**arch, "format": 99}))
    with pytest.raises(prunas.InputError, match="has format 99, this prunas reads 3"):
        prunas.load(tmp_path / "model")
    file.write_text(json.dumps(arch))
    with pytest.raises(prunas.InputError, match="does not fit Plain"):
        prunas.load(tmp_path / "model", network=Plain())


def rewritten(file: Path, **changes: object) -> None:
    """Change entries, with a checksum that says they are right: somebody meant it."""
    write_sealed(file, {**read_sealed(file), **changes})


def test_changed_bits_are_noticed(tmp_path: Path) -> None:
    prunas.save(_cut(), tmp_path / "model")
    prunas.save(Plain(), tmp_path / "other")
    weights, arch = tmp_path / "model" / "weights.safetensors", tmp_path / "model" / "arch.json"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(prunas.InputError, match="is not what was written; save the network again"):
        prunas.load(tmp_path / "model")
    weights.write_bytes((tmp_path / "other" / "weights.safetensors").read_bytes())
    with pytest.raises(prunas.InputError, match="is not what was written"):
        prunas.load(tmp_path / "model")
    weights.write_bytes(whole)
    arch.write_text(arch.read_text().replace('"num_classes": 5', '"num_classes": 4'))
    with pytest.raises(prunas.InputError, match="was changed after it was written"):
        prunas.load(tmp_path / "model")


def test_artifacts_of_before_there_were_checksums_are_read(tmp_path: Path) -> None:
    small = _cut()
    folder = prunas.save(small, tmp_path / "model")
    arch = read_sealed(folder / "arch.json")
    del arch["weights"]
    (folder / "arch.json").write_text(json.dumps(arch))
    weights = folder / "weights.safetensors"
    save_file(load_file(weights), weights)
    torch.testing.assert_close(prunas.load(folder)(_image()), small(_image()))


def test_an_artifact_that_a_kill_caught_between_two_renames_is_there(tmp_path: Path) -> None:
    small = _cut()
    prunas.save(small, tmp_path / "model")
    (tmp_path / "model").rename(tmp_path / ".model.old")
    torch.testing.assert_close(prunas.load(tmp_path / "model")(_image()), small(_image()))
    prunas.save(Plain(), tmp_path / "model")
    assert type(prunas.load(tmp_path / "model")) is Plain
    assert not (tmp_path / ".model.old").exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [("os", "abort"), ("os", "nothing"), ("antigravity", "fly"), ("builtins", "exit"), ("", "")],
)
def test_an_artifact_decides_nothing_that_is_imported_or_called(
    module: str, name: str, tmp_path: Path
) -> None:
    folder = prunas.save(Plain(), tmp_path / "model")
    known = set(sys.modules)
    origin = {"kind": "class", "module": module, "name": name}
    rewritten(folder / "arch.json", origin=origin)
    with pytest.raises(prunas.InputError, match=r"pass one: prunas.load\(folder, network="):
        prunas.load(folder)
    assert set(sys.modules) == known
    assert type(prunas.load(folder, network=Plain())) is Plain


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"origin": {"kind": "spell"}}, "its 'origin' is"),
        ({"origin": {"kind": ["timm"]}}, "its 'origin' is"),
        ({"left_out": [["a"]]}, "its 'left_out' is"),
        ({"attributes": [["", "_modules", {}]]}, "no plain attribute"),
        ({"attributes": [["", "forward", 1]]}, "no plain attribute"),
        ({"attributes": [["nowhere", "width", 1]]}, "does not fit Plain"),
        ({"attributes": [["", "width", {"a": 1}]]}, "cannot be {'a': 1}"),
        ({"chosen": {"first": 1}}, "does not fit Plain"),
        ({"weights": 3}, "its 'weights' is 3"),
    ],
)
def test_an_artifact_that_says_what_cannot_be(
    changes: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    folder = prunas.save(Plain(), tmp_path / "model")
    rewritten(folder / "arch.json", **changes)
    with pytest.raises(prunas.InputError, match=re.escape(sentence)):
        prunas.load(folder)


@pytest.mark.parametrize(
    "arguments",
    [
        {"checkpoint_path": "pickle.pth"},
        {"pretrained": True},
        {"pretrained_cfg": {"file": "pickle.pth"}},
        {"num_classes": 10**12},
        {"num_classes": "many"},
        [],
    ],
)
def test_a_timm_network_is_built_of_its_layers_arguments_alone(
    arguments: object, tmp_path: Path
) -> None:
    folder = prunas.save(_cut("test_resnet"), tmp_path / "model")
    origin = read_sealed(folder / "arch.json")["origin"]
    rewritten(folder / "arch.json", origin={**origin, "arguments": arguments})
    with pytest.raises(prunas.InputError):
        prunas.load(folder)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(prunas.RunError, match="cannot be written"):
        prunas.save(_cut(), tmp_path / "file" / "model")


@pytest.mark.parametrize("folder", [None, "", "a\0b", 3])
def test_what_is_no_folder_is_refused(folder: Any) -> None:
    for call in (lambda: prunas.load(folder), lambda: prunas.save(nn.Linear(2, 2), folder)):
        with pytest.raises(prunas.InputError, match=r"is no folder; give the name of one"):
            call()


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (None, r"a network must be an nn\.Module, not NoneType"),
        (nn.LazyLinear(2), r"weight has no values yet \(lazy\); run the network once"),
        (nn.Linear(2, 2, device="meta"), r"weight has no values yet \(device meta\)"),
    ],
)
def test_what_has_no_values_is_not_saved(network: Any, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(prunas.InputError, match=sentence):
        prunas.save(network, tmp_path / "model")
    assert not list(tmp_path.iterdir())


# -- the parent's arguments ------------------------------------------------------------------------

PARENTS = ["test_efficientnet", "test_resnet", "test_vit", "test_convnext", "test_nfnet"]


def _saved(name: str, folder: Path, *, channels: int = 3, side: int = 160) -> nn.Module:
    network = create_network(name, classes=5, input_size=(channels, side, side))
    space = prunas.trace(network, (channels, side, side))
    small = prunas.cut(network, space, space.uniform(0.5)).eval()
    prunas.save(small, folder)
    return small


def _without_a_block(name: str, folder: Path) -> nn.Module:
    network = create_network(name, classes=5, input_size=(3, 160, 160))
    space = prunas.trace(network, (3, 160, 160))
    half = list(space.uniform(0.5))
    half[next(iter(space.blocks))] = 0
    small = prunas.cut(network, space, half).eval()
    prunas.save(small, folder)
    return small


def _pictures(channels: int, side: int = 160) -> torch.Tensor:
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
@pytest.mark.parametrize("name", PARENTS)
def test_another_number_of_classes(name: str, tmp_path: Path) -> None:
    small = _saved(name, tmp_path / "model")
    other = prunas.load(tmp_path / "model", num_classes=9)
    pictures = _pictures(3)
    assert type(other) is type(small)
    assert other(pictures).shape == (2, 9)
    ours, theirs = (net.forward_features(pictures) for net in (other, small))  # type: ignore[operator]
    assert torch.equal(ours, theirs)
    prunas.save(other, tmp_path / "again")
    assert torch.equal(prunas.load(tmp_path / "again")(pictures), other(pictures))


@torch.no_grad()
@pytest.mark.parametrize("name", PARENTS)
def test_no_classifier(name: str, tmp_path: Path) -> None:
    small = _saved(name, tmp_path / "model")
    bare = prunas.load(tmp_path / "model", num_classes=0)
    features: object = small.forward_features(_pictures(3))  # type: ignore[operator]
    pooled = small.forward_head(features, pre_logits=True)  # type: ignore[operator]
    torch.testing.assert_close(bare(_pictures(3)), pooled)


@torch.no_grad()
@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_vit"])
def test_one_channel_is_worth_all_three(name: str, tmp_path: Path) -> None:
    small = _saved(name, tmp_path / "model")
    grey = _pictures(1)
    found = prunas.load(tmp_path / "model", in_chans=1)(grey)
    torch.testing.assert_close(found, small(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_more_channels_share_the_weight(tmp_path: Path) -> None:
    """Six equal channels in place of three: each has half the weight, and the sum is the same."""
    small = _saved("test_resnet", tmp_path / "model")
    grey = _pictures(1)
    found = prunas.load(tmp_path / "model", in_chans=6)(grey.expand(-1, 6, -1, -1))
    torch.testing.assert_close(found, small(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_convnext"])
@pytest.mark.parametrize("side", [160, 32])
def test_features_are_what_the_named_modules_give(name: str, side: int, tmp_path: Path) -> None:
    small = _saved(name, tmp_path / "model", side=side)
    extractor: Any = prunas.load(tmp_path / "model", features_only=True, out_indices=(1, 3))
    parents: Any = timm.create_model(name, features_only=True, out_indices=(1, 3))
    assert type(extractor) is type(parents)
    seen = {}
    info: Any = extractor.feature_info
    for path in info.module_name():
        small.get_submodule(path).register_forward_hook(
            lambda module, taken, given, path=path: seen.update({path: given})
        )
    pictures = _pictures(3, side)
    small(pictures)
    found = extractor(pictures)
    for ours, theirs in zip(found, seen.values(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert info.channels() == [given.shape[1] for given in found]
    assert info.channels() != parents.feature_info.channels()


@torch.no_grad()
@pytest.mark.parametrize("name", ["test_convnext", "test_resnet", "test_vit"])
def test_arguments_go_together_with_blocks_left_out(name: str, tmp_path: Path) -> None:
    small = _without_a_block(name, tmp_path / "model")
    other: Any = prunas.load(tmp_path / "model", num_classes=9)
    parent: Any = small
    found, expected = (net.forward_features(_pictures(3)) for net in (other, parent))
    assert torch.equal(found, expected)
    given = prunas.load(tmp_path / "model", features_only=True, out_indices=(0, 2))(_pictures(3))
    assert [part.shape[1] for part in given] == [
        part.shape[1] for part in parent.forward_intermediates(
            _pictures(3), indices=(0, 2), intermediates_only=True
        )
    ]  # fmt: skip


@torch.no_grad()
def test_features_of_a_transformer(tmp_path: Path) -> None:
    small = _saved("test_vit", tmp_path / "model")
    extractor = prunas.load(tmp_path / "model", features_only=True, out_indices=(0, 2))
    intermediates: Any = small.forward_intermediates
    expected = intermediates(_pictures(3), indices=(0, 2), intermediates_only=True)
    for ours, theirs in zip(extractor(_pictures(3)), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_arguments_that_make_other_layers_are_refused(tmp_path: Path) -> None:
    _saved("test_resnet", tmp_path / "model")
    with pytest.raises(prunas.InputError, match="which the saved one has not"):
        prunas.load(tmp_path / "model", block_args={"attn_layer": "se"})
    with pytest.raises(prunas.InputError, match="timm cannot create test_resnet"):
        prunas.load(tmp_path / "model", no_such_argument=1)
    with pytest.raises(prunas.InputError, match="in_chans is a whole number from 1 up, not 0"):
        prunas.load(tmp_path / "model", in_chans=0)
    with pytest.raises(prunas.InputError, match="num_classes is a whole number from 0 up, not '3'"):
        prunas.load(tmp_path / "model", num_classes="3")


def test_arguments_of_timm_are_for_timm(tmp_path: Path) -> None:
    network = Plain()
    space = prunas.trace(network, (3, 8, 8))
    prunas.save(prunas.cut(network, space, space.smallest()), tmp_path / "model")
    with pytest.raises(prunas.InputError, match="num_classes can be given for timm networks alone"):
        prunas.load(tmp_path / "model", num_classes=3)


class Splits(nn.Module):
    """Keeps the sizes of a split in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 12), nn.Linear(12, 3)
        self.sizes = [8, 4]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(torch.cat(self.first(x).split(self.sizes, 1)[::-1], 1))
        return out


def test_sizes_in_lists_come_back_as_lists(tmp_path: Path) -> None:
    network = Splits().eval()
    space = prunas.trace(network, (4,))
    small: Any = prunas.cut(network, space, space.uniform(0.5))
    prunas.save(small, tmp_path / "model")
    loaded: Any = prunas.load(tmp_path / "model")
    assert loaded.sizes == small.sizes == [4, 2]


class Shifted(nn.Module):
    """Keeps a tensor that is neither parameter nor buffer, a number and functions."""

    def __init__(self, *, act: nn.Module | None = None, extra: Any = None) -> None:
        super().__init__()
        self.mean, self.power = torch.rand(3), 1.0
        self.last = nn.Linear(3, 4)
        if act is not None:
            self.act = act
        self.extra = extra

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last((x - self.mean) * self.power)
        return out


def test_a_tensor_that_is_neither_parameter_nor_buffer_comes_back(tmp_path: Path) -> None:
    network = Shifted().eval()
    prunas.save(network, tmp_path / "model")
    for loaded in (prunas.load(tmp_path / "model"), prunas.load(tmp_path / "model", Shifted())):
        assert torch.equal(loaded(torch.ones(2, 3)), network(torch.ones(2, 3)))


def test_numbers_of_numpy_come_back_as_plain_ones(tmp_path: Path) -> None:
    network: Any = Shifted().eval()
    network.power, network.extra = np.float32(2.5), (np.int64(3), np.float64(0.5))
    prunas.save(network, tmp_path / "model")
    loaded: Any = prunas.load(tmp_path / "model")
    assert (repr(loaded.power), repr(loaded.extra)) == ("2.5", "(3, 0.5)")


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (Shifted(act=nn.Tanh()), "does not fit Shifted: act was saved as Tanh and is nothing"),
        (Shifted(extra=torch.relu), r"fit Shifted: extra was saved as .*relu and is nothing"),
    ],
)
def test_a_parent_of_other_modules_or_functions_is_refused(
    network: nn.Module, sentence: str, tmp_path: Path
) -> None:
    folder = prunas.save(network, tmp_path / "model")
    with pytest.raises(prunas.InputError, match=sentence):
        prunas.load(folder, Shifted())


def test_artifacts_of_before_it_said_what_a_network_is_made_of_are_read(tmp_path: Path) -> None:
    folder = prunas.save(Plain(), tmp_path / "model")
    arch = read_sealed(folder / "arch.json")
    del arch["made_of"]
    write_sealed(folder / "arch.json", arch)
    assert type(prunas.load(folder, Plain())) is Plain
