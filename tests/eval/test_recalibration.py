"""Batch-norm statistics against means over the collected activations; nothing leaks."""

import copy
from collections.abc import Callable

import pytest
import timm
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import nn

from prunas.errors import InputError
from prunas.eval.accuracy import Batches
from prunas.eval.recalibration import recalibrate_, recalibrated

NORMS = ["0", "3"]


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        BatchNormAct2d(3, act_layer=nn.ReLU),
        nn.Dropout(0.5),
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4, momentum=0.3),
        nn.InstanceNorm2d(4, track_running_stats=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


@pytest.fixture
def batches() -> Batches:
    generator = torch.Generator().manual_seed(1)
    sizes = [8, 8, 5]
    return [
        (2 * torch.randn(n, 3, 6, 6, generator=generator) + 1, torch.zeros(n).long()) for n in sizes
    ]


@pytest.fixture(autouse=True)
def _keep_global_generator() -> object:
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


def oracle(network: nn.Sequential, batches: Batches) -> dict[str, tuple[torch.Tensor, ...]]:
    """Mean of batch means and of unbiased batch variances, layer by layer, written out."""
    means: dict[str, list[torch.Tensor]] = {name: [] for name in NORMS}
    variances: dict[str, list[torch.Tensor]] = {name: [] for name in NORMS}
    for images, _ in batches:
        x = images
        for name, layer in network.named_children():
            if name in NORMS:
                mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=True)
                means[name].append(mean)
                variances[name].append(variance)
                biased = x.var((0, 2, 3), unbiased=False)
                x = (x - mean.view(1, -1, 1, 1)) / (biased + 1e-5).sqrt().view(1, -1, 1, 1)
                x = x.relu() if name == "0" else x  # the affine part is 1, 0 in a new network
            elif isinstance(layer, nn.Conv2d):
                x = layer(x)
    return {
        name: (torch.stack(means[name]).mean(0), torch.stack(variances[name]).mean(0))
        for name in NORMS
    }


def statistics(network: nn.Module, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    norm = network.get_submodule(name)
    return norm.get_buffer("running_mean"), norm.get_buffer("running_var")


def test_equals_the_oracle_with_dropout_off(batches: Batches) -> None:
    network = small_network().train()
    with torch.no_grad():
        expected = oracle(network, batches)
    with recalibrated(network, batches):
        for name in NORMS:
            for found, wanted in zip(statistics(network, name), expected[name], strict=True):
                torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_nothing_leaks(batches: Batches) -> None:
    network = small_network().train()
    network[3].eval()
    with torch.no_grad():  # statistics that are not the fresh ones
        network(torch.randn(4, 3, 6, 6))
    buffers = dict(network.named_buffers())
    values = {name: buffer.clone() for name, buffer in buffers.items()}
    flags = [module.training for module in network.modules()]
    with recalibrated(network, batches):
        assert network[3].momentum == 0.3
        assert not torch.equal(statistics(network, "0")[0], values["0.running_mean"])
        assert [module.training for module in network.modules()] == flags
        torch.testing.assert_close(network[4].running_mean, values["4.running_mean"])
    after = dict(network.named_buffers())
    assert list(after) == list(buffers)
    for name, buffer in after.items():
        assert buffer is buffers[name]
        assert torch.equal(buffer, values[name])
    assert [module.training for module in network.modules()] == flags
    assert [network[i].momentum for i in (0, 3)] == [0.1, 0.3]


def test_buffers_that_are_views_are_not_written_to(batches: Batches) -> None:
    network = small_network()
    shared = torch.full((9,), 7.0)
    norm = network[3]
    norm._buffers["running_mean"], norm._buffers["running_var"] = shared[:4], shared[2:6]
    mean = norm.running_mean
    with recalibrated(network, batches):
        assert norm.running_mean is not mean
        assert torch.equal(shared, torch.full((9,), 7.0))
    assert norm.running_mean is mean
    assert torch.equal(shared, torch.full((9,), 7.0))


def test_does_not_depend_on_the_statistics_before(batches: Batches) -> None:
    first, second = small_network(), small_network()
    statistics(second, "0")[0].fill_(100.0)
    statistics(second, "3")[1].fill_(100.0)
    for network in (first, second):
        recalibrate_(network, batches)
    for name in NORMS:
        assert torch.equal(*(statistics(network, name)[0] for network in (first, second)))


def test_kept_statistics_give_the_network_that_was_measured(batches: Batches) -> None:
    network = small_network().eval()
    kept = copy.deepcopy(network)
    recalibrate_(kept, batches)
    images = torch.ones(2, 3, 6, 6)
    with recalibrated(network, batches):
        inside = network(images)
    assert torch.equal(kept(images), inside)
    assert not torch.equal(network(images), inside)
    kept.train()
    torch.sum(kept(images)).backward()  # the new buffers are ordinary tensors


def enter_recalibrated(network: nn.Module, batches: Batches) -> None:
    with recalibrated(network, batches):
        raise AssertionError("the body must not run")


@pytest.mark.parametrize("recalibrate", [recalibrate_, enter_recalibrated])
def test_a_failing_forward_leaves_the_network_as_it_was(
    batches: Batches, recalibrate: Callable[[nn.Module, Batches], None]
) -> None:
    network = small_network().train()
    found = dict(network.named_buffers())
    bad = [*batches, (torch.zeros(2, 5, 6, 6), torch.zeros(2))]
    with pytest.raises(InputError, match=r"shape \(2, 5, 6, 6\) .*; give images as it was trained"):
        recalibrate(network, bad)
    assert all(buffer is found[name] for name, buffer in network.named_buffers())
    assert all(module.training for module in network.modules())
    assert network[3].momentum == 0.3


def test_network_without_batch_norm_needs_no_images() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False))
    images = torch.ones(3, 2)
    with recalibrated(network, []):
        assert torch.equal(network(images), network(images))
    recalibrate_(network, [(torch.ones(3, 99), images)])  # never run: there is nothing to estimate


def test_refuses_no_batches() -> None:
    with pytest.raises(InputError, match="on no images"):
        recalibrate_(small_network(), [])
    with pytest.raises(InputError, match="the batches are None; give a list of batches"):
        recalibrate_(small_network(), None)  # type: ignore[arg-type]


def test_refuses_batches_of_one_value_a_channel() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with pytest.raises(InputError, match="two images or more"):
        recalibrate_(network, [(torch.zeros(1, 2), torch.zeros(1))])


def test_passes_on_errors_of_the_network(batches: Batches) -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise ValueError("not this image")

    with pytest.raises(ValueError, match="not this image"):
        recalibrate_(Failing(), batches)


def test_repairs_a_timm_network_with_wrong_statistics() -> None:
    """Statistics of the calibration batch itself give what training mode gives on it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model("resnet10t", num_classes=5).eval()
        images = torch.randn(16, 3, 32, 32)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            module.running_mean.fill_(3.0)
    with torch.no_grad():
        expected = copy.deepcopy(network).train()(images)
        with recalibrated(network, [(images, images)]):
            found = network(images)
        assert not torch.allclose(network(images), expected, atol=0.1)
    # evaluation divides by the unbiased deviation: with 16 values a channel at the end 3 % apart
    torch.testing.assert_close(found, expected, rtol=0.2, atol=0.1)
