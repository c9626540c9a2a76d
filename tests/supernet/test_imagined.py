"""Shortcuts on the meta device against the kernels of the processor."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunas.supernet.imagined import Imagining

LAYOUTS = (torch.contiguous_format, torch.channels_last)

CASES: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu_": lambda x: F.relu(x.clone(memory_format=torch.preserve_format), inplace=True),
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "gelu": F.gelu,
    "clamp": lambda x: x.clamp(0, 1),
    "clamp to a tensor": lambda x: x.clamp(min=x.mean()),
    "add": lambda x: x + x,
    "add a number": lambda x: x + 1,
    "gate": lambda x: x * x.mean((2, 3), keepdim=True),
    "grow": lambda x: x.mean((2, 3), keepdim=True) * x,
    "promote": lambda x: x + x.double(),
    "expanded": lambda x: x[:, :1].expand_as(x) + x,
    "mean": lambda x: x.mean((2, 3)),
    "mean of one": lambda x: x.mean(1, keepdim=True),
    "mean of all": lambda x: x.mean(),
    "batch norm": nn.BatchNorm2d(6).eval(),
    "batch norm in training": nn.BatchNorm2d(6),
    "layer norm": nn.LayerNorm((5, 4)),
    "last layer norm": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (6,)),
    "convolution": nn.Conv2d(6, 8, 3, stride=2, padding=1, dilation=2),
    "depthwise": nn.Conv2d(6, 12, (3, 1), padding=(1, 0), groups=6, bias=False),
    "linear": lambda x: F.linear(x.mean((2, 3)), torch.ones(3, 6), torch.ones(3)),
    "softmax": lambda x: x.softmax(1),
    "softmax in double": lambda x: x.softmax(-1, dtype=torch.float64),
    "log softmax": lambda x: x.log_softmax(3),
    "attention": lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=torch.zeros(5, 5)),
    "roll": lambda x: x.roll((1, -2), (2, 3)),
    "roll all": lambda x: x.roll(3),
    "double": lambda x: F.silu(x.double()),
    "slice": lambda x: F.silu(x[:, 1:4]) + 1,
    "integer": lambda x: x.long() * 2,
}


def on(device: str, function: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    if isinstance(function, nn.Module):
        function = copy.deepcopy(function).to(device)
    with torch.device(device), torch.no_grad():
        return function(image.to(device))


@pytest.mark.parametrize("layout", LAYOUTS, ids=["rows", "channels last"])
@pytest.mark.parametrize("name", CASES)
def test_shape_type_and_strides_are_the_kernels(name: str, layout: torch.memory_format) -> None:
    image = torch.randn(2, 6, 5, 4).contiguous(memory_format=layout)
    expected = on("cpu", CASES[name], image)
    with Imagining():
        found = on("meta", CASES[name], image)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert found.stride() == expected.stride()


@pytest.mark.parametrize(
    "wrong",
    [
        nn.Conv2d(5, 8, 3),
        nn.Conv2d(6, 8, 9),
        nn.Conv2d(3, 9, 1, groups=3),
        nn.BatchNorm2d(5).eval(),
        nn.LayerNorm(5),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2)),
    ],
    ids=["channels", "kernel", "groups", "batch norm", "layer norm", "linear"],
)
def test_what_the_kernel_refuses_is_refused(wrong: nn.Module) -> None:
    with Imagining(), pytest.raises((RuntimeError, ValueError)):
        wrong.to("meta")(torch.empty(2, 6, 5, 4, device="meta"))


def test_in_place_returns_the_tensor_itself() -> None:
    image = torch.empty(2, 3, device="meta")
    with Imagining():
        assert torch.relu_(image) is image
        assert image.add_(1) is image
