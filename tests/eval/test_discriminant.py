"""Discriminant information against slow and obvious computations, in float64."""

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from prunas.errors import InputError
from prunas.eval.criteria.discriminant import (
    Elimination,
    Scatter,
    differential,
    discriminant_information,
    dual_differential,
    dual_discriminant_information,
    dual_leave_out,
    dual_stand_alone,
    eliminate,
    eliminate_jointly,
    fit,
    is_scarce,
    kernel_discriminant_information,
    leave_out,
    relative_ridge,
    stand_alone,
)

Array = NDArray[np.float64]
RIDGES = [1e-4, 1e-1, 10.0]
PAIRS = [np.arange(start, start + 4) for start in range(0, 40, 4)]


def labelled(n: int, d: int, classes: int, seed: int = 0) -> tuple[Array, Array]:
    """Correlated features with class structure, not centered, and one-hot labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    features = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) / np.sqrt(d)
    features += rng.normal(size=(classes, d))[labels] + 3
    return features, np.eye(classes)[labels]


def naive(features: Array, targets: Array, ridge: float) -> float:
    """DI from its definition, with numpy's general solver."""
    X, Y = features - features.mean(0), targets - targets.mean(0)
    cross = X.T @ Y
    if not X.shape[1]:
        return 0.0
    return float(np.trace(cross.T @ np.linalg.solve(X.T @ X + ridge * np.eye(X.shape[1]), cross)))


@pytest.fixture
def data() -> tuple[Array, Array]:
    return labelled(300, 40, 5)


