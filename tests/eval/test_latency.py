"""Latency with a clock that the tests turn and devices whose times are known formulas."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import nn

from prunas.errors import InputError, RunError
from prunas.eval.cost import Cost
from prunas.eval.latency import backends, whole
from prunas.eval.latency.backends import BACKENDS, Backend, Cuda, Device, OnnxRuntime, backend_of
from prunas.eval.latency.design import designed
from prunas.eval.latency.features import Features
from prunas.eval.latency.predictor import FEWEST, fitted
from prunas.eval.latency.table import LatencyTable, built, fingerprint
from prunas.eval.latency.timing import Plan, Timed, Work, timed
from prunas.eval.latency.whole import measured
from prunas.supernet.cut import cut
from prunas.supernet.grid import EVERY
from prunas.supernet.space import Candidate, SearchSpace
from prunas.supernet.trace import trace
from tests.eval import joint
from tests.eval.joint import traced
from tests.supernet.counting import macs_counted
from tests.supernet.networks import IMAGE, Network

DEVICE = Device("abacus", 1, "beads", (("beads", "1.0"),))
SIMPLE = Plan(warm_up=1, visit=1e-9, least=3, most=3)


@dataclass
class FakeClock:
    """Seconds that pass only where work is done."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeDevice:
    """Runs a network in a time that a formula gives, on a clock of its own."""

    clock: FakeClock = field(default_factory=FakeClock)
    noise: float = 0.0
    seen: list[nn.Module] = field(default_factory=list)
    device: Device = DEVICE

    def prepared(self, network: nn.Module, images: torch.Tensor) -> Work:
        self.seen.append(network)
        seconds, rng = self.seconds(network, images), np.random.default_rng(0)

        def work() -> None:
            self.clock.now += seconds * (1 + self.noise * rng.random())

        return work

    @staticmethod
    def seconds(network: nn.Module, images: torch.Tensor) -> float:
        """2 ms, 0.1 ms a layer, 10 ns a weight, 500 ns more where channels do not fill 16."""
        layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        weights = sum(layer.weight.numel() for layer in layers)
        strays = sum(layer.weight.numel() for layer in layers if len(layer.weight) % 16)
        return (2e-3 + 1e-4 * len(layers) + 1e-8 * weights + 5e-7 * strays) * len(images)


def work_of(clock: FakeClock, seconds: Sequence[float]) -> tuple[Work, list[int]]:
    """Work that takes these seconds in turn, over and over, and where it is."""
    place = [0]

    def work() -> None:
        clock.now += seconds[place[0] % len(seconds)]
        place[0] += 1

    return work, place


def space_of(blocks: Sequence[str] = ("Residual", "Plain", "Residual")) -> tuple[Network, Any]:
    network = Network(list(blocks), channels=32)
    return network, trace(network, IMAGE, grid=EVERY)


# -- timing ----------------------------------------------------------------------------------------


def test_the_median_of_rounds_and_its_quartiles() -> None:
    clock = FakeClock()
    # warm-up, the run that is tried, then per visit one untimed and one timed run
    work, place = work_of(clock, [9, 9, 9, 0.001, 9, 0.002, 9, 0.003, 9, 0.010])
    plan = Plan(warm_up=1, visit=1e-9, least=4, most=4, widest=9)
    (found,) = timed([work], np.random.default_rng(0), plan=plan, clock=clock)
    assert found.milliseconds == pytest.approx(2.5)
    assert [found.low, found.high] == pytest.approx([1.75, 4.75])
    assert (found.rounds, place[0]) == (4, 10)
    assert found.spread == pytest.approx(3 / 2.5)


def test_short_work_runs_often_in_a_visit_and_long_work_once() -> None:
    clock = FakeClock()
    (short, often), (long, seldom) = work_of(clock, [0.001]), work_of(clock, [0.5])
    plan = Plan(warm_up=1, visit=0.02, least=3, most=3)
    timed([short, long], np.random.default_rng(0), plan=plan, clock=clock)
    assert often[0] == 1 + 1 + 3 * (1 + 20)
    assert seldom[0] == 1 + 1 + 3 * (1 + 1)


