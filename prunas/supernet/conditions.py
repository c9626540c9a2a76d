"""When something happens: which genes take which values.

A condition is a conjunction: each gene in it takes one of some values. What is inside several
blocks and alternatives runs under one condition; what is read in several places is needed where one
of several conditions holds.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

Condition = frozenset[tuple[int, frozenset[int]]]
"""(gene, values) pairs, one for each gene in it: that the gene takes one of the values."""

ALWAYS: Final[Condition] = frozenset()


def where(gene: int, *values: int) -> Condition:
    """That a gene takes one of these values."""
    return frozenset(((gene, frozenset(values)),))


def both(one: Condition, other: Condition) -> Condition | None:
    """That both hold; None where they cannot."""
    values = dict(one)
    for gene, more in other:
        values[gene] = values[gene] & more if gene in values else more
    return frozenset(values.items()) if all(values.values()) else None


def implies(one: Condition, other: Condition) -> bool:
    """Whether `other` holds wherever `one` does."""
    values = dict(one)
    return all(gene in values and values[gene] <= more for gene, more in other)


def rest(condition: Condition, sure: Condition) -> Condition | None:
    """What is left to ask where `sure` holds; None where the condition then cannot hold."""
    together = both(condition, sure)
    if together is None:
        return None
    known = dict(sure)
    asked = {g for g, values in condition if g not in known or not known[g] <= values}
    return frozenset(pair for pair in together if pair[0] in asked)


def simplified(
    conditions: Iterable[Condition], choices: Mapping[int, Collection[int]]
) -> frozenset[Condition]:
    """The same disjunction with fewer and shorter members.

    {a in A} or {a in B, b in C} is {a in A} or {a in A + B, b in C}, and a gene that may take any
    value says nothing.

    Args:
        conditions: of which one must hold.
        choices: what each gene can be.
    """
    found = frozenset(conditions)
    while True:
        known = found
        found = _merged(_relaxed(found, choices), choices)
        if ALWAYS in found:
            return frozenset((ALWAYS,))
        if found == known:
            return found


def _relaxed(
    conditions: frozenset[Condition], choices: Mapping[int, Collection[int]]
) -> frozenset[Condition]:
    alone: dict[int, frozenset[int]] = {}
    for condition in conditions:
        if len(condition) == 1:
            ((gene, values),) = condition
            alone[gene] = alone.get(gene, frozenset()) | values
    return frozenset(
        _telling(((g, v | alone.get(g, frozenset())) for g, v in condition), choices)
        for condition in conditions
    )


def _merged(
    conditions: frozenset[Condition], choices: Mapping[int, Collection[int]]
) -> frozenset[Condition]:
    """Those that differ in the values of one gene become one; those that follow from others go."""
    result = set(conditions)
    for condition in conditions:
        for gene, values in condition:
            others = condition - {(gene, values)}
            same = [c for c in result if others < c and len(c) == len(condition)]
            alike = {c: held[gene] for c in same if gene in (held := dict(c - others))}
            if len(alike) > 1:
                result -= alike.keys()
                result.add(_telling((*others, (gene, values.union(*alike.values()))), choices))
    return frozenset(c for c in result if not any(c != d and implies(c, d) for d in result))


def _telling(
    pairs: Iterable[tuple[int, frozenset[int]]], choices: Mapping[int, Collection[int]]
) -> Condition:
    return frozenset((gene, values) for gene, values in pairs if not values >= set(choices[gene]))


class Held:
    """Which conditions hold in each of some candidates; what is asked again is known.

    Args:
        table: chosen values, (n, genes).
    """

    def __init__(self, table: NDArray[np.int64]) -> None:
        self._table = table
        self._known: dict[tuple[int, frozenset[int]], NDArray[np.bool_]] = {}

    def all(self, condition: Condition) -> NDArray[np.bool_]:
        """(n,) where a condition holds."""
        result = np.ones(len(self._table), dtype=bool)
        for pair in condition:
            result &= self._one(pair)
        return result

    def any(self, conditions: Iterable[Condition]) -> NDArray[np.bool_]:
        """(n,) where one of several conditions holds."""
        result = np.zeros(len(self._table), dtype=bool)
        for condition in conditions:
            result |= self.all(condition)
        return result

    def _one(self, pair: tuple[int, frozenset[int]]) -> NDArray[np.bool_]:
        if pair not in self._known:
            gene, values = pair
            chosen = self._table[:, gene]  # np.isin takes ten times as long for few values
            self._known[pair] = np.logical_or.reduce([chosen == value for value in values])
        return self._known[pair]
