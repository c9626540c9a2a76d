"""Choice blocks as genes, and the space of Single Path One-Shot."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import prunas
from prunas.errors import InputError
from prunas.eval.cost import Cost
from prunas.search.budget import Budget, Feasible, as_candidates, as_values
from prunas.search.prior import allocate
from prunas.supernet.choice import Choice, Chosen, choices_of, choosing
from prunas.supernet.cut import cut
from prunas.supernet.elastic import Supernet
from prunas.supernet.grid import EVERY
from prunas.supernet.space import Candidate, SearchSpace
from prunas.supernet.spos import spos_candidate, spos_network, spos_space
from prunas.supernet.trace import KINDS, trace
from prunas.supernet.training import stratified
from prunas.supernet.tying import tied
from prunas.supernet.verify import verify
from tests.supernet.counting import macs_counted, parameters_counted
from tests.supernet.networks import IMAGE, Plain, Residual, bottleneck, choice_block


def network_of(*blocks: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *blocks, *head).eval()


def mixed() -> tuple[nn.Sequential, SearchSpace]:
    network = network_of(choice_block(), Residual(8), choice_block())
    return network, trace(network, IMAGE, grid=EVERY, genes=KINDS)


# -- the module ------------------------------------------------------------------------------------


def test_the_last_alternative_runs_until_another_is_chosen() -> None:
    parts = [nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1)]
    block, images = Choice(parts), torch.randn(2, 3, 5, 5)
    assert block.names == ("0", "1")
    assert torch.equal(block(images), parts[1](images))
    with choosing(block, {"": 0}):
        assert torch.equal(block(images), parts[0](images))
    assert torch.equal(block(images), parts[1](images))


def test_only_what_runs_learns() -> None:
    network, space = mixed()
    source = Supernet(network, space)
    chosen = Candidate(
        1 if gene.name == "1" else value
        for gene, value in zip(space.genes, space.full(), strict=True)
    )
    with source.running(chosen) as path:
        path(torch.randn(2, *IMAGE)).sum().backward()
    learnt = {name for name, p in network.named_parameters() if p.grad is not None}
    assert {name.split(".")[1] for name in learnt if name.startswith("1.")} == {"small"}


def test_choices_that_are_none() -> None:
    with pytest.raises(InputError, match="a choice between 1 alternatives is none; give two"):
        Choice([nn.Identity()])
    with pytest.raises(InputError, match=r"alternative 'b' is a str; give an nn\.Module"):
        Choice({"a": nn.Identity(), "b": "conv"})  # type: ignore[dict-item]


@pytest.mark.parametrize("name", ["a.b", "names", "forward", "chosen", "together", "", 1])
def test_names_that_no_alternative_can_have(name: Any) -> None:
    with pytest.raises(InputError, match=f"an alternative cannot be called {name!r}; give a name"):
        Choice({"a": nn.Identity(), name: nn.Identity()})


def test_a_dictionary_of_modules_is_a_choice() -> None:
    assert Choice(nn.ModuleDict({"a": nn.Identity(), "b": nn.ReLU()})).names == ("a", "b")


def test_alternatives_of_other_shapes() -> None:
    network = network_of(Choice({"a": nn.Conv2d(8, 8, 1), "b": nn.Conv2d(8, 8, 3)}))
    shapes = r"a \(2, 8, 8, 8\), b \(2, 8, 6, 6\); give modules of equal outputs"
    with pytest.raises(
        InputError, match=f"the alternatives of a choice return other shapes.*{shapes}"
    ):
        trace(network, IMAGE, genes=KINDS)


# -- the gene --------------------------------------------------------------------------------------


def test_the_gene_counts_the_alternatives() -> None:
    _, space = mixed()
    genes = {gene.name: gene for gene in space.genes if gene.kind == "operator"}
    assert list(genes) == ["1.gated.1", "3.gated.1", "1", "3"]  # the gates inside are genes too
    assert genes["1"].choices == (0, 1, 2, 3)
    assert [c.names for c in space.alternatives.values()] == [
        ("none", "small", "gated", "large")
    ] * 2


def test_a_shortcut_among_the_alternatives_is_no_block() -> None:
    network = network_of(Choice([nn.Identity(), Residual(8)]))
    space = trace(network, IMAGE, genes=KINDS)
    assert [gene.kind for gene in space.genes if gene.kind != "width"] == ["operator"]


def test_outputs_of_all_alternatives_are_the_same_channels() -> None:
    """The choices' outputs, the stem's, the residual's and the classifier's inputs: one gene."""
    _, space = mixed()
    assert [gene.choices[-1] for gene in space.genes if gene.name == "0"] == [8]
    verify(*mixed())


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_costs_are_those_of_the_cut_network(seed: int) -> None:
    network, space = mixed()
    cost = Cost(space)
    for candidate in space.sample(np.random.default_rng(seed), 3):
        small = cut(network, space, candidate)
        assert cost.macs([candidate])[0] == macs_counted(small, IMAGE)
        assert cost.params([candidate])[0] == parameters_counted(small)


def test_running_one_is_running_it_cut() -> None:
    network, space = mixed()
    source, images = Supernet(network, space), torch.randn(2, *IMAGE)
    for candidate in [space.smallest(), space.full(), *space.sample(np.random.default_rng(1), 8)]:
        expected = cut(network, space, candidate)(images)
        with source.frozen(candidate) as running:
            torch.testing.assert_close(running(images), expected)
    block = network.get_submodule("1")
    assert isinstance(block, Choice)
    assert block.chosen == 3  # as it was


def test_a_cut_network_is_plain_and_keeps_names() -> None:
    network, space = mixed()
    candidate = Candidate(
        {"1": 1, "3": 0}.get(gene.name, value)
        for gene, value in zip(space.genes, space.full(), strict=True)
    )
    small = cut(network, space, candidate)
    assert not any(isinstance(module, Choice) for module in small.modules())
    assert isinstance(small.get_submodule("1"), Chosen)
    assert "1.small.0.weight" in small.state_dict()
    assert not any(name.startswith("3.") for name in small.state_dict())
    assert set(small.state_dict()) < set(network.state_dict())
    removed = space.removed(candidate)
    assert len(removed["1.large.0.weight"][0]) == 12
    assert "1.small.0.weight" not in removed


def test_choices_inside_choices_and_inside_blocks() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Choice([Plain(8), nn.Sequential(Plain(8), choice_block())])

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = x + self.inner(x)
            return out

    network = network_of(Around())
    space = trace(network, IMAGE, grid=EVERY, genes=KINDS)
    kinds = [(gene.name, gene.kind) for gene in space.genes if gene.kind != "width"]
    assert ("1.inner", "operator") in kinds
    assert ("1.inner.1.1", "operator") in kinds
    assert ("1", "depth") in kinds
    verify(network, space)
    cost, source, images = Cost(space), Supernet(network, space), torch.randn(2, *IMAGE)
    for candidate in space.sample(np.random.default_rng(0), 20):
        small = cut(network, space, candidate)
        with source.running(candidate) as running:
            torch.testing.assert_close(running(images), small(images))
        assert cost.params([candidate])[0] == parameters_counted(small)


def test_choices_and_resolutions_together() -> None:
    network = network_of(choice_block())
    space = trace(network, IMAGE, grid=EVERY, genes=KINDS, resolutions=(5, 6))
    cost = Cost(space)
    assert SearchSpace.from_json(space.to_json()) == space
    for candidate in space.sample(np.random.default_rng(0), 20):
        small, side = cut(network, space, candidate), candidate[-1]
        assert cost.macs([candidate])[0] == macs_counted(small, (3, side, side))


def test_what_keeps_a_choice_from_being_a_gene() -> None:
    block = Choice([nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)])
    one, two = block.get_submodule("0"), block.get_submodule("1")
    two.weight = one.weight
    space = trace(network_of(block), IMAGE, genes=KINDS)
    assert ("1", "its alternatives share 1.0.weight with 1.1.weight") in {
        (entry.name, entry.reason) for entry in space.pinned
    }
    kept = trace(network_of(choice_block()), IMAGE, genes=KINDS, keep=["1.small"])
    assert ("1", "the choice was asked to be left alone") in {
        (entry.name, entry.reason) for entry in kept.pinned
    }


@pytest.mark.parametrize("chosen", [0, 1, 2, 3])
@pytest.mark.parametrize("searched", ["not searched", "kept", "another"])
def test_a_choice_without_a_gene_costs_what_runs(chosen: int, searched: str) -> None:
    """Of a nested one too; all its parameters stay."""
    network = nn.Sequential(nn.Conv2d(3, 8, 1), choice_block(), choice_block(), nn.Conv2d(8, 4, 1))
    for _, choice in choices_of(network):
        choice.chosen = chosen
    genes = ("width",) if searched == "not searched" else ("width", "operator")
    kept = {"not searched": (), "kept": ("1.small", "2.small"), "another": ("1.small",)}[searched]
    space = trace(network, IMAGE, grid=EVERY, keep=kept, genes=genes)
    rng = np.random.default_rng(chosen)
    for candidate in (space.full(), space.smallest(), *space.sample(rng, 4)):
        small = cut(network, space, candidate)
        assert Cost(space).macs([candidate])[0] == macs_counted(small, IMAGE)
        assert Cost(space).params([candidate])[0] == parameters_counted(small)


def test_paths_choose_every_alternative_equally_often() -> None:
    _, space = mixed()
    drawn = np.array(stratified(space, np.random.default_rng(0), 40))
    for gene in space.alternatives:
        assert np.bincount(drawn[:, gene]).tolist() == [10, 10, 10, 10]


# -- budgets ---------------------------------------------------------------------------------------


@given(share=st.floats(0.1, 1), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_candidates_are_inside_the_budget_and_make_use_of_it(share: float, seed: int) -> None:
    """Also where a dearer alternative is cheaper at some widths: inner widths are genes here."""
    _, space = mixed()
    feasible = Feasible(space, Budget((("macs", share),)), Cost(space))
    rng = np.random.default_rng(seed)
    drawn = as_values(feasible.sample(rng, 10))
    repaired = feasible.repair(as_values(space.sample(rng, 10)), rng)
    for values in (drawn, repaired):
        assert feasible.in_window(values).all()
        assert all(space.candidate(row) for row in as_candidates(values))


def test_alternatives_may_stand_in_any_order() -> None:
    network = network_of(Choice([Plain(8), nn.Identity(), bottleneck(4, 3)]))
    space = trace(network, IMAGE, grid=EVERY, genes=KINDS)
    cost = Cost(space)
    (gene,) = space.alternatives
    least = int(cost.macs([_with(space.smallest(), gene, 1)])[0])
    feasible = Feasible(space, Budget((("macs", least),)), cost)
    assert feasible.cheapest == _with(space.smallest(), gene, 1)
    values = as_values(space.sample(np.random.default_rng(0), 100))
    assert (feasible.values(feasible.positions(values)) == values).all()
    with pytest.raises(InputError, match=f"the smallest one has {least:,}"):
        Feasible(space, Budget((("macs", least - 1),)), cost)


def _with(candidate: Candidate, gene: int, value: int) -> Candidate:
    return Candidate(value if place == gene else v for place, v in enumerate(candidate))


@given(share=st.floats(0.05, 1))
@settings(max_examples=20, deadline=None)
def test_the_prior_allocates_inside_the_budget(share: float) -> None:
    _, space = mixed()
    cost = Cost(space)
    feasible = Feasible(space, Budget((("macs", share), ("params", share))), cost)
    values = [tuple(np.linspace(0, 1, width + 1)) for width in space.widths]
    assert feasible.contains(as_values([allocate(values, feasible)])).all()


# -- what is kept ----------------------------------------------------------------------------------


class Mine(nn.Module):
    """Built without arguments, so that its artifact needs no parent."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = nn.Conv2d(3, 8, 3, padding=1), choice_block()
        self.last = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.block(self.stem(x))).mean((2, 3))
        return out


