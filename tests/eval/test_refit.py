"""Cut networks whose layers are solved anew."""

import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

import prunas
from prunas.errors import InputError
from prunas.eval import refit
from prunas.eval.refit import refit_
from prunas.supernet.space import Candidate, SearchSpace
from tests.supernet.networks import IMAGE, Network

Settings = dict[str, int | str | tuple[int, int]]


def seeded(*layers: nn.Module) -> nn.Sequential:
    network = nn.Sequential(*layers).double().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator).double() / 3
    return network


def images(count: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, *IMAGE, generator=generator, dtype=torch.float64)


def refitted(
    network: nn.Module, space: SearchSpace, candidate: Candidate, **options: float
) -> nn.Module:
    small = prunas.cut(network, space, candidate).eval()
    parts = images().split(16)
    refit_(small, network, space, candidate, parts, device="cpu", **options)  # type: ignore[arg-type]
    return small


def twins(*middle: nn.Module, settings: Settings | None = None) -> nn.Sequential:
    """The last four of eight channels are what the first four are, times two."""
    reader: Settings = {"kernel_size": 3, "bias": False, **(settings or {})}
    network = seeded(
        nn.Conv2d(3, 8, 1), *middle, nn.Conv2d(8, 6, **reader), nn.ReLU(),  # type: ignore[arg-type]
        nn.Flatten(),
    )  # fmt: skip
    for parameter in network[0].parameters():
        parameter.data[4:] = 2 * parameter.data[:4]
    return network


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bias": True},
        {"padding": 1},
        {"padding": "same", "kernel_size": (4, 2)},
        {"padding": "valid"},
        {"padding": (2, 1), "padding_mode": "reflect"},
        {"stride": 2, "dilation": 2, "padding": 2},
        {"kernel_size": (1, 3), "stride": (1, 2), "padding": (0, 1)},
    ],
)
def test_what_the_channels_that_stay_can_tell_is_not_lost(settings: Settings) -> None:
    network = twins(nn.ReLU(), settings=settings)
    space = prunas.trace(network, IMAGE, grid="every")
    candidate = space.candidate([4])
    small = refitted(network, space, candidate, ridge_share=1e-10)
    with torch.no_grad():
        expected = network(images())
        torch.testing.assert_close(small(images()), expected, rtol=1e-5, atol=1e-5)
        plain = prunas.cut(network, space, candidate)(images())
    assert (plain - expected).abs().max() > 0.1


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("share", [1e-3, 1.0])
def test_weights_are_those_of_ridge_regression_towards_the_old_ones(
    bias: bool, share: float
) -> None:
    """By least squares on rows with the ridge appended, and a column of ones for the bias."""
    network = seeded(nn.Flatten(), nn.Linear(192, 10), nn.ReLU(), nn.Linear(10, 5, bias=bias))
    space = prunas.trace(network, IMAGE, grid="every")
    candidate = space.candidate([6])
    small = refitted(network, space, candidate, ridge_share=share)
    with torch.no_grad():
        Y = network(images()).numpy()
        hidden = network[:3](images()).numpy()
    X, W = hidden[:, :6], network.get_parameter("3.weight").detach().numpy()[:, :6]
    centered = X - X.mean(0) * bias
    ridge = share * (centered**2).sum() / 6
    ones = np.ones((len(X), 1)) if bias else np.zeros((len(X), 0))
    design = np.block([[X, ones], [np.sqrt(ridge) * np.eye(6), np.zeros((6, ones.shape[1]))]])
    expected = np.linalg.lstsq(design, np.vstack([Y, np.sqrt(ridge) * W.T]))[0].T
    found = small.get_parameter("3.weight").detach().numpy()
    np.testing.assert_allclose(found, expected[:, :6], rtol=1e-8, atol=1e-10)
    if bias:
        offset = small.get_parameter("3.bias").detach().numpy()
        np.testing.assert_allclose(offset, expected[:, 6], rtol=1e-8, atol=1e-10)


def test_both_systems_have_one_solution() -> None:
    """(X'X + rho I)^-1 X' = X' (XX' + rho I)^-1, with fewer and with more samples than features."""
    generator = torch.Generator().manual_seed(0)
    for shape in ((30, 7), (7, 30)):
        X = torch.randn(shape, generator=generator, dtype=torch.float64)
        missing = torch.randn(shape[0], 3, generator=generator, dtype=torch.float64)
        ridge = 0.1 * float((X**2).sum()) / shape[1]
        stacked = torch.cat([X, ridge**0.5 * torch.eye(shape[1], dtype=X.dtype)])
        wanted = torch.cat([missing, torch.zeros(shape[1], 3, dtype=X.dtype)])
        expected = torch.linalg.lstsq(stacked, wanted).solution.T
        torch.testing.assert_close(refit._nearest(X, missing, 0.1), expected)


@pytest.mark.parametrize("kind", ["Residual", "Concatenated", "Depthwise", "Grouped", "Attention"])
def test_nothing_changes_where_nothing_is_gone(kind: str) -> None:
    network = Network([kind]).double().eval()
    space = prunas.trace(network, IMAGE)
    before = copy.deepcopy(network.state_dict())
    small = refitted(network, space, space.full())
    for name, tensor in small.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=1e-8, atol=1e-9)
    assert all(torch.equal(before[n], tensor) for n, tensor in network.state_dict().items())


