"""The candidate that all others of a budget grow from.

With one limit it is the smallest of every gene. Alternatives may be cheap in one cost and dear in
another; where several costs are limited, the one that is cheapest in the mean may be outside, and
others inside.
"""

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from prunas.search.costs import Values
from prunas.search.enumeration import product
from prunas.supernet.space import SearchSpace

Choices = tuple[int, ...]

Priced = Callable[[Values], NDArray[np.int64]]
"""(n, genes) candidates to (n, costs)."""

_FEW: Final = 2**12  # ways to choose among alternatives that are all tried
_PARTS: Final = 16  # of weight, shared between the costs, where there are more


def by_cost(space: SearchSpace, priced: Priced) -> list[Choices]:
    """Per gene its choices, ascending; alternatives from the cheapest, at the smallest widths.

    Cheap is what has the smallest share of the full network's costs, in the mean.
    """
    result = [gene.choices for gene in space.genes]
    for index, shares in _shares(space, priced).items():
        order = np.argsort(shares.mean(axis=1), kind="stable")
        result[index] = tuple(result[index][place] for place in order)
    return result


def ways_to_begin(space: SearchSpace, priced: Priced) -> Values:
    """(n, genes) smallest widths with alternatives chosen in all ways.

    Of very many ways those that are cheapest for some weights of the costs: exact where what an
    alternative costs does not depend on the others.
    """
    genes = list(space.alternatives)
    choices = [space.genes[gene].choices for gene in genes]
    if math.prod(map(len, choices)) <= _FEW:
        chosen = product(choices)
    else:
        shares = _shares(space, priced)
        weights = _weights(shares[genes[0]].shape[1])
        chosen = np.stack(
            [
                np.asarray(row)[(weights @ shares[gene].T).argmin(axis=1)]
                for gene, row in zip(genes, choices, strict=True)
            ],
            axis=1,
        )
    result = np.tile(np.array(space.smallest(), dtype=np.int64), (len(chosen), 1))
    result[:, genes] = chosen
    return result


def led_by(first: Sequence[int], ordered: Sequence[Choices]) -> list[Choices]:
    """These choices, those of `first` moved to the front."""
    return [
        (value, *(choice for choice in row if choice != value))
        for value, row in zip(first, ordered, strict=True)
    ]


def _shares(space: SearchSpace, priced: Priced) -> dict[int, NDArray[np.float64]]:
    """{gene: (alternatives, costs)} of the full network's, the rest of the network smallest."""
    full = priced(np.array([space.full()], dtype=np.int64))
    result = {}
    for index in space.alternatives:
        choices = space.genes[index].choices
        rows = np.array([space.smallest()] * len(choices), dtype=np.int64)
        rows[:, index] = choices
        result[index] = priced(rows) / full
    return result


def _weights(costs: int) -> NDArray[np.float64]:
    """(n, costs) weights that share `_PARTS` parts between the costs in all ways."""
    places = _PARTS + costs - 1
    bars = np.array(list(combinations(range(places), costs - 1)), dtype=np.int64)
    left, right = np.full((len(bars), 1), -1), np.full((len(bars), 1), places)
    return (np.diff(np.hstack([left, bars, right]), axis=1) - 1) / _PARTS
