"""Small networks whose operators can be replaced, of every shape that matters."""

from collections.abc import Callable, Mapping

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

IMAGE = (3, 16, 16)


class Branch(nn.Module):
    """y = relu(x + f(x)) with two convolutions in f."""

    def __init__(self, channels: int, middle: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, middle, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(middle)
        self.second = nn.Conv2d(middle, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.second(F.relu(self.norm(self.first(x)), inplace=True))
        out += x
        return F.relu(out, inplace=True)


class Gate(nn.Module):
    """y = x * g(x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        out: Tensor = x * torch.sigmoid(self.up(F.relu(self.down(mean))))
        return out


class Inverted(nn.Module):
    """An inverted residual block: wide depthwise convolution, gate, and back."""

    def __init__(self, channels: int, wide: int, kernel: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, wide, 1, bias=False)
        self.depthwise = nn.Conv2d(wide, wide, kernel, padding=kernel // 2, groups=wide, bias=False)
        self.gate = Gate(wide)
        self.project = nn.Conv2d(wide, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        middle = self.gate(self.depthwise(F.relu(self.expand(x))))
        out: Tensor = x + self.norm(self.project(middle))
        return out


class Nested(nn.Module):
    """A residual block around residual blocks."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(Branch(channels, 6), Branch(channels, 4))
        self.last = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.last(self.inner(x))
        return out


class Dense(nn.Module):
    """Concatenation: later layers read several earlier ones."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(channels, 4, 3, padding=1)
        self.two = nn.Conv2d(channels + 4, 4, 5, padding=2)
        self.three = nn.Conv2d(channels + 8, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.one(x)
        b = self.two(torch.cat([x, a], 1))
        out: Tensor = self.three(torch.cat([x, a, b], 1))
        return out


class Asks(nn.Module):
    """A convolution whose weight is asked for: nothing can stand in its place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.conv(x), self.conv.weight, padding=1)


class AsksForClass(nn.Module):
    """A convolution that is run only if it is one: something else would be left out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv: nn.Module = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x) if isinstance(self.conv, nn.Conv2d) else x
        return out


class AsksForSide(nn.Module):
    """A number that the convolution keeps goes into what is computed."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x) / getattr(self.conv, "kernel_size", (1,))[0]
        return out


class Conditioned(nn.Module):
    """y = x + f(x + c), c being another argument, or found where somebody left it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.left: Tensor | None = None

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        c = self.left if c is None else c
        assert c is not None
        out: Tensor = x + self.a(x + c)
        return out


class Reads(nn.Module):
    """y = x + f(c): a residual block reads what came before the one around it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = Branch(channels, 4)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        out: Tensor = x + self.inner(c)
        return out


class TwoWays(nn.Module):
    """Two ways out of one stem, both of which a residual block reads."""

    def __init__(self, block: nn.Module, *, argument: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.s = nn.Conv2d(8, 8, 3, padding=1)
        self.t = nn.Conv2d(8, 8, 3, padding=1)
        self.r = block
        self.head = nn.Conv2d(8, 5, 1)
        self.argument = argument

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        c = self.t(x)
        if self.argument:
            return self._answer(self.r(self.s(x), c))
        self.r.left = c
        return self._answer(self.r(self.s(x)))

    def _answer(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x).mean((2, 3))
        return out


def network(*blocks: nn.Module, channels: int = 8) -> nn.Sequential:
    """Stem, blocks, head."""
    stem = nn.Conv2d(3, channels, 3, stride=2, padding=1)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        made = nn.Sequential(stem, *blocks, *head)
        for parameter in made.parameters():
            nn.init.normal_(parameter, std=0.3)
    return made.eval()


def plain() -> nn.Sequential:
    """As VGG: convolution, norm, activation, again and again; one of stride 2."""
    layers: list[nn.Module] = []
    for stride, kernel in ((1, 3), (2, 3), (1, 5)):
        layers += [
            nn.Conv2d(8, 8, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
        ]
    return network(*layers)


def _timm(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        made: nn.Module = timm.create_model(name, num_classes=5).eval()
    return made


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "plain": plain,
    "branches": lambda: network(Branch(8, 12), Branch(8, 4)),
    "inverted": lambda: network(Inverted(8, 16, 5), Inverted(8, 12, 3)),
    "nested": lambda: network(Nested(8)),
    "dense": lambda: network(Dense(8), Gate(8)),
    "test_resnet": lambda: _timm("test_resnet"),
    "test_efficientnet": lambda: _timm("test_efficientnet"),
}
