"""Each criterion against its formula, computed slowly on a small network by hand."""

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import prunas
from prunas.eval.criteria import activations, dependence, gradients, reconstruction, weights
from prunas.eval.criteria.discriminant import (
    Groups,
    Scatter,
    differential,
    eliminate,
    leave_out,
    relative_ridge,
    stand_alone,
)
from prunas.eval.criteria.verdict import Verdict, scores_of
from prunas.supernet.space import SearchSpace
from tests.supernet.networks import plain_chain

Array = NDArray[np.float64]

IMAGE = (3, 8, 8)
FIRST, SECOND = 0, 1  # genes: 8 channels of the first convolution, 16 of the second


@pytest.fixture(scope="module")
def network() -> nn.Sequential:
    chain = plain_chain().double()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(2)
        for parameter in chain[1].parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return chain


@pytest.fixture(scope="module")
def space(network: nn.Sequential) -> SearchSpace:
    found = prunas.trace(network, IMAGE)
    assert found.widths == (8, 16)
    return found


@pytest.fixture(scope="module")
def rows() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (240,), generator=generator)
    images = torch.randn(240, *IMAGE, generator=generator, dtype=torch.float64)
    images[:, 0] += labels[:, None, None]
    return list(zip(images.split(80), labels.split(80), strict=True))


def scores(verdict: Verdict, gene: int) -> Array:
    elimination = verdict.eliminations[gene]
    assert elimination is not None
    return scores_of(elimination)


def share(values: Array) -> Array:
    return np.asarray(values / values.sum())


def close(found: Array, expected: Array | list[float], rtol: float = 1e-9) -> None:
    np.testing.assert_allclose(found, np.asarray(expected, dtype=np.float64), rtol=rtol, atol=1e-14)


def filters(network: nn.Sequential, layer: int) -> Array:
    return np.asarray(network.get_parameter(f"{layer}.weight").detach().flatten(1).numpy())


# -- weights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [1, 2])
def test_magnitude_of_own_filters(network: nn.Sequential, space: SearchSpace, power: float) -> None:
    verdict = weights.magnitude(network, space, [], device="cpu", power=power, scope="own")
    for gene, layer in ((FIRST, 0), (SECOND, 3)):
        close(scores(verdict, gene), share(np.linalg.norm(filters(network, layer), power, axis=1)))


def test_magnitude_of_the_group(network: nn.Sequential, space: SearchSpace) -> None:
    verdict = weights.magnitude(network, space, [], device="cpu", power=2)
    parts = [
        network.get_parameter("0.weight").detach().flatten(1),
        network.get_parameter("1.weight").detach()[:, None],
        network.get_parameter("1.bias").detach()[:, None],
        network.get_parameter("3.weight").detach().transpose(0, 1).flatten(1),
    ]
    close(scores(verdict, FIRST), share(torch.cat(parts, 1).norm(dim=1).numpy()))


def test_fpgm_sums_distances_of_raw_filters(network: nn.Sequential, space: SearchSpace) -> None:
    F3 = filters(network, 3)
    expected = np.array([sum(np.linalg.norm(f - g) for g in F3) for f in F3])
    close(scores(weights.fpgm(network, space, [], device="cpu"), SECOND), share(expected))


def test_a_filter_and_its_negative_are_apart(network: nn.Sequential, space: SearchSpace) -> None:
    """Not so where distances are taken between |w|^p."""
    twins = copy.deepcopy(network)
    with torch.no_grad():
        twins.get_parameter("3.weight")[1:] = twins.get_parameter("3.weight")[:1]
        twins.get_parameter("3.weight")[0] *= -1
    found = scores(weights.fpgm(twins, space, [], device="cpu"), SECOND)
    assert found[0] > 10 * found[1:].max()


