"""What the criteria know before the search, and the allocation that follows from it alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from prunas.errors import InputError
from prunas.search.budget import Feasible
from prunas.search.costs import Values
from prunas.supernet.space import Candidate, SearchSpace

_HALVINGS: Final = 30
_FILLED: Final = 4  # points that are filled up: the last ones of the bisection are the closest
_LEFT_OUT: Final = 0.25
_PROHIBITIVE: Final = 2.0**60
_EPSILON: Final = 1e-12  # a relative gain below this is rounding; chasing it might not end

Worth = NDArray[np.float64]
"""(choices,) worth of each choice of one gene, as a share of what all genes can add."""


@dataclass(frozen=True)
class Prior:
    """What is known of each gene before any candidate is scored.

    Attributes:
        orders: per gene its channel positions, the most important first.
        values: per gene what its best k channels are worth, k = 0..width; never decreasing, in
            one unit for all genes (the discriminant information explained, for instance).

    Raises:
        InputError: orders and values do not describe the same channels, an order does not name
            each channel once, or a value decreases or is not finite.
    """

    orders: tuple[tuple[int, ...], ...]
    values: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if len(self.orders) != len(self.values):
            raise InputError(f"{len(self.orders)} orders were given, but {len(self.values)} values")
        for gene, (order, worth) in enumerate(zip(self.orders, self.values, strict=True)):
            if len(worth) != len(order) + 1:
                raise InputError(
                    f"gene {gene} has {len(order)} channels and {len(worth)} values; give the worth"
                    " of its best k channels for k = 0..width"
                )
            if sorted(order) != list(range(len(order))):
                raise InputError(
                    f"the order of gene {gene} does not name each of its {len(order)} channels"
                    f" once; give the places 0..{len(order) - 1}, the most important first"
                )
            if not np.isfinite(worth).all() or not (np.diff(worth) >= 0).all():
                raise InputError(
                    f"the values of gene {gene} decrease or are not finite numbers; give the worth"
                    " of its best k channels, which never falls as k grows"
                )


def leaning(
    space: SearchSpace, allocation: Candidate, degrees: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(n, genes) relative widths between a uniform network's and an allocation's.

    Row i is (allocation / full) ** degrees[i]: equal shares of all genes at degree 0, in which a
    budget makes the uniform network; the shape of the allocation at degree 1. A block that the
    allocation leaves out counts as a quarter, so that it is tried now and then.
    """
    shares = np.array(allocation) / np.array(space.full())
    shares[[gene for gene in space.blocks if allocation[gene] == 0]] = _LEFT_OUT
    return np.asarray(shares ** degrees[:, None])


def allocate(values: Sequence[Sequence[float]], feasible: Feasible) -> Candidate:
    """The candidate inside the budget whose genes are together worth most.

    Maximises sum_g values[g][c_g] subject to every limit: for a price p of budget, ascent on
    sum_g values[g][c_g] - p * sum_i cost_i(c) / limit_i, and p by bisection between all and
    nothing (Everett 1963, generalised Lagrange multipliers). The worthiest points on the way
    that fit are filled up greedily, by worth per cost, and the best one is returned. Where costs
    are sums over genes, worth grows ever slower and steps are small beside the budget, that is
    the optimum; large steps cannot be packed perfectly, and products of neighbouring widths make
    it a local optimum (tests/search/test_prior.py bounds the loss).

    Args:
        values: per gene the worth of its best k channels, k = 0..width (`Prior.values`).
        feasible: the candidates allowed.

    Raises:
        InputError: the values do not belong to the genes of the space.
    """
    problem = _Problem(feasible, _worth_of_choices(values, feasible.space))
    chosen = np.array(feasible.space.full(), dtype=np.int64)
    points = {feasible.cheapest, feasible.space.full()}
    low, high = 0.0, problem.prohibitive_price()
    for _ in range(_HALVINGS):
        price = (low + high) / 2
        chosen = problem.ascended(chosen, price)
        points.add(Candidate(chosen.tolist()))
        low, high = (low, price) if problem.fits(chosen) else (price, high)
    inside = [point for point in map(np.array, sorted(points)) if problem.fits(point)]
    nearest = sorted(inside, key=problem.total)[-_FILLED:]
    best = max(map(problem.filled, nearest), key=problem.total)
    return Candidate(best.tolist())


