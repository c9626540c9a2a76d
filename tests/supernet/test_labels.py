"""Labels against a union-find, and the algebra of rectangles."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunas.supernet.labels import FIRST_IMAGE, PINNED, Labels, Nodes


def atoms_of(labels: Labels, nodes: Nodes) -> list[frozenset[int]]:
    """The classes that decide each entry, 0 left out."""
    table = labels.solve().atoms[nodes]
    return [frozenset(row) - {PINNED} for row in table.tolist()]


class UnionFind:
    """The slow obvious way to follow ties."""

    def __init__(self, size: int) -> None:
        self.parent = list(range(size))

    def find(self, node: int) -> int:
        while self.parent[node] != node:
            node = self.parent[node]
        return node

    def join(self, one: int, two: int) -> None:
        self.parent[self.find(one)] = self.find(two)


nodes = st.integers(3, 22)


@settings(max_examples=60, deadline=None)
@given(ties=st.lists(st.tuples(nodes, nodes), max_size=25), pins=st.lists(nodes, max_size=4))
def test_ties_are_a_union_find(ties: list[tuple[int, int]], pins: list[int]) -> None:
    labels, oracle = Labels(), UnionFind(23)
    labels.fresh(20)
    for one, two in ties:
        labels.tie(np.array([one]), np.array([two]), "tied")
        oracle.join(one, two)
    for pin in pins:
        labels.pin(np.array([pin]), "asked")
    solution = labels.solve()
    pinned = {oracle.find(pin) for pin in pins}
    for one, two in product(range(3, 23), repeat=2):
        same = bool((solution.atoms[one] == solution.atoms[two]).all())
        both = oracle.find(one) in pinned and oracle.find(two) in pinned
        assert same == (oracle.find(one) == oracle.find(two) or both)
        assert (solution.atoms[one, 0] == PINNED) == (oracle.find(one) in pinned)
    for pin in pins:
        assert solution.reasons[int(solution.component[pin])] == "asked"


def test_a_dimension_of_size_one_is_pinned() -> None:
    assert Labels().fresh(1).tolist() == [PINNED]


def test_different_lengths_cannot_be_tied() -> None:
    labels = Labels()
    with pytest.raises(AssertionError, match="cannot tie 2 labels with 3"):
        labels.tie(labels.fresh(2), labels.fresh(3), "why")


def test_what_is_tied_to_a_pinned_entry_is_pinned() -> None:
    labels = Labels()
    nodes = labels.fresh(3)
    labels.tie(np.array([0, nodes[1], 0]), nodes, "joined")
    solution = labels.solve()
    assert solution.atoms[nodes, 0].astype(bool).tolist() == [False, True, False]
    assert solution.reasons[int(solution.component[nodes[0]])] == "joined"


def test_the_images_of_a_batch_are_never_pinned() -> None:
    labels = Labels()
    batch = labels.batch()
    labels.pin(batch, "no")
    labels.tie(batch, labels.zeros(2), "no")
    assert labels.solve().atoms[FIRST_IMAGE, 0] != PINNED


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(2, 5), columns=st.integers(2, 5))
def test_a_split_entry_is_its_row_and_its_column(rows: int, columns: int) -> None:
    labels = Labels()
    whole = labels.fresh(rows * columns)
    row, column = labels.split(whole, (rows, columns))
    cells = atoms_of(labels, whole)
    sides = zip(np.repeat(row, columns).tolist(), np.tile(column, rows).tolist(), strict=True)
    solution = labels.solve()
    assert cells == [
        frozenset({int(solution.atoms[r, 0]), int(solution.atoms[c, 0])}) for r, c in sides
    ]


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_splitting_a_merge_gives_back_its_parts(sizes: list[int]) -> None:
    labels = Labels()
    parts = [labels.fresh(size) for size in sizes]
    merged = labels.merge(parts)
    again = labels.split(merged, sizes)
    assert [part.tolist() for part in again] == [part.tolist() for part in parts]


def test_part_of_a_merge_can_be_split() -> None:
    labels = Labels()
    a, b, c = labels.fresh(2), labels.fresh(3), labels.fresh(4)
    merged = labels.merge([a, b, c])
    first, rest = labels.split(merged, (2, 12))
    assert first.tolist() == a.tolist()
    assert [part.tolist() for part in labels.split(rest, (3, 4))] == [b.tolist(), c.tolist()]


def test_a_repeated_dimension_is_recognised_when_it_is_split_again() -> None:
    labels = Labels()
    channels = labels.fresh(3)
    flat = labels.merge([channels, labels.zeros(5)])
    assert flat.tolist() == np.repeat(channels, 5).tolist()
    again, positions = labels.split(flat, (3, 5))
    assert again.tolist() == channels.tolist()
    assert not positions.any()


def test_pinned_labels_are_not_multiplied_and_come_back_when_split() -> None:
    labels = Labels()
    channels, tokens, others = labels.fresh(3), labels.fresh(5), labels.fresh(5)
    labels.tie(tokens, labels.zeros(5), "positions")
    labels.pin(others, "positions")
    for positions in (tokens, others):
        flat = labels.merge([positions, channels])
        assert flat.tolist() == np.tile(channels, 5).tolist()
        again = labels.split(flat, (5, 3))
        assert again[0] is positions  # and what it meets later is still pinned with it
        assert again[1] is channels


def test_what_is_only_partly_pinned_is_multiplied() -> None:
    labels = Labels()
    rows, columns = labels.fresh(2), labels.fresh(3)
    labels.tie(columns, np.array([0, columns[1], 0]), "partly")
    assert len(np.unique(labels.merge([rows, columns]))) == 6


def test_one_label_all_over_is_pinned_when_split() -> None:
    labels = Labels()
    one = labels.fresh(2)[:1]
    labels.split(np.repeat(one, 6), (2, 3))
    assert labels.solve().atoms[one, 0] == PINNED


def test_a_conflict_with_the_images_of_the_batch_comes_to_an_end() -> None:
    """Its smallest side, the images, cannot be pinned; the next one is."""
    labels = Labels()
    images = labels.fresh(2)
    labels.tie(images, labels.batch(), "they are the images")
    others = [labels.fresh(size) for size in (6, 3, 4)]
    one, two = labels.merge([images, others[0]]), labels.merge([others[1], others[2]])
    labels.tie(one, two, "viewed twice")
    solution = labels.solve()
    assert solution.atoms[FIRST_IMAGE, 0] != PINNED
    assert any(not solution.atoms[nodes].any() for nodes in others)


def test_two_splits_of_tied_dimensions_share_rows_and_columns() -> None:
    labels = Labels()
    first, second = labels.fresh(12), labels.fresh(12)
    rows, columns = labels.split(first, (3, 4))
    other_rows, other_columns = labels.split(second, (3, 4))
    labels.tie(first, second, "sum")
    atoms = labels.solve().atoms
    assert atoms[rows].tolist() == atoms[other_rows].tolist()
    assert atoms[columns].tolist() == atoms[other_columns].tolist()
    assert len(np.unique(atoms[rows, 0])) == 3
    assert not (atoms[rows, 0] == PINNED).any()


def test_equal_products_are_one_class() -> None:
    labels = Labels()
    rows, columns, other = labels.fresh(3), labels.fresh(4), labels.fresh(4)
    one, two = labels.merge([rows, columns]), labels.merge([rows, other])
    labels.tie(columns, other, "sum")
    atoms = labels.solve().atoms
    assert atoms[one].tolist() == atoms[two].tolist()


def test_pinning_one_cell_pins_its_row_and_column() -> None:
    labels = Labels()
    rows, columns = labels.fresh(3), labels.fresh(4)
    labels.pin(labels.merge([rows, columns])[:1], "asked")
    atoms = labels.solve().atoms[:, 0]
    assert (atoms[rows] == PINNED).tolist() == [True, False, False]
    assert (atoms[columns] == PINNED).tolist() == [True, False, False, False]


def test_a_dimension_with_pinned_parts_is_pinned() -> None:
    labels = Labels()
    whole = labels.fresh(6)
    for part in labels.split(whole, (2, 3)):
        labels.pin(part, "asked")
    assert not labels.solve().atoms[whole].any()


def test_two_shapes_of_one_dimension_give_up_one() -> None:
    labels = Labels()
    whole = labels.fresh(12)
    (rows, _), (other_rows, _) = labels.split(whole, (3, 4)), labels.split(whole, (2, 6))
    solution = labels.solve()
    reasons = set(solution.reasons.values())
    assert "it is viewed as two different rectangles" in reasons
    assert not (solution.atoms[rows].any() and solution.atoms[other_rows].any())


def test_conflicts_that_do_not_meet_are_resolved_as_each_alone() -> None:
    shapes = (((3, 4), (2, 6)), ((3, 4), (4, 3)), ((2, 9), (6, 3)))
    labels = Labels()
    together = [_viewed_twice(labels, one, two) for one, two in shapes]
    atoms = labels.solve().atoms
    for (one, two), sides in zip(shapes, together, strict=True):
        alone = Labels()
        expected = _viewed_twice(alone, one, two)
        expected_atoms = alone.solve().atoms
        pinned = [not expected_atoms[side].any() for side in expected]
        assert any(pinned)
        assert [not atoms[side].any() for side in sides] == pinned


def test_conflicts_that_meet_are_resolved_one_after_the_other() -> None:
    labels = Labels()
    first, second = _viewed_twice(labels, (3, 4), (2, 6)), _viewed_twice(labels, (3, 4), (4, 3))
    labels.tie(first[0], second[0], "sum")
    atoms = labels.solve().atoms
    free = [bool(atoms[side].any()) for side in (*first, *second)]
    assert free[0] == free[4]
    assert not free[0]  # the rows that both share: one of the smallest sides
    assert free[1]
    assert free[5]


def _viewed_twice(labels: Labels, one: tuple[int, ...], two: tuple[int, ...]) -> list[Nodes]:
    whole = labels.fresh(one[0] * one[1])
    return [*labels.split(whole, one), *labels.split(whole, two)]


def test_batch_times_heads_is_batch_times_heads() -> None:
    labels = Labels()
    batch, heads, other = labels.batch(), labels.fresh(3), labels.fresh(3)
    one, two = labels.merge([batch, heads]), labels.merge([batch, other])
    labels.tie(one, two, "bmm")
    atoms = labels.solve().atoms
    assert atoms[heads].tolist() == atoms[other].tolist()
    assert atoms[heads].any()


def test_long_dimensions_are_solved_as_short_ones() -> None:
    """4,608 cells as in a standardised 3x3 convolution; a loop over cells would be felt."""
    labels = Labels()
    channels, height, width = labels.fresh(512), labels.fresh(3), labels.fresh(3)
    merged = labels.merge([channels, height, width])
    labels.pin(height, "kernel")
    labels.pin(width, "kernel")
    atoms = labels.solve().atoms
    expected = np.repeat(atoms[channels, 0], 9)
    assert [set(row) - {0} for row in atoms[merged].tolist()] == [{a} for a in expected.tolist()]


def test_a_product_with_pinned_parts_does_not_clash_with_a_rectangle() -> None:
    """A standardised weight (inputs x 3 x 3, kernel pinned) whose inputs are group-normalised."""
    labels = Labels()
    channels, height, width = labels.fresh(8), labels.fresh(3), labels.fresh(3)
    merged = labels.merge([channels, height, width])
    rows, columns = labels.split(channels, (4, 2))
    labels.pin(height, "kernel")
    labels.pin(width, "kernel")
    atoms = labels.solve().atoms
    assert len(np.unique(atoms[rows, 0])) == 4
    assert len(np.unique(atoms[columns, 0])) == 2
    assert atoms[merged].tolist() == np.repeat(atoms[channels], 9, axis=0).tolist()


def test_a_pinned_product_that_is_an_image_of_the_batch_ends() -> None:
    """Patches of frequencies beside the batch; the batch cannot be pinned with its parts."""
    labels = Labels()
    rows, columns = labels.fresh(2), labels.fresh(2)
    merged = labels.merge([rows, columns])
    labels.tie(merged[:2], labels.batch(), "an operator joins them")
    labels.pin(rows, "kernel")
    labels.pin(columns, "kernel")
    atoms = labels.solve().atoms
    assert (atoms[merged] == atoms[FIRST_IMAGE]).all()  # all of them are products of nothing
