"""Search spaces small enough to enumerate, with real genes and the real cost model."""

from collections.abc import Sequence
from itertools import pairwise, product

import numpy as np
from hypothesis import strategies as st
from torch import nn

from prunas.eval.cost import Cost
from prunas.search.budget import Budget, Feasible
from prunas.search.costs import Values
from prunas.search.method import Scored, Search, State
from prunas.search.prior import Prior
from prunas.supernet.grid import EVERY
from prunas.supernet.space import Candidate, Contraction, Gene, SearchSpace
from prunas.supernet.trace import trace
from tests.supernet.networks import IMAGE, Residual

Terms = Sequence[tuple[int, tuple[int, ...]]]
"""A polynomial with non-negative coefficients: (coefficient, genes multiplied)."""


def toy_space(
    choices: Sequence[tuple[int, ...]], terms: Terms, weights: Sequence[int] | None = None
) -> SearchSpace:
    """A space whose MACs are `terms` and whose parameters are sum_g weights[g] * c_g."""
    widths = tuple(row[-1] for row in choices)
    names = [f"weight{gene}" for gene in range(len(choices))]
    weights = weights or [1] * len(choices)
    atoms = [1 + sum(widths[:g]) + np.arange(width) for g, width in enumerate(widths)]
    return SearchSpace(
        genes=tuple(Gene(f"gene{g}", "width", row) for g, row in enumerate(choices)),
        widths=widths,
        pinned=(),
        network="Toy",
        inputs=None,
        outputs=None,
        shapes={name: (w, c) for name, w, c in zip(names, weights, widths, strict=True)},
        parameters=frozenset(names),
        aliases={},
        slots={name: {1: (row,)} for name, row in zip(names, atoms, strict=True)},
        attributes=(),
        contractions=tuple(
            Contraction("toy", "mm", coefficient, tuple(((1, (gene,)),) for gene in genes))
            for coefficient, genes in terms
        ),
        taps=(),
    )


def space_with_blocks(blocks: int = 3) -> SearchSpace:
    """Residual blocks of 12 channels on a stem of 8; the blocks' genes come last."""
    layers = (Residual(8) for _ in range(blocks))
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    return trace(nn.Sequential(nn.Conv2d(3, 8, 1), *layers, *head), IMAGE, grid=EVERY)


def chain_space(genes: int, steps: int = 8, channels: int = 32) -> SearchSpace:
    """A chain of layers, each of the same resolution: MACs are products of neighbouring widths."""
    row = tuple(channels * step // steps for step in range(1, steps + 1))
    terms = [(100, pair) for pair in pairwise(range(genes))]
    return toy_space([row] * genes, [(2700, (0,)), *terms, (10, (genes - 1,))])


def feasible(space: SearchSpace, text: str, tolerance: float = 0.02) -> Feasible:
    return Feasible(space, Budget.parse(text, tolerance=tolerance), Cost(space))


def everything(space: SearchSpace) -> Values:
    """All candidates, (size, genes)."""
    return np.array(list(product(*(gene.choices for gene in space.genes))), dtype=np.int64)


def prior_of(space: SearchSpace, seed: int = 0) -> Prior:
    """Some worth for every channel, less and less."""
    rng = np.random.default_rng(seed)
    gains = [np.sort(rng.random(width))[::-1] * rng.random() for width in space.widths]
    return Prior(
        orders=tuple(tuple(range(width)) for width in space.widths),
        values=tuple((0.0, *np.cumsum(gain).tolist()) for gain in gains),
    )


def landscape(candidate: Candidate) -> float:
    """A score with an optimum inside: every gene has a width that it likes."""
    likes = [4 + (7 * gene) % 23 for gene in range(len(candidate))]
    return -sum((value - like) ** 2 for value, like in zip(candidate, likes, strict=True)) / 100


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    """Random small spaces with random monotone polynomial MACs, every gene in some term."""
    genes = draw(st.integers(1, 4))
    row = st.lists(st.integers(1, 40), min_size=1, max_size=5, unique=True)
    choices = [tuple(sorted(draw(row))) for _ in range(genes)]
    coefficient, gene = st.integers(1, 50), st.integers(0, genes - 1)
    factors = st.lists(gene, min_size=1, max_size=3).map(tuple)
    more = draw(st.lists(st.tuples(coefficient, factors), max_size=4))
    every = [(draw(coefficient), (g,)) for g in range(genes)]
    weights = draw(st.lists(st.integers(1, 9), min_size=genes, max_size=genes))
    return toy_space(choices, [*every, *more], weights)


@st.composite
def problems(draw: st.DrawFn) -> Feasible:
    """A random space with one limit or two that its smallest candidate meets."""
    space = draw(spaces())
    cost = Cost(space)
    ends = np.array([space.smallest(), space.full()])
    (least_macs, macs), (least_params, params) = cost.macs(ends), cost.params(ends)
    limits = {"macs": draw(st.integers(int(least_macs), int(macs * 1.1) + 1))}
    if draw(st.booleans()):
        limits["params"] = draw(st.integers(int(least_params), int(params * 1.1) + 1))
    tolerance = draw(st.sampled_from([0.0, 0.02, 0.3]))
    return Feasible(space, Budget(tuple(limits.items()), tolerance), cost)


def wide_open(space: SearchSpace) -> Feasible:
    """A problem whose window holds nearly every candidate, so that repair changes none."""
    return feasible(space, "macs=100%", 0.99)


def played(method: Search, problem: Feasible, seed: int, evaluations: int, batch: int) -> State:
    """`method` after so many scores of `landscape`."""
    state = method.start(problem.space, problem, None, np.random.default_rng(seed))
    for _ in range(evaluations // batch):
        state, asked = method.ask(state, batch)
        state = method.tell(state, [Scored(c, landscape(c)) for c in asked])
    return state


def best_score(state: State) -> float:
    return max(scored.score for scored in state.told)
