"""Cut networks against index_select by hand, and what must stay as it was."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from prunas.errors import InputError, RunError
from prunas.pipeline.weightless import weightless
from prunas.supernet.cut import cut
from prunas.supernet.grid import EVERY
from prunas.supernet.permute import permute
from prunas.supernet.space import SearchSpace
from prunas.supernet.trace import trace
from prunas.supernet.verify import verify
from tests.supernet.networks import IMAGE, Conv1dNet, Conv3dNet, Network, plain_chain
from tests.supernet.random_networks import networks


def cut_by_hand(
    network: nn.Module, space: SearchSpace, candidate: tuple[int, ...]
) -> dict[str, torch.Tensor]:
    """What remains of every entry of the state dict, one index at a time."""
    removed = space.removed(candidate)
    result = {}
    for name, tensor in network.state_dict().items():
        for dimension, gone in removed.get(name, {}).items():
            stay = [i for i in range(tensor.shape[dimension]) if i not in set(gone.tolist())]
            tensor = tensor.index_select(dimension, torch.tensor(stay, dtype=torch.int64))
        result[name] = tensor
    return result


@settings(max_examples=40, deadline=None)
@given(network=networks(), seed=st.integers(0, 99))
def test_a_cut_network_holds_what_was_not_removed(network: Network, seed: int) -> None:
    space = trace(network, IMAGE, grid=EVERY)
    candidate = space.sample(np.random.default_rng(seed), 1)[0]
    small = cut(network, space, candidate)
    expected = cut_by_hand(network, space, candidate)
    found = small.state_dict()
    gone = space.left_out(candidate)
    assert list(found) == [n for n in expected if not any(block.holds(n) for block in gone)]
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name
    assert small(torch.randn(2, *IMAGE)).shape == (2, 5)


@settings(max_examples=15, deadline=None)
@given(network=networks(), seed=st.integers(0, 99))
def test_a_cut_network_can_be_traced_and_cut_again(network: Network, seed: int) -> None:
    space = trace(network, IMAGE, grid=EVERY)
    small = cut(network, space, space.uniform(0.75))
    again = trace(small, IMAGE, grid=EVERY)
    verify(small, again)
    rng = np.random.default_rng(seed)
    smaller = cut(small, again, again.sample(rng, 1)[0])
    assert smaller(torch.randn(2, *IMAGE)).shape == (2, 5)


def test_the_first_channels_stay() -> None:
    network = plain_chain()
    small = cut(network, trace(network, IMAGE, grid=EVERY), [3, 5])
    assert torch.equal(small.state_dict()["0.weight"], network.state_dict()["0.weight"][:3])
    assert torch.equal(small.state_dict()["3.weight"], network.state_dict()["3.weight"][:5, :3])
    assert torch.equal(small.state_dict()["7.weight"], network.state_dict()["7.weight"][:, :5])
    assert torch.equal(
        small.state_dict()["1.running_mean"], network.state_dict()["1.running_mean"][:3]
    )


def test_the_full_candidate_is_a_copy() -> None:
    network = Network(["Residual", "Tied", "Bare"])
    space = trace(network, IMAGE)
    whole = cut(network, space, space.full())
    image = torch.randn(2, *IMAGE)
    assert torch.equal(whole(image), network(image))
    theirs = {tensor.data_ptr() for tensor in network.parameters()}
    assert not theirs & {tensor.data_ptr() for tensor in whole.parameters()}


def test_weights_that_are_not_there_yet_take_no_memory() -> None:
    with weightless():
        network = plain_chain()
    space = trace(network, IMAGE)
    small = cut(network, space, space.uniform(0.5))
    weight, source = small.get_parameter("3.weight"), network.get_parameter("3.weight")
    assert weight.shape == (8, 4, 3, 3)
    assert weight.untyped_storage().nbytes() == weight.element_size()
    assert weight.data_ptr() != source.data_ptr()
    assert isinstance(weight, nn.Parameter)
    assert torch.equal(weight, torch.zeros(8, 4, 3, 3))


def test_the_network_is_not_changed() -> None:
    network = Network(["Grouped", "Attention", "Shared"])
    before = copy.deepcopy(network)
    space = trace(network, IMAGE)
    cut(network, space, space.smallest())
    assert repr(network) == repr(before)
    for one, two in zip(network.state_dict().values(), before.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_layers_state_their_new_sizes() -> None:
    network = Network(["Grouped", "Transposed", "GroupNormed", "ChannelsLast", "Attention"])
    space = trace(network, IMAGE, grid=EVERY)
    small = cut(network, space, space.uniform(0.5))
    stated = 0
    for module in small.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.shape[:2] == (
                module.out_channels, module.in_channels // module.groups,
            )  # fmt: skip
        elif isinstance(module, nn.ConvTranspose2d):
            assert module.weight.shape[:2] == (
                module.in_channels, module.out_channels // module.groups,
            )  # fmt: skip
        elif isinstance(module, nn.Linear):
            assert module.weight.shape == (module.out_features, module.in_features)
        elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            size = getattr(module, "num_features", getattr(module, "num_channels", None))
            assert module.weight.shape == (size,)
        elif isinstance(module, nn.LayerNorm):
            assert tuple(module.weight.shape) == module.normalized_shape
        elif isinstance(module, nn.PReLU):
            assert tuple(module.weight.shape) == (module.num_parameters,)
        else:
            continue
        stated += 1
    assert stated == 2 + 4 + 4 + 4 + 3 + 2 + 1  # stem, the five blocks, head


def test_flags_hooks_and_types_are_kept() -> None:
    network = Network(["Residual"]).half()
    network[3].train()
    network[0].weight.requires_grad_(False)
    network[0].register_forward_hook(lambda module, args, out: None)
    space = trace(network, IMAGE)
    small = cut(network, space, space.uniform(0.5))
    assert type(small) is Network
    assert [m.training for m in small.modules()] == [m.training for m in network.modules()]
    flags = [parameter.requires_grad for parameter in network.parameters()]
    assert [parameter.requires_grad for parameter in small.parameters()] == flags
    assert {parameter.dtype for parameter in small.parameters()} == {torch.float16}
    assert len(small.get_submodule("0")._forward_hooks) == 1


def test_tied_weights_stay_tied_and_buffers_are_cut() -> None:
    network = Network(["Tied", "Bare"])
    space = trace(network, IMAGE, grid=EVERY)
    small = cut(network, space, space.uniform(0.5))
    assert small.get_parameter("3.one.weight") is small.get_parameter("3.two.weight")
    assert small.get_buffer("4.mask").shape == (1, 5, 1, 1)
    assert small.get_parameter("4.scale").shape == (5, 1, 1)
    assert space.aliases == {"3.two.weight": "3.one.weight"}
    removed = space.removed(space.uniform(0.5))
    assert torch.equal(removed["3.two.weight"][0], removed["3.one.weight"][0])


@pytest.mark.parametrize(
    ("network", "size"), [(Conv1dNet(), (2, 10)), (Conv3dNet(), (2, 6, 6, 6))], ids=["1d", "3d"]
)
def test_other_dimensions(network: nn.Module, size: tuple[int, ...]) -> None:
    network.eval()
    space = trace(network, size, grid=EVERY)
    assert space.widths == (8, 6)
    verify(network, space)
    assert cut(network, space, [3, 2])(torch.randn(1, *size)).shape == (1, 4)


def test_another_network_is_refused() -> None:
    space = trace(plain_chain(), IMAGE)
    wider = plain_chain()
    wider[7] = nn.Linear(16, 6)
    with pytest.raises(
        InputError, match=r"7\.weight has shape \(6, 16\), the space knows \(5, 16\)"
    ):
        cut(wider, space, space.full())
    with pytest.raises(InputError, match=r"0\.weight has shape nothing, the space knows"):
        cut(nn.Linear(3, 4), space, space.full())
    longer = plain_chain().append(nn.Linear(5, 5))
    with pytest.raises(InputError, match=r"it also has 8\.bias; trace the network again"):
        cut(longer, space, space.full())


def test_another_spaces_candidate_is_refused() -> None:
    network = plain_chain()
    space = trace(network, IMAGE)
    with pytest.raises(InputError, match="has 3 values but the space has 2 genes"):
        cut(network, space, [8, 16, 4])
    with pytest.raises(InputError, match=r"7\d* is not a choice of gene '3'; choose one of"):
        cut(network, space, [8, 77])


def test_a_space_that_lies_is_found_out() -> None:
    network = plain_chain()
    space = trace(network, IMAGE, grid=EVERY)
    slots = {name: dims for name, dims in space.slots.items() if name != "7.weight"}
    with pytest.raises(RunError, match=r"the cut network does not run: .*; nothing was changed"):
        cut(network, replace(space, slots=slots), [4, 4])
    outputs = {"shape": [2, 6], "dtype": "float32"}
    with pytest.raises(RunError, match=r"returns shapes \(2, 5\), not \(2, 6\)"):
        cut(network, replace(space, outputs=outputs), [4, 4])


class Holding(nn.Module):
    """Tensors that are neither parameters nor buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)
        self.scales = [torch.full((3, 1, 1), 2.0)]
        self.rows: torch.Tensor | None = None
        self.body, self.last = nn.Conv2d(3, 8, 1), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.rows is None:
            self.rows = torch.arange(x.shape[-1], dtype=x.dtype, device=x.device)
        y = self.body((x - self.mean) * self.scales[0] + self.rows)
        out: torch.Tensor = self.last(y.mean((2, 3)))
        return out


