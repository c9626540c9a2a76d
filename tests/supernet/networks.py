"""Small networks with every kind of coupling, and the networks that are made of them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunas.supernet.choice import Choice

SIDE = 8
IMAGE = (3, SIDE, SIDE)


class Plain(nn.Sequential):
    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Conv2d(channels, 12, 3, padding=1, bias=False),
            nn.BatchNorm2d(12),
            nn.ReLU(inplace=True),
            nn.Conv2d(12, channels, 1),
        )


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = Plain(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


class Concatenated(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(channels, 6, 1), nn.Conv2d(channels, 10, 3, padding=1)
        self.norm = nn.BatchNorm2d(16 + channels)
        self.last = nn.Conv2d(16 + channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([self.left(x), x, self.right(x)], 1)
        out: Tensor = self.last(F.relu(self.norm(both)))
        return out


class Chunked(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(channels, 16, 1), nn.Conv2d(16, channels, 1)
        self.middle = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.first(x).chunk(2, 1)
        out: Tensor = self.last(torch.cat([left, self.middle(right)], 1))
        return out


class Split(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.sizes = [4, 6, 2]
        self.first, self.last = nn.Conv2d(channels, 12, 1), nn.Conv2d(8, channels, 1)
        self.middle = nn.Conv2d(4, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        one, two, three = self.first(x).split(self.sizes, 1)
        out: Tensor = self.last(torch.cat([self.middle(one) * two, three], 1))
        return out


class Sliced(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.front = 5
        self.first = nn.Conv2d(channels, 12, 1)
        self.one, self.two = nn.Conv2d(5, channels, 1), nn.Conv2d(7, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).relu()
        out: Tensor = self.one(y[:, : self.front]) + self.two(y[:, self.front :])
        return out


class Shuffled(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.groups = 2
        self.first = nn.Conv2d(channels, 12, 1, groups=2)
        self.last = nn.Conv2d(12, channels, 1, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        batch, channels, height, width = y.shape
        y = y.view(batch, self.groups, channels // self.groups, height, width)
        out: Tensor = self.last(y.transpose(1, 2).reshape(batch, channels, height, width))
        return out


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, 6, 1), nn.Conv2d(6, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return x * gate


class Grouped(nn.Sequential):
    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Conv2d(channels, 16, 1),
            nn.Conv2d(16, 12, 3, padding=1, groups=4),
            nn.BatchNorm2d(12),
            nn.Conv2d(12, channels, 1),
        )


class Depthwise(nn.Sequential):
    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Conv2d(channels, 10, 1),
            nn.Conv2d(10, 20, 3, padding=1, groups=10),
            nn.Hardswish(),
            nn.Conv2d(20, channels, 1),
        )


class LargeKernel(nn.Sequential):
    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Conv2d(channels, 10, 1),
            nn.Conv2d(10, 10, 5, padding=2, groups=10),
            nn.BatchNorm2d(10),
            nn.Conv2d(10, channels, 1),
        )


class Transposed(nn.Sequential):
    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Conv2d(channels, 8, 1),
            nn.ConvTranspose2d(8, 12, 2, stride=2, groups=2),
            nn.ConvTranspose2d(12, 6, 3, padding=1),
            nn.AvgPool2d(2),
            nn.Conv2d(6, channels, 1),
        )


class PixelShuffled(nn.Sequential):
    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Conv2d(channels, 24, 1),
            nn.PixelShuffle(2),
            nn.MaxPool2d(2),
            nn.Conv2d(6, channels, 1),
        )


class Shared(nn.Module):
    """One module called twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.narrow = nn.Conv2d(channels, channels, 1), Plain(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(self.narrow(self.conv(x).relu()))
        return out


class Tied(nn.Module):
    """Two modules with one weight."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(channels, 10, 1), nn.Conv2d(channels, 10, 1, bias=False)
        self.two.weight = self.one.weight
        self.last = nn.Conv2d(10, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.one(x).relu() - self.two(x))
        return out


class Bare(nn.Module):
    """Parameters and buffers that no layer owns."""

    mask: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(10, channels))
        self.scale = nn.Parameter(torch.ones(10, 1, 1))
        self.register_buffer("mask", torch.linspace(0.5, 1.0, 10).view(1, 10, 1, 1))
        self.last = nn.Conv2d(10, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("oc,bchw->bohw", self.weight, x)
        out: Tensor = self.last(y * self.scale + self.mask)
        return out


class ChannelsLast(nn.Module):
    """An MLP over the last dimension, under a LayerNorm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.up, self.down = nn.Linear(channels, 14), nn.Linear(14, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x.permute(0, 2, 3, 1))
        out: Tensor = x + self.down(F.gelu(self.up(y))).permute(0, 3, 1, 2)
        return out


class GroupNormed(nn.Sequential):
    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Conv2d(channels, 12, 1),
            nn.GroupNorm(3, 12),
            nn.PReLU(12),
            nn.Conv2d(12, channels, 1),
        )


