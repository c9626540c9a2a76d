"""Budgets, and the candidates that are inside one.

A search never rejects candidates until one happens to fit: at tight budgets uniform sampling
practically never does (MetaPruning's own 43 M MAC point was reached by 0 of 20,000 samples). Here
candidates are moved onto the budget instead. Costs grow with every gene, so along any ray of
growing genes the last point that fits is found by bisection, for a whole population at once.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from prunas.errors import InputError
from prunas.given_numbers import is_whole
from prunas.search.cheapest import Choices, by_cost, led_by, ways_to_begin
from prunas.search.costs import COSTS, Costs, Values
from prunas.search.enumeration import enumerated
from prunas.supernet.space import Candidate, SearchSpace

Positions = NDArray[np.int64]
"""Candidates as an array (n, genes) of places in each gene's choices: 0 is the cheapest."""

Limits = NDArray[np.float64]
"""Upper bounds as an array (n, costs) or (1, costs), in the order of the budget."""

Mask = NDArray[np.bool_]

Path = Callable[[NDArray[np.float64]], Positions]
"""A growing curve of candidates for each row: (..., n, 1) places to (..., n, genes) positions."""

_NUMBER: Final = re.compile(r"(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*([a-zµμ]*|%)", re.IGNORECASE)
_DIGITS: Final = 18
_ENDLESS: Final = 10**_DIGITS  # what 64 bits hold, and no network has
_HALVINGS: Final = 40  # choices of one gene per ray stay far below 2**40 / spread
# the largest ratio between the preferences of two genes: a network is as good as its narrowest
# place, and shared weights are not trained for wilder shapes (benchmarks/RESULTS.md)
_SPREAD: Final = 4.0
_SMALL: Final = 2**17  # spaces up to this size are enumerated when sampling finds nothing new
_TRIALS: Final = 256  # candidates that are priced as fast as one, overheads included
_CHUNK: Final = 2**16  # neighbours that are priced at once: memory stays small


@dataclass(frozen=True)
class Budget:
    """Upper bounds on costs, as the user states them.

    Attributes:
        limits: (cost, bound) pairs; a float in (0, 1] is a share of the full network's cost, an
            integer is absolute (multiply-accumulates of one image, number of parameters, bytes of
            activations at the worst moment of one image, nanoseconds of one batch).
        tolerance: a candidate is on the budget when a cost is within this share below its limit.

    Raises:
        InputError: no limit, an unknown or repeated cost, or a bound that is not positive.
    """

    limits: tuple[tuple[str, int | float], ...]
    tolerance: float = 0.02

    def __post_init__(self) -> None:
        object.__setattr__(self, "limits", tuple((name, _plain(n)) for name, n in self.limits))
        if not self.limits:
            raise InputError("the budget limits nothing; give one such as macs=40%")
        if not 0 <= self.tolerance < 1:
            raise InputError(f"the tolerance {self.tolerance} is outside [0, 1); 0.02 is usual")
        names = [name for name, _ in self.limits]
        for name, bound in self.limits:
            _check_name(name)
            if names.count(name) > 1:
                raise InputError(f"the budget limits {name} more than once; keep the tightest")
            if not (0 < bound <= 1 if isinstance(bound, float) else is_whole(bound) and bound > 0):
                raise InputError(
                    f"{name}={bound} is not a budget; give a share in (0, 1] of the full network,"
                    f" or a positive whole number of {COSTS[name].counted}"
                )
            if bound > _ENDLESS:
                raise _endless(name)

    @classmethod
    def parse(cls, text: str, *, tolerance: float = 0.02) -> "Budget":
        """Read "macs=0.4", "macs=40%", "macs=120M,params=2.5M" or "latency=5ms".

        K, M, G are powers of 1000; times have a unit: ns, us, ms, s. A bare number up to 1 is a
        share, a larger one is absolute.

        Raises:
            InputError: the text is not a budget; the message names the part and a correct form.
        """
        parts = [part.strip() for part in text.split(",")]
        return cls(tuple(_limit(part) for part in parts), tolerance)

    def absolute(self, full: Mapping[str, int]) -> "Budget":
        """The same budget with a bound in place of each share of a cost that `full` names."""
        bounds = [(n, _resolve(b, full[n]) if n in full else b) for n, b in self.limits]
        return replace(self, limits=tuple(bounds))


