"""The two oracles hold on random networks and catch a space with one slot missing."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from prunas.errors import InputError, RunError
from prunas.supernet.cut import cut
from prunas.supernet.grid import EVERY
from prunas.supernet.space import Factors, SearchSpace
from prunas.supernet.trace import trace
from prunas.supernet.verify import TOLERANCE, VerificationError, verify
from tests.supernet.networks import BLOCKS, IMAGE, Network, plain_chain
from tests.supernet.random_networks import networks


@pytest.mark.parametrize("block", BLOCKS)
def test_each_kind_of_coupling_is_right(block: str) -> None:
    network = Network([block])
    result = verify(network, trace(network, IMAGE, grid=EVERY))
    assert result.permutation <= TOLERANCE
    assert result.masked <= TOLERANCE


@settings(max_examples=40, deadline=None)
@given(network=networks())
def test_random_networks_are_right(network: Network) -> None:
    verify(network, trace(network, IMAGE, grid=EVERY))


def without(space: SearchSpace, name: str, dimension: int) -> SearchSpace:
    slots: dict[str, Mapping[int, Factors]] = dict(space.slots)
    slots[name] = {d: factors for d, factors in slots[name].items() if d != dimension}
    return replace(space, slots=slots)


def test_one_missing_slot_is_noticed() -> None:
    network = Network(["Residual"])
    space = trace(network, IMAGE, grid=EVERY)
    for name, dimensions in space.slots.items():
        for dimension in dimensions:
            with pytest.raises((VerificationError, RuntimeError)):
                verify(network, without(space, name, dimension))


def test_a_missing_permutation_is_named() -> None:
    network = plain_chain()
    space = trace(network, IMAGE, grid=EVERY)
    with pytest.raises(VerificationError, match=r"permuting .* changes .* \(relative difference"):
        verify(network, without(space, "3.weight", 1))


def test_normalised_genes_are_left_whole_where_channels_are_zeroed() -> None:
    network = Network(["GroupNormed"])
    space = trace(network, IMAGE, grid=EVERY)
    candidate = verify(network, space).candidate
    assert space.normalised
    assert all(candidate[index] == space.widths[index] for index in space.normalised)


def test_a_space_without_its_normalised_genes_fails_the_second_oracle() -> None:
    network = Network(["GroupNormed"])
    space = replace(trace(network, IMAGE, grid=EVERY), normalised=frozenset())

    def try_candidates() -> None:
        for seed in range(8):  # some of them leave out channels under the group norm
            verify(network, space, seed=seed)

    with pytest.raises(VerificationError, match="a cut network differs from the full one"):
        try_candidates()


def test_verification_changes_nothing() -> None:
    network = Network(["Residual", "Depthwise"]).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.random.get_rng_state()
    space = trace(network, IMAGE)
    assert verify(network, space) == verify(network, space)
    assert all(module.training for module in network.modules())
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_another_network_is_refused() -> None:
    with pytest.raises(InputError, match="not the one this space was traced from"):
        verify(Network(["Plain"]), trace(plain_chain(), IMAGE))


class Attends(nn.Module):
    """Linear attention that asks for single precision, as that of some networks does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.qkv = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 36, 1)
        self.last = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.first(x)).float().flatten(2).chunk(3, 1)
        q, k = q.relu(), k.relu()
        out = (v @ k.transpose(1, 2)) @ q / ((k.sum(2, keepdim=True) * q).sum(1, keepdim=True) + 1)
        found: Tensor = self.last(out.to(x.dtype).mean(2))
        return found


def test_nothing_is_computed_in_less_than_double_precision() -> None:
    network = Attends()
    assert verify(network, trace(network, IMAGE, grid=EVERY)).permutation < 1e-13


class Amplifies(nn.Module):
    """The sine of a large number: its last bits decide."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 12, 1), nn.Linear(12, 5)
        self.factor = factor
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = (self.factor * self.last(self.first(x).mean((2, 3)))).sin()
        return found


def test_a_network_that_amplifies_rounding_is_given_as_much() -> None:
    network = Amplifies(1e8)
    space = trace(network, IMAGE, grid=EVERY)
    found = verify(network, space)
    assert TOLERANCE < found.permutation < 1000 * found.rounding
    broken = replace(space, slots={**space.slots, "last.weight": {}})
    with pytest.raises(VerificationError, match="permuting the channels"):
        verify(network, broken)


def test_a_network_that_drowns_in_rounding_is_not_vouched_for() -> None:
    network = Amplifies(1e14)
    with pytest.raises(VerificationError, match="permuting the channels"):
        verify(network, trace(network, IMAGE, grid=EVERY))


@pytest.mark.parametrize("norm", [nn.Identity(), nn.BatchNorm2d(8)])
def test_a_network_that_insists_on_single_precision_cannot_be_verified(norm: nn.Module) -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.last = nn.Conv2d(3, 8, 1), norm, nn.Linear(8, 5)
            self.narrow = nn.Conv2d(8, 6, 1)
            self.hidden = [nn.Conv2d(6, 8, 1)]  # torch does not know of it

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.hidden[0](self.narrow(self.first(x)))
            out: torch.Tensor = self.last(self.norm(y).mean((2, 3)))
            return out

    network = Hidden().eval()
    with pytest.raises(RunError, match="does not run in double precision"):
        verify(network, trace(network, IMAGE))


class Adding(nn.Module):
    """A residual block that adds to its input in place."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x += self.body(x.relu())
        return x


class Activating(nn.Module):
    """A residual block that activates its input in place."""

    def __init__(self) -> None:
        super().__init__()
        self.activation, self.body = nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(self.activation(x))
        return out


@pytest.mark.parametrize("block", [Adding, Activating])
def test_blocks_that_change_their_input_may_be_left_out(block: type[nn.Module]) -> None:
    ends = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 5, 1)
    network = nn.Sequential(ends[0], block(), block(), ends[1]).eval()
    space = trace(network, IMAGE, genes=("depth",))
    assert {gene.kind for gene in space.genes} == {"depth"}
    for seed in range(6):
        verify(network, space, seed=seed)


def test_what_cannot_be_verified_is_refused() -> None:
    network = plain_chain()
    space = trace(network, IMAGE)
    for seed in (-1, 0.5, None):
        with pytest.raises(InputError, match=f"seed {seed} is not a whole number from 0 up"):
            verify(network, space, seed=seed)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"0\.weight has no values yet \(device meta\)"):
        verify(plain_chain().to("meta"), space)
    for call in (lambda: verify(None, space), lambda: cut(None, space, space.full())):  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"a network must be an nn\.Module, not NoneType"):
            call()