def test_work_is_interleaved_in_random_order() -> None:
    clock, order = FakeClock(), list[int]()

    def piece(number: int) -> Work:
        def work() -> None:
            clock.now += 1
            order.append(number)

        return work

    timed([piece(n) for n in range(6)], np.random.default_rng(0), plan=SIMPLE, clock=clock)
    rounds = np.array(order[12:]).reshape(3, 6, 2)  # after warm-up and trial; two runs a visit
    assert (rounds[..., 0] == rounds[..., 1]).all()
    assert [sorted(visits) for visits in rounds[..., 0].tolist()] == 3 * [list(range(6))]
    assert len({tuple(visits) for visits in rounds[..., 0].tolist()}) > 1


def test_rounds_end_when_times_are_precise_or_time_is_up() -> None:
    rng = np.random.default_rng(0)
    clock = FakeClock()
    steady, _ = work_of(clock, [0.1])
    (found,) = timed([steady], rng, plan=Plan(least=7, most=25), clock=clock)
    assert found.rounds == 7
    wavering, _ = work_of(clock, [0.1, 0.1, 0.108, 0.108])
    plan = Plan(least=4, most=25, visit=0.1, precision=0.0001)
    (found,) = timed([wavering], rng, plan=plan, clock=clock)
    assert found.rounds == 25
    late = replace(plan, seconds=1.0)
    (found,) = timed([wavering], rng, plan=late, clock=clock)
    assert 4 <= found.rounds < 10


def test_a_busy_device_is_said_measured_again_and_refused() -> None:
    clock, told = FakeClock(), list[str]()
    work, place = work_of(clock, [0.1, 0.1, 0.3, 0.3, 0.2, 0.2])
    plan = Plan(visit=0.1, least=9, most=9, attempts=3)
    with pytest.raises(
        RunError, match=r"too busy to be timed, in 3 attempts: .* 10% is sound; stop"
    ):
        timed([work], np.random.default_rng(0), plan=plan, clock=clock, told=told.append)
    assert len(told) == 3
    assert "the device is busy" in told[0]
    assert "attempt 1 of 3" in told[0]
    assert place[0] > 3 * 9 * 2


def test_a_device_that_calms_down_is_measured() -> None:
    clock, told = FakeClock(), list[str]()
    noisy = [0.1, 0.1, 0.3, 0.3, 0.2, 0.2]
    work, _ = work_of(clock, [0.1] * 3 + noisy * 3 + [0.1] * 100)
    plan = Plan(warm_up=2, visit=0.05, least=9, most=9)
    (found,) = timed([work], np.random.default_rng(0), plan=plan, clock=clock, told=told.append)
    assert found.milliseconds == pytest.approx(100)
    assert len(told) == 1


def test_plans_that_make_no_sense() -> None:
    with pytest.raises(InputError, match="visit=0 of a timing plan is not positive"):
        Plan(visit=0)
    with pytest.raises(InputError, match="at least 9 and at most 3 rounds is empty"):
        Plan(least=9, most=3)
    with pytest.raises(InputError, match="nothing to time"):
        timed([], np.random.default_rng(0))


# -- design ----------------------------------------------------------------------------------------


def test_designed_networks_reach_from_small_to_full() -> None:
    _, space = space_of()
    networks = designed(space, 40, np.random.default_rng(0))
    macs = Cost(space).macs(networks) / Cost(space).macs([space.full()])
    assert networks[0] == space.full()
    assert macs.min() < 0.1
    assert np.sort(macs)[-2] > 0.7
    spread = Cost(space).macs(space.sample(np.random.default_rng(0), 40)).std()
    assert Cost(space).macs(networks).std() > 1.5 * spread
    kept = np.array(networks)[:, -len(space.blocks) :]
    assert set(np.unique(kept)) == {0, 1}


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 30), st.integers(0, 99))
def test_designs_are_candidates_and_repeat_with_their_seed(n: int, seed: int) -> None:
    _, space = SPACE
    one, two = (designed(space, n, np.random.default_rng(seed)) for _ in range(2))
    assert one == two
    assert [space.candidate(each) for each in one] == one
    assert len(one) == n


