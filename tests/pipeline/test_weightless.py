"""Networks without weights: what is on the meta device, and what is not."""

import threading
import weakref

import pytest
import timm
import torch
from torch import nn

from prunas.pipeline.weightless import give_weights, weightless


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        shared = nn.Parameter(torch.ones(3, 2))
        self.one, self.two = shared, shared
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2, bias=False)
        self.second.weight = self.first.weight
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)
        self.nothing = nn.Parameter(torch.ones(0, 3))
        self.register_parameter("none", None)
        self.register_buffer("table", torch.arange(5))


def _memory(network: nn.Module) -> int:
    stores = {p.untyped_storage().data_ptr(): p.untyped_storage() for p in network.parameters()}
    return sum(store.nbytes() for store in stores.values())


def test_parameters_take_no_memory_and_the_rest_is_as_ever() -> None:
    with weightless():
        network = Tied()
    assert _memory(network) <= 4 * len(list(network.parameters()))
    assert network.get_buffer("table").tolist() == [0, 1, 2, 3, 4]
    assert network.one is network.two
    assert network.first.weight is network.second.weight
    assert not network.frozen.requires_grad
    assert network.none is None
    assert _memory(Tied()) > 4 * len(list(network.parameters()))


def test_the_originals_are_not_kept() -> None:
    with weightless():
        original = nn.Parameter(torch.ones(3))
        gone = weakref.ref(original)
        module = nn.Module()
        module.one, module.two = original, original
        del original
        assert gone() is None
    assert module.one is module.two


def test_other_tensors_can_be_written_to() -> None:
    with weightless():
        layer = nn.BatchNorm2d(4)
        layer.running_mean.fill_(3)  # type: ignore[union-attr]
        nn.init.constant_(layer.weight, 3)
    assert layer.running_mean.tolist() == [3] * 4  # type: ignore[union-attr]
    assert layer.weight.tolist() == [0] * 4


def test_all_is_as_before_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), weightless():
        raise ZeroDivisionError
    layer = nn.Linear(2, 2)
    nn.init.constant_(layer.weight, 3)
    assert layer.weight.tolist() == [[3, 3], [3, 3]]


def test_weights_are_given_once_and_are_of_a_scale() -> None:
    with weightless():
        network = Tied()
        network.wide = nn.Linear(400, 300)
    give_weights(network, torch.Generator().manual_seed(0))
    assert network.one is network.two
    assert network.first.weight is network.second.weight
    assert not network.frozen.requires_grad
    assert network.nothing.shape == (0, 3)
    assert float(network.wide.weight.detach().std()) == pytest.approx(400**-0.5, rel=0.02)
    assert float(network.wide.bias.detach().mean()) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "test_efficientnet"]
)
def test_networks_of_timm_are_complete_but_for_their_parameters(name: str) -> None:
    with weightless():
        network = timm.create_model(name)
    whole = timm.create_model(name)
    assert {n: p.shape for n, p in network.named_parameters()} == {
        n: p.shape for n, p in whole.named_parameters()
    }
    for one, two in zip(network.buffers(), whole.buffers(), strict=True):
        assert torch.equal(one, two)


def test_what_other_threads_build_is_as_ever() -> None:
    built: list[nn.Linear] = []
    with weightless(), weightless():  # within itself it may be, too
        thread = threading.Thread(target=lambda: built.append(nn.Linear(30, 20)))
        thread.start()
        thread.join()
        assert _memory(nn.Linear(30, 20)) <= 8
    assert _memory(built[0]) == 4 * 620
    assert float(built[0].weight.detach().std()) > 0
