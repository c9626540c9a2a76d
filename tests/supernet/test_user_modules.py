"""Layers of torch that timm's networks do not use, in networks as users write them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

import prunas
from prunas.supernet.grid import EVERY
from tests.supernet.counting import macs_counted, parameters_counted

PICTURE, SEQUENCE = (3, 10, 10), (7, 6)
Use = Callable[[Any, Tensor], Tensor]


class Sequences(nn.Module):
    """linear 6 -> 16, a layer on (batch, 7, 16), linear -> 5 on the mean."""

    def __init__(self, layer: nn.Module, use: Use, out: int = 16) -> None:
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(6, 16), layer, nn.Linear(out, 5)
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.use(self.layer, self.first(x)).mean(1))
        return out


def first(layer: Any, x: Tensor) -> Tensor:
    out: Tensor = layer(x)[0]
    return out


def to_itself(layer: Any, x: Tensor) -> Tensor:
    out: Tensor = x + layer(x, x, x, need_weights=False)[0]
    return out


def with_weights(layer: Any, x: Tensor) -> Tensor:
    found, weights = layer(x, x, x)
    out: Tensor = x + found * weights.mean()
    return out


def batch_second(layer: Any, x: Tensor) -> Tensor:
    y = x.transpose(0, 1)
    out: Tensor = (y + layer(y, y, y)[0]).transpose(0, 1)
    return out


def plain(layer: Any, x: Tensor) -> Tensor:
    out: Tensor = layer(x)
    return out


def attention(**options: Any) -> nn.Module:
    return nn.MultiheadAttention(16, 4, **options)


def encoder(**options: Any) -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def pictures(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5))


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3)


class Members(nn.Linear):
    """Three layers in one, whose weights are stacked and lie the other way round."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.weight = nn.Parameter(torch.randn(3, inputs, outputs) / 4)
        self.bias = nn.Parameter(torch.zeros(3, 1, outputs))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        out: Tensor = torch.baddbmm(self.bias, input, self.weight)
        return out


class Ensemble(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.one, self.two = nn.Linear(6, 16), Members(16, 12), Members(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).relu().unsqueeze(0).expand(3, -1, -1)
        out: Tensor = self.two(self.one(y).relu()).mean(0)
        return out


class Rescaled(nn.Conv2d):
    """A convolution that has no `weight`, but computes one."""

    def __init__(self, inputs: int, outputs: int, side: int) -> None:
        super().__init__(inputs, outputs, side)
        self.direction = nn.Parameter(self.weight.detach().clone())
        self.length = nn.Parameter(torch.ones(outputs, 1, 1, 1))
        del self.weight

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        out: Tensor = self._conv_forward(input, self.direction * self.length, self.bias)
        return out


class Correlating(nn.Module):
    """x (b + sum over the batch of x^T x)"""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(16, 16))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x @ torch.addbmm(self.bias, x.transpose(1, 2), x)
        return out


HEADS = [4, 4]  # four heads of four: the width of the sequence is their product
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[int]]] = {
    "attention": (lambda: Sequences(attention(batch_first=True), to_itself), SEQUENCE, HEADS),
    "attention, weights": (
        lambda: Sequences(attention(batch_first=True), with_weights), SEQUENCE, HEADS,
    ),
    "attention, batch second": (lambda: Sequences(attention(), batch_second), SEQUENCE, HEADS),
    "attention, no bias": (
        lambda: Sequences(attention(batch_first=True, bias=False), to_itself), SEQUENCE, HEADS,
    ),
    "encoder": (lambda: Sequences(encoder(), plain), SEQUENCE, [*HEADS, 24, 24]),
    "encoder, norm first": (
        lambda: Sequences(encoder(norm_first=True, activation="gelu"), plain),
        SEQUENCE, [*HEADS, 24, 24],
    ),
    "lstm": (
        lambda: Sequences(nn.LSTM(16, 10, batch_first=True), first, 10), SEQUENCE, [16, 10],
    ),
    # the width of the cells stays, since torch tells a projection by being another one
    "lstm, projected": (
        lambda: Sequences(nn.LSTM(16, 12, proj_size=8, batch_first=True), first, 8),
        SEQUENCE, [16, 8],
    ),
    "ensemble": (Ensemble, (6,), [16, 12]),
    "weight of another name": (
        lambda: pictures(Rescaled(3, 8, 3), nn.ReLU(), Rescaled(8, 12, 3)), PICTURE, [8, 12],
    ),
    "sum of products": (lambda: Sequences(Correlating(), plain), SEQUENCE, [16]),
    "gru, two layers both ways": (
        lambda: Sequences(
            nn.GRU(16, 10, num_layers=2, bidirectional=True, batch_first=True), first, 20
        ),
        SEQUENCE, [16, 10],
    ),
    "rnn": (lambda: Sequences(nn.RNN(16, 10, batch_first=True), first, 10), SEQUENCE, [16, 10]),
    "prelu": (
        lambda: pictures(conv(3, 8), nn.PReLU(8), conv(8, 12), nn.PReLU()), PICTURE, [8, 12],
    ),
    "instance norm": (
        lambda: pictures(conv(3, 8), nn.InstanceNorm2d(8, affine=True), conv(8, 12)),
        PICTURE, [8, 12],
    ),
    "instance norm, running": (
        lambda: pictures(conv(3, 8), nn.InstanceNorm2d(8, track_running_stats=True), conv(8, 12)),
        PICTURE, [8, 12],
    ),
    "weight norm": (
        lambda: pictures(weight_norm(conv(3, 8)), nn.ReLU(), weight_norm(conv(8, 12))),
        PICTURE, [8, 12],
    ),
    "weight norm by hooks": (
        lambda: pictures(nn.utils.weight_norm(conv(3, 8)), nn.ReLU(), conv(8, 12)),
        PICTURE, [8, 12],
    ),
    "spectral norm": (
        lambda: pictures(spectral_norm(conv(3, 8)), nn.ReLU(), conv(8, 12)), PICTURE, [8, 12],
    ),
    "transposed": (
        lambda: pictures(conv(3, 8), nn.ConvTranspose2d(8, 6, 2, 2), nn.ReLU(), conv(6, 12)),
        PICTURE, [8, 6, 12],
    ),
    "windows": (lambda: pictures(conv(3, 8), Windows(2), conv(8, 12)), PICTURE, [8, 12]),
    "windows of channels": (
        lambda: pictures(conv(3, 8), Windows(1), conv(6, 12)), PICTURE, [12],
    ),
}  # fmt: skip