def test_a_design_takes_every_alternative_and_every_side() -> None:
    _, space = traced("all", (7, 10))
    kinds = [gene.kind for gene in space.genes]
    drawn = np.array(designed(space, 401, np.random.default_rng(0))[1:])
    operators = [g for g, kind in enumerate(kinds) if kind == "operator"]
    for gene in operators:
        choices = space.genes[gene].choices
        counts = [(drawn[:, gene] == value).mean() for value in choices]
        assert counts == pytest.approx([1 / len(choices)] * len(choices), abs=0.07)
    for gene, kind in enumerate(kinds):
        if kind in ("kernel", "resolution"):
            assert set(drawn[:, gene]) == set(space.genes[gene].choices)
    wide = np.mean([drawn[:, g] for g, kind in enumerate(kinds) if kind == "width"], axis=0)
    assert spearmanr(wide, drawn[:, -1]).statistic > 0.5  # small networks see small images
    # networks with much of one alternative, which independent choices would not give
    alike = (drawn[:, list(space.alternatives)] == 0).mean(axis=1)
    assert (alike == 1).mean() > 1.5 * (1 / 4) ** 2


def test_a_design_of_nothing() -> None:
    with pytest.raises(InputError, match="design of 0 networks"):
        designed(space_of()[1], 0, np.random.default_rng(0))


SPACE = space_of()

# -- features --------------------------------------------------------------------------------------


def test_a_network_of_layers_and_nothing_else() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 5, 3))
    space = trace(network, IMAGE, grid=EVERY)
    features = Features(network, space)
    assert not any("relu" in name for name in features.names)
    candidates = [space.full(), space.smallest()]
    assert features.values(candidates).shape == (2, len(features.names))
    assert features.values([]).shape == (0, len(features.names))
    assert (features.values(candidates)[:, -1] == 1).all()


def test_features_against_the_layers_of_cut_networks() -> None:
    network, space = SPACE
    features = Features(network, space)
    chosen = [space.full(), space.smallest(), *designed(space, 12, np.random.default_rng(1))]
    columns = dict(zip(features.names, features.values(chosen).T, strict=True))
    products = [name for name in features.names if name.endswith(("product", ": runs"))]
    for row, candidate in enumerate(chosen):
        small = cut(network, space, candidate)
        convolutions = [m for m in small.modules() if isinstance(m, nn.Conv2d)]
        inner = convolutions[1:]  # what the first one reads is no gene
        weights = sum(m.in_channels * m.out_channels for m in inner)
        counted = sum(
            columns[n][row]
            for n in products
            if n.startswith("convolution") and n.endswith("product")
        )
        assert counted == weights
        runs = sum(
            columns[n][row] for n in products if n.startswith("convolution") and n.endswith("runs")
        )
        assert runs == len(convolutions)
        strays = sum(
            m.out_channels * m.in_channels * m.kernel_size[0] ** 2 * 64
            for m in inner
            if m.out_channels % 16
        )
        assert columns["convolution, 2 sizes: macs, size 0 no multiple of 16"][row] == strays
        assert columns["start"][row] == 1


def test_features_of_arrays_and_of_wrong_rows() -> None:
    network, space = SPACE
    features = Features(network, space)
    chosen = space.sample(np.random.default_rng(0), 4)
    assert np.array_equal(features.values(chosen), features.values(np.array(chosen)))
    assert features.values([]).shape == (0, len(features.names))
    with pytest.raises(InputError, match="do not fit a space"):
        features.values([[1, 2]])


# -- prediction ------------------------------------------------------------------------------------


def seconds_of(network: nn.Module, space: SearchSpace, candidate: Candidate) -> float:
    return FakeDevice.seconds(cut(network, space, candidate), torch.empty(1))


@pytest.mark.parametrize("blocks", [("Residual", "Plain", "Residual"), ("Depthwise", "Attention")])
def test_a_known_device_is_recovered_on_networks_that_were_not_measured(
    blocks: Sequence[str],
) -> None:
    network, space = space_of(blocks)
    device = FakeDevice()
    rng = np.random.default_rng(3)
    table = built(network, space, device, rng, networks=48, plan=SIMPLE, clock=device.clock)
    predictor = table.predictor(network, space)
    fresh = [
        each
        for each in (*designed(space, 30, rng), *space.sample(rng, 30))
        if each not in table.candidates
    ]
    expected = np.array([1e3 * seconds_of(network, space, each) for each in fresh])
    found = predictor.milliseconds(fresh)
    assert np.median(np.abs(found / expected - 1)) < 0.01
    assert spearmanr(found, expected).statistic > 0.99
    assert predictor.error < 0.02


