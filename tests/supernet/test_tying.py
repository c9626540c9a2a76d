"""Genes that go together, or not at all."""

import numpy as np
import pytest
import torch

import prunas
from prunas.eval.cost import Cost
from prunas.supernet.grid import EVERY, METAPRUNING, WidthGrid
from prunas.supernet.space import SearchSpace
from prunas.supernet.tying import tied
from tests.supernet.networks import IMAGE, Network, plain_chain


def space_of(network: torch.nn.Module) -> SearchSpace:
    return prunas.trace(network, IMAGE, grid=EVERY)


def spread(space: SearchSpace, small: SearchSpace, names: list[list[str]]) -> list[list[int]]:
    """Candidates of `small` as those of `space`."""
    leader = {name: group[0] for group in names for name in group}
    result = []
    for candidate in small.sample(np.random.default_rng(0), 6):
        chosen = dict(zip((g.name for g in small.genes), candidate, strict=True))
        result.append([chosen.get(leader.get(g.name, g.name), g.choices[-1]) for g in space.genes])
    return result


@pytest.mark.parametrize("blocks", [["Plain", "Plain"], ["Residual", "Depthwise", "Residual"]])
def test_a_tied_space_cuts_and_costs_as_the_space_itself(blocks: list[str]) -> None:
    network = Network(blocks, seed=0)
    space = space_of(network)
    by_width: dict[tuple[int, ...], list[str]] = {}
    for gene in space.genes:
        if gene.kind == "width":
            by_width.setdefault(gene.choices, []).append(gene.name)
    *groups, whole = by_width.values()
    small = tied(space, groups, whole)
    assert [g.name for g in small.genes if g.kind == "width"] == [group[0] for group in groups]
    assert {p.name for p in small.pinned} >= set(whole)
    assert SearchSpace.from_json(small.to_json()) == small
    image = torch.randn(2, *IMAGE)
    ours = small.sample(np.random.default_rng(0), 6)
    theirs = spread(space, small, groups)
    assert Cost(small).macs(ours).tolist() == Cost(space).macs(theirs).tolist()
    assert Cost(small).params(ours).tolist() == Cost(space).params(theirs).tolist()
    for one, other in zip(ours, theirs, strict=True):
        cut, wanted = prunas.cut(network, small, one), prunas.cut(network, space, other)
        assert torch.equal(cut(image), wanted(image))
    prunas.verify(network, small)


def test_channels_that_are_tied_are_permuted_together() -> None:
    network = Network(["Plain", "Plain"], seed=0)
    space = space_of(network)
    names = [g.name for g in space.genes if g.choices[-1] == space.genes[-1].choices[-1]]
    assert len(names) > 1
    small = tied(space, [names])
    orders = [np.random.default_rng(1).permutation(w).tolist() for w in small.widths]
    image = torch.randn(2, *IMAGE)
    moved = prunas.permute(network, small, orders)
    torch.testing.assert_close(moved(image), network(image))


def test_what_cannot_be_tied_is_refused_in_a_sentence() -> None:
    space = prunas.trace(plain_chain(), IMAGE, grid=WidthGrid((0.5, 1.0)))
    with pytest.raises(prunas.InputError, match="0 genes are called 'nobody'; name one of 0, 3"):
        tied(space, [["0", "nobody"]])
    with pytest.raises(prunas.InputError, match="gene '0' is named twice"):
        tied(space, [["0", "0"]])
    with pytest.raises(prunas.InputError, match="gene '0' is named twice"):
        tied(space, [], ["0", "0"])
    with pytest.raises(
        prunas.InputError, match=r"'0' \(width up to 8\) and '3' \(width up to 16\)"
    ):
        tied(space, [["0", "3"]])
    deep = space_of(Network(["Residual", "Residual"], seed=0))
    blocks = [g.name for g in deep.genes if g.kind == "depth"]
    assert len(blocks) == 2
    with pytest.raises(prunas.InputError, match="is one of depth; only widths can be tied"):
        tied(deep, [blocks])


def test_groups_and_the_channels_of_each_stay_apart() -> None:
    """Four groups of four channels: rows and columns of one dimension."""
    space = space_of(Network(["Grouped"], seed=0))
    fours = [g.name for g in space.genes if g.choices == (1, 2, 3, 4)]
    assert len(fours) == 2
    with pytest.raises(prunas.InputError, match="by both of the tied genes, as rows and as"):
        tied(space, [fours])


def test_a_block_can_be_kept_whole() -> None:
    space = space_of(Network(["Residual", "Residual"], seed=0))
    (first, *others) = [g.name for g in space.genes if g.kind == "depth"]
    small = tied(space, [], [first])
    assert [g.name for g in small.genes if g.kind == "depth"] == others
    full = Cost(small).macs([small.full()]), Cost(small).params([small.full()])
    assert full == (Cost(space).macs([space.full()]), Cost(space).params([space.full()]))


def test_nothing_tied_is_the_same_space() -> None:
    space = prunas.trace(plain_chain(), IMAGE, grid=METAPRUNING)
    assert tied(space) == space