@dataclass(frozen=True)
class _Problem:
    """Worth and cost of one candidate, an array (genes,) of chosen values, and of its changes."""

    feasible: Feasible
    worths: tuple[Worth, ...]

    @cached_property
    def choices(self) -> tuple[Values, ...]:
        return tuple(np.array(gene.choices) for gene in self.feasible.space.genes)

    def fits(self, chosen: Values) -> bool:
        return bool(self.feasible.contains(chosen[None])[0])

    def load(self, rows: Values) -> NDArray[np.float64]:
        """(n,) the limited costs, each as a share of its limit, added up."""
        return np.asarray(self.feasible.shares(rows).sum(axis=1))

    def total(self, chosen: Values) -> float:
        places = map(np.searchsorted, self.choices, chosen)
        return sum(float(worth[place]) for worth, place in zip(self.worths, places, strict=True))

    def prohibitive_price(self) -> float:
        """A price at which coordinate ascent from the full network comes inside the limits.

        One step less saves at least 1 / limit of a budget, so there is one where costs are
        monotone; among alternatives ascent may end in a place that is too dear at any price.
        """
        full = np.array(self.feasible.space.full(), dtype=np.int64)
        price = 1.0  # all genes together are worth 1
        while price < _PROHIBITIVE and not self.fits(self.ascended(full, price)):
            price *= 2
        return price

    def ascended(self, chosen: Values, price: float) -> Values:
        """Ascent on worth - price * load from `chosen`, to a local maximum.

        Each round finds the best change of every gene alone and makes as many of these changes
        at once as help, the most helpful first.
        """
        current = chosen
        while True:
            rows, gains = self._changes(current)
            net = gains - price * (self.load(rows) - self.load(current[None]))
            best = [part[np.argmax(net[part])] for part in self._parts]
            helpful = sorted(
                (i for i in best if net[i] > _EPSILON * (1 + price)), key=lambda i: -net[i]
            )
            if not helpful:
                return current
            trials = np.tile(current, (len(helpful), 1))
            for place, index in enumerate(helpful):
                gene = self._owner[index]
                trials[place:, gene] = rows[index, gene]
            worth = np.cumsum(gains[helpful])
            current = trials[np.argmax(worth - price * self.load(trials))]

    def filled(self, chosen: Values) -> Values:
        """The enlargement that is worth most per cost, again and again until none fits."""
        result = chosen
        while True:
            rows, gains = self._changes(result)
            inside = self.feasible.contains(rows) & (rows > result).any(axis=1)
            if not inside.any():
                return result
            extra = self.load(rows) - self.load(result[None])
            free = extra <= 0
            rates = np.where(free, np.inf, gains / np.where(free, 1.0, extra))
            result = rows[np.argmax(np.where(inside, rates, -1.0))]

    def _changes(self, chosen: Values) -> tuple[Values, NDArray[np.float64]]:
        """`chosen` with each gene in turn at each of its choices, and what that adds in worth."""
        rows = np.tile(chosen, (len(self._owner), 1))
        rows[np.arange(len(rows)), self._owner] = np.concatenate(self.choices)
        present = [
            worth[np.searchsorted(choices, value)]
            for worth, choices, value in zip(self.worths, self.choices, chosen, strict=True)
        ]
        return rows, np.concatenate(self.worths) - np.array(present)[self._owner]

    @cached_property
    def _owner(self) -> Values:
        """(all choices,) the gene that each choice belongs to."""
        return np.repeat(np.arange(len(self.choices)), [len(row) for row in self.choices])

    @cached_property
    def _parts(self) -> tuple[Values, ...]:
        """Per gene the places of its choices in `_owner`."""
        return tuple(np.flatnonzero(self._owner == gene) for gene in range(len(self.choices)))


def _worth_of_choices(values: Sequence[Sequence[float]], space: SearchSpace) -> tuple[Worth, ...]:
    if len(values) != len(space.genes):
        raise InputError(
            f"the prior has values for {len(values)} genes and the space has {len(space.genes)};"
            " compute it again for this space"
        )
    for gene, worth in zip(space.genes, values, strict=True):
        if len(worth) <= gene.choices[-1]:
            raise InputError(
                f"the prior values {len(worth) - 1} channels of gene {gene.name!r}, which has"
                f" {gene.choices[-1]}; compute it again for this space"
            )
    rows = [
        np.array([worth[choice] for choice in gene.choices], dtype=np.float64)
        for gene, worth in zip(space.genes, values, strict=True)
    ]
    total = sum(float(row[-1] - row[0]) for row in rows)
    return tuple(row / (total or 1.0) for row in rows)