class Windows(nn.Module):
    """Means over windows of three along a dimension."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.dimension = dimension

    def forward(self, x: Tensor) -> Tensor:
        return x.unfold(self.dimension, 3, 1).mean(-1)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize("name", NETWORKS)
def test_torchs_layers_are_understood(name: str) -> None:
    make, size, widths = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = make().eval()
    space = prunas.trace(network, size, grid=EVERY)
    assert [gene.choices[-1] for gene in space.genes if gene.kind == "width"] == widths
    prunas.verify(network, space)
    half = space.uniform(0.5)
    small = prunas.cut(network, space, half)
    with torch.no_grad():
        assert small(torch.randn(3, *size)).shape == (3, 5)
    cost = prunas.Cost(space)
    assert cost.params([half])[0] == parameters_counted(small)
    # one operator to the counter, or one that it does not know
    if not any(word in name for word in ("rnn", "gru", "lstm", "sum of products")):
        assert cost.macs([half])[0] == macs_counted(small, size)


def test_attention_states_its_sizes() -> None:
    network = Sequences(attention(batch_first=True), to_itself).eval()
    space = prunas.trace(network, SEQUENCE, grid=EVERY)
    small: Any = prunas.cut(network, space, [3, 2])
    layer = small.layer
    assert (layer.embed_dim, layer.num_heads, layer.head_dim, layer.kdim) == (6, 2, 3, 6)
    assert layer.in_proj_weight.shape == (18, 6)


def test_recurrent_layers_state_their_sizes() -> None:
    network = Sequences(nn.LSTM(16, 10, batch_first=True), first, 10).eval()
    space = prunas.trace(network, SEQUENCE, grid=EVERY)
    small: Any = prunas.cut(network, space, [7, 3])
    assert (small.layer.input_size, small.layer.hidden_size) == (7, 3)


def test_projected_recurrent_layers_state_their_sizes() -> None:
    network = Sequences(nn.LSTM(16, 12, proj_size=8, batch_first=True), first, 8).eval()
    space = prunas.trace(network, SEQUENCE, grid=EVERY)
    for choice in range(1, 9):
        layer: Any = prunas.cut(network, space, [7, choice]).get_submodule("layer")
        assert (layer.input_size, layer.hidden_size, layer.proj_size) == (7, 12, choice)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell])
def test_recurrent_cells_state_their_sizes(kind: Callable[[int, int], nn.Module]) -> None:
    class Stepping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.cell, self.last = nn.Linear(6, 16), kind(16, 10), nn.Linear(10, 5)

        def forward(self, x: Tensor) -> Tensor:
            state = self.cell(self.first(x))
            out: Tensor = self.last(state[0] if isinstance(state, tuple) else state)
            return out

    network = Stepping().eval()
    small: Any = prunas.cut(network, prunas.trace(network, (6,), grid=EVERY), [7, 3])
    assert (small.cell.input_size, small.cell.hidden_size) == (7, 3)


def test_embeddings_keep_their_rows() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.last = nn.Embedding(50, 16), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(self.table(x).mean(1))
            return out

    network = Words().eval()
    space = prunas.trace(network, example=torch.zeros(2, 9, dtype=torch.long), grid=EVERY)
    assert [gene.choices[-1] for gene in space.genes] == [16]
    prunas.verify(network, space)
    small: Any = prunas.cut(network, space, [5])
    assert (small.table.num_embeddings, small.table.embedding_dim) == (50, 5)


class Looks(nn.Module):
    def __init__(self, look: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.look = look

    def forward(self, x: Tensor) -> Tensor:
        return self.look(self.layer(x))


@pytest.mark.parametrize(
    "look",
    [
        lambda y: y if y.sum() > 0 else -y,
        lambda y: y[y > 0],
        lambda y: y.nonzero().float(),
        lambda y: y.repeat(int(y.argmax()), 1),
        lambda y: torch.tensor(y.tolist()),
    ],
)
def test_a_network_that_looks_at_values_is_refused(look: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(prunas.InputError, match="forward of Looks looks at values, and a trace"):
        prunas.trace(Looks(look), (6,))


def test_a_quantised_network_is_refused() -> None:
    network = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3))
    with pytest.warns():  # torch announces another way
        small = torch.ao.quantization.quantize_dynamic(network, {nn.Linear})
    with pytest.raises(prunas.InputError, match=r"0 is a quantised Linear, .* prune first and"):
        prunas.trace(small, (6,))


def test_an_unknown_operator_is_named_where_nothing_is_left() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.right(torch.renorm(self.left(x), 2, 1, 5.0))
            return out

    with pytest.raises(prunas.InputError, match=r"operator aten.renorm .* has no rule"):
        prunas.trace(Two(), (6,))