@pytest.mark.parametrize("ran", [False, True])
def test_tensors_that_modules_just_hold_stay(ran: bool) -> None:
    network, images = Holding().eval(), torch.randn(2, *IMAGE)
    if ran:
        network(images)
    space = trace(network, IMAGE, grid=EVERY)
    verify(network, space)
    small = cut(network, space, [4])
    assert torch.equal(small.mean, network.mean)  # type: ignore[arg-type]
    assert (small.rows is None) is not ran  # the trial run left nothing
    full = cut(network, space, space.full())
    assert torch.equal(full(images), network(images))
    assert small(images).shape == (2, 5)


def test_the_steps_of_a_spectral_norm_are_not_taken() -> None:
    network = nn.Sequential(spectral_norm(nn.Conv2d(3, 8, 3)), nn.ReLU(), nn.Conv2d(8, 12, 3))
    space = trace(network, IMAGE, grid=EVERY)
    small = cut(network.train(), space, space.full())
    assert all(module.training for module in small.modules())
    for name, tensor in network.state_dict().items():
        assert torch.equal(small.state_dict()[name], tensor), name


def test_channels_stay_last() -> None:
    network = plain_chain().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    space = trace(network, IMAGE, grid=EVERY)
    ordered = permute(network, space, [list(reversed(range(width))) for width in space.widths])
    for changed in (ordered, cut(network, space, [3, 5])):
        weight = changed.get_parameter("3.weight")
        assert weight.is_contiguous(memory_format=torch.channels_last)
        assert not weight.is_contiguous()
