"""Schedules of training: one set of laws for all of them, and what each of them promises."""

import copy
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import prunas
from prunas.search.budget import Feasible, as_values
from prunas.supernet.elastic import Supernet
from prunas.supernet.grid import WidthGrid
from prunas.supernet.resolution import resized, side_of
from prunas.supernet.schedules.fair import Fair
from prunas.supernet.schedules.schedule import Schedule, Step
from prunas.supernet.schedules.shrinking import PHASES, Shrinking
from prunas.supernet.schedules.single_path import SinglePath
from prunas.supernet.schedules.table import (
    SCHEDULES,
    WARMED_UP,
    Setting,
    require_schedule,
    schedule_of,
)
from prunas.supernet.schedules.warm_up import WarmUp
from prunas.supernet.space import Candidate, Gene, SearchSpace
from prunas.supernet.trace import KINDS
from prunas.supernet.training import PlainDescent, train_supernet
from tests.search.toys import chain_space, feasible, toy_space
from tests.supernet.networks import Residual, SqueezeExcite, choice_block

IMAGE = (3, 16, 16)
NAMES = (*SCHEDULES, *(name + WARMED_UP for name in SCHEDULES))
IN_BUDGET = ("sandwich", "bounded")
STEPS = 120
every = pytest.mark.parametrize("name", NAMES)
plain = pytest.mark.parametrize("name", SCHEDULES)