class PositionsDevice(FakeDevice):
    """2 ms, 0.1 ms a layer, 1 us for 1,000 MACs: images of another side take another time."""

    @staticmethod
    def seconds(network: nn.Module, images: torch.Tensor) -> float:
        layers = sum(isinstance(m, nn.Conv2d | nn.Linear) for m in network.modules())
        return 2e-3 + 1e-4 * layers + 1e-9 * macs_counted(network, tuple(images.shape[1:]))


@pytest.mark.parametrize(("name", "sides"), [("choices", ()), ("all", ()), ("all", (7, 10))])
def test_a_known_device_is_recovered_in_spaces_of_all_kinds(
    name: str, sides: tuple[int, ...]
) -> None:
    network, space = traced(name, sides)
    device, rng = PositionsDevice(), np.random.default_rng(3)
    table = built(network, space, device, rng, networks=64, plan=SIMPLE, clock=device.clock)
    predictor = table.predictor(network, space)
    fresh = [*designed(space, 30, rng), *space.sample(rng, 30)]
    times = measured(network, space, fresh, device, rng, plan=SIMPLE, clock=device.clock)
    expected = np.array([time.milliseconds for time in times])
    found = predictor.milliseconds(fresh)
    assert np.median(np.abs(found / expected - 1)) < 0.01
    assert spearmanr(found, expected).statistic > 0.99
    assert predictor.error < 0.02


def test_predictions_do_not_fall_when_a_gene_grows_on_a_device_without_steps() -> None:
    network, space = SPACE
    chosen = designed(space, 40, np.random.default_rng(0))
    predictor = fitted(Features(network, space), chosen, Cost(space).macs(chosen).tolist())
    rng = np.random.default_rng(1)
    for candidate in space.sample(rng, 20):
        gene = int(rng.integers(len(candidate)))
        larger = [*candidate]
        larger[gene] = space.genes[gene].choices[-1]
        one, two = predictor.milliseconds([candidate, larger])
        assert two >= one * 0.97


def test_noise_does_not_become_coefficients() -> None:
    network, space = SPACE
    rng = np.random.default_rng(0)
    chosen = designed(space, 60, rng)
    exact = np.array([seconds_of(network, space, each) for each in chosen])
    noisy = exact * (1 + 0.03 * rng.standard_normal(len(exact)))
    predictor = fitted(Features(network, space), chosen, noisy.tolist())
    assert (predictor.coefficients >= 0).all()
    fresh = designed(space, 60, rng)
    expected = np.array([seconds_of(network, space, each) for each in fresh])
    assert np.median(np.abs(predictor.milliseconds(fresh) / expected - 1)) < 0.03
    assert 0.01 < predictor.error < 0.06


def test_what_cannot_be_fitted() -> None:
    network, space = SPACE
    features = Features(network, space)
    with pytest.raises(InputError, match=f"2 networks .* measure {FEWEST}"):
        fitted(features, space.sample(np.random.default_rng(0), 2), [1.0, 2.0])
    chosen = space.sample(np.random.default_rng(0), FEWEST)
    with pytest.raises(InputError, match=r"must be positive; the smallest is 0\.0 ms"):
        fitted(features, chosen, [0.0] * FEWEST)
    with pytest.raises(InputError, match="networks and 3 times"):
        fitted(features, chosen, [1.0] * 3)


# -- whole networks --------------------------------------------------------------------------------


def test_networks_are_cut_in_eval_mode_and_left_alone() -> None:
    network, space = space_of()
    network.train()
    device = FakeDevice()
    chosen = [space.full(), space.smallest()]
    rng = np.random.default_rng(0)
    times = measured(network, space, chosen, device, rng, plan=SIMPLE, clock=device.clock)
    assert network.training
    assert not any(module.training for small in device.seen for module in small.modules())
    expected = [1e3 * seconds_of(network, space, each) for each in chosen]
    assert [time.milliseconds for time in times] == pytest.approx(expected)


