"""Peak activation memory in closed form against following every tensor of the cut network."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from prunas.errors import InputError
from prunas.eval.peak import PeakMemory
from prunas.supernet.cut import cut
from prunas.supernet.space import Candidate, Gene, SearchSpace
from prunas.supernet.trace import trace
from tests.supernet.networks import BLOCKS, IMAGE, Network
from tests.supernet.random_networks import networks

WITH_DEPTH = ("Residual", "Plain", "Residual", "Attention", "ChannelsLast", "Residual")


class Followed(TorchDispatchMode):
    """Notes which memory every operator reads and writes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[tuple[list[int], list[int]]] = []
        self.sizes: dict[int, int] = {}
        self.alive: list[torch.Tensor] = []  # memory is named by its address

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.steps.append((self.memory((args, kwargs)), self.memory(out)))
        return out

    def memory(self, value: Any) -> list[int]:
        tensors = [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]
        self.alive += tensors
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self.sizes.setdefault(storage._cdata, storage.nbytes())
        return [tensor.untyped_storage()._cdata for tensor in tensors]


def peak_followed(network: nn.Module, size: tuple[int, ...]) -> int:
    """Bytes that are live at the worst operator, counted one by one for one image."""
    network = network.to("meta")
    image = torch.empty(1, *size, device="meta")
    with torch.no_grad(), Followed() as run:
        given = run.memory(image)
        out = run.memory(network(image))
        weights = set(run.memory([*network.parameters(), *network.buffers()]))
    born, last = dict.fromkeys(given, 0), dict.fromkeys(out, len(run.steps))
    for index, (reads, writes) in enumerate(run.steps):
        for memory in set(writes) - set(reads) - weights:
            born.setdefault(memory, index)
        for memory in reads:
            last[memory] = max(index, last.get(memory, 0))
    live = (
        sum(run.sizes[memory] for memory in born if born[memory] <= index <= last.get(memory, -1))
        for index in range(len(run.steps) + 1)
    )
    return max(live, default=0)


def compared(network: nn.Module, size: tuple[int, ...], candidates: int) -> SearchSpace:
    space = trace(network, size)
    some = space.sample(np.random.default_rng(0), candidates)
    chosen = [space.full(), space.smallest(), *some]
    expected = [peak_followed(cut(network, space, each), size) for each in chosen]
    assert PeakMemory(network, space).bytes(chosen).tolist() == expected
    return space


def test_golden_number() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    space = trace(network, (3, 10, 10))
    # the worst moment is the activation: 8 channels before and after it
    assert PeakMemory(network, space).bytes([space.full()]).tolist() == [4 * 2 * 8 * 100]
    # with one channel it is the first convolution (3 + 1) or the last one (1 + 4)
    assert PeakMemory(network, space).bytes([Candidate((1,))]).tolist() == [4 * (1 + 4) * 100]


@settings(max_examples=8, deadline=None)
@given(networks(without=frozenset({"Renormed"})))
def test_random_networks(network: Network) -> None:
    compared(network, IMAGE, 2)


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_every_kind_of_coupling(name: str) -> None:
    compared(Network([name]), IMAGE, 2)


def test_blocks_that_are_left_out_hand_their_input_on() -> None:
    space = compared(Network(WITH_DEPTH), IMAGE, 20)
    assert len(space.blocks) == 5


@settings(max_examples=5, deadline=None)
@given(st.lists(st.sampled_from(["Residual", "Attention", "ChannelsLast"]), min_size=2, max_size=4))
def test_random_depths(blocks: list[str]) -> None:
    compared(Network(blocks), IMAGE, 8)


class Handing(nn.Module):
    """A block that takes more than its input, which only blocks read."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.last = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.last(x * bias)
        return out


class Biased(nn.Module):
    """A wide map that is computed first and read in two blocks, or in none of them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.bias = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)
        self.one, self.two = Handing(8), Handing(8)
        self.middle = nn.Conv2d(8, 24, 1)
        self.back = nn.Conv2d(24, 8, 1)
        self.last = nn.Conv2d(8, 5, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x, bias = self.first(image), self.bias(image)
        x = self.one(x, bias)
        x = self.back(self.middle(x).relu())
        out: torch.Tensor = self.last(self.two(x, bias))
        return out


class Pyramid(nn.Module):
    """Hands its first map out with its last, whose making needs less."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = (
            nn.Conv2d(3, 8, 1),
            nn.Conv2d(8, 6, 1),
            nn.Conv2d(6, 9, 1),
        )

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        wide = self.first(image)
        return [wide, self.last(self.middle(wide))]


def test_outputs_live_to_the_end() -> None:
    network = Pyramid()
    space = trace(network, (3, 4, 4))
    # 8 channels handed out early, 6 read by the last layer, and its 9
    assert PeakMemory(network, space).bytes([space.full()]).tolist() == [4 * (8 + 6 + 9) * 16]


def test_what_only_blocks_read_is_freed_without_them() -> None:
    network = Biased()
    space = trace(network, (3, 6, 6))
    assert len(space.blocks) == 2
    peak = PeakMemory(network, space)
    full = list(space.full())
    for one in (0, 1):
        for two in (0, 1):
            chosen = space.candidate([*full[:-2], one, two])
            expected = peak_followed(cut(network, space, chosen), (3, 6, 6))
            assert peak.bytes([chosen]).tolist() == [expected]


def test_the_order_of_channels_does_not_matter() -> None:
    network = Network(["Grouped", "Attention"])
    space = trace(network, IMAGE)
    rng = np.random.default_rng(1)
    orders = [rng.permutation(width).tolist() for width in space.widths]
    chosen = space.sample(rng, 5)
    expected = PeakMemory(network, space).bytes(chosen)
    again = PeakMemory(network, space.reordered(orders)).bytes(chosen)
    assert again.tolist() == expected.tolist()


def test_arrays_and_none_at_all() -> None:
    network = Network(["Plain"])
    space = trace(network, IMAGE)
    peak = PeakMemory(network, space)
    chosen = space.sample(np.random.default_rng(0), 3)
    assert peak.bytes(np.array(chosen)).tolist() == peak.bytes(chosen).tolist()
    assert peak.bytes([]).shape == (0,)
    with pytest.raises(InputError, match="do not fit a space"):
        peak.bytes([[1, 2, 3, 4, 5, 6, 7]])


def test_genes_of_another_kind_are_refused() -> None:
    network = Network(["Plain"])
    space = trace(network, IMAGE)
    fields = {name: getattr(space, name) for name in space.__dataclass_fields__}
    fields["genes"] = (*space.genes[:-1], Gene("stem", "resolution", space.genes[-1].choices))
    with pytest.raises(InputError, match="'stem' is one of resolution"):
        PeakMemory(network, SearchSpace(**fields))


def test_another_network_is_refused() -> None:
    space = trace(Network(["Plain"]), IMAGE)
    with pytest.raises(InputError, match="not the one this space was traced from"):
        PeakMemory(Network(["Grouped"]), space)
