"""Which blocks can be left out, and what is left then."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunas.eval.cost import Cost
from prunas.supernet.blocks import Bypass
from prunas.supernet.cut import cut
from prunas.supernet.elastic import Supernet
from prunas.supernet.grid import EVERY
from prunas.supernet.space import Candidate, SearchSpace
from prunas.supernet.trace import trace
from prunas.supernet.verify import verify
from tests.supernet.networks import IMAGE, Network, Residual, SqueezeExcite

Rule = Callable[[Tensor, Any], Tensor]


class Block(nn.Module):
    """y = rule(x, body)."""

    def __init__(self, rule: Rule, channels: int = 8) -> None:
        super().__init__()
        self.rule = rule
        self.body = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.rule(x, self)


def chain(*blocks: nn.Module) -> nn.Sequential:
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *blocks, *head).eval()


def depth_of(network: nn.Module) -> list[str]:
    space = trace(network, IMAGE, grid=EVERY)
    return [block.path for block in space.blocks.values()]


HANDS_ON: dict[str, Rule] = {
    "sum": lambda x, b: x + b.body(x),
    "sum the other way round": lambda x, b: b.body(x) + x,
    "in place": lambda x, b: b.body(x).add_(x),
    "in place on its input": lambda x, b: x.clone().add_(b.body(x)),
    "difference": lambda x, b: x - b.body(x),
    "activation before": lambda x, b: x + b.body(b.norm(x).relu()),
    "activation after": lambda x, b: (x + b.body(x)).relu(),
    "activation after, in place": lambda x, b: (x + b.body(x)).relu_(),
    "norm after": lambda x, b: b.norm(x + b.body(x)),
    "norm as a shortcut": lambda x, b: (b.norm(x) + b.body(x)).relu(),
    "scaled branch": lambda x, b: x + b.scale * b.body(x),
    "scaled shortcut": lambda x, b: x * b.scale + b.body(x),
    "scaled by a number": lambda x, b: x * 0.5 + b.body(x) * 2,
    "multiplied and added": lambda x, b: torch.addcmul(x, b.body(x), b.scale),
    "in another layout": lambda x, b: (
        (x.flatten(2).transpose(1, 2) + b.body(x).flatten(2).transpose(1, 2))
        .transpose(1, 2)
        .reshape(x.shape)
    ),
    "two sums": lambda x, b: (lambda y: y + b.body(y))(x + b.body(x)),
    "gated afterwards": lambda x, b: (x + b.body(x)) * b.scale.sigmoid(),
}

DOES_NOT: dict[str, Rule] = {
    "plain": lambda x, b: b.body(x),
    "gate": lambda x, b: x * b.body(x).sigmoid(),
    "activated shortcut": lambda x, b: x.relu() + b.body(x),
    "projected shortcut": lambda x, b: b.body(x) + b.body(x.relu()),
    "shuffled shortcut": lambda x, b: x.roll(1, 3) + b.body(x),
    "half of the channels": lambda x, b: torch.cat([x[:, :4], b.body(x)[:, 4:]], 1),
    "nothing contracted": lambda x, b: x + b.norm(x) * b.scale,
}


@pytest.mark.parametrize("rule", HANDS_ON)
def test_a_residual_block_can_be_left_out(rule: str) -> None:
    network = chain(Block(HANDS_ON[rule]), Block(HANDS_ON[rule]))
    assert depth_of(network) == ["1", "2"]
    verify(network, trace(network, IMAGE, grid=EVERY))


@pytest.mark.parametrize("rule", DOES_NOT)
def test_other_blocks_stay(rule: str) -> None:
    assert depth_of(chain(Block(DOES_NOT[rule]))) == []


def test_gates_in_blocks_are_no_blocks() -> None:
    assert depth_of(Network(["SqueezeExcite"])) == []


GATES: dict[str, Rule] = {
    "gate": lambda x, b: x * b.body(x).sigmoid(),
    "gate the other way round": lambda x, b: b.body(x).sigmoid() * x,
    "in place": lambda x, b: x.clone().mul_(b.body(x).tanh()),
    "scaled": lambda x, b: b.scale * (x * b.body(x).sigmoid()) * 2,
    "twice": lambda x, b: (x * b.body(x).sigmoid()) * b.body(x.relu()).sigmoid(),
}
NO_GATES: dict[str, Rule] = {
    **{name: rule for name, rule in (HANDS_ON | DOES_NOT).items() if name != "gate"},
    "nothing contracted": lambda x, b: x * b.norm(x),
    "quotient": lambda x, b: x / (1 + b.body(x).abs()),
    "activated": lambda x, b: (x * b.body(x).sigmoid()).relu(),
    "of itself": lambda x, b: x * x + 0 * b.body(x),
}


def gates_of(network: nn.Module) -> list[str]:
    space = trace(network, IMAGE, grid=EVERY, genes=("width", "operator"))
    return [gene.name for gene in space.genes if gene.kind == "operator"]


@pytest.mark.parametrize("rule", GATES)
def test_a_gate_can_be_left_out(rule: str) -> None:
    network = chain(Block(GATES[rule]))
    assert gates_of(network) == ["1"]
    verify(network, trace(network, IMAGE, grid=EVERY, genes=("width", "operator")))


@pytest.mark.parametrize("rule", NO_GATES)
def test_what_is_no_gate(rule: str) -> None:
    assert gates_of(chain(Block(NO_GATES[rule]))) == []


def test_what_follows_a_gate_that_is_left_out_sees_its_input() -> None:
    network = chain(SqueezeExcite(8))
    space = trace(network, IMAGE, genes=("operator",))
    (gene,) = space.genes
    assert (gene.name, gene.kind, gene.choices) == ("1", "operator", (0, 1))
    small = cut(network, space, space.smallest())
    images = torch.randn(2, *IMAGE)
    torch.testing.assert_close(small(images), without_module(network, 1)(images))


def without_module(network: nn.Sequential, index: int) -> nn.Sequential:
    return nn.Sequential(*(part for place, part in enumerate(network) if place != index))


def test_a_gate_inside_a_block_goes_with_it() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.gate = nn.Conv2d(8, 8, 1), SqueezeExcite(8)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = x + self.gate(self.body(x))
            return out

    network = chain(Gated())
    space = trace(network, IMAGE, genes=("depth", "operator"))
    assert [gene.name for gene in space.genes] == ["1.gate", "1"]
    # 8 * 8 at 64 pixels; the gate 2 * 8 * 6 at one
    macs = Cost(space).macs([(1, 1), (0, 1), (1, 0), (0, 0)])
    assert (macs[0] - macs).tolist() == [0, 96, 96 + 4096, 96 + 4096]
    images = torch.randn(2, *IMAGE)
    for gone in ((1, 0), (0, 0)):
        small = cut(network, space, gone)
        torch.testing.assert_close(small(images), without_module(network, 1)(images))
        with Supernet(network, space).running(gone) as running:
            torch.testing.assert_close(running(images), small(images))


class Stage(nn.Module):
    """Blocks in a loop: nothing of its own."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def test_a_chain_of_blocks_is_its_blocks() -> None:
    assert depth_of(chain(Stage(Residual(8), Residual(8)))) == ["1.blocks.0", "1.blocks.1"]