def test_a_batch_of_images() -> None:
    network, space = SPACE
    device = FakeDevice()
    rng = np.random.default_rng(0)
    one, four = (
        measured(network, space, [space.full()], device, rng, batch=n, plan=SIMPLE,
                 clock=device.clock)[0]
        for n in (1, 4)
    )  # fmt: skip
    assert four.milliseconds == pytest.approx(4 * one.milliseconds)


def test_candidates_see_images_of_their_side() -> None:
    network, space = traced("gates and kernels", (7, 10))
    shapes: list[tuple[int, ...]] = []

    class Noting(FakeDevice):
        def prepared(self, network: nn.Module, images: torch.Tensor) -> Work:
            shapes.append(tuple(images.shape))
            network(images)  # it is a network for them
            return super().prepared(network, images)

    device, rng = Noting(), np.random.default_rng(0)
    chosen = [Candidate((*space.full()[:-1], side)) for side in (12, 7, 10)]
    measured(network, space, chosen, device, rng, batch=2, plan=SIMPLE, clock=device.clock)
    assert shapes == [(2, 3, side, side) for side in (12, 7, 10)]


def test_groups_share_a_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that is a third slower for every network after the sixth."""
    network, space = SPACE

    class Tiring(FakeDevice):
        def prepared(self, network: nn.Module, images: torch.Tensor) -> Work:
            slower = 1.0 if len(self.seen) < 6 else 4 / 3
            self.seen.append(network)
            seconds = slower * self.seconds(network, images)
            return work_of(self.clock, [seconds])[0]

    chosen = [space.full(), *designed(space, 9, np.random.default_rng(0))[1:]]
    expected = np.array([seconds_of(network, space, each) for each in chosen])
    params = Cost(space).params(chosen)
    monkeypatch.setattr(whole, "TOGETHER", int(params[:6].sum()))
    device = Tiring()
    rng = np.random.default_rng(0)
    times = measured(network, space, chosen, device, rng, plan=SIMPLE, clock=device.clock)
    found = np.array([time.milliseconds for time in times])
    assert len(device.seen) > len(chosen)
    assert found / found[0] == pytest.approx(expected / expected[0])


def test_what_cannot_be_measured() -> None:
    network, space = SPACE
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="nothing to measure"):
        measured(network, space, [], FakeDevice(), rng)
    with pytest.raises(InputError, match="a batch of 0 images"):
        measured(network, space, [space.full()], FakeDevice(), rng, batch=0)
    meta = Network(["Residual", "Plain", "Residual"], channels=32).to("meta")
    with pytest.raises(InputError, match="no values yet"):
        measured(meta, space, [space.full()], FakeDevice(), rng)
    two = replace(space, inputs={"list": [space.inputs, space.inputs]})
    with pytest.raises(InputError, match="not traced with one tensor of images"):
        measured(network, two, [space.full()], FakeDevice(), rng)


# -- tables ----------------------------------------------------------------------------------------


def table_of_fake() -> LatencyTable:
    network, space = SPACE
    device = FakeDevice()
    rng = np.random.default_rng(0)
    return built(network, space, device, rng, networks=12, plan=SIMPLE, clock=device.clock)


def test_a_table_as_text_and_back() -> None:
    table = table_of_fake()
    assert LatencyTable.from_json(table.to_json()) == table
    assert table.full == table.times[0]
    assert table.candidates[0] == SPACE[1].full()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"processor": "slide rule"}, "measured with beads on abacus, 1 thread .*beads 1.0"),
        ({"threads": 2}, "this is beads on abacus, 2 threads"),
        ({"backend": "fingers"}, "this is fingers on abacus"),
        ({"versions": (("beads", "2.0"),)}, r"\(beads 2.0\); build a table here"),
    ],
)
def test_a_table_of_another_device_is_refused(changed: dict[str, Any], message: str) -> None:
    table = table_of_fake()
    table.require(SPACE[1], DEVICE)
    with pytest.raises(InputError, match=message):
        table.require(SPACE[1], replace(DEVICE, **changed))


def test_a_table_of_another_space_or_batch_is_refused() -> None:
    network, space = SPACE
    table = table_of_fake()
    with pytest.raises(InputError, match="batches of 1 and not of 8"):
        table.require(space, DEVICE, batch=8)
    coarse = trace(network, IMAGE)
    with pytest.raises(InputError, match="another search space than this one of Network"):
        table.predictor(network, coarse)


def test_the_order_of_channels_does_not_change_the_space() -> None:
    _, space = SPACE
    orders = [list(range(width))[::-1] for width in space.widths]
    assert fingerprint(space.reordered(orders)) == fingerprint(space)
    assert fingerprint(trace(SPACE[0], (3, 16, 16), grid=EVERY)) != fingerprint(space)


def test_the_fingerprint_is_of_all_that_genes_decide() -> None:
    network, space = traced("all", (7, 10))
    (gene, choice), *others = space.alternatives.items()
    renamed = replace(choice, names=("nothing", *choice.names[1:]))
    changed = [
        space,
        traced("all")[1],
        traced("all", (7,))[1],
        traced("all", (8, 10))[1],
        replace(space, alternatives={gene: renamed, **dict(others)}),
        trace(
            network,
            joint.IMAGE,
            grid=joint.WIDTHS,
            genes=("width", "operator"),
            resolutions=(7, 10),
        ),
        trace(
            network, joint.IMAGE, grid=joint.WIDTHS, genes=("width", "kernel"), resolutions=(7, 10)
        ),
    ]
    assert len({fingerprint(each) for each in changed}) == len(changed)
    again = SearchSpace.from_json(space.to_json())
    assert fingerprint(again) == fingerprint(space)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "not a latency table"),
        ("[]", "not a latency table"),
        ('{"format": 99}', "format 99, this prunas reads 1; build the table again"),
        ('{"format": 1}', "not a latency table"),
    ],
)
def test_what_is_no_table(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LatencyTable.from_json(text)


def test_a_table_with_a_row_that_is_cut_off() -> None:
    data = json.loads(table_of_fake().to_json())
    data["rows"][3] = data["rows"][3][:-1]
    with pytest.raises(InputError, match="not a latency table"):
        LatencyTable.from_json(json.dumps(data))


@pytest.mark.parametrize("candidate", ["abc", [None], [10.5], 3])
def test_a_table_with_a_network_that_is_none(candidate: Any) -> None:
    data = json.loads(table_of_fake().to_json())
    data["rows"][1][0] = candidate
    with pytest.raises(InputError, match="no list of whole numbers"):
        LatencyTable.from_json(json.dumps(data))


@pytest.mark.parametrize("value", [-5, 10**30])
def test_a_table_with_a_network_of_no_choice(value: int) -> None:
    network, space = SPACE
    data = json.loads(table_of_fake().to_json())
    data["rows"][1][0][0] = value
    table = LatencyTable.from_json(json.dumps(data))
    with pytest.raises(InputError, match=f"{value} is not a choice of gene"):
        table.predictor(network, space)


@pytest.mark.parametrize("time", [1e-308, 0, -1.0, 1e300])
def test_a_table_with_a_time_that_nothing_takes(time: float) -> None:
    data = json.loads(table_of_fake().to_json())
    data["rows"][1][1] = time
    with pytest.raises(InputError, match="is no time that a network takes"):
        LatencyTable.from_json(json.dumps(data))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (1, True, "True, .* is no number"),
        (2, float("nan"), "is no median of times between nan and"),
        (2, -5, "is no median of times between -5 and"),
        (2, 0, "is no median of times between 0 and"),
        (2, 1e9, r"is no median of times between 1000000000\.0 and"),
        (2, "-5", "'-5' and .* is no number"),
        (3, 1e-3, r"is no median of times between .* and 0\.001"),
        (3, float("inf"), "is no median of times between .* and inf"),
        (4, -3, "-3 is no number of rounds"),
        (4, 2.7, r"2\.7 is no number of rounds"),
        (4, True, "True is no number of rounds"),
    ],
)
def test_a_table_with_a_row_that_nobody_measured(column: int, value: Any, message: str) -> None:
    data = json.loads(table_of_fake().to_json())
    data["rows"][1][column] = value
    with pytest.raises(InputError, match=message):
        LatencyTable.from_json(json.dumps(data))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": True}, "format True, this prunas reads 1"),
        ({"batch": True}, "batches of True are none"),
        ({"batch": "1"}, "batches of '1' are none"),
        ({"batch": 0}, "batches of 0 are none"),
        ({"dtype": "float16"}, "of 'float16' and not of float32"),
        ({"dtype": None}, "of None and not of float32"),
        ({"columns": ["candidate", "low", "milliseconds", "high", "rounds"]}, "columns are not"),
        ({"rows": []}, "it holds no networks"),
    ],
)
def test_a_table_that_says_what_no_table_does(changed: dict[str, Any], message: str) -> None:
    data = json.loads(table_of_fake().to_json())
    with pytest.raises(InputError, match=message):
        LatencyTable.from_json(json.dumps({**data, **changed}))


def test_a_table_begins_with_the_full_network() -> None:
    """Else shares of latency would be of another network's time."""
    data = json.loads(table_of_fake().to_json())
    data["rows"].reverse()
    table = LatencyTable.from_json(json.dumps(data))
    with pytest.raises(InputError, match="does not begin with the full network"):
        table.require(SPACE[1], DEVICE)


