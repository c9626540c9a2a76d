import copy

import pytest
import timm
import torch
from torch import nn

from prunas.errors import InputError
from prunas.pipeline.small_images import (
    check_runs,
    keep_reduction,
    small_image_form,
    wanted_reduction,
)

NAMES = ["mobilenetv2_035", "resnet18", "resnetaa50d", "tf_efficientnet_lite0", "pvt_v2_b0"]


def last_map(network: nn.Module, size: tuple[int, int, int]) -> tuple[int, int]:
    with torch.no_grad():
        pictures = torch.zeros(2, *size, device="meta")
        features: torch.Tensor = network.eval().forward_features(pictures)  # type: ignore[operator]
    return features.shape[2], features.shape[3]


def network_of(name: str, size: tuple[int, int, int]) -> nn.Module:
    with torch.device("meta"):  # structure alone is under test
        network: nn.Module = timm.create_model(name, num_classes=4, in_chans=size[0])
    return network


@pytest.mark.parametrize(
    ("name", "size"),
    [
        *((name, (1, 8, 8)) for name in NAMES),
        ("mobilenetv2_035", (1, 28, 28)),
        ("resnetaa50d", (3, 32, 32)),
        ("pvt_v2_b0", (3, 64, 64)),
    ],
)
def test_last_map_is_large_enough_but_not_larger(name: str, size: tuple[int, int, int]) -> None:
    network = network_of(name, size)
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    sentence = small_image_form(network, size)
    smallest = 2 if size[1] <= 8 else 4
    assert min(last_map(network, size)) >= smallest
    assert min(last_map(network, size)) < 2 * smallest
    assert sentence is not None
    assert f"{size[1]} x {size[2]}" in sentence
    assert shapes == {key: value.shape for key, value in network.state_dict().items()}
    assert small_image_form(network, size) is None  # nothing is left to do


def test_pools_become_identities_and_shortcuts_follow() -> None:
    network = network_of("resnet18", (1, 8, 8))
    small_image_form(network, (1, 8, 8))
    assert isinstance(network.maxpool, nn.Identity)
    for name in ("conv1", "layer2.0.conv1", "layer2.0.downsample.0"):
        assert network.get_submodule(name).stride == (1, 1)
    for name in ("layer3.0.conv1", "layer3.0.downsample.0", "layer4.0.conv1"):
        assert network.get_submodule(name).stride == (2, 2)


def test_patches_keep_their_place() -> None:
    """ConvNeXt's 4 x 4 stem at stride 1 and at stride 2: even kernels, halved maps."""
    for size, side in (((3, 32, 32), 4), ((3, 64, 64), 4)):
        network = network_of("convnext_atto", size)
        small_image_form(network, size)
        assert last_map(network, size) == (side, side)
    assert network.get_submodule("stem.0").stride == (2, 2)


def test_large_pictures_change_nothing() -> None:
    network = network_of("mobilenetv2_035", (3, 224, 224))
    before = str(network)
    assert small_image_form(network, (3, 224, 224)) is None
    assert str(network) == before


def test_a_network_without_strides_is_left_alone() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU())
    assert wanted_reduction(network, (1, 8, 8)) is None


def test_plain_modules_and_modes_are_kept() -> None:
    network = nn.Sequential(
        *(nn.Sequential(nn.Conv2d(c, 4, 3, 2, 1), nn.BatchNorm2d(4)) for c in (1, 4, 4, 4))
    )
    weights = copy.deepcopy(network.state_dict())
    sentence = small_image_form(network, (1, 16, 16))
    assert sentence is not None
    assert "2 layers (0.0, 1.0)" in sentence
    assert "4 times instead of 16" in sentence
    assert network(torch.zeros(2, 1, 16, 16)).shape == (2, 4, 4, 4)
    assert network.training
    assert all(not module._forward_pre_hooks for module in network.modules())
    weights = {name: value for name, value in weights.items() if "running" not in name}
    for name, value in weights.items():
        if "num_batches" not in name:
            assert torch.equal(network.state_dict()[name], value)


class Residual(nn.Module):
    """A block whose shortcut drops positions by slicing, which no layer shows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, 2, 1)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        short: torch.Tensor = pictures[:, :, ::2, ::2]
        long: torch.Tensor = self.conv(pictures)
        return long + short


def test_a_network_that_no_longer_runs_is_an_error_and_unchanged() -> None:
    network = nn.Sequential(*(Residual() for _ in range(4)))
    before = str(network)
    with pytest.raises(InputError, match="does not take pictures of size"):
        keep_reduction(network, (1, 16, 16), 2)
    assert str(network) == before


def test_a_picture_that_the_network_refuses() -> None:
    network = timm.create_model("vit_tiny_patch16_224", num_classes=2)
    with pytest.raises(InputError, match=r"size \(3, 32, 32\)"):
        check_runs(network, (3, 32, 32))