@pytest.fixture
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class TestScatter:
    def test_streaming_equals_full_with_a_large_offset(self) -> None:
        features, targets = labelled(500, 12, 4)
        features += 50
        whole = Scatter.of(features, targets)
        parts = Scatter.of(features[:7], targets[:7])
        for start, stop in [(7, 8), (8, 200), (200, 500)]:
            parts = parts.add(features[start:stop], targets[start:stop])
        X, Y = features - features.mean(0), targets - targets.mean(0)
        for scatter in (whole, parts):
            np.testing.assert_allclose(scatter.total, X.T @ X, rtol=1e-10, atol=1e-10)
            np.testing.assert_allclose(scatter.cross, X.T @ Y, rtol=1e-10, atol=1e-10)
            np.testing.assert_allclose(scatter.target_total, (Y * Y).sum(), rtol=1e-12)
            np.testing.assert_allclose(scatter.feature_mean, features.mean(0), rtol=1e-12)
            assert scatter.count == 500

    @settings(max_examples=30, deadline=None)
    @given(cut=st.integers(1, 59), seed=st.integers(0, 1000))
    def test_merge_is_the_scatter_of_both_in_either_order(self, cut: int, seed: int) -> None:
        features, targets = labelled(60, 5, 3, seed)
        left = Scatter.of(features[:cut], targets[:cut])
        right = Scatter.of(features[cut:], targets[cut:])
        whole = Scatter.of(features, targets)
        for merged in (left.merge(right), right.merge(left)):
            np.testing.assert_allclose(merged.total, whole.total, atol=1e-10)
            np.testing.assert_allclose(merged.cross, whole.cross, atol=1e-10)
            np.testing.assert_allclose(merged.target_mean, whole.target_mean, atol=1e-12)

    def test_balanced_is_one_hot_over_root_count_without_absent_classes(self) -> None:
        features, targets = labelled(200, 6, 4)
        wide = np.hstack([targets, np.zeros((200, 3))])  # three classes that never occur
        balanced = Scatter.of(features, wide).balanced()
        expected = Scatter.of(features, targets / np.sqrt(targets.sum(0)))
        np.testing.assert_allclose(balanced.cross, expected.cross, rtol=1e-10)
        np.testing.assert_allclose(balanced.target_squares, expected.target_squares, rtol=1e-10)
        np.testing.assert_allclose(balanced.target_mean, expected.target_mean, rtol=1e-12)

    def test_balanced_gives_the_classical_between_class_scatter(self) -> None:
        features, targets = labelled(200, 6, 4)
        labels = targets.argmax(1)
        between = np.zeros((6, 6))
        for c in range(4):
            offset = features[labels == c].mean(0) - features.mean(0)
            between += (labels == c).sum() * np.outer(offset, offset)
        balanced = Scatter.of(features, targets).balanced()
        np.testing.assert_allclose(balanced.cross @ balanced.cross.T, between, rtol=1e-9)
        assert balanced.target_total == pytest.approx(3)  # classes - 1

    @pytest.mark.parametrize(
        ("features", "targets", "words"),
        [
            (np.zeros((3, 2)), np.zeros((4, 2)), "same one or more samples"),
            (np.zeros(3), np.zeros((3, 2)), "same one or more samples"),
            (np.zeros((0, 2)), np.zeros((0, 2)), "same one or more samples"),
            (np.array([[np.nan]]), np.ones((1, 1)), "NaN or infinite"),
            (np.ones((1, 1)), np.array([[np.inf]]), "NaN or infinite"),
        ],
    )
    def test_refuses_what_is_no_data(self, features: Array, targets: Array, words: str) -> None:
        with pytest.raises(InputError, match=words):
            Scatter.of(features, targets)

    def test_refuses_to_merge_another_layer(self) -> None:
        with pytest.raises(InputError, match="cannot be merged"):
            Scatter.of(*labelled(20, 3, 2)).merge(Scatter.of(*labelled(20, 4, 2)))

    @pytest.mark.parametrize("offset", [0.0, -3.0, 100.0])
    def test_real_targets_are_not_balanced(self, offset: float) -> None:
        features, targets = labelled(200, 6, 4)
        real = 2.0 * targets + offset
        balanced = Scatter.of(features, real).balanced()
        expected = Scatter.of(features, 2.0 * targets)
        np.testing.assert_allclose(balanced.cross, expected.cross, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(balanced.target_squares, expected.target_squares, rtol=1e-9)

    def test_probabilities_are_balanced_if_they_are_in_every_part(self) -> None:
        features, targets = labelled(200, 6, 4)
        soft = 0.9 * targets + 0.025
        part = Scatter.of(
            features[:80], soft[:80].astype(np.float16)
        )  # sums are 1 but for rounding
        assert part.merge(Scatter.of(features[80:], soft[80:])).probabilities
        mixed = part.merge(Scatter.of(features[80:], soft[80:] - 1))
        assert mixed.balanced() is mixed


class TestIdentities:
    @pytest.mark.parametrize("ridge", RIDGES)
    def test_ridge_regression_identities(self, data: tuple[Array, Array], ridge: float) -> None:
        X, Y = (part - part.mean(0) for part in data)
        scatter = Scatter.of(*data)
        W = fit(scatter, ridge=ridge).weights
        residual = ((Y - X @ W) ** 2).sum()
        tss, di = scatter.target_total, discriminant_information(scatter, ridge=ridge)
        assert di == pytest.approx(naive(*data, ridge), rel=1e-10)
        assert di == pytest.approx(tss - (residual + ridge * (W * W).sum()), rel=1e-10)
        assert di == pytest.approx((Y * (X @ W)).sum(), rel=1e-10)
        assert di + ridge * (W * W).sum() == pytest.approx(tss - residual, rel=1e-10)

    @pytest.mark.parametrize("ridge", [1e-1, 10.0])
    def test_dual_equals_primal(self, data: tuple[Array, Array], ridge: float) -> None:
        primal = discriminant_information(Scatter.of(*data), ridge=ridge)
        assert dual_discriminant_information(*data, ridge=ridge) == pytest.approx(primal, rel=1e-8)

    @settings(max_examples=40, deadline=None)
    @given(
        n=st.integers(30, 80),
        d=st.integers(1, 6),
        classes=st.integers(2, 5),
        ridge=st.floats(1e-3, 1e2),
        seed=st.integers(0, 10**6),
    )
    def test_laws(self, n: int, d: int, classes: int, ridge: float, seed: int) -> None:
        features, targets = labelled(n, d, classes, seed)
        rng = np.random.default_rng(seed)
        scatter = Scatter.of(features, targets)
        di = discriminant_information(scatter, ridge=ridge)
        assert 0 <= di <= scatter.target_total
        assert discriminant_information(scatter.balanced(), ridge=ridge) <= classes - 1
        assert discriminant_information(scatter, ridge=2 * ridge) <= di
        assert naive(features[:, 1:], targets, ridge) <= di + 1e-9
        same = {
            "offsets": (features + 7, targets - 2),
            "sample order": (features[::-1], targets[::-1]),
            "orthogonal mixing": (features @ np.linalg.qr(rng.normal(size=(d, d)))[0], targets),
            "class names": (features, targets[:, ::-1]),
        }
        for what, (X, Y) in same.items():
            assert naive(X, Y, ridge) == pytest.approx(di, rel=1e-8), what
            other = discriminant_information(Scatter.of(X, Y), ridge=ridge)
            assert other == pytest.approx(di, rel=1e-8), what
        scaled = discriminant_information(Scatter.of(3 * features, targets), ridge=9 * ridge)
        assert scaled == pytest.approx(di, rel=1e-8)

    def test_features_without_information_explain_d_over_n_minus_one(self) -> None:
        """At rho -> 0, E[DI] / TSS = d / (N - 1) if features do not depend on the labels."""
        n, d, draws = 200, 20, 60
        rng = np.random.default_rng(1)
        shares = []
        for _ in range(draws):
            scatter = Scatter.of(rng.normal(size=(n, d)), np.eye(4)[rng.integers(4, size=n)])
            di = discriminant_information(scatter, ridge=1e-9)
            shares.append(di / scatter.target_total)
        error = np.std(shares, ddof=1) / np.sqrt(draws)
        assert abs(np.mean(shares) - d / (n - 1)) < 3 * error

    def test_ridge_default_is_relative_to_the_mean_scatter(self) -> None:
        features, targets = labelled(100, 8, 3)
        scatter = Scatter.of(features, targets)
        expected = 1e-2 * features.var(0).mean() * 100
        assert relative_ridge(scatter) == pytest.approx(expected)
        assert fit(scatter).ridge == relative_ridge(scatter)
        scaled = Scatter.of(1000 * features, targets)
        assert discriminant_information(scaled) == pytest.approx(discriminant_information(scatter))

    def test_constant_features_explain_nothing(self) -> None:
        scatter = Scatter.of(np.ones((20, 3)), np.eye(2)[np.arange(20) % 2])
        assert discriminant_information(scatter) == 0
        assert eliminate(scatter) == Elimination((0, 1, 2), (0.0, 0.0, 0.0))


class TestLeaveOut:
    @pytest.mark.parametrize("ridge", RIDGES)
    def test_single_features_equal_recomputing(
        self, data: tuple[Array, Array], ridge: float
    ) -> None:
        features, targets = data
        full = naive(features, targets, ridge)
        expected = [full - naive(np.delete(features, j, 1), targets, ridge) for j in range(40)]
        found = leave_out(Scatter.of(*data), ridge=ridge)
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8 * full)

    @pytest.mark.parametrize("ridge", RIDGES)
    @pytest.mark.parametrize(
        "groups", [PAIRS, [np.arange(3), np.array([7]), np.array([], int), np.array([20, 1, 39])]]
    )
    def test_groups_equal_recomputing(
        self, data: tuple[Array, Array], groups: list[NDArray[np.int64]], ridge: float
    ) -> None:
        features, targets = data
        full = naive(features, targets, ridge)
        expected = [full - naive(np.delete(features, g, 1), targets, ridge) for g in groups]
        found = leave_out(Scatter.of(*data), groups, ridge=ridge)
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8 * full)

    @pytest.mark.parametrize("ridge", [1e-1, 10.0])
    @pytest.mark.parametrize("groups", [None, PAIRS])
    def test_dual_equals_primal(
        self, data: tuple[Array, Array], groups: list[NDArray[np.int64]] | None, ridge: float
    ) -> None:
        primal = leave_out(Scatter.of(*data), groups, ridge=ridge)
        dual = dual_leave_out(*data, groups, ridge=ridge)
        np.testing.assert_allclose(dual, primal, rtol=1e-8)

    def test_dead_channel_is_worth_exactly_nothing(self, data: tuple[Array, Array]) -> None:
        features, targets = data
        features[:, 11] = 2.5
        scatter = Scatter.of(features, targets)
        assert leave_out(scatter)[11] == 0
        assert differential(scatter)[11] == 0
        assert eliminate(scatter).order[0] == 11
        assert eliminate(scatter).drops[0] == 0

    def test_differential_is_the_derivative_and_at_most_twice_leave_out(
        self, data: tuple[Array, Array]
    ) -> None:
        features, targets = data
        scatter, ridge = Scatter.of(features, targets), 0.1
        mask = torch.ones(40, dtype=torch.float64, requires_grad=True)
        X = torch.from_numpy(features - features.mean(0)) * mask
        cross = X.T @ torch.from_numpy(targets - targets.mean(0))
        A = X.T @ X + ridge * torch.eye(40, dtype=torch.float64)
        (slope,) = torch.autograd.grad((cross * torch.linalg.solve(A, cross)).sum(), mask)
        found = differential(scatter, ridge=ridge)
        np.testing.assert_allclose(found, slope.numpy(), rtol=1e-9, atol=1e-9)
        by_pairs = differential(scatter, PAIRS, ridge=ridge)
        np.testing.assert_allclose(by_pairs, slope.numpy().reshape(10, 4).sum(1), rtol=1e-8)
        assert (found <= 2 * leave_out(scatter, ridge=ridge) * (1 + 1e-9)).all()
        assert (by_pairs <= 2 * leave_out(scatter, PAIRS, ridge=ridge) * (1 + 1e-9)).all()

    def test_stand_alone_is_di_of_each_group(self, data: tuple[Array, Array]) -> None:
        features, targets = data
        expected = [naive(features[:, group], targets, 0.1) for group in PAIRS]
        found = stand_alone(Scatter.of(*data), PAIRS, ridge=0.1)
        np.testing.assert_allclose(found, expected, rtol=1e-8)

    def test_refuses_groups_of_other_features(self, data: tuple[Array, Array]) -> None:
        with pytest.raises(InputError, match=r"features 3 to 40 of 0\.\.39"):
            leave_out(Scatter.of(*data), [np.array([3, 40])])