def test_the_geometric_median_is_the_nearest_point() -> None:
    rng = np.random.default_rng(0)
    points = rng.standard_normal((30, 4)) ** 3
    median = weights.median_of(points)

    def total(v: Array) -> float:
        return float(np.linalg.norm(points - v, axis=1).sum())

    least = total(median)
    assert all(least <= total(median + 1e-3 * rng.standard_normal(4)) for _ in range(200))


def test_the_geometric_median_of_three_points_on_a_line_is_the_middle_one() -> None:
    close(weights.median_of(np.array([[0.0], [1.0], [10.0]])), [1.0], rtol=1e-6)


def test_bn_scale(network: nn.Sequential, space: SearchSpace) -> None:
    verdict = weights.bn_scale(network, space, [], device="cpu")
    close(scores(verdict, FIRST), network.get_parameter("1.weight").detach().abs().numpy())
    assert verdict.reasons == {SECOND: "no batch normalisation scales its channels"}


def test_lamp(network: nn.Sequential, space: SearchSpace) -> None:
    u = (filters(network, 3) ** 2).sum(1)
    expected = [x / u[u >= x].sum() for x in u]
    found = scores(weights.lamp(network, space, [], device="cpu"), SECOND)
    close(found, expected)
    assert found.max() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("kept", [0.25, 0.5, 1.0])
def test_leverage(network: nn.Sequential, space: SearchSpace, kept: float) -> None:
    found = scores(weights.leverage(network, space, [], device="cpu", share=kept), SECOND)
    assert (found**2).sum() == pytest.approx(16 * kept, rel=1e-12)
    assert found.max() <= 1 + 1e-12
    vectors = np.linalg.svd(filters(network, 3).T)[2][: round(16 * kept)]
    close(found, np.linalg.norm(vectors, axis=0))


def test_what_one_channel_saves_is_measured(network: nn.Sequential, space: SearchSpace) -> None:
    fine = prunas.trace(network, IMAGE, grid="every")
    macs, params = weights.saved_by_one(fine)
    for gene in (FIRST, SECOND):
        candidate = list(fine.full())
        candidate[gene] -= 1
        small = prunas.cut(network, fine, fine.candidate(candidate))
        assert macs[gene] == _macs(network) - _macs(small)
        assert params[gene] == _params(network) - _params(small)


def test_cpmc_without_powers_is_the_l1_norm_of_the_group(
    network: nn.Sequential, space: SearchSpace
) -> None:
    verdict = weights.cpmc(network, space, [], device="cpu", macs_power=0, params_power=0)
    norms = weights.magnitude(network, space, [], device="cpu")
    for gene in (FIRST, SECOND):
        close(share(scores(verdict, gene)), scores(norms, gene))


