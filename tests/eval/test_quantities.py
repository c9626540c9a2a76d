"""The quantities that latency is a sum of, in spaces of every kind of gene."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunas.eval.latency.features import Features
from prunas.supernet.choice import Choice
from prunas.supernet.cut import cut
from prunas.supernet.grid import EVERY
from prunas.supernet.resolution import seen, side_of
from prunas.supernet.space import Candidate, SearchSpace
from prunas.supernet.spos import spos_network, spos_space
from prunas.supernet.trace import trace
from tests.eval.following import Following
from tests.eval.joint import NETWORKS, network_of, of_timm, traced
from tests.supernet.counting import macs_counted
from tests.supernet.networks import Residual

FAMILY = re.compile(r"(?P<operator>\w+) (?P<macs>\d+) of [\d,]*, (?P<sizes>\d) sizes: (?P<what>.*)")
CONTRACTIONS = {"aten.convolution", "aten.addmm", "aten.mm", "aten.bmm"}


def compared(network: nn.Module, space: SearchSpace, candidates: int, seed: int = 0) -> Features:
    features = Features(network, space)
    some = space.sample(np.random.default_rng(seed), candidates)
    chosen = [space.full(), space.smallest(), *some]
    for candidate, row in zip(chosen, features.values(chosen), strict=True):
        columns = dict(zip(features.names, row.tolist(), strict=True))
        compared_with_the_cut_network(columns, network, space, candidate)
    return features


def compared_with_the_cut_network(
    columns: dict[str, float], network: nn.Module, space: SearchSpace, candidate: Candidate
) -> None:
    size = seen(tuple(space.inputs["shape"][1:]), side_of(space, candidate))
    small = cut(network, space, candidate)
    assert work_of(columns) == pytest.approx(macs_counted(small, size), rel=1e-12)
    moved = Following(small, size).moved()
    layers = sum(runs for name, (runs, _) in moved.items() if name in CONTRACTIONS)
    families = [name for name in columns if FAMILY.match(name) and name.endswith(": runs")]
    assert sum(columns[name] for name in families) == layers
    others = {name: both for name, both in moved.items() if name not in CONTRACTIONS}
    named = {name.partition(": ")[0] for name in columns if name.startswith("aten.")}
    assert named >= others.keys()
    for name in named:
        found = columns[f"{name}: runs"], columns[f"{name}: bytes"]
        assert found == others.get(name, (0, 0)), name


def work_of(columns: dict[str, float]) -> float:
    """MACs, from the column of each family that is largest in all sizes."""
    total = 0.0
    for name, value in columns.items():
        found = FAMILY.match(name)
        if found is not None:
            whole = ("filled", "size 0", "product")[min(int(found["sizes"]), 2)]
            total += int(found["macs"]) * value * (found["what"] == whole)
    return total


@pytest.mark.parametrize("name", NETWORKS)
def test_against_the_cut_network(name: str) -> None:
    network, space = traced(name)
    compared(network, space, 12)


@settings(max_examples=8, deadline=None)
@given(name=st.sampled_from(sorted(NETWORKS)), seed=st.integers(0, 2**32 - 1))
def test_at_all_sides(name: str, seed: int) -> None:
    network, space = traced(name, (7, 10))
    compared(network, space, 3, seed)


@pytest.mark.parametrize(
    ("name", "size", "resolutions"),
    [
        ("mobilenetv3_small_050", 64, ()),
        ("tf_mobilenetv3_small_075", 64, (48,)),
        ("test_efficientnet", 64, (33, 48)),
    ],
)
def test_networks_of_timm(name: str, size: int, resolutions: tuple[int, ...]) -> None:
    network, space = of_timm(name, size, resolutions)
    compared(network, space, 2)


@pytest.mark.slow
def test_single_path_one_shot() -> None:
    network = spos_network(classes=5).eval()
    compared(network, spos_space(network, (3, 64, 64)), 3)


def depthwise(kernel: int) -> nn.Module:
    return nn.Conv2d(8, 8, kernel, padding=kernel // 2, groups=8)


def test_a_smaller_kernel_is_of_the_family_of_such_layers() -> None:
    network = network_of(depthwise(3), depthwise(5))
    space = trace(network, (3, 6, 6), grid=EVERY, genes=("width", "kernel"))
    features = Features(network, space)
    three = next(name for name in features.names if name.startswith("convolution 324 of"))
    five = next(name for name in features.names if name.startswith("convolution 900 of"))
    rows = features.values([space.full(), Candidate((*space.full()[:-1], 3))])
    runs = [
        [row[features.names.index(f"{name.partition(':')[0]}: runs")] for name in (three, five)]
        for row in rows
    ]
    assert runs == [[1, 1], [2, 0]]


def test_what_a_side_has_of_the_work_on_the_largest_images() -> None:
    """Half the side is a quarter of the positions, as many layers, and the same classifier."""
    network = network_of(Residual(8))
    space = trace(network, (3, 12, 12), genes=("depth",), resolutions=(6,))
    features = Features(network, space)
    large, small = features.values([(1, 12), (1, 6)])
    shares = {name: b / a for name, a, b in zip(features.names, large, small, strict=True) if a}
    for name, share in shares.items():
        if name.startswith("convolution"):
            assert share == (1 if name.endswith("runs") else 0.25), name
        if name.startswith(("linear", "start")):
            assert share == 1, name


def test_only_the_chosen_alternative_counts() -> None:
    network = network_of(Choice([nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 5, padding=2)]))
    space = trace(network, (3, 6, 6), genes=("operator",))
    features = Features(network, space)
    one, other = features.values([(0,), (1,)])
    pairs = list(zip(features.names, one, other, strict=True))
    apart = {name.partition(":")[0]: (a, b) for name, a, b in pairs if a != b}
    assert {name.split()[1]: both for name, both in apart.items()} == {
        str(36 * 64): (1, 0), str(36 * 64 * 25): (0, 1)
    }  # fmt: skip
