"""Curvature of the answers by what layers give, and the criterion that weighs targets with it."""

import copy
from functools import reduce

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

import prunas
from prunas.errors import InputError
from prunas.eval.criteria.curvature import answer_curvatures
from prunas.eval.criteria.dependence import discriminant
from prunas.eval.criteria.divergence import Moments, curved_discriminant
from prunas.eval.criteria.observe import by_gene
from prunas.eval.criteria.patches import patches, readers
from prunas.eval.criteria.reconstruction import reconstruction
from prunas.eval.criteria.verdict import Criterion, scores_of
from prunas.supernet.space import SearchSpace
from tests.supernet.networks import plain_chain

IMAGE = (3, 8, 8)
FIRST, SECOND = 0, 1  # genes: 8 channels of the first convolution, 16 of the second
CONVOLUTION, CLASSIFIER = "3", "7"


@pytest.fixture(scope="module")
def network() -> nn.Sequential:
    return plain_chain().double()


@pytest.fixture(scope="module")
def space(network: nn.Sequential) -> SearchSpace:
    return prunas.trace(network, IMAGE)


def images(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, *IMAGE, generator=generator, dtype=torch.float64)


def curvatures(
    network: nn.Module, rows: torch.Tensor, seed: int = 0
) -> dict[str, NDArray[np.float64]]:
    generator = torch.Generator().manual_seed(seed)
    names = [CONVOLUTION, CLASSIFIER]
    return answer_curvatures(network, names, rows, device="cpu", generator=generator)


