"""What taps see, against inputs collected and pooled by hand."""

from multiprocessing import Pipe

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from prunas.errors import InputError
from prunas.eval.accuracy import Batches
from prunas.eval.criteria import features
from prunas.eval.criteria.discriminant import Scatter
from prunas.eval.criteria.features import channel_features
from prunas.supernet.space import SearchSpace
from tests.eval.spaces import space_of, tap

CLASSES = 3


class Branching(nn.Module):
    """A stem, two branches given the same tensor, one given it after an in-place change."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3)
        self.left, self.right = nn.Conv2d(4, 3, 1), nn.Conv2d(4, 3, 1)
        self.late = nn.Conv2d(4, 3, 1)
        self.never = nn.Conv2d(4, 3, 1)
        self.tokens = nn.Linear(3, 5)
        self.head = nn.Linear(5, CLASSES)
        self.drop = nn.Dropout(0.9)  # of no effect in evaluation mode

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.stem(images)
        y = self.left(x) + self.right(x)
        x.relu_()
        y = self.drop(y + self.late(x))
        tokens: torch.Tensor = self.tokens(y.flatten(2).transpose(1, 2)).relu()
        logits: torch.Tensor = self.head(tokens.mean(1))
        return logits


def inputs_of(network: Branching, images: torch.Tensor) -> dict[str, NDArray[np.float64]]:
    """(n, channels) pooled inputs, by running the layers one after the other."""
    with torch.no_grad():
        x = network.stem(images)
        z = x.relu()
        y = network.left(x) + network.right(x) + network.late(z)
        tokens = network.tokens(y.flatten(2).transpose(1, 2)).relu()
    pooled = {
        "stem": images.mean((2, 3)),
        "left": x.mean((2, 3)),
        "right": x.mean((2, 3)),
        "late": z.mean((2, 3)),
        "tokens": y.mean((2, 3)),
        "head": tokens.mean(1),
    }
    return {name: value.double().numpy() for name, value in pooled.items()}


@pytest.fixture
def network() -> Branching:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Branching().train()


@pytest.fixture
def space() -> SearchSpace:
    four, three = [1, 2, 3, 4], [5, 6, 7]
    return space_of(
        [4, 3, 5],
        [
            tap("left", four),
            tap("right", four),
            tap("late", four),
            tap("never", four),
            tap("tokens", three),
            tap("head", [8, 9, 10, 11, 12]),
        ],
    )


@pytest.fixture
def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(20, 2, 6, 6, generator=generator)
    labels = torch.randint(CLASSES, (20,), generator=generator)
    return list(zip(images.split(8), labels.split(8), strict=True))


def assert_same(found: Scatter, expected: Scatter) -> None:
    assert found.count == expected.count
    np.testing.assert_allclose(found.total, expected.total, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.cross, expected.cross, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.target_squares, expected.target_squares, rtol=1e-9)


@pytest.fixture(params=["each by itself", "all together"])
def summed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many batches are waited for before they are summed."""
    monkeypatch.setattr(features, "_HELD", 1 if request.param == "each by itself" else 2**40)


@pytest.mark.usefixtures("summed")
def test_every_tap_sees_its_pooled_input(
    network: Branching, space: SearchSpace, batches: list[tuple[torch.Tensor, torch.Tensor]]
) -> None:
    found = channel_features(network, space, batches, device="cpu")
    images = torch.cat([batch for batch, _ in batches])
    labels = torch.cat([batch for _, batch in batches])
    inputs = inputs_of(network, images)
    assert sorted(found) == ["head", "late", "left", "right", "tokens"]  # `never` never ran
    for name, observed in found.items():
        assert_same(observed.scatter, Scatter.of(inputs[name], np.eye(CLASSES)[labels]))
        assert observed.scatter.total.dtype == np.float64
    np.testing.assert_array_equal(found["tokens"].atoms, [[5, 6, 7]])


@pytest.mark.usefixtures("summed")
def test_branches_given_the_same_tensor_share_and_changed_content_does_not(
    network: Branching, space: SearchSpace, batches: Batches
) -> None:
    found = channel_features(network, space, batches, device="cpu")
    assert found["left"] is found["right"]
    assert found["late"] is not found["left"]


def test_parts_of_several_processes_are_merged_into_one_pass(
    network: Branching, space: SearchSpace, batches: list[tuple[torch.Tensor, torch.Tensor]]
) -> None:
    whole = channel_features(network, space, batches, device="cpu")
    parts = [channel_features(network, space, [batch], device="cpu") for batch in batches]
    receiver, sender = Pipe(duplex=False)
    sent = []
    for part in parts:
        sender.send(part)
        sent.append(receiver.recv())
    found = features.merged(sent)
    assert found.keys() == whole.keys()
    for name, observed in found.items():
        assert_same(observed.scatter, whole[name].scatter)
        np.testing.assert_array_equal(observed.atoms, whole[name].atoms)
    assert found["left"] is found["right"]  # still summed once
    assert found["late"] is not found["left"]


def test_refuses_to_merge_parts_that_do_not_fit(
    network: Branching, space: SearchSpace, batches: Batches
) -> None:
    one = channel_features(network, space, batches, device="cpu")
    two = channel_features(network, space, batches, device="cpu", pool=2)
    with pytest.raises(InputError, match=r"'.*' has . features in one part and .* in another"):
        features.merged([one, two])