def _macs(network: nn.Module) -> int:
    meta = copy.deepcopy(network).to("meta")
    with FlopCounterMode(display=False) as counter:
        meta(torch.empty(1, *IMAGE, device="meta", dtype=torch.float64))
    return int(counter.get_total_flops() // 2)


def _params(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# -- gradients -------------------------------------------------------------------------------------


def _gradients(
    network: nn.Sequential, images: torch.Tensor, labels: torch.Tensor
) -> dict[str, torch.Tensor]:
    twin = copy.deepcopy(network)
    F.cross_entropy(twin(images), labels).backward()
    found = {name: parameter.grad for name, parameter in twin.named_parameters()}
    return {name: grad for name, grad in found.items() if grad is not None}


def _first_group(network: nn.Sequential, values: dict[str, torch.Tensor]) -> torch.Tensor:
    """(8, values) of all entries that leave with a channel of the first gene."""
    return torch.cat(
        [
            values["0.weight"].flatten(1),
            values["1.weight"][:, None],
            values["1.bias"][:, None],
            values["3.weight"].transpose(0, 1).flatten(1),
        ],
        1,
    )


def _products(network: nn.Sequential, grads: dict[str, torch.Tensor]) -> torch.Tensor:
    held = {name: parameter.detach() for name, parameter in network.named_parameters()}
    return _first_group(network, {name: held[name] * grads[name] for name in held})


def test_taylor(
    network: nn.Sequential, space: SearchSpace, rows: list[tuple[torch.Tensor, torch.Tensor]]
) -> None:
    products = [_products(network, _gradients(network, *batch)) for batch in rows]
    squared = gradients.taylor(network, space, rows, device="cpu")
    close(scores(squared, FIRST), torch.stack([p.sum(1) ** 2 for p in products]).mean(0).numpy())
    absolute = gradients.taylor(network, space, rows, device="cpu", form="absolute")
    close(scores(absolute, FIRST), torch.stack([p.abs().sum(1) for p in products]).mean(0).numpy())


def test_taylor_gate(
    network: nn.Sequential, space: SearchSpace, rows: list[tuple[torch.Tensor, torch.Tensor]]
) -> None:
    gamma = network.get_parameter("1.weight").detach()
    expected = [(gamma * _gradients(network, *batch)["1.weight"]) ** 2 for batch in rows]
    verdict = gradients.taylor_gate(network, space, rows, device="cpu")
    close(scores(verdict, FIRST), torch.stack(expected).mean(0).numpy())


def test_fisher_squares_the_gradients_of_single_samples(
    network: nn.Sequential, space: SearchSpace, rows: list[tuple[torch.Tensor, torch.Tensor]]
) -> None:
    squares: dict[str, torch.Tensor] = {}
    for images, labels in rows:
        for one, label in zip(images, labels, strict=True):
            for name, grad in _gradients(network, one[None], label[None]).items():
                squares[name] = squares.get(name, torch.zeros_like(grad)) + grad**2
    held = {name: parameter.detach() for name, parameter in network.named_parameters()}
    curved = {name: 0.5 * held[name] ** 2 * squares[name] / 240 for name in held}
    verdict = gradients.fisher(network, space, rows, device="cpu")
    close(scores(verdict, FIRST), _first_group(network, curved).sum(1).numpy())


def test_snip_is_a_share_over_the_whole_network(
    network: nn.Sequential, space: SearchSpace, rows: list[tuple[torch.Tensor, torch.Tensor]]
) -> None:
    verdict = gradients.snip(network, space, rows, device="cpu")
    images, labels = torch.cat([i for i, _ in rows]), torch.cat([y for _, y in rows])
    expected = _products(network, _gradients(network, images, labels)).abs().sum(1).numpy()
    found = scores(verdict, FIRST)
    close(share(found), share(expected))
    assert found.sum() + scores(verdict, SECOND).sum() == pytest.approx(1)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6])
def test_synflow_is_conserved_from_layer_to_layer(
    rows: list[tuple[torch.Tensor, torch.Tensor]], activation: type[nn.Module]
) -> None:
    chain = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), activation(), nn.Conv2d(6, 10, 3),
        activation(), nn.Conv2d(10, 7, 1), activation(), nn.Flatten(), nn.Linear(7 * 36, 5),
    ).eval()  # fmt: skip
    found = prunas.trace(chain, IMAGE)
    verdict = gradients.synflow(chain, found, rows, device="cpu")
    assert [scores(verdict, gene).sum() for gene in range(3)] == pytest.approx([1.0] * 3, rel=1e-12)


def test_synflow_is_the_product_of_absolute_weights() -> None:
    layers = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double().eval()
    space = prunas.trace(layers, example=torch.zeros(1, 3, dtype=torch.float64))
    first, second = (layers.get_parameter(f"{i}.weight").detach().abs() for i in (0, 2))
    paths = second.sum(0) * first.sum(1)
    verdict = gradients.synflow(layers, space, [torch.zeros(1, 3)], device="cpu")
    close(scores(verdict, 0), (paths / paths.sum()).numpy())