def eliminate_slowly(
    features: Array, targets: Array, groups: list[NDArray[np.int64]], ridge: float
) -> Elimination:
    """Recompute DI from nothing for every group at every step."""
    left, order, drops = list(range(len(groups))), [], []
    stay = np.ones(features.shape[1], dtype=bool)
    while left:
        full = naive(features[:, stay], targets, ridge)
        costs = []
        for group in left:
            rest = stay.copy()
            rest[groups[group]] = False
            costs.append(full - naive(features[:, rest], targets, ridge))
        best = left.pop(int(np.argmin(costs)))
        order.append(best)
        drops.append(min(costs))
        stay[groups[best]] = False
    return Elimination(tuple(order), tuple(drops))


class TestEliminate:
    @pytest.mark.parametrize("ridge", RIDGES)
    def test_downdates_equal_recomputing(self, data: tuple[Array, Array], ridge: float) -> None:
        singles = [np.array([feature]) for feature in range(40)]
        expected = eliminate_slowly(*data, singles, ridge)
        found = eliminate(Scatter.of(*data), ridge=ridge)
        assert found.order == expected.order
        np.testing.assert_allclose(found.drops, expected.drops, rtol=1e-8, atol=1e-9)

    @pytest.mark.parametrize(
        "groups",
        [
            PAIRS,
            [np.arange(3), np.array([7]), np.array([], int), np.array([20, 1, 39])],
            # a feature of two groups leaves with the first of them
            [np.array([0, 1, 2]), np.array([2, 3]), np.array([3, 4, 0]), np.array([9])],
        ],
    )
    def test_groups_equal_recomputing(
        self, data: tuple[Array, Array], groups: list[NDArray[np.int64]]
    ) -> None:
        expected = eliminate_slowly(*data, groups, 0.1)
        found = eliminate(Scatter.of(*data), groups, ridge=0.1)
        assert found.order == expected.order
        np.testing.assert_allclose(found.drops, expected.drops, rtol=1e-8, atol=1e-9)

    def test_more_classes_than_features(self) -> None:
        features, targets = labelled(300, 4, 9)
        expected = eliminate_slowly(features, targets, [np.array([i]) for i in range(4)], 0.1)
        found = eliminate(Scatter.of(features, targets), ridge=0.1)
        assert found.order == expected.order
        np.testing.assert_allclose(found.drops, expected.drops, rtol=1e-8)

    def test_refactorising_on_the_way_changes_nothing(self) -> None:
        features, targets = labelled(2800, 540, 6)  # beyond two refreshes, and folds between
        scatter = Scatter.of(features, targets)
        found = eliminate(scatter, ridge=1.0)
        stay = np.ones(540, dtype=bool)
        before = naive(features, targets, 1.0)
        for step, (feature, drop) in enumerate(zip(found.order, found.drops, strict=True)):
            stay[feature] = False
            if step % 60 == 0 or step > 535:
                after = naive(features[:, stay], targets, 1.0)
                total = sum(found.drops[: step + 1])
                assert before - after == pytest.approx(total, rel=1e-8)
            assert drop >= 0
        assert sum(found.drops) == pytest.approx(before, rel=1e-9)

    def test_of_twins_one_goes_for_nothing_and_the_other_then_counts(self) -> None:
        rng = np.random.default_rng(3)
        labels = rng.integers(4, size=2000)
        features = np.eye(4)[labels][:, :3] + rng.normal(size=(2000, 3))
        features = np.hstack([features, features[:, :1]])  # feature 3 is a twin of 0
        scatter = Scatter.of(features, np.eye(4)[labels]).balanced()
        alone = Scatter.of(features[:, :3], np.eye(4)[labels]).balanced()
        ridge = 1e-6
        one_shot, unique = leave_out(scatter, ridge=ridge), leave_out(alone, ridge=ridge)
        assert max(one_shot[0], one_shot[3]) < 1e-8
        found = eliminate(scatter, ridge=ridge)
        assert found.order[0] in (0, 3)
        assert found.drops[0] < 1e-8
        survivor = 3 if found.order[0] == 0 else 0
        rest = eliminate(alone, ridge=ridge)
        assert found.drops[1] == pytest.approx(min(unique), rel=1e-5)
        named = tuple(0 if feature == survivor else feature for feature in found.order[1:])
        assert named == rest.order

    def test_features_in_no_group_stay(self, data: tuple[Array, Array]) -> None:
        features, targets = data
        found = eliminate(Scatter.of(*data), PAIRS[:2], ridge=0.1)
        lost = naive(features, targets, 0.1) - naive(features[:, 8:], targets, 0.1)
        assert sum(found.drops) == pytest.approx(lost, rel=1e-8)

    def test_jointly_sums_shares_over_layers(self) -> None:
        """Layer b sees only the first two groups; each step against recomputing both layers."""
        a, targets = labelled(200, 6, 3, seed=1)
        b, _ = labelled(200, 4, 3, seed=2)
        scatters = [Scatter.of(a, targets), Scatter.of(b, targets).balanced()]
        balanced = targets / np.sqrt(targets.sum(0))
        seen = [
            [np.array([0, 1]), np.array([2, 3]), np.array([5])],
            [np.array([1]), np.array([2, 3]), np.array([], int)],
        ]
        found = eliminate_jointly([fit(scatter, ridge=0.5) for scatter in scatters], seen)

        def worth(left: set[int]) -> float:
            total = 0.0
            for X, Y, groups in ((a, targets, seen[0]), (b, balanced, seen[1])):
                gone = [groups[g] for g in range(3) if g not in left]
                rest = np.delete(X, np.concatenate([np.array([], int), *gone]), 1)
                total += naive(rest, Y, 0.5) / ((Y - Y.mean(0)) ** 2).sum()
            return total

        left = {0, 1, 2}
        for group, drop in zip(found.order, found.drops, strict=True):
            costs = {g: worth(left) - worth(left - {g}) for g in left}
            assert drop == pytest.approx(costs[group], rel=1e-8)
            assert group == min(costs, key=lambda g: costs[g])
            left.remove(group)

    def test_jointly_refuses_layers_that_disagree(self, data: tuple[Array, Array]) -> None:
        solved = fit(Scatter.of(*data))
        with pytest.raises(InputError, match="every layer needs"):
            eliminate_jointly([solved, solved], [PAIRS, PAIRS[:3]])
        with pytest.raises(InputError, match="every layer needs"):
            eliminate_jointly([], [])

    def test_is_deterministic(self, data: tuple[Array, Array]) -> None:
        assert eliminate(Scatter.of(*data)) == eliminate(Scatter.of(*data))