def test_a_block_around_blocks_is_one_too() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Residual(8)
            self.last = nn.Conv2d(8, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = x + self.last(self.inner(x))
            return out

    network = chain(Outer())
    space = trace(network, IMAGE, grid=EVERY)
    assert [block.path for block in space.blocks.values()] == ["1.inner", "1"]
    macs = Cost(space).macs(
        [space.full(), *(without(space, path) for path in ("1.inner", "1")), without(space)]
    )
    # at 8 x 8 pixels: the inner block 8 * 12 * 9 + 12 * 8, the last layer 8 * 8
    inner, last = (8 * 12 * 9 + 12 * 8) * 64, 8 * 8 * 64
    assert (macs[0] - macs).tolist() == [0, inner, inner + last, inner + last]


def without(space: SearchSpace, *paths: str) -> Candidate:
    """The full network without these blocks; without any, if none is named."""
    gone = [g for g, block in space.blocks.items() if not paths or block.path in paths]
    return Candidate(0 if g in gone else value for g, value in enumerate(space.full()))


def test_a_module_that_runs_twice_stays() -> None:
    shared = Residual(8)
    assert depth_of(chain(shared, nn.ReLU(), shared)) == []
    assert depth_of(chain(Twice())) == ["1.other", "1"]  # all three together can go


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block, self.other = Residual(8), Residual(8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.other(self.block(self.block(x)))
        return out


def test_weights_that_others_use_keep_a_block() -> None:
    tied = chain(Residual(8), Residual(8), Residual(8))
    one, two = tied[1], tied[2]
    assert isinstance(one, Residual)
    assert isinstance(two, Residual)
    two.body[3].weight = one.body[3].weight
    space = trace(tied, IMAGE)
    assert [block.path for block in space.blocks.values()] == ["3"]
    reasons = {entry.name: entry.reason for entry in space.pinned}
    assert "shares 1.body.3.weight with 2.body.3.weight, which stays" in reasons["1"]


def test_a_block_that_others_look_into_stays() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block, self.other = Residual(8), Residual(8)

        def forward(self, x: Tensor) -> Tensor:
            first = self.block.get_submodule("body.0")
            out: Tensor = self.other(self.block(x)) * first.out_channels
            return out

    space = trace(chain(Reads()), IMAGE)
    assert [block.path for block in space.blocks.values()] == ["1.other"]
    reasons = {entry.name: entry.reason for entry in space.pinned}
    assert "does not run without this block" in reasons["1.block"]


def test_a_block_that_is_to_be_left_alone_stays() -> None:
    space = trace(chain(Residual(8), Residual(8)), IMAGE, keep=["1.body.0.weight"])
    assert [block.path for block in space.blocks.values()] == ["2"]
    assert ("1", "the block was asked to be left alone") in {
        (entry.name, entry.reason) for entry in space.pinned
    }


def test_depth_can_be_left_out_of_the_space() -> None:
    network = chain(Residual(8))
    whole, widths = trace(network, IMAGE), trace(network, IMAGE, genes=("width",))
    assert [gene.kind for gene in whole.genes] == ["width", "width", "depth"]
    assert widths.genes == whole.genes[:2]
    assert widths.pinned == whole.pinned


def test_depth_alone_is_a_space() -> None:
    network = nn.Sequential(nn.Flatten(), Narrow()).eval()
    assert [gene.kind for gene in trace(network, (1, 4)).genes] == ["depth"]


class Narrow(nn.Module):
    """One channel inside, so that there is no width to choose, and the outputs' outside."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(4, 1), nn.Linear(1, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.up(self.down(x).relu())
        return out


# -- without them ----------------------------------------------------------------------------------


def test_the_names_of_all_else_stay() -> None:
    network = chain(Residual(8), Residual(8), SqueezeExcite(8))
    space = trace(network, IMAGE)
    small = cut(network, space, without(space, "1"))
    assert isinstance(small.get_submodule("1"), nn.Identity)
    assert not isinstance(small.get_submodule("1"), Bypass)
    gone = {name for name in network.state_dict() if name.startswith("1.")}
    assert small.state_dict().keys() == network.state_dict().keys() - gone
    image = torch.randn(2, *IMAGE)
    expected = network[2:](network[:1](image))
    assert torch.equal(small(image), expected)
    assert isinstance(network[1], Residual)  # the original is as it was


def test_a_block_with_more_arguments_is_passed_by() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(8, 8, 1)

        def forward(self, x: Tensor, mask: Tensor, *, scale: float = 1.0) -> Tensor:
            out: Tensor = x + self.body(x) * mask * scale
            return out

    class Passes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Masked()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.block(x, x[:1, :1].sigmoid(), scale=0.5)
            return out

    network = chain(Passes())
    space = trace(network, IMAGE)
    small = cut(network, space, without(space))
    assert isinstance(small.get_submodule("1.block"), Bypass)
    assert torch.equal(
        small(torch.ones(1, *IMAGE)), network[2:](network[:1](torch.ones(1, *IMAGE)))
    )
    verify(network, space)


def test_all_that_a_block_holds_is_removed() -> None:
    network = chain(Residual(8))
    space = trace(network, IMAGE)
    removed = space.removed(without(space))
    held = {name: t for name, t in network.state_dict().items() if name.startswith("1.")}
    assert removed.keys() == held.keys()
    for name, tensor in held.items():
        wanted = [list(range(tensor.shape[0]))] if tensor.dim() else []
        assert [indices.tolist() for indices in removed[name].values()] == wanted


def test_uniform_widths_keep_all_blocks() -> None:
    space = trace(chain(Residual(8), Residual(8)), IMAGE, grid=EVERY)
    assert [space.uniform(0.25)[gene] for gene in space.blocks] == [1, 1]
    assert [space.smallest()[gene] for gene in space.blocks] == [0, 0]


def test_the_supernet_runs_what_is_cut() -> None:
    network = chain(Residual(8), Residual(8), Residual(8))
    space = trace(network, IMAGE, grid=EVERY)
    supernet, image = Supernet(network, space), torch.randn(2, *IMAGE)
    before = network(image)
    for candidate in space.sample(np.random.default_rng(0), 8):
        expected = cut(network, space, candidate)(image)
        with supernet.running(candidate) as path:
            assert torch.allclose(path(image), expected, atol=1e-6)
        with supernet.frozen(candidate) as path:
            assert torch.allclose(path(image), expected, atol=1e-6)
    assert torch.equal(network(image), before)


def test_a_space_with_blocks_comes_back_from_text() -> None:
    space = trace(chain(Residual(8), Residual(8)), IMAGE)
    again = SearchSpace.from_json(space.to_json())
    assert again == space
    assert again.blocks == space.blocks


class Remembering(nn.Module):
    """Keeps what it computed from its weights, by device, as LeViT keeps its attention biases."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(8, 32, 1)
        self.scale = nn.Parameter(torch.ones(32))
        self.back = nn.Conv2d(32, 8, 1)
        self.known: dict[torch.device, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        if x.device not in self.known:
            self.known[x.device] = self.scale[:, None, None] * 2
        result: Tensor = self.back(self.body(x) * self.known[x.device])
        return result


def test_what_is_remembered_of_a_trial_does_not_stand_in_the_way_of_blocks() -> None:
    network = chain(Remembering(), Block(HANDS_ON["sum"]))
    space = trace(network, IMAGE)  # the default grid: 8, 16 or 24 of 32, never one, which fits all
    assert [block.path for block in space.blocks.values()] == ["2"]
    verify(network, space)