# -- activations -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def read(
    network: nn.Sequential, rows: list[tuple[torch.Tensor, torch.Tensor]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the second convolution and the classifier are given: (240, 8, 8, 8) and (240, 16)."""
    images = torch.cat([images for images, _ in rows])
    with torch.no_grad():
        return network[:3](images), network[:7](images)


def _to_one(values: torch.Tensor) -> Array:
    return np.asarray((values / values.max()).numpy())


def test_statistics_of_activations(
    network: nn.Sequential,
    space: SearchSpace,
    rows: list[tuple[torch.Tensor, torch.Tensor]],
    read: tuple[torch.Tensor, torch.Tensor],
) -> None:
    maps, pooled = read
    expected: dict[Callable[..., Verdict], tuple[Array, Array]] = {
        activations.apoz: (
            (maps != 0).double().mean((0, 2, 3)).numpy(),
            (pooled != 0).double().mean(0).numpy(),
        ),
        activations.mean_activation: (
            _to_one(maps.abs().mean((0, 2, 3))),
            _to_one(pooled.abs().mean(0)),
        ),
        activations.zero_channel: (_to_one(maps.abs().amax((0, 2, 3))), _to_one(pooled.amax(0))),
    }
    for criterion, values in expected.items():
        verdict = criterion(network, space, rows, device="cpu")
        close(scores(verdict, FIRST), values[FIRST])
        close(scores(verdict, SECOND), values[SECOND])


def test_entropy(
    network: nn.Sequential,
    space: SearchSpace,
    rows: list[tuple[torch.Tensor, torch.Tensor]],
    read: tuple[torch.Tensor, torch.Tensor],
) -> None:
    expected = []
    for column in read[1].T.numpy():
        counts = np.histogram(column, 100)[0]
        expected.append(sum(-c / 240 * math.log(c / 240) for c in counts if c))
    close(scores(activations.entropy(network, space, rows, device="cpu"), SECOND), expected)


def test_hrank(
    network: nn.Sequential,
    space: SearchSpace,
    rows: list[tuple[torch.Tensor, torch.Tensor]],
    read: tuple[torch.Tensor, torch.Tensor],
) -> None:
    maps = read[0]
    expected = np.array(
        [
            np.mean([np.linalg.matrix_rank(maps[n, c].float()) / 8 for n in range(240)])
            for c in range(8)
        ]
    )
    verdict = activations.hrank(network, space, rows, device="cpu")
    close(scores(verdict, FIRST), expected)
    assert "maps of two dimensions" in verdict.reasons[SECOND]


def test_wanda_and_flap(
    network: nn.Sequential,
    space: SearchSpace,
    rows: list[tuple[torch.Tensor, torch.Tensor]],
    read: tuple[torch.Tensor, torch.Tensor],
) -> None:
    maps = read[0]
    weight = network.get_parameter("3.weight").detach()
    norms, spread = (maps**2).mean((0, 2, 3)).sqrt(), maps.var((0, 2, 3), correction=0)
    wanda = share((norms * weight.abs().sum((0, 2, 3))).numpy())
    flap = share((spread * (weight**2).sum((0, 2, 3))).numpy())
    close(scores(activations.wanda(network, space, rows, device="cpu"), FIRST), wanda)
    close(scores(activations.flap(network, space, rows, device="cpu"), FIRST), flap)


def test_taylor_of_activations(
    network: nn.Sequential, space: SearchSpace, rows: list[tuple[torch.Tensor, torch.Tensor]]
) -> None:
    total = torch.zeros(8, dtype=torch.float64)
    for images, labels in rows:
        for image, label in zip(images, labels, strict=True):
            z = network[:3](image[None]).detach().requires_grad_()
            F.cross_entropy(network[3:](z), label[None]).backward()
            assert z.grad is not None
            total += (z.detach() * z.grad).sum((0, 2, 3)).abs()
    verdict = activations.taylor_activation(network, space, rows, device="cpu")
    close(scores(verdict, FIRST), (total / total.norm()).numpy())


# -- dependence ------------------------------------------------------------------------------------


def test_selectors_of_discriminant_information(
    network: nn.Sequential,
    space: SearchSpace,
    rows: list[tuple[torch.Tensor, torch.Tensor]],
    read: tuple[torch.Tensor, torch.Tensor],
) -> None:
    labels = torch.cat([labels for _, labels in rows])
    scatter = Scatter.of(read[0].mean((2, 3)).numpy(), np.eye(5)[labels]).balanced()
    total = scatter.target_total
    path = eliminate(scatter)

    def found(selector: str) -> Array:
        verdict = dependence.discriminant(
            network,
            space,
            rows,
            device="cpu",
            selector=selector,  # type: ignore[arg-type]
        )
        return scores(verdict, FIRST)

    close(found("sequential"), scores_of(path) / total)
    close(found("leave_out"), leave_out(scatter) / total)
    close(found("single"), stand_alone(scatter) / total)


def test_pooled_features_leave_together(
    network: nn.Sequential,
    space: SearchSpace,
    rows: list[tuple[torch.Tensor, torch.Tensor]],
    read: tuple[torch.Tensor, torch.Tensor],
) -> None:
    labels = torch.cat([labels for _, labels in rows])
    features = F.adaptive_avg_pool2d(read[0], 2).flatten(1).numpy()
    scatter = Scatter.of(features, np.eye(5)[labels]).balanced()
    groups = [np.arange(4 * c, 4 * c + 4) for c in range(8)]
    verdict = dependence.discriminant(network, space, rows, device="cpu", pool=2)
    close(scores(verdict, FIRST), scores_of(eliminate(scatter, groups)) / scatter.target_total)


def test_before_the_activation(
    network: nn.Sequential, space: SearchSpace, rows: list[tuple[torch.Tensor, torch.Tensor]]
) -> None:
    images, labels = torch.cat([i for i, _ in rows]), torch.cat([y for _, y in rows])
    with torch.no_grad():
        features = network[0](images).mean((2, 3)).numpy()
    scatter = Scatter.of(features, np.eye(5)[labels]).balanced()
    verdict = dependence.discriminant(network, space, rows, device="cpu", before=True)
    close(scores(verdict, FIRST), scores_of(eliminate(scatter)) / scatter.target_total)


def test_the_output_as_target_needs_no_labels(
    network: nn.Sequential,
    space: SearchSpace,
    rows: list[tuple[torch.Tensor, torch.Tensor]],
    read: tuple[torch.Tensor, torch.Tensor],
) -> None:
    images = [images for images, _ in rows]
    with torch.no_grad():
        answers = network(torch.cat(images)).softmax(1).numpy()
    scatter = Scatter.of(read[1].numpy(), answers).balanced()
    verdict = dependence.discriminant(network, space, images, device="cpu", aim="output")
    close(scores(verdict, SECOND), scores_of(eliminate(scatter)) / scatter.target_total)


@pytest.mark.parametrize("selector", ["sequential", "single", "leave_out", "differential"])
@pytest.mark.parametrize("offset", [0.0, -7.0, 7.0, 1000.0])
def test_real_targets_are_taken_as_they_are(
    network: nn.Sequential,
    space: SearchSpace,
    rows: list[tuple[torch.Tensor, torch.Tensor]],
    read: tuple[torch.Tensor, torch.Tensor],
    selector: dependence.Selector,
    offset: float,
) -> None:
    """What constant is added to them does not matter; columns weigh by their variance."""
    images = torch.cat([images for images, _ in rows])
    real = torch.stack([images[:, 0].mean((1, 2)), 3 * images[:, 1].std((1, 2))], 1)
    parts = list(zip(images.split(80), (real + offset).split(80), strict=True))
    verdict = dependence.discriminant(network, space, parts, device="cpu", selector=selector)
    scatter = Scatter.of(read[1].numpy(), real.numpy())
    ridge = relative_ridge(scatter)
    expected = {
        "sequential": lambda: scores_of(eliminate(scatter)),
        "single": lambda: stand_alone(scatter, ridge=ridge),
        "leave_out": lambda: leave_out(scatter, ridge=ridge),
        "differential": lambda: differential(scatter, ridge=ridge),
    }[selector]()
    close(scores(verdict, SECOND), expected / scatter.target_total, rtol=1e-7)


@pytest.mark.parametrize("real", [False, True])
def test_targets_with_positions_make_locations_the_samples(real: bool) -> None:
    layers = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 1))
    network = layers.double().eval()
    space = prunas.trace(network, IMAGE)
    images = torch.randn(20, *IMAGE, dtype=torch.float64)
    labels = (images[:, 0] > 0).long() + (images[:, 1] > 0).long()
    targets = F.one_hot(labels, 4).movedim(-1, 1).double() if real else labels
    with torch.no_grad():
        features = network[:2](images).movedim(1, -1).flatten(0, 2).numpy()
    scatter = Scatter.of(features, np.eye(4)[labels.flatten()]).balanced()
    verdict = dependence.discriminant(network, space, [(images, targets)], device="cpu")
    close(scores(verdict, 0), scores_of(eliminate(scatter)) / scatter.target_total)


def test_flat_features_are_the_derivative_of_the_authors_form(
    network: nn.Sequential, space: SearchSpace, rows: list[tuple[torch.Tensor, torch.Tensor]]
) -> None:
    """|d trace(Ky (K + 0.1 I)^-1) / d mask| * rho / TSS, by autograd, pre-normalisation."""
    expected = torch.zeros(8, dtype=torch.float64)
    for images, labels in rows:
        with torch.no_grad():
            maps = network[0](images)
        mask = torch.ones(8, dtype=torch.float64, requires_grad=True)
        X = (maps * mask[:, None, None]).flatten(1)
        X = X - X.mean(0)
        Y = F.one_hot(labels, 5).double()
        Y = Y - Y.mean(0)
        eye = torch.eye(len(X), dtype=torch.float64)
        value = torch.trace(Y @ Y.T @ torch.linalg.inv(X @ X.T + 0.1 * eye))
        (slope,) = torch.autograd.grad(value, mask)
        expected += slope.abs() * 0.1 / (Y**2).sum() / len(rows)
    verdict = dependence.flat_discriminant(network, space, rows, device="cpu")
    close(scores(verdict, FIRST), expected.numpy(), rtol=1e-7)


def test_hsic(
    network: nn.Sequential,
    space: SearchSpace,
    rows: list[tuple[torch.Tensor, torch.Tensor]],
    read: tuple[torch.Tensor, torch.Tensor],
) -> None:
    images = torch.cat([images for images, _ in rows])
    with torch.no_grad():
        answers = network(images).softmax(1).numpy()
    H = np.eye(240) - 1 / 240
    expected = []
    for column in read[1].T.numpy():
        x = (column - column.mean()) / column.std()
        squares = (x[:, None] - x) ** 2
        K = np.mean([np.exp(-squares / (2 * s**2)) for s in (1, 2, 4, 8, 16)], axis=0)
        expected.append(np.trace(H @ K @ H @ answers @ answers.T) / 240**2)
    verdict = dependence.hsic(network, space, rows, device="cpu")
    close(scores(verdict, SECOND), expected, rtol=1e-7)


def losses_after_refit(X: Array, Y: Array, groups: Groups) -> list[float]:
    """For every group the share of Y that least squares on the other columns leave unexplained."""
    losses = []
    for group in groups:
        left = np.delete(X, group, axis=1)
        refit = left @ np.linalg.lstsq(left, Y)[0]
        losses.append(float(((Y - refit) ** 2).sum() / (Y**2).sum()))
    return losses


def test_reconstruction_is_what_a_refit_cannot_make_good(
    network: nn.Sequential,
    space: SearchSpace,
    rows: list[tuple[torch.Tensor, torch.Tensor]],
    read: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """Of the classifier: least squares on the inputs that are left, for the first removal."""
    X = (read[1] - read[1].mean(0)).numpy()
    Y = X @ network.get_parameter("7.weight").detach().numpy().T
    losses = losses_after_refit(X, Y, [np.array([channel]) for channel in range(16)])
    verdict = reconstruction.reconstruction(network, space, rows, device="cpu", ridge_share=1e-12)
    elimination = verdict.eliminations[SECOND]
    assert elimination is not None
    assert elimination.order[0] == int(np.argmin(losses))
    assert elimination.drops[0] == pytest.approx(min(losses), rel=1e-5)


def test_reconstruction_of_a_convolution_takes_its_patches(
    network: nn.Sequential,
    space: SearchSpace,
    rows: list[tuple[torch.Tensor, torch.Tensor]],
    read: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """The second convolution at stride 2 gives 4 x 4; patches are taken at every second one."""
    columns = F.unfold(read[0], 3, padding=1, stride=4).movedim(1, 2).flatten(0, 1).numpy()
    X = columns - columns.mean(0)
    Y = X @ filters(network, 3).T
    losses = losses_after_refit(X, Y, [np.arange(9 * c, 9 * c + 9) for c in range(8)])
    verdict = reconstruction.reconstruction(network, space, rows, device="cpu", ridge_share=1e-12)
    elimination = verdict.eliminations[FIRST]
    assert elimination is not None
    assert elimination.order[0] == int(np.argmin(losses))
    assert elimination.drops[0] == pytest.approx(min(losses), rel=1e-4)


def test_channels_that_are_zero_can_go_without_a_trace(
    network: nn.Sequential, space: SearchSpace, rows: list[tuple[torch.Tensor, torch.Tensor]]
) -> None:
    dead = copy.deepcopy(network)
    with torch.no_grad():
        dead.get_parameter("1.bias")[[2, 5]] = -100.0
    fine = prunas.trace(dead, IMAGE, grid="every")
    verdict = activations.zero_channel(dead, fine, rows, device="cpu")
    elimination = verdict.eliminations[FIRST]
    assert elimination is not None
    assert elimination.order[:2] == (2, 5)
    assert elimination.drops[:2] == (0.0, 0.0)
    assert elimination.drops[2] > 0
    orders = [elimination.order[::-1], range(16)]
    small = prunas.cut(
        prunas.permute(dead, fine, orders), fine, fine.candidate([6, *fine.full()[1:]])
    )
    with torch.no_grad():
        for images, _ in rows:
            torch.testing.assert_close(small(images), dead(images), rtol=1e-12, atol=1e-12)


def test_of_twins_one_survives(
    network: nn.Sequential, space: SearchSpace, rows: list[tuple[torch.Tensor, torch.Tensor]]
) -> None:
    """One shot gives both nothing; the elimination removes one first and the other late."""
    doubled = copy.deepcopy(network)
    best = most_telling(doubled, space, rows)
    worst = (best + 1) % 16
    with torch.no_grad():
        for name in ("3.weight", "3.bias"):
            parameter = doubled.get_parameter(name)
            parameter[worst] = parameter[best]
    one_shot = dependence.discriminant(
        doubled, space, rows, device="cpu", selector="leave_out", ridge_share=1e-8
    )
    values = scores(one_shot, SECOND)
    assert set(np.argsort(values)[:2].tolist()) == {best, worst}
    path = dependence.discriminant(doubled, space, rows, device="cpu", ridge_share=1e-8)
    elimination = path.eliminations[SECOND]
    assert elimination is not None
    places = sorted(elimination.order.index(twin) for twin in (best, worst))
    assert places[0] == 0
    assert places[1] > 8


def most_telling(
    network: nn.Sequential, space: SearchSpace, rows: list[tuple[torch.Tensor, torch.Tensor]]
) -> int:
    verdict = dependence.discriminant(network, space, rows, device="cpu", ridge_share=1e-8)
    elimination = verdict.eliminations[SECOND]
    assert elimination is not None
    return elimination.order[-1]