class TestRefusals:
    @pytest.mark.parametrize("ridge", [0.0, -1.0, float("nan")])
    def test_ridge_must_be_positive(self, data: tuple[Array, Array], ridge: float) -> None:
        with pytest.raises(InputError, match="ridge must be positive"):
            discriminant_information(Scatter.of(*data), ridge=ridge)

    def test_ridge_must_be_visible_in_float64(self) -> None:
        features, targets = labelled(100, 2, 2)
        twins = 1e9 * np.hstack([features, features])
        with pytest.raises(InputError, match="lost beside entries"):
            discriminant_information(Scatter.of(twins, targets), ridge=1e-12)

    def test_few_samples_warn_in_one_sentence(self) -> None:
        scatter = Scatter.of(*labelled(49, 10, 2))
        assert is_scarce(scatter)
        for ask in (discriminant_information, leave_out, eliminate):
            with pytest.warns(UserWarning, match="49 samples are few for 10 features"):
                ask(scatter)

    def test_five_samples_a_feature_are_enough(self) -> None:
        scatter = Scatter.of(*labelled(50, 10, 2))
        assert not is_scarce(scatter)
        discriminant_information(scatter)  # a warning would be an error here

    @pytest.mark.usefixtures("quiet")
    def test_saturation_when_features_outnumber_samples(self) -> None:
        rng = np.random.default_rng(0)
        scatter = Scatter.of(rng.normal(size=(30, 60)), np.eye(3)[rng.integers(3, size=30)])
        di = discriminant_information(scatter, ridge=1e-6)
        assert di == pytest.approx(scatter.target_total, rel=1e-4)
        assert leave_out(scatter, ridge=1e-6).sum() < 1e-3 * scatter.target_total