def _plain(bound: Any) -> Any:
    """A number of numpy as Python's, read as the decimal that it is written as."""
    if isinstance(bound, np.floating):
        return float(str(bound))
    return int(bound) if isinstance(bound, np.integer) else bound


def _limit(part: str) -> tuple[str, int | float]:
    name, equals, number = (piece.strip() for piece in part.partition("="))
    if not equals:
        raise InputError(f"{part!r} is not a budget; write it as name=value, such as macs=40%")
    _check_name(name)
    return name, _bound(name, number)


def _check_name(name: str) -> None:
    if name.lower() in ("flops", "flop"):
        raise InputError(
            "prunas counts multiply-accumulates: write macs= instead of flops= (papers on pruning"
            " mostly say FLOPs and mean MACs; where two FLOPs make one MAC, halve the figure)"
        )
    if name not in COSTS:
        known = ", ".join(COSTS)
        raise InputError(f"{name!r} is not a cost that a budget can limit; known are {known}")


def _bound(name: str, number: str) -> int | float:
    units = COSTS[name].units
    example = "2500000 or 2.5M" if "m" in units else "5ms or 800us"
    match = _NUMBER.fullmatch(number)
    unit = match.group(3).lower().replace("μ", "µ") if match else ""
    if match is None or unit not in {"", "%", *units}:
        raise InputError(f"{name}={number} is not a positive number; write 0.4, 40%, {example}")
    figure = _figure(name, match.group(1), match.group(2) or "")
    if unit == "%" or (unit == "" and figure <= 1):
        return float(figure / 100 if unit == "%" else figure)
    if unit not in units:
        raise InputError(f"{name}={number} has no unit; write {name}={number}ms, or a share")
    absolute = figure * units[unit]
    if absolute != int(absolute):
        raise InputError(
            f"{name}={number} is not a whole number of {COSTS[name].counted}; round it"
        )
    return int(absolute)


def _figure(name: str, digits: str, exponent: str) -> Decimal:
    """Exact: 33.3% is nearest to 0.333."""
    if int(exponent[1:] or "0") < -2 * _DIGITS:
        raise InputError(
            f"{name}={digits}{exponent} is too small a budget for any network; give a share such"
            f" as {name}=40%"
        )
    if int(exponent[1:] or "0") > 2 * _DIGITS or len(digits) > 2 * _DIGITS:
        raise _endless(name)
    return Decimal(digits + exponent)


def _endless(name: str) -> InputError:
    return InputError(
        f"the budget of {name} has more than {_DIGITS} digits; give a share such as {name}=40%,"
        f" or a number of {COSTS[name].counted} that networks have"
    )


def _resolve(bound: int | float, full: int) -> int:
    """`bound` in absolute terms; a share is rounded down, read as the decimal it was written."""
    return math.floor(Fraction(str(bound)) * full) if isinstance(bound, float) else bound