def hessian(network: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """diag(p) - p p^T of the answers for one image."""
    p = network(image[None])[0].softmax(0)
    return torch.diag(p) - torch.outer(p, p)


def test_of_the_classifier_it_is_the_hessian_of_the_divergence(network: nn.Sequential) -> None:
    """In the mean over directions: here 4,000 for each of two images."""
    pair = images(2)
    found = curvatures(network, pair.repeat(4000, 1, 1, 1))[CLASSIFIER] / 4000
    with torch.no_grad():
        expected = sum(hessian(network, image) for image in pair)
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_of_a_convolution_it_sums_what_its_positions_do(network: nn.Sequential) -> None:
    """sum over positions of J^T (diag p - p p^T) J, J of the logits by the convolution's output."""
    image = images(1)
    with torch.no_grad():
        given = network[:4](image)
        middle = hessian(network, image[0])
    jacobian = torch.autograd.functional.jacobian(network[4:], given)
    J = jacobian[0, :, 0].flatten(2)  # (logits, channels, positions)
    expected = torch.einsum("acp,ab,bdp->cd", J, middle, J)
    found = curvatures(network, image.repeat(4000, 1, 1, 1))[CONVOLUTION] / 4000
    np.testing.assert_allclose(found, expected, atol=0.05 * float(expected.abs().max()))


def test_batches_add_up(network: nn.Sequential) -> None:
    generator = torch.Generator().manual_seed(0)
    parts = [
        answer_curvatures(network, [CLASSIFIER], part, device="cpu", generator=generator)
        for part in images(48).split(16)
    ]
    together = curvatures(network, images(48))[CLASSIFIER]
    np.testing.assert_allclose(sum(part[CLASSIFIER] for part in parts), together, rtol=1e-9)


def test_what_changes_an_output_in_place_is_not_seen(network: nn.Sequential) -> None:
    overwriting = copy.deepcopy(network)
    for module in overwriting:
        if isinstance(module, nn.ReLU):
            module.inplace = True
    one, other = curvatures(network, images(8)), curvatures(overwriting, images(8))
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_the_first_removal_costs_what_a_refit_leaves(
    network: nn.Sequential, space: SearchSpace
) -> None:
    """1/2 trace(G E), E the mean residual products of least squares, channel by channel."""
    rows = images(300)
    with torch.no_grad():
        X = network[:7](rows).numpy()
    X = X - X.mean(0)
    Y = X @ network.get_parameter("7.weight").detach().numpy().T
    G = curvatures(network, rows)[CLASSIFIER] / 300
    losses = []
    for channel in range(16):
        left = np.delete(X, channel, axis=1)
        residual = Y - left @ np.linalg.lstsq(left, Y)[0]
        losses.append(float(np.trace(G @ residual.T @ residual) / 300 / 2))
    verdict = curved_discriminant(network, space, [rows], device="cpu", ridge_share=1e-12)
    elimination = verdict.eliminations[SECOND]
    assert elimination is not None
    assert elimination.order[0] == int(np.argmin(losses))
    assert elimination.drops[0] == pytest.approx(min(losses), rel=1e-5)


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_moments_of_parts_are_those_of_the_whole(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [100 + rng.standard_normal((size, 3, 4)) for size in sizes]
    together = reduce(Moments.merge, map(Moments.of, parts))
    rows = np.concatenate(parts) - np.concatenate(parts).mean(0)
    assert together.count == len(rows)
    np.testing.assert_allclose(
        together.channels, np.einsum("nct,ndt->cd", rows, rows), rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(
        together.taps, np.einsum("nct,ncu->tu", rows, rows), rtol=1e-9, atol=1e-9
    )


def test_a_filter_of_several_taps_is_refitted_under_factored_covariance(
    network: nn.Sequential, space: SearchSpace
) -> None:
    """The second convolution: 1/2 trace(G W (H - H_S (H_SS)^-1 H_S^T) W^T), H = A x B per row."""
    rows = images(60)
    (tap,) = (tap for tap in space.taps if tap.module == CONVOLUTION)
    ((_, found),) = patches(network, [tap], rows, "cpu")
    moments = Moments.of(found[:, 0])
    H = np.kron(moments.channels, moments.taps / np.trace(moments.taps)) / moments.count
    W = network.get_parameter("3.weight").detach().flatten(1).numpy()
    G = curvatures(network, rows)[CONVOLUTION] / 60
    losses = []
    for channel in range(8):
        left = np.delete(np.arange(72), range(9 * channel, 9 * channel + 9))
        gone = H - H[:, left] @ np.linalg.solve(H[np.ix_(left, left)], H[left])
        losses.append(float(np.trace(G @ W @ gone @ W.T)) / 2)
    verdict = curved_discriminant(network, space, [rows], device="cpu", ridge_share=1e-12)
    elimination = verdict.eliminations[FIRST]
    assert elimination is not None
    assert elimination.order[0] == int(np.argmin(losses))
    assert elimination.drops[0] == pytest.approx(min(losses), rel=1e-4)


def test_what_nobody_listens_to_is_worth_nothing(
    network: nn.Sequential, space: SearchSpace
) -> None:
    """A classifier that looks at half of its channels: the others tell the labels, in vain."""
    deaf = copy.deepcopy(network)
    with torch.no_grad():
        deaf.get_parameter("7.weight")[:, :8] = 0
    pairs = [(images(300), torch.arange(300) % 5)]
    curved = curved_discriminant(deaf, space, pairs, device="cpu").eliminations[SECOND]
    plain = discriminant(deaf, space, pairs, device="cpu", selector="leave_out")
    judged = plain.eliminations[SECOND]
    assert curved is not None
    assert judged is not None
    assert set(curved.order[:8]) == set(range(8))
    assert max(curved.drops[:8]) < 1e-3 * max(curved.drops)
    assert scores_of(judged)[:8].max() > 0.1 * scores_of(judged).max()


def test_answers_that_do_not_depend_on_a_layer_have_no_curvature() -> None:
    class Deaf(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heard, self.unheard = nn.Linear(4, 3), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.unheard(x)
            return self.heard(x)  # type: ignore[no-any-return]

    network, generator = Deaf(), torch.Generator()
    found = answer_curvatures(
        network, ["heard", "unheard"], torch.randn(5, 4), device="cpu", generator=generator
    )
    assert np.trace(found["heard"]) > 0
    assert np.array_equal(found["unheard"], np.zeros((2, 2)))


def test_a_gradient_without_end_is_refused_by_name() -> None:
    class Root(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (0 * x).sqrt()  # its slope at 0 has no end

    network = nn.Sequential(nn.Linear(4, 3), Root(), nn.Linear(3, 2))
    with pytest.raises(InputError, match="layer '0' gives is NaN or infinite"):
        answer_curvatures(
            network, ["0"], torch.randn(9, 4), device="cpu", generator=torch.Generator()
        )


class _Bins(nn.Module):
    """Its outputs have no gradient by its inputs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.bucketize(x, torch.linspace(-1, 1, 5)).float()


class _Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).detach()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("network", "rows", "words"),
    [
        (nn.Linear(4, 1), torch.randn(5, 4), "does not give logits of two or more classes"),
        (nn.LSTM(4, 3), torch.randn(5, 4), "does not give logits of two or more classes"),
        (_Detached(), torch.randn(5, 4), "cannot be differentiated"),
        (nn.Sequential(_Bins(), nn.Linear(4, 3)), torch.randn(5, 4), "cannot be differentiated"),
        (nn.Linear(4, 3), torch.randn(5, 4).double(), "does not run on images of shape"),
        (nn.Linear(4, 3), torch.zeros(5, 4, dtype=torch.uint8), "type torch.uint8"),
    ],
)
def test_answers_without_curvature_are_refused(
    network: nn.Module, rows: torch.Tensor, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        answer_curvatures(network, [], rows, device="cpu", generator=torch.Generator())


def test_a_grouped_convolution_is_several_layers_side_by_side() -> None:
    """Gene "0[2]": a channel of each of two groups, whose outputs are refitted apart."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        grouped = nn.Conv2d(8, 12, 1, groups=2, bias=False)
        layers = (nn.Conv2d(3, 8, 3), nn.ReLU(), grouped, nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(12, 4)).double().eval()
    space = prunas.trace(network, IMAGE)
    (gene,) = (g for g, known in enumerate(space.genes) if known.name == "0[2]")
    rows = images(100)
    with torch.no_grad():
        maps = network[:2](rows)
    chosen = maps[:, :, ::3, ::3]  # 2 x 2 of 6 x 6 positions
    X = chosen.movedim(1, -1).flatten(0, 2).numpy()
    X = X - X.mean(0)
    losses = np.zeros(4)
    for group in (0, 1):
        inputs = X[:, 4 * group : 4 * group + 4]
        weight = grouped.weight.detach().flatten(1).numpy()[6 * group : 6 * group + 6]
        Y = inputs @ weight.T
        for channel in range(4):
            left = np.delete(inputs, channel, axis=1)
            residual = Y - left @ np.linalg.lstsq(left, Y)[0]
            losses[channel] += (residual**2).sum() / (Y**2).sum()
    verdict = reconstruction(network, space, [rows], device="cpu", ridge_share=1e-12)
    elimination = verdict.eliminations[gene]
    assert elimination is not None
    assert elimination.order[0] == int(np.argmin(losses))
    assert elimination.drops[0] == pytest.approx(losses.min(), rel=1e-6)
    assert not verdict.reasons
    judges = by_gene(space, readers(network, space))
    by_name = {space.genes[g].name: {t.module for t in taps} for g, taps in enumerate(judges)}
    assert by_name["0[2]"] == {"2"}
    assert by_name["0"] == {"6"}  # a whole group, whose outputs go with it: seen behind them


@pytest.mark.parametrize("judge", [curved_discriminant, reconstruction])
def test_layers_that_pad_by_themselves_may_be_given_less_than_a_filter(judge: Criterion) -> None:
    """timm's Conv2dSame on a map of 2 x 2."""
    layers = (nn.Conv2d(3, 8, 3, stride=4), nn.ReLU(), Conv2dSame(8, 8, 3), nn.ReLU())
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    space = prunas.trace(network.double().eval(), IMAGE)
    verdict = judge(network, space, [images(40)], device="cpu")
    assert not verdict.reasons


class _Windows(nn.Module):
    """A convolution on the four quarters of a map, each an image of its own."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.before, self.head = nn.Conv2d(3, 8, 1), nn.Linear(6, 4)
        self.inside = nn.Conv2d(8, 6, kernel, padding=kernel // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.before(x).relu()
        quarters = maps.unflatten(3, (2, 4)).unflatten(2, (2, 4)).permute(0, 2, 4, 1, 3, 5)
        given = self.inside(quarters.flatten(0, 2)).mean((2, 3)).relu()
        return self.head(given.unflatten(0, (-1, 4)).mean(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("judge", [curved_discriminant, reconstruction])
@pytest.mark.parametrize(("kernel", "judged"), [(1, True), (3, False)])
def test_windows_of_an_image(judge: Criterion, kernel: int, judged: bool) -> None:
    network = _Windows(kernel).double().eval()
    verdict = judge(network, prunas.trace(network, IMAGE), [images(40)], device="cpu")
    assert (verdict.eliminations[0] is not None) == judged
    assert verdict.eliminations[1] is not None