class Attention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads, self.width = 3, 4
        self.qkv, self.last = nn.Linear(channels, 36), nn.Linear(12, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        qkv = self.qkv(tokens).reshape(batch, -1, 3, self.heads, self.width)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        out: Tensor = x + self.last(y).transpose(1, 2).reshape(batch, -1, height, width)
        return out


class Padded(nn.Module):
    """A shortcut widened with zeros."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.wide, self.last = (
            nn.Conv2d(channels, channels + 6, 1),
            nn.Conv2d(channels + 6, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.wide(x) + F.pad(x, (0, 0, 0, 0, 2, 4)))
        return out


class Renormed(nn.Module):
    """An operator without a rule."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(channels, 8, 1), nn.Conv2d(8, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(torch.renorm(self.first(x), 2, 1, 5.0))
        return out


def bottleneck(inner: int, kernel: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(8, inner, 1),
        nn.Conv2d(inner, inner, kernel, padding=kernel // 2, groups=inner),
        nn.BatchNorm2d(inner),
        nn.ReLU(),
        nn.Conv2d(inner, 8, 1),
    )


def choice_block() -> Choice:
    return Choice(
        {
            "none": nn.Identity(),
            "small": bottleneck(6, 3),
            "gated": nn.Sequential(bottleneck(6, 5), SqueezeExcite(8)),
            "large": bottleneck(12, 5),
        }
    )


BLOCKS: dict[str, Callable[[int], nn.Module]] = {
    kind.__name__: kind
    for kind in (
        Plain, Residual, Concatenated, Chunked, Split, Sliced, Shuffled, SqueezeExcite, Grouped,
        Depthwise, LargeKernel, Transposed, PixelShuffled, Shared, Tied, Bare,
        ChannelsLast, GroupNormed, Attention, Padded, Renormed,
    )
}  # fmt: skip
NORMALISING = {"ChannelsLast", "GroupNormed", "Attention", "SqueezeExcite"}


class Flattened(nn.Sequential):
    """A classifier that sees every pixel of every channel."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(channels * 16, 5))


class Pooled(nn.Sequential):
    def __init__(self, channels: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))


class Network(nn.Sequential):
    """A stem, some blocks that keep the number of channels, and a head."""

    def __init__(
        self, blocks: Sequence[str], *, seed: int = 0, channels: int = 8, flatten: bool = False
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            super().__init__(
                nn.Conv2d(3, channels, 3, padding=1),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
                *(BLOCKS[name](channels) for name in blocks),
                Flattened(channels) if flatten else Pooled(channels),
            )
        self.eval()


class Conv1dNet(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv1d(2, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 6, 3), nn.Flatten(),
            nn.Linear(6 * 6, 4),
        )  # fmt: skip


class Conv3dNet(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv3d(2, 8, 3), nn.BatchNorm3d(8), nn.ReLU(), nn.Conv3d(8, 6, 1),
            nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(6, 4),
        )  # fmt: skip


def plain_chain() -> nn.Sequential:
    """conv 3 -> 8, conv 8 -> 16 (stride 2), linear 16 -> 5: the example of the golden numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 5),
        ).eval()


class Shifted(nn.Module):
    """Takes images and how much to add to them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 5, 1))

    def forward(self, images: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.layers(images + offsets).mean((2, 3))
        return answers


Way = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]

APART: dict[str, Way] = {
    "images": lambda f, x: torch.stack([f(image) for image in x]),
    "batches of one": lambda f, x: torch.cat([f(image[None]) for image in x]),
    "chunk": lambda f, x: torch.cat([f(part) for part in x.chunk(len(x))]),
    "split": lambda f, x: torch.cat([f(part) for part in x.split(1)]),
    "slices": lambda f, x: torch.cat([f(x[i : i + 1]) for i in range(len(x))]),
    "vmap": lambda f, x: torch.func.vmap(f)(x),
    "a list": lambda f, x: torch.stack(list(map(f, x.unbind()))),
}


class Apart(nn.Module):
    """Its first layer sees the batch, its second one image, its third the batch again."""

    def __init__(self, way: Way) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(IMAGE[0], 8, 3), nn.Conv2d(8, 12, 3)
        self.head, self.way = nn.Linear(12, 5), way

    def forward(self, x: Tensor) -> Tensor:
        x = self.way(lambda image: self.body(image).relu(), self.stem(x).relu())
        out: Tensor = self.head(x.mean((2, 3)))
        return out
