"""Conditions against what they say of every candidate."""

from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prunas.supernet.conditions import (
    ALWAYS,
    Condition,
    any_holds,
    both,
    holds,
    implies,
    rest,
    simplified,
    where,
)

CHOICES = {0: (0, 1), 1: (0, 1, 2), 2: (3, 5), 3: (0, 1, 2, 3)}
EVERY = np.array(list(product(*CHOICES.values())))


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    genes = draw(st.sets(st.sampled_from(sorted(CHOICES)), max_size=3))
    some = {
        gene: draw(st.sets(st.sampled_from(CHOICES[gene]), min_size=1)) for gene in sorted(genes)
    }
    return frozenset((gene, frozenset(values)) for gene, values in some.items())


def test_a_gene_takes_one_of_some_values() -> None:
    assert holds(where(3, 0, 2), EVERY).tolist() == [row[3] in (0, 2) for row in EVERY]
    assert holds(ALWAYS, EVERY).all()
    assert not any_holds((), EVERY).any()


@given(conditions(), conditions())
def test_both_hold(one: Condition, other: Condition) -> None:
    together = both(one, other)
    expected = holds(one, EVERY) & holds(other, EVERY)
    assert (together is None) == (not expected.any())
    if together is not None:
        assert np.array_equal(holds(together, EVERY), expected)


@given(conditions(), conditions())
def test_one_follows_from_the_other(one: Condition, other: Condition) -> None:
    if implies(one, other):
        assert (holds(other, EVERY) | ~holds(one, EVERY)).all()
    assert implies(one, one)
    together = both(one, other)
    assert together is None or (implies(together, one) and implies(together, other))


@given(conditions(), conditions())
def test_what_is_left_to_ask(condition: Condition, sure: Condition) -> None:
    left = rest(condition, sure)
    there = EVERY[holds(sure, EVERY)]
    if left is None:
        assert not holds(condition, there).any()
    else:
        assert np.array_equal(holds(left, there), holds(condition, there))
        assert (left == ALWAYS) == implies(sure, condition)


@given(st.lists(conditions(), max_size=8))
def test_simpler_says_the_same(some: list[Condition]) -> None:
    found = simplified(some, CHOICES)
    assert np.array_equal(any_holds(found, EVERY), any_holds(some, EVERY))
    assert len(found) <= len(set(some))
    assert not any(one != two and implies(one, two) for one in found for two in found)


def test_values_that_are_all_there_are_say_nothing() -> None:
    assert simplified([where(1, 0), where(1, 1), where(1, 2)], CHOICES) == {ALWAYS}
    with_another = [where(3, value) | where(0, 1) for value in range(4)]
    assert simplified(with_another, CHOICES) == {where(0, 1)}
    # with the block, or without it and the first alternative: with it, or the alternative
    assert simplified([where(0, 1), where(0, 0) | where(1, 0)], CHOICES) == {
        where(0, 1),
        where(1, 0),
    }
