"""Whole models: coupling on numbers, costs and cuts, a representative of each family."""

from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn

import prunas  # first: it declares what the imports of timm need where torchvision has no library
from prunas.errors import InputError
from tests.supernet.counting import macs_counted, parameters_counted

FAMILIES = (
    "mobilenetv2", "mobilenetv3", "mobilenetv4_conv", "efficientnet", "resnet", "resnext",
    "regnet", "densenet", "vgg", "ghostnet", "repvgg", "convnext",
)  # fmt: skip
SMALL = 5e6
"""Models with fewer parameters are checked on numbers; of larger ones shapes are."""

# one of each family, and what is special: standardised weights, group norms, multi-branch
FAST = {
    "mobilenetv2_050": 32,
    "mobilenetv3_small_050": 32,
    "mobilenetv4_conv_small_035": 32,
    "efficientnet_lite0": 32,
    "resnet10t": 32,
    "regnetx_002": 32,
    "ghostnet_050": 32,
    "convnext_atto": 32,
    "test_vit": 160,
}
PRODUCTS = {
    "shufflenet_v2_x1_0": 64,
    "googlenet": 64,
    "inception_v3": 96,
    "squeezenet1_1": 64,
    "mobilenet_v2": 64,
    "resnet18": 64,
    "densenet121": 64,
}


def checked(network: nn.Module, side: int) -> prunas.SearchSpace:
    """Both oracles, and both costs of a cut at half width."""
    network.eval()
    space = prunas.trace(network, (3, side, side))
    prunas.verify(network, space)
    half = space.uniform(0.5)
    small = prunas.cut(network, space, half)
    cost = prunas.Cost(space)
    assert cost.macs([half])[0] == macs_counted(small, (3, side, side))
    assert cost.params([half])[0] == parameters_counted(small)
    return space


@pytest.mark.parametrize("name", FAST)
def test_a_model_of_each_family(name: str) -> None:
    assert len(checked(timm.create_model(name), FAST[name]).genes) > 5


def test_group_norms_over_standardised_weights() -> None:
    """Every norm of a stage sees the same groups, and they are one gene, not fifty conflicts."""
    with torch.device("meta"):
        network = timm.create_model("resnetv2_50x1_bit").eval()
    space = prunas.trace(network, (3, 64, 64))
    assert len(space.pinned) == 2  # image channels and classes
    prunas.cut(network, space, space.uniform(0.5))


@pytest.mark.parametrize(
    "name", ["swin_tiny_patch4_window7_224", "levit_128s", "efficientformer_l1"]
)
def test_transformers_have_genes(name: str) -> None:
    """Relative positions are looked up by number; the heads and the hidden channels are free."""
    with torch.device("meta"):
        network = timm.create_model(name).eval()
    space = prunas.trace(network, (3, 224, 224))
    assert len(space.genes) > 20
    prunas.cut(network, space, space.smallest())


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_model_of_a_family(family: str) -> None:
    failed: dict[str, str] = {}
    for name in (name for name in timm.list_models() if name.startswith(family)):
        try:
            _try_model(name)
        except (InputError, prunas.RunError, RuntimeError, AssertionError) as error:
            failed[name] = str(error)
    assert not failed


def _try_model(name: str) -> None:
    with torch.device("meta"):
        network = timm.create_model(name).eval()
    settings: Any = network.default_cfg
    size = settings["input_size"]
    space = prunas.trace(network, size)
    for candidate in (space.uniform(0.5), space.smallest()):
        prunas.cut(network, space, candidate)
    if sum(parameter.numel() for parameter in network.parameters()) < SMALL:
        checked(timm.create_model(name), size[1] if settings["fixed_input_size"] else 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRODUCTS)
def test_torchvisions_models(name: str) -> None:
    arguments = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    network = torchvision.models.get_model(name, weights=None, **arguments)
    assert len(checked(network, PRODUCTS[name]).genes) > 5


@pytest.mark.slow
def test_a_segmentation_model() -> None:
    network = torchvision.models.get_model(
        "deeplabv3_mobilenet_v3_large", weights=None, weights_backbone=None
    ).eval()
    prunas.verify(network, prunas.trace(network, (3, 64, 64)))