class Feasible:
    """The candidates of a space that are inside a budget.

    A candidate is *inside* when no cost exceeds its limit, and *in the window* when, besides, it
    makes use of the budget: some cost is within the tolerance of its limit, or no gene can take
    its next larger choice without leaving. A limit above the full network's cost counts as that
    cost, so that the window of a generous budget is the full network and what is near it.

    Args:
        space: the candidates.
        budget: as the user states it.
        cost: prices of the space's candidates, monotone in every gene but those of alternatives,
            which are ordered here, from the cheapest at the smallest widths. Where their order
            depends on widths, and for latency, which may fall where a width fills a vector, what is
            called the last candidate that fits is one of several beyond which the next does not.

    Attributes:
        limits: the budget in absolute terms, shares rounded down.
        last: (genes,) the position of each gene's largest choice.
        cheapest: the candidate of which every gene is at position 0.

    Raises:
        InputError: even the smallest candidate exceeds a limit.
    """

    def __init__(self, space: SearchSpace, budget: Budget, cost: Costs) -> None:
        self.space, self.budget, self.cost = space, budget, cost
        self.last = np.array([len(gene.choices) - 1 for gene in space.genes], dtype=np.int64)
        self._genes = np.arange(len(self.last))
        limited = [COSTS[name] for name, _ in budget.limits]
        self._monotone = not space.alternatives and all(each.monotone for each in limited)
        full = self._prices(as_values([space.full()]))[0]
        bounds = [_resolve(b, int(f)) for (_, b), f in zip(budget.limits, full, strict=True)]
        names = (name for name, _ in budget.limits)
        self.limits: Mapping[str, int] = MappingProxyType(dict(zip(names, bounds, strict=True)))
        self._limits = np.array([bounds], dtype=np.float64)
        ordered = self._ordered(full)
        self._choices = _padded(ordered)
        self._ranks = {g: np.argsort(ordered[g]) for g in space.alternatives}
        self.cheapest = Candidate(choices[0] for choices in ordered)
        smallest = self._prices(as_values([self.cheapest]))[0]
        self._usable = np.minimum(self._limits, full)
        self._full = full.astype(np.float64)
        self._used = (1 - budget.tolerance) * self._usable
        self._least = smallest[None].astype(np.float64)

    def contains(self, values: Values) -> Mask:
        """(n,) which candidates are within all limits."""
        return np.asarray((self._prices(values) <= self._limits).all(axis=1))

    def in_window(self, values: Values) -> Mask:
        """(n,) which candidates are inside and make use of the budget."""
        prices = self._prices(values)
        inside = (prices <= self._limits).all(axis=1)
        result = inside & (prices >= self._used).any(axis=1)
        open_rows = np.flatnonzero(inside & ~result)
        result[open_rows] = ~self._growable(self.positions(values[open_rows])).any(axis=1)
        return np.asarray(result)

    def sample(
        self, rng: np.random.Generator, n: int, *, weights: NDArray[np.float64] | None = None
    ) -> list[Candidate]:
        """`n` candidates of the window, spread over the shapes of network that it holds.

        Every candidate draws a preference per gene, log-uniform over a range that is itself drawn
        (from equal preferences to 1:4), and scales them together until they fit a limit drawn
        within the tolerance. Those that then fall short of the window are filled gene by gene.
        Candidates may repeat.

        Args:
            rng: decides.
            n: how many.
            weights: (genes,) or (n, genes) positive factors of the preferences.
        """
        base = self._preferences(rng, n) * (1.0 if weights is None else weights)
        limits = (1 - self.budget.tolerance * rng.random((n, 1))) * self._usable
        return as_candidates(self.values(self._filled(self._scaled(base, limits, rng), rng)))

    def front_sample(
        self,
        rng: np.random.Generator,
        n: int,
        *,
        weights: NDArray[np.float64] | None = None,
        least: float = 0.0,
    ) -> list[Candidate]:
        """`n` candidates anywhere within the limits, for searches of a whole front.

        Each fits a limit drawn evenly between the smallest candidate's cost, or the share `least`
        of the budget, and the budget. Other arguments as for `sample`.
        """
        lowest = np.maximum(self._least, least * self._usable)
        limits = lowest + rng.random((n, 1)) * (self._usable - lowest)
        base = self._preferences(rng, n) * (1.0 if weights is None else weights)
        return as_candidates(self.values(self._scaled(base, limits, rng)))

    def repair(self, values: Values, rng: np.random.Generator) -> Values:
        """(n, genes) the given candidates moved into the window; those in it are left unchanged.

        The others are scaled as a whole, down or up, until they fit, and then filled gene by gene
        in random order. Values between two choices count as the smaller one.
        """
        positions = self.positions(values)
        result = self.values(positions)
        rows = np.flatnonzero(~self.in_window(result))
        scaled = self._scaled(positions[rows].astype(np.float64), self._limits, rng)
        result[rows] = self.values(self._filled(scaled, rng))
        return result

    def reduce(self, values: Values, rng: np.random.Generator) -> Values:
        """(n, genes) as `repair`, but candidates inside the limits stay as they are."""
        positions = self.positions(values)
        result = self.values(positions)
        rows = np.flatnonzero(~self.contains(result))
        scaled = self._scaled(positions[rows].astype(np.float64), self._limits, rng)
        result[rows] = self.values(scaled)
        return result

    def listed(self) -> Values:
        """All candidates within the limits, smallest first; none at all if the space is large.

        Spaces of more than 131,072 candidates count as large: no search asks for all of one.
        """
        return self._listed

    def window(self) -> Values:
        """Those of `listed` that make use of the budget."""
        return self._window

    @cached_property
    def _listed(self) -> Values:
        if self.space.size > _SMALL:
            return np.empty((0, len(self.last)), dtype=np.int64)
        values = enumerated(self.space)
        return values[self.contains(values)]

    @cached_property
    def _window(self) -> Values:
        return self._listed[self.in_window(self._listed)]

    def shares(self, values: Values) -> NDArray[np.float64]:
        """(n, costs) each cost divided by its limit, in the order of `limits`."""
        return self._prices(values) / self._limits

    def values(self, positions: Positions) -> Values:
        """(n, genes) the choices at these positions."""
        return self._choices[self._genes, positions]

    def positions(self, values: Values) -> Positions:
        """(n, genes) where these values stand; one between two choices counts as the smaller."""
        columns = [
            self._ranks[index][values[:, index]]
            if index in self._ranks
            else np.searchsorted(gene.choices, values[:, index], side="right") - 1
            for index, gene in enumerate(self.space.genes)
        ]
        return np.maximum(np.stack(columns, axis=1), 0)

    def largest(self, positions: Positions, genes: Positions) -> Positions:
        """(n,) the last position that fits for gene `genes[i]` of row i, at least its present."""
        rows = np.arange(len(positions))
        trial = positions.copy()
        low, high = positions[rows, genes], self.last[genes]
        while (low < high).any():
            middle = (low + high + 1) // 2
            trial[rows, genes] = middle
            fits = self._fits(trial, self._limits)
            low, high = np.where(fits, middle, low), np.where(fits, high, middle - 1)
        return low

    def last_inside(
        self,
        path: Path,
        low: NDArray[np.float64],
        high: NDArray[np.float64],
        limits: Limits | None = None,
    ) -> Positions:
        """(n, genes) for each row the last position within the limits on its path.

        By section, until what fits and what does not are one step of one gene apart; of few rows
        many places are tried at once, which costs hardly more than one.

        Args:
            path: never falls in any gene from a place to a later one.
            low: (n, 1) places that fit.
            high: (n, 1) the last places of interest.
            limits: those of the budget if not given.
        """
        bounds = self._limits if limits is None else limits
        bottom, top = path(low), path(high)
        fits = self._fits(top, bounds)[:, None]
        low, bottom = np.where(fits, high, low), np.where(fits, top, bottom)
        rows = np.arange(len(low))
        parts = min(max(_TRIALS // max(len(low), 1), 2), 16)
        fractions = np.arange(1, parts)[:, None, None] / parts
        for _ in range(math.ceil(_HALVINGS / math.log2(parts))):
            if ((top - bottom).sum(axis=1) <= 1).all():
                break
            inner = low + (high - low) * fractions
            points = path(inner)
            # those before the first that does not fit: all that do, where costs are monotone
            fitting = np.logical_and.accumulate(self._fits(points, bounds)).sum(axis=0)
            places = np.concatenate([low[None], inner, high[None]])
            points = np.concatenate([bottom[None], points, top[None]])
            low, high = places[fitting, rows], places[fitting + 1, rows]
            bottom, top = points[fitting, rows], points[fitting + 1, rows]
        return bottom

    def load(self, positions: Positions) -> NDArray[np.float64]:
        """(n,) the limited costs as shares of the full network's, in the mean."""
        return np.asarray((self._prices(self.values(positions)) / self._full).mean(axis=1))

    def _ordered(self, full: NDArray[np.int64]) -> list[Choices]:
        """Per gene its choices, so that all the first ones together are inside."""
        ordered = by_cost(self.space, self._prices)
        first = as_values([Candidate(choices[0] for choices in ordered)])
        if self.contains(first)[0]:
            return ordered
        ways = ways_to_begin(self.space, self._prices) if len(self.limits) > 1 else first
        prices = self._prices(ways)
        _refuse_if_unreachable(self.limits, prices, full)
        load = np.where(self.contains(ways), (prices / full).mean(axis=1), np.inf)
        return led_by(ways[load.argmin()].tolist(), ordered)

    def _prices(self, values: Values) -> NDArray[np.int64]:
        return _prices_of(self.budget, self.cost, values)

    def _near(self, values: Values) -> Mask:
        """(n,) whether some cost is at least within the tolerance of its limit."""
        return np.asarray((self._prices(values) >= self._used).any(axis=1))

    def _fits(self, positions: Positions, limits: Limits) -> Mask:
        """(...) which of (..., genes) positions are within limits of shape (..., costs)."""
        prices = self._prices(self.values(positions).reshape(-1, len(self.last)))
        return np.asarray(
            (prices.reshape(*positions.shape[:-1], limits.shape[-1]) <= limits).all(axis=-1)
        )

    def _preferences(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        """(n, genes) relative positions, in units of each gene's number of choices."""
        spread = rng.uniform(0, math.log(_SPREAD), (n, 1))
        return np.exp(-spread * rng.random((n, len(self.last)))) * (self.last + 1)

    def _scaled(
        self, base: NDArray[np.float64], limits: Limits, rng: np.random.Generator
    ) -> Positions:
        """For each row the largest scale s such that floor(s * base + offset) fits.

        The random offsets in [0, 1) make genes step one after the other, not all at once; at
        s = 1 whole numbers come out as they are, at s = 0 the smallest candidate does.
        """
        offset = rng.random(base.shape)
        positive = np.where(base > 0, base, np.inf)
        high = ((self.last + 1) / positive).max(axis=1, keepdims=True)

        def at(scale: NDArray[np.float64]) -> Positions:
            return np.minimum(scale * base + offset, self.last).astype(np.int64)

        return self.last_inside(at, np.zeros_like(high), high, limits)

    def _filled(self, positions: Positions, rng: np.random.Generator) -> Positions:
        """Rows that fit, moved up into the window.

        The genes of a row, in an order of its own, take their largest choice that fits, until
        the row is near a limit. One pass is enough where costs are monotone: what does not fit now
        will not fit later.
        """
        result = positions.copy()
        orders = rng.permuted(np.tile(self._genes, (len(result), 1)), axis=1)
        every = np.arange(len(result))
        growable = self._open(result)
        while growable.any():  # ends: positions only grow
            for genes in orders.T:
                rows = np.flatnonzero(growable[every, genes])
                if len(rows) > 0:
                    result[rows, genes[rows]] = self.largest(result[rows], genes[rows])
                    growable[rows[self._near(self.values(result[rows]))]] = False
            if self._monotone:
                break
            growable = self._open(result)
        return result

    def _open(self, positions: Positions) -> Mask:
        """(n, genes) what can grow in rows that make too little use of the budget."""
        result = np.zeros(positions.shape, dtype=bool)
        short = np.flatnonzero(~self._near(self.values(positions)))
        result[short] = self._growable(positions[short])
        return result

    def _growable(self, positions: Positions) -> Mask:
        """(n, genes) which genes can take their next larger choice within the limits."""
        result = positions < self.last
        rows, genes = np.nonzero(result)
        for start in range(0, len(rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            trial = positions[rows[part]]
            trial[np.arange(len(trial)), genes[part]] += 1
            result[rows[part], genes[part]] = self._fits(trial, self._limits)
        return result


def as_values(candidates: Sequence[Candidate]) -> Values:
    """At least one candidate as an array (n, genes)."""
    return np.array(candidates, dtype=np.int64)


def as_candidates(values: Values) -> list[Candidate]:
    """The rows of an array (n, genes)."""
    return [Candidate(row) for row in values.tolist()]


def _padded(choices: list[Choices]) -> Values:
    """(genes, most choices) with each gene's last choice repeated to the end."""
    most = max(map(len, choices))
    return np.array([row + row[-1:] * (most - len(row)) for row in choices], dtype=np.int64)


def _prices_of(budget: Budget, cost: Costs, values: Values) -> NDArray[np.int64]:
    """(n, costs) of what the budget limits."""
    return np.array([COSTS[name].price(cost, values) for name, _ in budget.limits]).T


def _refuse_if_unreachable(
    limits: Mapping[str, int], prices: NDArray[np.int64], full: NDArray[np.int64]
) -> None:
    """Refuse limits that none of these prices (n, costs) keeps."""
    for (name, limit), least, most in zip(limits.items(), prices.min(axis=0), full, strict=True):
        if least > limit:
            written = COSTS[name].written
            monotone = COSTS[name].monotone
            ask = str(least) if monotone else f"{math.ceil(int(least) / 1000) / 1000:g}ms"
            raise InputError(
                f"no candidate has at most {written(limit)} {name}: the smallest one has"
                f" {written(int(least))}, the full network {written(int(most))}; ask for"
                f" {name}={ask} or more"
            )
    excess = (prices / np.array([list(limits.values())])).max(axis=1)
    if excess.min() > 1:
        nearest = zip(limits, prices[excess.argmin()].tolist(), strict=True)
        has = " and ".join(f"{COSTS[name].written(price)} {name}" for name, price in nearest)
        raise InputError(
            "every limit can be kept, but no candidate was found that keeps all of them: the one"
            f" that comes nearest has {has}; ask for that much, or drop a limit"
        )
