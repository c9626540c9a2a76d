"""Conditions against what they say of every candidate."""

from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prunas.supernet.conditions import (
    ALWAYS,
    Condition,
    Held,
    both,
    implies,
    rest,
    simplified,
    where,
)

CHOICES = {0: (0, 1), 1: (0, 1, 2), 2: (3, 5), 3: (0, 1, 2, 3)}
EVERY = np.array(list(product(*CHOICES.values())))
HELD = Held(EVERY)


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    genes = draw(st.sets(st.sampled_from(sorted(CHOICES)), max_size=3))
    some = {
        gene: draw(st.sets(st.sampled_from(CHOICES[gene]), min_size=1)) for gene in sorted(genes)
    }
    return frozenset((gene, frozenset(values)) for gene, values in some.items())


def test_a_gene_takes_one_of_some_values() -> None:
    assert HELD.all(where(3, 0, 2)).tolist() == [row[3] in (0, 2) for row in EVERY]
    assert HELD.all(ALWAYS).all()
    assert not HELD.any(()).any()


@given(conditions(), conditions())
def test_both_hold(one: Condition, other: Condition) -> None:
    together = both(one, other)
    expected = HELD.all(one) & HELD.all(other)
    assert (together is None) == (not expected.any())
    if together is not None:
        assert np.array_equal(HELD.all(together), expected)


@given(conditions(), conditions())
def test_one_follows_from_the_other(one: Condition, other: Condition) -> None:
    if implies(one, other):
        assert (HELD.all(other) | ~HELD.all(one)).all()
    assert implies(one, one)
    together = both(one, other)
    assert together is None or (implies(together, one) and implies(together, other))


@given(conditions(), conditions())
def test_what_is_left_to_ask(condition: Condition, sure: Condition) -> None:
    left = rest(condition, sure)
    there = EVERY[HELD.all(sure)]
    if left is None:
        assert not Held(there).all(condition).any()
    else:
        assert np.array_equal(Held(there).all(left), Held(there).all(condition))
        assert (left == ALWAYS) == implies(sure, condition)


@given(st.lists(conditions(), max_size=8))
def test_simpler_says_the_same(some: list[Condition]) -> None:
    found = simplified(some, CHOICES)
    assert np.array_equal(HELD.any(found), HELD.any(some))
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