def test_network_is_left_as_found(network: Branching, space: SearchSpace, batches: Batches) -> None:
    network.right.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    flags = [module.training for module in network.modules()]
    channel_features(network, space, batches, device="cpu")
    assert [module.training for module in network.modules()] == flags
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_hooks_go_when_the_forward_fails(network: Branching, space: SearchSpace) -> None:
    with pytest.raises(InputError, match="does not run on images of shape"):
        channel_features(network, space, [(torch.zeros(2, 9, 6, 6), torch.zeros(2))], device="cpu")
    assert not any(module._forward_pre_hooks for module in network.modules())
    assert network.training


def test_soft_targets_are_taken_as_they_are(
    network: Branching, space: SearchSpace, batches: list[tuple[torch.Tensor, torch.Tensor]]
) -> None:
    images = batches[0][0]
    soft = torch.linspace(0, 1, 56).reshape(8, 7)
    found = channel_features(network, space, [(images, soft)], device="cpu")
    expected = Scatter.of(inputs_of(network, images)["head"], soft.double().numpy())
    assert_same(found["head"].scatter, expected)


class Repeating(nn.Module):
    """One layer called twice, on windows of the image, and on a tensor without batch rows."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.windows, self.odd = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 4)
        self.single = nn.Linear(6, 4)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        x = self.twice(self.twice(rows))
        self.odd(torch.ones(5, 4))
        self.single(torch.ones(6))
        logits: torch.Tensor = self.windows(torch.stack([x, 2 * x], 1).reshape(-1, 4))
        return logits.reshape(len(rows), 2, 2).mean(1)


def test_repeated_calls_are_further_rows_and_windows_are_positions() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Repeating()
        rows = torch.randn(6, 4)
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    atoms = [1, 2, 3, 4]
    taps = [tap(name, atoms) for name in ("twice", "windows", "odd")]
    space = space_of([4], [*taps, tap("single", [*atoms, 0, 0])])
    found = channel_features(network, space, [(rows, labels)], device="cpu")
    assert sorted(found) == ["twice", "windows"]
    with torch.no_grad():
        first = network.twice(rows)
        second = network.twice(first)
    targets = np.eye(2)[labels]
    both = np.vstack([rows.numpy(), first.numpy()])
    assert_same(found["twice"].scatter, Scatter.of(both, np.vstack([targets, targets])))
    assert_same(found["windows"].scatter, Scatter.of(1.5 * second.numpy(), targets))


def test_wide_inputs_average_the_features_of_the_same_atoms() -> None:
    """A flattened map of 5000 values: two channels in runs, and two values that no gene owns."""
    layout = [1] * 2000 + [0] + [2] * 2998 + [0]
    rows = torch.arange(5 * 5000.0).reshape(5, 5000).sin()
    labels = torch.tensor([0, 1, 0, 1, 1])
    with torch.random.fork_rng():
        network = nn.Sequential(nn.Linear(5000, 2))
    space = space_of([2], [tap("0", layout)])
    found = channel_features(network, space, [(rows, labels)], device="cpu")["0"]
    x = rows.double().numpy()
    features = {1: [x[:, :2000].mean(1)], 2: [x[:, 2001:4999].mean(1)], 0: [x[:, 2000], x[:, 4999]]}
    assert sorted(found.atoms[0].tolist()) == [0, 0, 1, 2]
    expected = np.stack([features[atom].pop(0) for atom in found.atoms[0].tolist()], 1)
    assert_same(found.scatter, Scatter.of(expected, np.eye(2)[labels]))


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (torch.tensor([0, 3]), r"labels run from 0 to 3 but the network has 2 classes"),
        (torch.tensor([-1, 0]), r"labels run from -1"),
        (torch.tensor([0.5, 1.0]), r"shape \(2,\) and type torch.float32 are neither"),
        (torch.zeros(2, 2, dtype=torch.long), r"shape \(2, 2\) and type torch.int64 are neither"),
    ],
)
def test_refuses_targets_that_fit_neither_form(targets: torch.Tensor, words: str) -> None:
    space = space_of([2], [tap("0", [1, 2])])
    with pytest.raises(InputError, match=words):
        channel_features(
            nn.Sequential(nn.Linear(2, 2)), space, [(torch.zeros(2, 2), targets)], device="cpu"
        )


def test_refuses_labels_for_a_network_without_logits() -> None:
    space = space_of([2], [tap("0", [1, 2])])
    batch = (torch.zeros(2, 2, 4, 4), torch.tensor([0, 1]))
    with pytest.raises(InputError, match="give soft targets"):
        channel_features(nn.Sequential(nn.Conv2d(2, 2, 1)), space, [batch], device="cpu")


def test_refuses_no_images(network: Branching, space: SearchSpace) -> None:
    with pytest.raises(InputError, match="no images"):
        channel_features(network, space, [], device="cpu")


def test_refuses_a_space_of_another_network(space: SearchSpace, batches: Batches) -> None:
    with pytest.raises(InputError, match="no layer 'left'"):
        channel_features(nn.Identity(), space, batches, device="cpu")


def test_refuses_activations_that_are_nan(network: Branching, space: SearchSpace) -> None:
    batch = (torch.full((4, 2, 6, 6), float("nan")), torch.tensor([0, 1, 2, 0]))
    with pytest.raises(InputError, match="NaN or infinite values; check the network"):
        channel_features(network, space, [batch], device="cpu")