@pytest.mark.parametrize("alternative", range(4))
def test_artifacts_keep_what_was_chosen(tmp_path: Path, alternative: int) -> None:
    network = Mine().eval()
    space = trace(network, IMAGE, genes=KINDS)
    candidate = Candidate(
        alternative if gene.name == "block" else gene.choices[0] for gene in space.genes
    )
    small = cut(network, space, candidate)
    prunas.save(small, tmp_path / "model")
    images = torch.randn(2, *IMAGE)
    for loaded in (
        prunas.load(tmp_path / "model"),
        prunas.load(tmp_path / "model", network=Mine()),
    ):
        assert torch.equal(loaded(images), small(images))


def test_choices_can_be_copied() -> None:
    network, _ = mixed()
    twin, images = copy.deepcopy(network), torch.randn(1, *IMAGE)
    assert torch.equal(twin(images), network(images))


# -- Single Path One-Shot --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spos() -> SearchSpace:
    with torch.device("meta"):
        network = spos_network()
    return spos_space(network)


def test_the_space_of_the_paper(spos: SearchSpace) -> None:
    assert spos.size == 4**20 * 10**20
    assert [gene.kind for gene in spos.genes] == ["width"] * 20 + ["operator"] * 20
    # half of 64, of 160, of 320 and of 640 channels, times 0.2 to 2.0, rounded down
    assert spos.genes[0].choices == (6, 12, 19, 25, 32, 38, 44, 51, 57, 64)
    assert spos.genes[19].choices == tuple(64 * step for step in range(1, 11))