@cache
def _made() -> tuple[nn.Sequential, SearchSpace]:
    """A network with genes of all kinds, four of them of depth, and a batch norm in each block."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 8, 7, padding=3, groups=8),
            *(Residual(8) for _ in range(4)),
            choice_block(),
            SqueezeExcite(8),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 5),
        )
    grid = WidthGrid((0.25, 0.5, 0.75, 1.0))
    space = prunas.trace(network.eval(), IMAGE, grid=grid, genes=KINDS, resolutions=(8, 12))
    return network, space


def a_network() -> tuple[nn.Sequential, SearchSpace]:
    network, space = _made()
    return copy.deepcopy(network), space


@cache
def _pool() -> tuple[Feasible, list[Candidate]]:
    problem = feasible(_made()[1], "macs=30%", tolerance=0.1)
    return problem, problem.sample(np.random.default_rng(7), 300)


def in_budget(rng: np.random.Generator, n: int) -> list[Candidate]:
    """Candidates of the network above that are in the window of a budget."""
    pool = _pool()[1]
    return [pool[place] for place in rng.integers(len(pool), size=n)]


def setting(space: SearchSpace, *, paths: int = 1, seed: int = 0) -> Setting:
    return Setting(space, in_budget, paths, seed)


def steps_of(schedule: Schedule, steps: int = STEPS, seed: int = 0) -> list[Step]:
    rng = np.random.default_rng(seed)
    return [schedule.step(number, steps, rng) for number in range(steps)]


def kinds_changed(space: SearchSpace, candidate: Candidate) -> set[str]:
    """The kinds of the genes that are not those of the full network."""
    rows = zip(space.genes, candidate, space.full(), strict=True)
    return {gene.kind for gene, value, full in rows if value != full}


def test_the_network_has_genes_of_all_kinds() -> None:
    kinds = Counter(gene.kind for gene in a_network()[1].genes)
    assert set(kinds) == {*KINDS, "resolution"}
    assert kinds["depth"] == 4


# -- laws of all schedules -------------------------------------------------------------------------


@every
@pytest.mark.parametrize("paths", [1, 3])
def test_all_that_runs_is_a_candidate(name: str, paths: int) -> None:
    _, space = a_network()
    for step in steps_of(schedule_of(name, setting(space, paths=paths))):
        assert step.candidates
        for candidate in step.candidates:
            assert type(candidate) is Candidate
            assert space.candidate(candidate) == candidate
        assert step.teacher in (None, space.full())


@every
def test_equal_seeds_run_equal_paths(name: str) -> None:
    _, space = a_network()
    before = _global_generators()
    one = steps_of(schedule_of(name, setting(space, seed=3)), seed=5)
    assert one == steps_of(schedule_of(name, setting(space, seed=3)), seed=5)
    assert one != steps_of(schedule_of(name, setting(space, seed=4)), seed=6)
    assert _global_generators() == before


def _global_generators() -> tuple[object, object]:
    numpy = np.random.get_state(legacy=False)["state"]["key"].tolist()  # noqa: NPY002
    return numpy, torch.random.get_rng_state().tolist()


@every
@given(stop=st.integers(0, STEPS))
@settings(max_examples=4, deadline=None)
def test_a_training_goes_on_from_any_step(name: str, stop: int) -> None:
    """A schedule made anew, with the generator as it was left."""
    _, space = a_network()
    rng = np.random.default_rng(1)
    first, second = (schedule_of(name, setting(space)) for _ in range(2))
    begun = [first.step(number, STEPS, rng) for number in range(stop)]
    rest = [second.step(number, STEPS, rng) for number in range(stop, STEPS)]
    assert begun + rest == steps_of(first, seed=1)


@every
def test_paths_are_in_the_budget_where_that_is_promised(name: str) -> None:
    _, space = a_network()
    steps = steps_of(schedule_of(name, setting(space)))
    late = steps[70:] if name.endswith(WARMED_UP) else steps
    inside = _pool()[0].in_window(as_values([path for step in late for path in step.paths]))
    assert inside.all() == (name.removesuffix(WARMED_UP) in IN_BUDGET)


@every
def test_every_choice_runs_in_time(name: str) -> None:
    """Of schedules in a budget, every choice that is drawn there more than once in a while."""
    _, space = a_network()
    known = in_budget if name.removesuffix(WARMED_UP) in IN_BUDGET else space.sample
    steps = steps_of(schedule_of(name, setting(space)), 1000)
    run = [candidate for step in steps for candidate in step.paths]
    for gene, drawn in enumerate(zip(*known(np.random.default_rng(9), 500), strict=True)):
        often = {choice for choice, count in Counter(drawn).items() if count >= 15}
        assert often <= {candidate[gene] for candidate in run}, space.genes[gene]


@every
def test_a_schedule_cannot_be_changed(name: str) -> None:
    schedule = schedule_of(name, setting(a_network()[1]))
    with pytest.raises(FrozenInstanceError):
        schedule.paths = 2  # type: ignore[attr-defined]


# -- what is trained -------------------------------------------------------------------------------


def batch(side: int = IMAGE[1]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(8, 3, side, side, generator=generator)
    return images, torch.randint(0, 5, (8,), generator=generator)


class Fixed:
    """A schedule of one step."""

    def __init__(self, step: Step) -> None:
        self._step = step

    def step(self, number: int, steps: int, rng: np.random.Generator) -> Step:
        return self._step


def trained(
    network: nn.Module, space: SearchSpace, step: Step, optimizer: torch.optim.Optimizer
) -> None:
    train_supernet(
        Supernet(network, space),
        [batch()],
        Fixed(step),
        steps=1,
        descent=PlainDescent(optimizer, lambda number: 0.1),
        label_smoothing=0.1,
        rng=np.random.default_rng(0),
    )


def gradients(network: nn.Module, space: SearchSpace, step: Step) -> Mapping[str, Tensor]:
    """The slow way: each candidate cut out and trained alone, its gradients put where they belong.

    A cut network has statistics of its own, so that each is normalised by what it sees itself.
    """
    images, labels = batch()
    total: dict[str, Tensor] = {n: torch.zeros_like(p) for n, p in network.named_parameters()}
    used: set[str] = set()
    targets, smoothing = labels, 0.1
    for candidate in step.candidates:
        small = prunas.cut(network, space, candidate).train()
        logits = small(resized(images, side_of(space, candidate)))
        F.cross_entropy(logits, targets, label_smoothing=smoothing).backward()
        if candidate == step.teacher:
            targets, smoothing = logits.detach().softmax(1), 0.0
        removed = space.removed(candidate)
        for name, parameter in small.named_parameters():
            if parameter.grad is None:
                continue
            used.add(name)
            total[name][_kept(total[name], removed.get(name, {}))] += parameter.grad
    return {name: total[name] for name in used}


def _kept(tensor: Tensor, removed: Mapping[int, Tensor]) -> tuple[Tensor, ...]:
    """Indices of what is left, broadcast against each other."""
    rest = [
        torch.tensor([i for i in range(n) if d not in removed or i not in removed[d]])
        for d, n in enumerate(tensor.shape)
    ]
    return torch.meshgrid(*rest, indexing="ij")


@every
@pytest.mark.parametrize("number", [0, 50, 65, 110])
def test_a_step_adds_the_gradients_of_its_candidates_alone(name: str, number: int) -> None:
    """What no path of the step uses has no gradient, and is not moved by decay or momentum."""
    network, space = a_network()
    step = steps_of(schedule_of(name, setting(space)))[number]
    wanted = gradients(network, space, step)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    for parameter in network.parameters():  # as if all had been trained before
        optimizer.state[parameter]["momentum_buffer"] = torch.ones_like(parameter)
        parameter.grad = torch.ones_like(parameter)
    before = {key: tensor.detach().clone() for key, tensor in network.named_parameters()}
    trained(network, space, step, optimizer)
    found = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    assert found.keys() == wanted.keys()
    for key, gradient in wanted.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-3, atol=1e-5)
    for key, parameter in network.named_parameters():
        assert torch.equal(parameter, before[key]) == (key not in wanted), key


def test_what_is_frozen_stays() -> None:
    network, space = a_network()
    head = network.get_submodule("11").get_parameter("weight")
    head.requires_grad_(False)
    before = head.clone()
    step = steps_of(schedule_of("sandwich", setting(space)))[0]
    trained(network, space, step, torch.optim.SGD(network.parameters(), 0.1))
    assert head.grad is None
    assert torch.equal(head, before)


# -- single paths ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["single-path", "bounded", "fair"])
def test_single_paths_learn_from_the_labels(name: str) -> None:
    _, space = a_network()
    assert {step.teacher for step in steps_of(schedule_of(name, setting(space)))} == {None}


@pytest.mark.parametrize("paths", [1, 4])
def test_single_paths_are_uniform(paths: int) -> None:
    space = chain_space(2, steps=4)
    steps = steps_of(schedule_of("single-path", setting(space, paths=paths)), 800)
    assert {len(step.paths) for step in steps} == {paths}
    counts = Counter(path for step in steps for path in step.paths)
    expected = 800 * paths / 16  # each of the 16 candidates; five standard deviations
    assert len(counts) == 16
    assert max(abs(n - expected) for n in counts.values()) < 5 * math.sqrt(expected)


# -- sandwich --------------------------------------------------------------------------------------


def test_the_full_network_teaches_in_every_step() -> None:
    _, space = a_network()
    for step in steps_of(schedule_of("sandwich", setting(space, paths=2))):
        assert (step.teacher, len(step.paths)) == (space.full(), 2)


def test_as_published_the_smallest_runs_too() -> None:
    """Yu and Huang: the largest, the smallest, and two random ones."""
    _, space = a_network()
    for step in steps_of(schedule_of("sandwich-published", setting(space, paths=2))):
        assert (step.teacher, step.paths[0], len(step.paths)) == (
            space.full(),
            space.smallest(),
            3,
        )


# -- strict fairness -------------------------------------------------------------------------------


def with_choices(*counts: int, kind: str = "operator") -> SearchSpace:
    """Genes of so many choices, none of them about widths unless `kind` says so."""
    space = toy_space([tuple(range(1, count + 1)) for count in counts], [(1, (0,))])
    return replace(space, genes=tuple(replace(gene, kind=kind) for gene in space.genes))


@pytest.mark.parametrize(
    ("counts", "paths"),
    [
        ((4, 4, 4), 4),  # Chu et al.: as many paths as choices
        ((6, 6), 6),
        ((2, 3), 6),
        ((2, 3, 4), 12),
        ((2, 4, 4), 4),
        ((5, 4), 12),  # 20 are too many
        ((1, 1), 1),
    ],
)
def test_a_step_has_as_many_paths_as_genes_have_choices(
    counts: tuple[int, ...], paths: int
) -> None:
    assert len(Fair(with_choices(*counts)).step(0, 1, np.random.default_rng(0)).paths) == paths
    assert Fair(with_choices(*counts, kind="width")).per_step == paths


@pytest.mark.parametrize(("paths", "per_step"), [(1, 6), (6, 6), (7, 12), (12, 12), (13, 18)])
def test_more_paths_are_whole_multiples(paths: int, per_step: int) -> None:
    assert Fair(with_choices(2, 3), paths).per_step == per_step


def test_widths_do_not_make_steps_longer() -> None:
    space = toy_space([(1, 2, 3, 4, 5), (1, 2, 3, 4)], [(1, (0,))])
    first, second = space.genes
    mixed = replace(space, genes=(first, Gene(second.name, "operator", second.choices)))
    assert Fair(mixed).per_step == 4


@given(
    counts=st.lists(st.integers(1, 13), min_size=1, max_size=5),
    paths=st.integers(1, 5),
    seed=st.integers(0, 99),
)
@settings(deadline=None)
def test_after_every_k_paths_each_of_k_choices_has_run_equally_often(
    counts: list[int], paths: int, seed: int
) -> None:
    schedule = Fair(with_choices(*counts), paths, seed)
    steps = steps_of(schedule, 14)
    for step in steps:
        for gene, count in enumerate(counts):
            if schedule.per_step % count == 0:  # strictly fair within the step
                found = Counter(path[gene] for path in step.paths)
                assert set(found.values()) == {schedule.per_step // count}
                assert len(found) == count
    run = [path for step in steps for path in step.paths]
    for gene, count in enumerate(counts):
        for start in range(0, len(run) - count + 1, count):
            assert sorted(path[gene] for path in run[start : start + count]) == [
                *range(1, count + 1)
            ]


def test_genes_are_permuted_each_by_itself() -> None:
    """All 16 pairs of two genes of four choices, evenly: not the same permutation for both."""
    steps = steps_of(Fair(with_choices(4, 4)), 400)
    pairs = Counter(tuple(path) for step in steps for path in step.paths)
    assert len(pairs) == 16
    assert max(abs(count - 100) for count in pairs.values()) < 50  # five standard deviations


# -- progressive shrinking -------------------------------------------------------------------------

ORDER = ("resolution", "kernel", "operator", "depth", "width")


def test_phases_are_those_published() -> None:
    """train_ofa_net.py: kernel 120 epochs, depth 25 + 120, expansion 25 + 120; 1, 2, 4 paths."""
    lengths = {
        kind: [(p.length, p.paths) for p in PHASES if kind in p.kinds]
        for kind in ("kernel", "depth", "width")
    }
    assert lengths == {
        "kernel": [(120, 1)],
        "depth": [(25, 2), (120, 2)],
        "width": [(25, 4), (120, 4)],
    }


@given(steps=st.integers(1, 300), paths=st.integers(1, 2))
@settings(max_examples=15, deadline=None)
def test_no_kind_opens_before_its_phase(steps: int, paths: int) -> None:
    _, space = a_network()
    schedule = Shrinking(space, paths)
    ends = np.cumsum([phase.length for phase in PHASES]) / sum(phase.length for phase in PHASES)
    for number, step in enumerate(steps_of(schedule, steps)):
        phase = int(np.searchsorted(ends * steps * (1 + 1e-12), number, side="right"))
        opened = {kind for each in PHASES[: phase + 1] for kind in each.kinds}
        assert len(step.paths) == paths * PHASES[phase].paths
        assert step.teacher == space.full()
        for path in step.paths:
            assert kinds_changed(space, path) <= opened


def test_the_full_network_is_alone_at_first_and_all_kinds_open_in_order() -> None:
    _, space = a_network()
    steps = steps_of(schedule_of("shrinking", setting(space)), 1000)
    first = dict.fromkeys(ORDER, 1000)
    for number, step in reversed(list(enumerate(steps))):
        for path in step.paths:
            first.update(dict.fromkeys(kinds_changed(space, path), number))
    alone = next(number for number, step in enumerate(steps) if step.paths)
    assert alone == math.ceil(1000 * 25 / sum(phase.length for phase in PHASES))
    assert list(first.values()) == sorted(first.values())
    assert max(first.values()) < 1000
    assert abs(first["kernel"] - first["operator"]) < 10  # together


def test_choices_open_from_the_largest_and_stay_open() -> None:
    _, space = a_network()
    schedule = Shrinking(space)
    opened = [schedule.open(place) for place in range(len(schedule.phases))]
    assert opened[0] == tuple((value,) for value in space.full())
    assert opened[-1] == tuple(gene.choices for gene in space.genes)
    for before, after in pairwise(opened):
        for few, more in zip(before, after, strict=True):
            assert more[-len(few) :] == few


def test_depth_and_width_open_in_two_steps() -> None:
    """OFA: of four blocks one may go, then two; of expansions 3, 4, 6 the upper two, then all."""
    _, space = a_network()
    schedule = Shrinking(space)
    depth, width = (
        [place for place, phase in enumerate(schedule.phases) if kind in phase.kinds]
        for kind in ("depth", "width")
    )
    blocks = [place for place, gene in enumerate(space.genes) if gene.kind == "depth"]
    assert [[len(schedule.open(phase)[gene]) for gene in blocks] for phase in depth] == [
        [1, 2, 1, 2],
        [2, 2, 2, 2],
    ]
    wide = next(place for place, gene in enumerate(space.genes) if gene.choices == (2, 4, 6, 8))
    assert [schedule.open(phase)[wide] for phase in width] == [(6, 8), (2, 4, 6, 8)]
    three = Shrinking(toy_space([(3, 4, 6)], [(1, (0,))]))
    assert [three.open(place) for place in range(3)] == [((6,),), ((4, 6),), ((3, 4, 6),)]


def test_phases_of_kinds_that_are_not_there_are_left_out() -> None:
    schedule = Shrinking(chain_space(3))
    assert [phase.kinds for phase in schedule.phases] == [(), ("width",), ("width",)]
    steps = steps_of(schedule, 170)  # 25 + 25 + 120
    assert [len(step.paths) for step in steps] == [0] * 25 + [4] * 145


# -- warm-up ---------------------------------------------------------------------------------------


@plain
def test_widths_are_full_and_all_else_is_drawn(name: str) -> None:
    _, space = a_network()
    cold, warm = (
        steps_of(schedule_of(each, setting(space, paths=2))) for each in (name, name + WARMED_UP)
    )
    for before, after in zip(cold[:60], warm[:60], strict=True):
        assert after.teacher == before.teacher
        widened = [
            Candidate(
                gene.choices[-1] if gene.kind == "width" else value
                for gene, value in zip(space.genes, path, strict=True)
            )
            for path in before.paths
        ]
        assert list(after.paths) == [path for path in widened if path != before.teacher]
    assert warm[70:] == cold[70:]


def test_widths_open_one_by_one_from_the_widest() -> None:
    space = chain_space(3, steps=11, channels=11)
    warm = WarmUp(SinglePath(space.sample, 400), space)
    rng = np.random.default_rng(0)
    lowest = [
        min(min(path) for path in warm.step(number, 120, rng).paths) for number in range(58, 73)
    ]
    assert lowest == [11, 11, 11, *range(10, 0, -1), 1, 1]


def test_what_is_fair_over_all_widths_is_fair_over_those_that_are_open() -> None:
    space = chain_space(2, steps=8, channels=8)
    warm = WarmUp(Fair(space, paths=8), space)
    paths = warm.step(64, 120, np.random.default_rng(0)).paths
    for gene in range(2):  # 1 + ceil(0.4 * 7) = 4 are open
        assert Counter(path[gene] for path in paths) == {8: 2, 7: 2, 6: 2, 5: 2}


def test_a_space_without_widths_cannot_be_warmed_up() -> None:
    space = with_choices(2, 3, kind="kernel")
    with pytest.raises(prunas.InputError, match="no widths here that could be warmed up"):
        schedule_of("fair+warm-up", Setting(space, space.sample))


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("fiar", r"no schedule is called 'fiar'; did you mean fair\? known are sandwich, "),
        ("fair+warmup", r"did you mean fair\+warm-up\?"),
        ("sandwich+warm-up+warm-up", "no schedule is called"),
        ("warm-up", "each also with \\+warm-up behind it"),
        ("+warm-up", "no schedule is called"),
        ("", "no schedule is called ''"),
    ],
)
def test_unknown_names_are_refused(name: str, sentence: str) -> None:
    with pytest.raises(prunas.InputError, match=sentence):
        require_schedule(name)
