"""Candidates, their removed indices, and a space as text."""

import json
import subprocess
import sys
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunas.errors import InputError
from prunas.supernet.grid import EVERY, WidthGrid
from prunas.supernet.space import Candidate, SearchSpace, size_polynomial, surviving
from prunas.supernet.trace import trace
from tests.supernet.networks import IMAGE, Network, plain_chain
from tests.supernet.random_networks import networks


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    """Genes "0" (8 channels) and "3" (16)."""
    return trace(plain_chain(), IMAGE, grid=WidthGrid((0.25, 0.5, 1.0)))


def test_genes_and_size(space: SearchSpace) -> None:
    assert [(gene.name, gene.kind, gene.choices) for gene in space.genes] == [
        ("0", "width", (2, 4, 8)),
        ("3", "width", (4, 8, 16)),
    ]
    assert space.size == 9
    assert space.offsets == (1, 9)
    assert space.gene_of_atom.tolist() == [-1] + [0] * 8 + [1] * 16
    assert "2 width genes, 9 candidates, 2 pinned" in repr(space)


def test_named_candidates(space: SearchSpace) -> None:
    assert space.full() == (8, 16)
    assert space.smallest() == (2, 4)
    assert space.uniform(0.5) == (4, 8)
    assert space.uniform(0.375) == (4, 8)  # 3 lies between 2 and 4, 6 between 4 and 8: the larger
    assert space.uniform(0.01) == (2, 4)
    assert repr(space.full()) == "Candidate(8, 16)"
    assert len({space.full(), Candidate((8, 16))}) == 1


@pytest.mark.parametrize("ratio", [0.0, -1.0, 1.1, "0.5", None])
def test_uniform_wants_a_share(space: SearchSpace, ratio: Any) -> None:
    with pytest.raises(InputError, match=rf"uniform width {ratio!r} is outside \(0, 1\]"):
        space.uniform(ratio)


def test_samples_are_uniform_and_repeatable(space: SearchSpace) -> None:
    drawn = space.sample(np.random.default_rng(0), 900)
    assert drawn == space.sample(np.random.default_rng(0), 900)
    counts = {candidate: drawn.count(candidate) for candidate in set(drawn)}
    assert set(counts) == set(product((2, 4, 8), (4, 8, 16)))
    assert min(counts.values()) > 60  # 100 expected; six standard deviations are 57
    assert space.sample(np.random.default_rng(0), 0) == []


def test_what_nothing_can_be_drawn_by_is_refused(space: SearchSpace) -> None:
    wrong: Any
    for wrong in (-1, 2.5, None):
        with pytest.raises(InputError, match=f"{wrong} candidates cannot be drawn"):
            space.sample(np.random.default_rng(0), wrong)
    wrong = 5
    with pytest.raises(InputError, match="5 draws nothing; give numpy"):
        space.sample(wrong, 2)


def test_candidates_are_checked(space: SearchSpace) -> None:
    assert space.candidate(np.array([4, 8]).tolist()) == (4, 8)
    with pytest.raises(InputError, match="1 values but the space has 2 genes"):
        space.candidate([4])
    with pytest.raises(
        InputError, match=r"3 is not a choice of gene '0'; choose one of \(2, 4, 8\)"
    ):
        space.candidate([3, 8])
    wrong: Any
    for wrong in (4.5, None, "a", float("nan"), float("inf")):
        with pytest.raises(InputError, match=f"{wrong} is not a choice of gene '0'"):
            space.candidate([wrong, 8])
    for wrong in (None, 8):
        with pytest.raises(InputError, match=f"a value for each of 2 genes, and is not {wrong}"):
            space.candidate(wrong)
    assert space.candidate(torch.tensor([4, 8])) == (4, 8)  # type: ignore[arg-type]
    assert space.candidate([np.int64(4), 8.0]) == (4, 8)  # type: ignore[list-item]


def test_removed_indices(space: SearchSpace) -> None:
    removed = space.removed((4, 8))
    gone = {name: {d: i.tolist() for d, i in dims.items()} for name, dims in removed.items()}
    first, second = list(range(4, 8)), list(range(8, 16))
    norm = {f"1.{name}": {0: first} for name in ("weight", "bias", "running_mean", "running_var")}
    assert gone == {
        "0.weight": {0: first},
        **norm,
        "3.weight": {0: second, 1: first},
        "3.bias": {0: second},
        "7.weight": {1: second},
    }
    assert space.removed(space.full()) == {}


@settings(max_examples=25, deadline=None)
@given(network=networks(), seed=st.integers(0, 99))
def test_lengths_are_polynomials_of_the_widths(network: Network, seed: int) -> None:
    """Closed form against counting the survivors."""
    space = trace(network, IMAGE, grid=EVERY)
    candidate = space.sample(np.random.default_rng(seed), 1)[0]
    kept = space.kept(candidate)
    for dimensions in space.slots.values():
        for factors in dimensions.values():
            size = size_polynomial(factors, space.gene_of_atom, space.widths)
            length = sum(c * int(np.prod([candidate[g] for g in genes])) for c, genes in size)
            assert length == int(surviving(factors, kept).sum())


def test_half_a_rectangle_is_no_polynomial() -> None:
    atoms = np.array([1, 1, 2])
    with pytest.raises(AssertionError, match="3 entries do not fill 2 cells"):
        size_polynomial((atoms,), np.array([-1, 0, 0]), (2,))


@settings(max_examples=20, deadline=None)
@given(network=networks())
def test_a_space_comes_back_from_text(network: Network) -> None:
    space = trace(network, IMAGE)
    again = SearchSpace.from_json(space.to_json())
    assert again == space
    assert hash(again) == hash(space)
    assert again.to_json() == space.to_json()
    assert again.sample(np.random.default_rng(0), 3) == space.sample(np.random.default_rng(0), 3)
    orders = [list(range(width))[::-1] for width in space.widths]
    assert again.reordered(orders) == space.reordered(orders)
    assert space != "a space"


def test_another_process_writes_the_same_text() -> None:
    code = (
        "import prunas; from tests.supernet.networks import IMAGE, Network;"
        "print(prunas.trace(Network(['Attention', 'Grouped']), IMAGE).to_json())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == trace(Network(["Attention", "Grouped"]), IMAGE).to_json()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 3}', "nonsense", "null"])
def test_what_is_no_space_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="the text is not a saved search space"):
        SearchSpace.from_json(text)


def test_another_format_is_refused(space: SearchSpace) -> None:
    data = json.loads(space.to_json()) | {"format": 99}
    with pytest.raises(InputError, match="has format 99, this prunas reads 3; trace the network"):
        SearchSpace.from_json(json.dumps(data))


def test_taps_name_the_inputs_of_layers() -> None:
    space = trace(Network(["Depthwise"]), IMAGE, grid=EVERY)
    taps = {tap.module: tap for tap in space.taps}
    assert set(taps) == {"3.0", "3.1", "3.3", "4.2"}
    assert taps["3.1"].depthwise
    assert not taps["3.0"].depthwise
    start = space.offsets[1]  # the 10 depthwise channels
    assert [atoms.tolist() for atoms in taps["3.1"].atoms] == [list(range(start, start + 10))]