# Published networks, recounted: "Single Path One-Shot" and its released code; MACs of
# convolutions and the classifier, in millions.
PUBLISHED = {
    "blocks": ((2, 1, 0, 1, 2, 0, 2, 0, 2, 0, 2, 3, 0, 0, 0, 0, 3, 2, 3, 3), None, 322.9, 3.56),
    "blocks and channels": (
        (0, 0, 3, 1, 1, 1, 0, 0, 2, 0, 2, 1, 1, 0, 2, 0, 2, 1, 3, 2),
        (6, 5, 3, 5, 2, 6, 3, 4, 2, 5, 7, 5, 4, 6, 7, 4, 4, 5, 4, 3),
        327.9,
        3.43,
    ),
    "all 3x3": ((0,) * 20, None, 295.8, None),
    "all 5x5": ((1,) * 20, None, 313.7, None),
    "all 7x7": ((2,) * 20, None, 340.4, None),
    "all Xception": ((3,) * 20, None, 358.8, None),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_cost_what_they_should(spos: SearchSpace, name: str) -> None:
    operators, scales, macs, params = PUBLISHED[name]
    cost, candidate = Cost(spos), spos_candidate(spos, operators, scales)
    assert round(int(cost.macs([candidate])[0]) / 1e6, 1) == macs
    if params is not None:
        assert round(int(cost.params([candidate])[0]) / 1e6, 2) == params


def test_random_networks_cost_what_was_counted(spos: SearchSpace) -> None:
    """Percentiles 1, 50, 99 of block choices at scale 1: 299, 327, 354 M."""
    rng = np.random.default_rng(0)
    drawn = [spos_candidate(spos, row) for row in rng.integers(0, 4, (20_000, 20)).tolist()]
    found = np.percentile(Cost(spos).macs(drawn) / 1e6, [1, 50, 99])
    np.testing.assert_allclose(found, [299, 327, 354], atol=1)  # of another 20,000


@pytest.mark.slow
def test_the_network_is_right() -> None:
    network = spos_network(classes=5).eval()
    space = spos_space(network, (3, 64, 64))
    verify(network, space)
    assert tied(space) == space