def test_a_table_of_too_few_networks() -> None:
    with pytest.raises(InputError, match=f"a latency table of 3 networks .* measure {FEWEST}"):
        built(*SPACE, FakeDevice(), np.random.default_rng(0), networks=3)


# -- backends --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["eager", "onnxruntime"])
def test_backends_run_the_network_that_they_are_given(name: str) -> None:
    backend: Backend = backend_of(name)
    assert backend.device.backend == name
    assert backend.device.threads == torch.get_num_threads()
    assert backend.device.processor
    calls: list[tuple[int, ...]] = []
    network = Network(["Residual"])
    handle = network.register_forward_hook(
        lambda _, args, out: calls.append(tuple(map(int, args[0].shape)))
    )
    work = backend.prepared(network, torch.zeros(2, *IMAGE))
    handle.remove()
    work()
    assert set(calls) == {(2, *IMAGE)}


@pytest.mark.slow
def test_compiled_networks_of_one_class() -> None:
    backend = backend_of("compile")
    for channels in (4, 8):
        backend.prepared(Network(["Plain"], channels=channels), torch.zeros(1, *IMAGE))()


class Unlucky(nn.Module):
    """Runs, and cannot be exported: its control flow depends on values."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        large: torch.Tensor = x.sum() > 1e9
        out: torch.Tensor = torch.linalg.matrix_exp(x) if large else torch.linalg.pinv(x)
        return out


@pytest.mark.parametrize("name", ["onnxruntime", "compile"])
def test_networks_that_a_backend_cannot_run(name: str) -> None:
    with pytest.raises(InputError, match="Unlucky cannot be run by"):
        backend_of(name).prepared(Unlucky().eval(), torch.zeros(1, 3, 4, 4))


def test_backends_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="'abacus' is not a backend; choose one of eager"):
        backend_of("abacus")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="there is no CUDA device"):
        Cuda()
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match="needs onnx, onnxruntime, onnxscript; run: pip install 'prunas"
    ):
        OnnxRuntime()
    assert set(BACKENDS) == {"eager", "compile", "onnxruntime", "cuda"}


def test_threads_of_a_session_stop_with_its_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else they look for work on the cores of the next network, for longer than its visit."""
    session, given = onnxruntime.InferenceSession, list[Any]()

    def noted(content: bytes, options: Any, **others: Any) -> Any:
        given.append(options)
        return session(content, options, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noted)
    OnnxRuntime().prepared(Network(["Plain"]).eval(), torch.zeros(1, *IMAGE))()
    (options,) = given
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda() -> None:
    backend = backend_of("cuda")
    backend.prepared(Network(["Plain"]), torch.zeros(1, *IMAGE))()
    assert backend.device.threads == 0


def test_measured_on_a_real_backend() -> None:
    network, space = SPACE
    plan = Plan(warm_up=1, visit=1e-9, least=3, most=3, widest=100)
    backend = backend_of("eager")
    readings = count()  # the network really runs; time passes by a millisecond a look at the clock
    (found,) = measured(
        network,
        space,
        [space.full()],
        backend,
        np.random.default_rng(0),
        plan=plan,
        clock=lambda: next(readings) / 1000,
    )
    assert isinstance(found, Timed)
    assert found.low == pytest.approx(found.milliseconds) == pytest.approx(found.high)
    assert found.milliseconds == pytest.approx(1)
