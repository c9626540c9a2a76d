"""Channel orders and values: planted informative channels, coupled layers, fall-backs, laws."""

import numpy as np
import pytest
import timm
import torch
from torch import nn

import prunas
from prunas.errors import InputError
from prunas.eval.accuracy import Batches
from prunas.eval.batches import Loader
from prunas.eval.criteria.dependence import discriminant
from prunas.eval.criteria.discriminant import (
    Elimination,
    Scatter,
    eliminate,
    eliminate_jointly,
    fit,
)
from prunas.eval.criteria.features import channel_features
from prunas.eval.criteria.selection import Ranking, di_prior
from prunas.eval.criteria.verdict import Verdict
from prunas.eval.criteria.weights import magnitude
from prunas.supernet.space import Factors, SearchSpace, Tap
from tests.eval.spaces import space_of, tap

IMAGES = 400


def planted(widths: list[int], useful: list[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Rows of noise in which column useful[c] tells class c from the others."""
    rng = np.random.default_rng(5)
    labels = rng.integers(len(useful), size=IMAGES)
    rows = rng.normal(size=(IMAGES, sum(widths)))
    for c, column in enumerate(useful):
        rows[:, column] += 3 * (labels == c)
    images, targets = torch.from_numpy(rows).float(), torch.from_numpy(labels)
    return list(zip(images.split(64), targets.split(64), strict=True))


class Parallel(nn.Module):
    """Linear layers on slices of the input, whose outputs are added."""

    def __init__(self, slices: list[tuple[int, int]]) -> None:
        super().__init__()
        self.slices = slices
        self.layers = nn.ModuleList(nn.Linear(stop - start, 3) for start, stop in slices)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        parts = [
            layer(rows[:, start:stop])
            for layer, (start, stop) in zip(self.layers, self.slices, strict=True)
        ]
        return torch.stack(parts).sum(0)


def parallel(*slices: tuple[int, int]) -> Parallel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Parallel(list(slices))


def test_channels_that_tell_the_labels_come_first() -> None:
    network, batches = parallel((0, 6)), planted([6], useful=[4, 1, 3])
    ranking = di_prior(
        network, space_of([6], [tap("layers.0", [1, 2, 3, 4, 5, 6])]), batches, device="cpu"
    )
    assert set(ranking.orders[0][:3]) == {1, 3, 4}
    worth = np.diff(ranking.values[0])
    assert worth[:3].min() > 10 * worth[3:].max()
    assert ranking.notes == ()


def test_one_layer_is_plain_elimination_in_shares() -> None:
    network, batches = parallel((0, 6)), planted([6], useful=[4, 1, 3])
    space = space_of([6], [tap("layers.0", [1, 2, 3, 4, 5, 6])])
    ranking = di_prior(network, space, batches, device="cpu")
    rows = torch.cat([images for images, _ in batches]).numpy()
    labels = torch.cat([targets for _, targets in batches]).numpy()
    scatter = Scatter.of(rows, np.eye(3)[labels]).balanced()
    path = eliminate(scatter)
    assert ranking.orders[0] == path.order[::-1]
    expected = [0.0, *np.cumsum(path.drops[::-1]) / scatter.target_total]
    np.testing.assert_allclose(ranking.values[0], expected, rtol=1e-5)


def test_a_gene_seen_by_two_layers_sums_their_shares() -> None:
    """Layer 0 is given atoms 1..3 and a channel of its own, layer 1 the same atoms reversed."""
    network, batches = parallel((0, 4), (4, 7)), planted([7], useful=[1, 6, 4])
    space = space_of([3], [tap("layers.0", [1, 2, 3, 0]), tap("layers.1", [3, 2, 1])])
    ranking = di_prior(network, space, batches, device="cpu")
    layers = channel_features(network, space, batches, device="cpu")
    fits = [fit(layers[f"layers.{i}"].scatter.balanced()) for i in (0, 1)]
    groups = [[np.array([i]) for i in (0, 1, 2)], [np.array([i]) for i in (2, 1, 0)]]
    assert ranking.orders[0] == eliminate_jointly(fits, groups).order[::-1]
    path = eliminate_jointly(fits, groups)
    assert ranking.values[0][-1] == pytest.approx(sum(path.drops))


def test_two_factors_remove_rows_and_columns() -> None:
    """Two heads of two channels: the useful column 2 is (head 1, width 0), atoms 2 and 3."""
    network, images = parallel((0, 4)), torch.cat([rows for rows, _ in planted([4], useful=[2])])
    batches = [(images, (images[:, 2] > 3).long())]
    space = space_of([2, 2], [tap("layers.0", [1, 1, 2, 2], [3, 4, 3, 4])])
    ranking = di_prior(network, space, batches, device="cpu")
    assert ranking.orders == ((1, 0), (0, 1))


def test_layers_given_the_same_tensor_count_once() -> None:
    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.a(rows) + self.b(rows)
            return logits

    with torch.random.fork_rng():
        network = Twins()
    batches, atoms = planted([4], useful=[0, 1, 2]), [1, 2, 3, 4]
    both = di_prior(
        network, space_of([4], [tap("a", atoms), tap("b", atoms)]), batches, device="cpu"
    )
    one = di_prior(network, space_of([4], [tap("a", atoms)]), batches, device="cpu")
    assert both == one


def test_depthwise_layers_count_only_where_no_other_sees_the_gene() -> None:
    network, batches = parallel((0, 3), (3, 6)), planted([6], useful=[0, 4, 5])
    mixing, depthwise = tap("layers.1", [1, 2, 3]), tap("layers.0", [1, 2, 3], depthwise=True)

    def ranked(*taps: Tap) -> Ranking:
        return di_prior(network, space_of([3], list(taps)), batches, device="cpu")

    assert ranked(mixing, depthwise) == ranked(mixing)
    assert ranked(depthwise).orders[0][0] == 0
    assert ranked(depthwise).notes == ()


def hand_space(network: Parallel) -> SearchSpace:
    """Gene 0 is seen; gene 1 owns the rows of layer 0's weight and the entries of its bias."""
    rows = np.array([4, 5, 6])
    weight: dict[int, Factors] = {0: (rows,), 1: (np.array([1, 2, 3, 0]),)}
    return space_of(
        [3, 3],
        [tap("layers.0", [1, 2, 3, 0])],
        slots={"layers.0.weight": weight, "layers.0.bias": {0: (rows,)}},
        shapes={"layers.0.weight": (3, 4), "layers.0.bias": (3,)},
    )


def test_unseen_genes_fall_back_to_magnitude_and_say_so() -> None:
    network, batches = parallel((0, 4)), planted([4], useful=[0, 1, 2])
    ranking = di_prior(network, hand_space(network), batches, device="cpu")
    layer = network.layers[0]
    norms = layer.get_parameter("weight").abs().sum(1) + layer.get_parameter("bias").abs()
    order = norms.argsort(descending=True).tolist()
    assert ranking.orders[1] == tuple(order)
    assert ranking.values[1][-1] == pytest.approx(ranking.values[0][-1])
    shares = (norms.detach().sort(descending=True).values.cumsum(0) / norms.sum()).tolist()
    np.testing.assert_allclose(
        ranking.values[1][1:], np.array(shares) * ranking.values[0][-1], rtol=1e-5
    )
    assert ranking.notes == (
        "1 of 2 genes are ordered by the L1 norm of their weights (no layer that could be observed"
        " reads its channels): gene1",
    )


def test_magnitude_sums_all_slots_of_an_atom() -> None:
    network = parallel((0, 4))
    verdict = magnitude(network, hand_space(network), [], device="cpu")
    columns = network.layers[0].get_parameter("weight").detach().abs().sum(0)[:3]
    first = verdict.eliminations[0]
    assert first is not None
    assert first.order == tuple(columns.argsort().tolist())
    np.testing.assert_allclose(first.drops, (columns.sort().values / columns.sum()), rtol=1e-5)
    assert sum(first.drops) == pytest.approx(1)


def test_a_channel_with_zero_weights_has_the_least_magnitude() -> None:
    network = parallel((0, 4))
    with torch.no_grad():
        network.layers[0].get_parameter("weight")[:, 1] = 0
    path = magnitude(network, hand_space(network), [], device="cpu").eliminations[0]
    assert path is not None
    assert (path.order[0], path.drops[0]) == (1, 0.0)


def test_any_function_of_the_right_form_is_a_criterion() -> None:
    def last_first(
        network: nn.Module, space: SearchSpace, batches: Loader, *, device: torch.device | str
    ) -> Verdict:
        return Verdict((Elimination((2, 0, 1), (0.0, 1.0, 3.0)), None), notes=("judged by hand",))

    network = parallel((0, 4))
    ranking = di_prior(network, hand_space(network), [], device="cpu", criterion=last_first)
    assert ranking.orders[0] == (1, 0, 2)
    assert ranking.values[0] == (0.0, 3.0, 4.0, 4.0)
    assert ranking.values[1][-1] == pytest.approx(4.0)  # the median of the judged genes
    assert ranking.notes[0] == "judged by hand"


def test_too_few_images_are_noted_not_warned_about() -> None:
    network, batches = parallel((0, 6)), planted([6], useful=[0, 1, 2])[:1]
    short = [(batches[0][0][:20], batches[0][1][:20])]
    space = space_of([6], [tap("layers.0", [1, 2, 3, 4, 5, 6])])
    (note,) = di_prior(network, space, short, device="cpu").notes
    assert note.startswith(
        "20 samples are fewer than 5 a channel in 1 of 1 layers (the widest, lay"
    )


def test_a_criterion_that_finds_everything_worth_nothing_is_noted() -> None:
    """Labels of one class leave nothing to discriminate."""
    network, batches = parallel((0, 6)), planted([6], useful=[0, 1, 2])
    alike = [(images, torch.zeros_like(labels)) for images, labels in batches]
    space = space_of([6], [tap("layers.0", [1, 2, 3, 4, 5, 6])])
    found = di_prior(network, space, alike, device="cpu")
    assert found.values == ((0.0,) * 7,)
    (note,) = found.notes
    assert note.startswith("all channels are worth 0 to the criterion")


def test_refuses_a_space_of_another_network() -> None:
    network = parallel((0, 4))
    with pytest.raises(InputError, match=r"no parameter 'layers.0.bias' of shape \(3,\)"):
        magnitude(nn.Identity(), hand_space(network), [], device="cpu")
    with pytest.raises(InputError, match=r"no parameter 'layers.0.weight' of shape \(3, 4\)"):
        magnitude(parallel((0, 5)), hand_space(network), [], device="cpu")


def traced(name: str) -> tuple[nn.Module, SearchSpace, Batches]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model(name, num_classes=4)
        images = torch.randn(48, 3, 32, 32)
        labels = torch.randint(4, (48,))
    space = prunas.trace(network, input_size=(3, 32, 32))
    return network, space, list(zip(images.split(16), labels.split(16), strict=True))


@pytest.mark.parametrize("name", ["mobilenetv2_050", "resnet10t"])
def test_laws_on_traced_networks(name: str) -> None:
    network, space, batches = traced(name)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    generator, rng = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    ranking = di_prior(network, space, batches, device="cpu")
    assert torch.equal(torch.get_rng_state(), generator)
    assert str(np.random.get_state()) == rng  # noqa: NPY002
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    space.reordered(ranking.orders)  # refuses what is no permutation
    for width, values in zip(space.widths, ranking.values, strict=True):
        assert len(values) == width + 1
        assert values[0] == 0
        assert np.isfinite(values).all()
        assert (np.diff(values) >= 0).all()
    assert not any("no layer" in note for note in ranking.notes)


def test_equal_arguments_give_equal_rankings() -> None:
    network, space, batches = traced("resnet10t")
    first, second = (discriminant(network, space, batches, device="cpu") for _ in range(2))
    assert first == second


def test_a_block_is_worth_the_channels_inside_it() -> None:
    network = nn.Sequential(nn.Linear(3, 8), Block(), nn.Linear(8, 3))
    space = prunas.trace(network, (3,))
    assert [(gene.name, gene.kind) for gene in space.genes] == [
        ("0", "width"), ("1.down", "width"), ("1", "depth"),
    ]  # fmt: skip
    ranking = di_prior(network, space, planted([3], useful=[0, 1, 2]), device="cpu")
    assert ranking.orders[2] == (0,)
    assert ranking.values[2] == (0.0, ranking.values[1][-1])
    assert not any("'1'" in note for note in ranking.notes)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(8, 6), nn.Linear(6, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.up(self.down(x).relu())
        return out
