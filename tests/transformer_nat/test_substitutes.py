"""What may stand in the place of a convolution: shapes, and weights made from its own."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunas.errors import InputError
from prunas.transformer_nat.operators import OF_NETWORKS
from prunas.transformer_nat.substitutes import Substitute, carried, renew, substitute


def conv(*args: Any, seed: int = 0, **kwargs: Any) -> nn.Conv2d:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return nn.Conv2d(*args, **kwargs)


def built(layer: nn.Conv2d, name: str) -> nn.Module:
    made = substitute(layer, name)
    assert made is not None
    return made


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (conv(3, 8, 3), "conv_3x3"),
        (conv(8, 8, 7, groups=8), "dw_conv_7x7"),
        (conv(8, 16, 3, groups=8), "conv_3x3"),  # two outputs a channel: no depthwise one
        (conv(8, 8, 13, groups=8), "other_dw_conv"),
        (conv(8, 8, (1, 7)), "other_conv"),
        (conv(8, 8, 13), "other_conv"),
    ],
)
def test_what_a_layer_is_called(layer: nn.Conv2d, name: str) -> None:
    assert carried(layer) == name


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.sampled_from([1, 2, 3, 5, 7, 13]),
    stride=st.integers(1, 3),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 4]),
    outputs=st.sampled_from([4, 8]),
    bias=st.booleans(),
)
def test_outputs_keep_their_shape(
    kernel: int, stride: int, padding: int, dilation: int, groups: int, outputs: int, bias: bool
) -> None:
    layer = conv(
        4, outputs, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups,
        bias=bias,
    )  # fmt: skip
    images = torch.randn(2, 4, 29, 31)
    expected = layer(images).shape
    for name in OF_NETWORKS:
        made = substitute(layer, name)
        if made is not None:
            assert made(images).shape == expected, name


def test_a_smaller_kernel_is_the_middle() -> None:
    layer = conv(3, 4, 5, padding=2, stride=2)
    small = built(layer, "conv_3x3")
    assert isinstance(small, nn.Conv2d)
    assert torch.equal(small.weight, layer.weight[:, :, 1:4, 1:4])
    assert small.bias is not None
    assert layer.bias is not None
    assert torch.equal(small.bias, layer.bias)
    with torch.no_grad():  # where only the middle counts, both are the same function
        layer.weight[:, :, [0, -1]] = 0
        layer.weight[:, :, :, [0, -1]] = 0
    images = torch.randn(2, 3, 9, 8)
    torch.testing.assert_close(small(images), layer(images))


def test_a_factored_convolution_is_the_nearest_one() -> None:
    layer = conv(5, 7, 3, padding=1, bias=False)
    spatial, across = (p.detach() for p in built(layer, "ds_conv_3x3").parameters())
    product = across[:, :, 0, 0, None, None] * spatial[None, :, 0]
    left = float(((layer.weight.detach() - product) ** 2).sum())
    # oracle: of each input channel's matrix, all singular values but the largest
    matrices = [part.reshape(7, 9) for part in layer.weight.detach().unbind(1)]
    least = sum(float((torch.linalg.svdvals(matrix)[1:] ** 2).sum()) for matrix in matrices)
    assert left == pytest.approx(least, rel=1e-4)
    sizes = spatial.flatten(1).norm(dim=1), across[:, :, 0, 0].norm(dim=0)
    torch.testing.assert_close(*sizes)


def test_what_is_factored_already_stays_what_it_was() -> None:
    layer = conv(5, 7, 3, padding=1, stride=2)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(7, 5, 1, 1) * torch.randn(1, 5, 3, 3))
    images = torch.randn(2, 5, 9, 9)
    made = built(layer, "ds_conv_3x3")
    torch.testing.assert_close(made(images), layer(images), rtol=1e-4, atol=1e-4)


def test_weights_of_zeros_do_not_divide_by_zero() -> None:
    layer = conv(5, 7, 3)
    nn.init.zeros_(layer.weight)
    assert all(torch.isfinite(p).all() for p in built(layer, "ds_conv_3x3").parameters())


def test_pools_look_where_the_layer_looked() -> None:
    layer = conv(4, 4, 3, stride=2, padding=1, groups=4, bias=False)
    nn.init.constant_(layer.weight, 1 / 9)
    images = torch.randn(2, 4, 9, 9)
    inner = (..., slice(1, -1), slice(1, -1))  # at the border the padding is not counted
    pool = built(layer, "avg_pool_3x3")
    torch.testing.assert_close(pool(images)[inner], layer(images)[inner])
    assert isinstance(pool, Substitute)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (conv(4, 4, 3), "conv_1x1"),  # without padding the map would grow
        (conv(4, 4, 3, padding=1), "conv_3x3"),  # as large as it was
        (conv(4, 4, 3, padding=1), "conv_5x5"),
        (conv(4, 8, 3, padding=1), "max_pool_3x3"),  # other channels
        (conv(4, 4, 3, padding="same"), "conv_1x1"),
        (conv(4, 4, 3, padding=1, padding_mode="reflect"), "conv_1x1"),
        (conv(4, 4, 4, padding=1), "conv_3x3"),  # no middle
        (conv(4, 4, 3, padding=1, groups=2), "ds_conv_3x3"),
        (conv(4, 4, 3, padding=1), "dw_conv_3x3"),
        (conv(4, 4, 3, padding=1), "sep_conv_3x3"),
        (conv(4, 4, 3, padding=1), "branch"),
        (conv(4, 8, 3, padding=1), "skip_connect"),
        (conv(4, 4, 3, padding=1, stride=2), "skip_connect"),
        (conv(4, 4, 3), "skip_connect"),
    ],
)
def test_what_cannot_stand_there(layer: nn.Conv2d, name: str) -> None:
    assert substitute(layer, name) is None


@pytest.mark.parametrize("name", ["conv_1x1", "conv_3x3", "ds_conv_3x3", "ds_conv_5x5"])
@pytest.mark.parametrize("frozen", [(), ("weight",), ("bias",), ("weight", "bias")])
def test_what_is_frozen_stays_frozen(name: str, frozen: tuple[str, ...]) -> None:
    layer = conv(4, 8, 5, padding=2)
    for each in frozen:
        layer.get_parameter(each).requires_grad_(False)
    for path, parameter in built(layer, name).named_parameters():
        assert parameter.requires_grad == (path.rpartition(".")[2] not in frozen)


def test_unknown_operators_are_refused() -> None:
    with pytest.raises(InputError, match="there is no operator 'conv_4x4'"):
        substitute(conv(4, 4, 5), "conv_4x4")


def test_random_weights_follow_their_seed() -> None:
    layer = conv(6, 8, 3, padding=1)
    one, two, three = (built(layer, "ds_conv_3x3") for _ in range(3))
    before = torch.get_rng_state()
    for made, seed in ((one, 3), (two, 3), (three, 4)):
        renew(made, seed)
    assert torch.equal(torch.get_rng_state(), before)
    weights = [torch.cat([p.flatten() for p in m.parameters()]) for m in (one, two, three)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], torch.cat([p.flatten() for p in built(
        layer, "ds_conv_3x3").parameters()]))  # fmt: skip
