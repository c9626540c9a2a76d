"""Every search of prunas drives the same transitions: those of cells, and of traced networks."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunas.errors import InputError
from prunas.search.budget import Budget, Feasible, as_values
from prunas.search.method import Scored
from prunas.search.methods import SEARCHES
from prunas.supernet.space import Candidate
from prunas.transformer_nat import (
    PUBLISHED,
    WINDOW,
    NothingToReplaceError,
    TransformationGenes,
    TransformationSpace,
    cell_graph,
    cifar_skeleton,
    traced_transformations,
    transformations,
)
from tests.transformer_nat.graphs import graph_of, graphs
from tests.transformer_nat.traced_networks import IMAGE, NETWORKS

SPACES: Mapping[str, TransformationSpace] = {
    "cells": transformations(cell_graph(PUBLISHED["ENAS"], cifar_skeleton(4, 3, size=8))),
    "network": traced_transformations(NETWORKS["inverted"](), IMAGE).moves,
    "small": transformations(graph_of(("conv_1x1", "in", "out"), ("skip_connect", "in", "out"))),
}


def feasible(genes: TransformationGenes) -> Feasible:
    return Feasible(genes.space, Budget((("macs", 1.0),), tolerance=WINDOW), genes)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_drives_the_transitions(name: str, space: str) -> None:
    genes = TransformationGenes(SPACES[space])
    moves, method = genes.moves, SEARCHES[name]
    state = method.start(genes.space, feasible(genes), None, np.random.default_rng(0))
    full = moves.cost(moves.source)
    seen: list[Candidate] = []
    for _ in range(6):
        state, asked = method.ask(state, 4)
        told = []
        for candidate in asked:
            positions = genes.positions(candidate)
            assert genes.candidate(positions) == candidate
            cost = moves.cost(positions)
            assert not cost.exceeds(full)
            score = -cost.published_macs if moves.connected(positions) else math.nan
            told.append(Scored(candidate, score))
            seen.append(positions)
        state = method.tell(state, told)
    assert len(set(seen)) == len(seen) > 0
    if name == "uniform":  # knows two candidates here: all kept, and all the cheapest
        assert len(seen) <= 2
    elif moves.size > 100:
        assert len(seen) == 24


def test_a_search_finds_what_is_best() -> None:
    """A term for each option of each edge: evolution comes near the best in 150 scores."""
    genes = TransformationGenes(SPACES["network"])
    worth = np.random.default_rng(0).normal(size=(len(genes.edges), 9))

    def value(candidate: Candidate) -> float:
        return float(sum(worth[gene, choice] for gene, choice in enumerate(candidate)))

    method = SEARCHES["evolution"]
    state = method.start(genes.space, feasible(genes), None, np.random.default_rng(1))
    for _ in range(15):
        state, asked = method.ask(state, 10)
        state = method.tell(state, [Scored(each, value(each)) for each in asked])
    most = sum(worth[g, : len(gene.choices)].max() for g, gene in enumerate(genes.space.genes))
    first = np.mean([entry.score for entry in state.told[:10]])
    assert max(entry.score for entry in state.told) > first + 0.75 * (most - first)


@settings(max_examples=60, deadline=None)
@given(graph=graphs(), seed=st.integers(0, 1000))
def test_many_candidates_cost_what_each_does(graph: object, seed: int) -> None:
    try:
        moves = transformations(graph)  # type: ignore[arg-type]
    except NothingToReplaceError:
        return
    genes = TransformationGenes(moves)
    values = as_values(genes.space.sample(np.random.default_rng(seed), 8))
    costs = [moves.cost(genes.positions(row)) for row in values.tolist()]
    assert genes.macs(values).tolist() == [cost.published_macs for cost in costs]
    assert genes.params(values).tolist() == [cost.params for cost in costs]


def test_the_full_candidate_is_the_source() -> None:
    for moves in SPACES.values():
        genes = TransformationGenes(moves)
        assert genes.positions(genes.space.full()) == moves.source
        assert len(genes.space.genes) == sum(len(names) > 1 for names in moves.options)
        assert genes.space.size == moves.size


def test_candidates_of_something_else() -> None:
    genes = TransformationGenes(SPACES["small"])
    with pytest.raises(InputError, match="belongs to another space"):
        genes.positions([0])
    with pytest.raises(InputError, match="belongs to another graph"):
        genes.candidate([0])