MAPS = [np.arange(start, start + 30) for start in range(0, 120, 30)]


@pytest.mark.parametrize("ridge", [0.1, 10.0])
def test_dual_forms_take_groups_wider_than_the_samples(ridge: float) -> None:
    features, targets = labelled(20, 120, 3)
    whole = naive(features, targets, ridge)
    drops = [whole - naive(np.delete(features, g, axis=1), targets, ridge) for g in MAPS]
    alone = [naive(features[:, g], targets, ridge) for g in MAPS]
    np.testing.assert_allclose(dual_leave_out(features, targets, MAPS, ridge=ridge), drops, 1e-8)
    np.testing.assert_allclose(dual_stand_alone(features, targets, MAPS, ridge=ridge), alone, 1e-8)


@pytest.mark.parametrize("groups", [None, PAIRS])
def test_dual_scores_are_the_primal_ones(groups: list[NDArray[np.int64]] | None) -> None:
    features, targets = labelled(300, 40, 4)
    scatter = Scatter.of(features, targets)
    for dual, primal in (
        (dual_leave_out, leave_out),
        (dual_stand_alone, stand_alone),
        (dual_differential, differential),
    ):
        np.testing.assert_allclose(
            dual(features, targets, groups, ridge=0.5), primal(scatter, groups, ridge=0.5), 1e-8
        )