@pytest.mark.parametrize("kind", ["Residual", "Concatenated", "SqueezeExcite", "Attention"])
def test_outputs_come_nearer_to_those_of_the_whole_network(kind: str) -> None:
    network = Network([kind]).double().eval()
    space = prunas.trace(network, IMAGE)
    candidate = space.candidate([gene.choices[len(gene.choices) // 2] for gene in space.genes])
    small = refitted(network, space, candidate)
    with torch.no_grad():
        expected = network(images())
        plain = prunas.cut(network, space, candidate).eval()(images())
        assert (small(images()) - expected).norm() < 0.7 * (plain - expected).norm()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in small.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


class Twice(nn.Module):
    """A layer that runs twice, and one that computes something else than its class."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again = nn.Linear(192, 8), nn.Linear(8, 8)
        self.odd, self.last = Halved(8, 8), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(x.flatten(1)))
        x = F.relu(self.again(F.relu(self.again(x))))
        out: torch.Tensor = self.last(F.relu(self.odd(x)))
        return out


class Halved(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight / 2, self.bias)


def test_layers_that_cannot_be_solved_stay_as_they_are() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Twice().double().eval()
    space = prunas.trace(network, IMAGE, grid="every")
    candidate = space.candidate([max(2, width // 2) for width in space.widths])
    plain, small = prunas.cut(network, space, candidate), refitted(network, space, candidate)
    same = {
        name: torch.equal(tensor, plain.get_parameter(name))
        for name, tensor in small.named_parameters()
        if name.endswith("weight")
    }
    assert same["again.weight"]
    assert same["odd.weight"]
    assert not same["last.weight"]


def test_padding_may_be_changed_after_construction() -> None:
    network = twins()
    reader = network[1]
    assert isinstance(reader, nn.Conv2d)
    reader.padding = "same"
    space = prunas.trace(network, IMAGE, grid="every")
    small = refitted(network, space, space.candidate([4]), ridge_share=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(small(images()), network(images()), rtol=1e-5, atol=1e-5)


def test_weights_that_are_computed_or_shared_stay_as_they_are() -> None:
    layers = [nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)]
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), weight_norm(layers[0]), nn.ReLU(), layers[1],
        nn.ReLU(), layers[2], nn.ReLU(), nn.Linear(8, 5),
    ).double().eval()  # fmt: skip
    layers[2].weight = layers[1].weight
    space = prunas.trace(network, IMAGE, grid="every")
    candidate = space.candidate([max(2, width // 2) for width in space.widths])
    plain, small = prunas.cut(network, space, candidate), refitted(network, space, candidate)
    changed = {
        name.partition(".")[0]
        for name, tensor in small.named_parameters()
        if not torch.allclose(tensor, plain.get_parameter(name), rtol=1e-9)
    }
    assert changed == {"9"}  # and the first, whose inputs are whole, has nothing to mend


class Sequence(nn.Module):
    """A layer that is given (positions, images, channels), as torch's transformers are."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Conv2d(3, 8, 1), nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = F.relu(self.middle(self.first(x).flatten(2).permute(2, 0, 1)))
        out: torch.Tensor = self.last(tokens.mean(0))
        return out


def test_layers_whose_rows_are_not_image_by_image_stay_as_they_are() -> None:
    network = Sequence().double().eval()
    space = prunas.trace(network, IMAGE, grid="every")
    candidate = space.candidate([4, 4])
    plain, small = prunas.cut(network, space, candidate), refitted(network, space, candidate)
    assert torch.equal(small.get_parameter("middle.weight"), plain.get_parameter("middle.weight"))
    assert not torch.equal(small.get_parameter("last.weight"), plain.get_parameter("last.weight"))


def test_no_more_images_are_read_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refit, "_MOST_BYTES", 4 * 24 * 8 * 8 * 4)
    monkeypatch.setattr(refit, "_FEWEST_IMAGES", 1)
    network = twins()
    space = prunas.trace(network, IMAGE, grid="every")
    candidate = space.candidate([4])
    read = 0

    def loader() -> Iterator[torch.Tensor]:
        nonlocal read
        for part in images(40).split(8):
            read += len(part)
            yield part

    small = prunas.cut(network, space, candidate).eval()
    refit_(small, network, space, candidate, loader(), device="cpu")
    assert read == 16


def test_equal_seeds_give_equal_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refit, "_ROWS", (64, 64))
    network = twins(nn.ReLU())
    space = prunas.trace(network, IMAGE, grid="every")
    candidate = space.candidate([2])
    one, two, other = (
        refitted(network, space, candidate, seed=seed).get_parameter("2.weight")
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_refuses_no_images_and_nan() -> None:
    network = twins()
    space = prunas.trace(network, IMAGE, grid="every")
    candidate = space.candidate([4])
    small = prunas.cut(network, space, candidate).eval()
    with pytest.raises(InputError, match="no images"):
        refit_(small, network, space, candidate, [], device="cpu")
    with pytest.raises(InputError, match="layer '0' is given or gives NaN"):
        refit_(small, network, space, candidate, [images() * torch.nan], device="cpu")
    assert not any(m._forward_pre_hooks for m in small.modules())