def test_the_linear_kernel_gives_plain_discriminant_information() -> None:
    features, targets = labelled(60, 10, 3)
    found = kernel_discriminant_information(features @ features.T, targets, ridge=0.3)
    assert found == pytest.approx(naive(features, targets, 0.3), rel=1e-10)


def test_a_kernel_sees_what_no_line_can() -> None:
    """Two rings: their radius tells the class, no direction does."""
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=200)
    angle = rng.uniform(0, 2 * np.pi, size=200)
    ring = (1 + 2 * labels)[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    targets = np.eye(2)[labels]
    squares = ((ring[:, None] - ring) ** 2).sum(2)
    total = Scatter.of(ring, targets).target_total
    assert discriminant_information(Scatter.of(ring, targets), ridge=1e-3) < 0.1 * total
    assert kernel_discriminant_information(np.exp(-squares), targets, ridge=1e-3) > 0.9 * total


def test_refuses_a_kernel_that_is_not_square() -> None:
    with pytest.raises(InputError, match="not square"):
        kernel_discriminant_information(np.zeros((4, 3)), np.zeros((4, 2)), ridge=1.0)


def test_a_large_ridge_leaves_the_dependency_of_hsic() -> None:
    """rho DI -> trace(Kc Ky) as rho grows."""
    features, targets = labelled(80, 12, 3)
    X, Y = features - features.mean(0), targets - targets.mean(0)
    rho = 1e9
    expected = np.trace(X @ X.T @ Y @ Y.T)
    assert rho * dual_discriminant_information(features, targets, ridge=rho) == pytest.approx(
        expected, rel=1e-4
    )
