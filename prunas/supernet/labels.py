"""Labels: which entries of which tensor dimensions must stay or go together.

Every index of every tracked dimension carries a *node*, an integer. Node 0 means pinned. During a
trace nodes are only *tied* ("stay or go together"), *pinned*, or *split*: when one dimension is
viewed as a rectangle of several (groups x channels, heads x head width), an entry survives exactly
if its row and its column survive, so its node becomes the product of a row node and a column node.
All of it is solved once, at the end, as connected components plus congruence of products.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from prunas.supernet.rows import distinct_rows

Nodes = NDArray[np.int64]

PINNED: Final = 0
BATCH: Final = 2
"""Traces run with this many images, so that no dimension has size one by accident."""
FIRST_IMAGE: Final = 1
SECOND_IMAGE: Final = 2


@dataclass(frozen=True)
class Solution:
    """What the ties of one trace imply.

    Attributes:
        atoms: (nodes, factors) classes whose joint survival decides each node; 0 fills up.
        reasons: class -> why it is pinned, for the classes that a rule pinned.
        component: (nodes,) class of each node before pins are merged, to look reasons up.
    """

    atoms: Nodes
    reasons: dict[int, str]
    component: Nodes

    @cached_property
    def second_image(self) -> NDArray[np.bool_]:
        """(nodes,) what belongs to the second image alone: it does not count in costs per image."""
        first, second = self.atoms[[FIRST_IMAGE, SECOND_IMAGE], 0]
        found: NDArray[np.bool_] = (self.atoms == second).any(axis=1)
        return found if first != second and second != PINNED else np.zeros_like(found)


@dataclass(frozen=True)
class Rectangle:
    """One dimension that is several: its entry at each cell is the product of their entries.

    Attributes:
        nodes: (cells,) labels of the one dimension, row-major.
        shape: lengths of the several dimensions.
        axes: those of them that carry labels.
        factors: their labels, one array per entry of `axes`.
    """

    nodes: Nodes
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    factors: tuple[Nodes, ...]

    def rows(self) -> Nodes:
        """(cells, factors) the labels whose joint survival decides each cell."""
        return np.column_stack(_spread(self.factors, self.axes, self.shape))


@dataclass
class Labels:
    """The growing record of one trace; `solve` turns it into classes."""

    count: int = 3  # 0 pinned, 1 and 2 the two images of the batch
    ties: list[tuple[Nodes, Nodes]] = field(default_factory=list)
    pins: list[tuple[Nodes, str]] = field(default_factory=list)
    products: list[tuple[int, Nodes]] = field(default_factory=list)  # first node, its parts' rows
    rectangles: list[Rectangle] = field(default_factory=list)
    splits: list[Rectangle] = field(default_factory=list)
    families: list[Nodes] = field(default_factory=list)
    _splits: dict[tuple[bytes, tuple[int, ...]], list[Nodes]] = field(default_factory=dict)
    _merges: dict[tuple[Any, ...], Nodes] = field(default_factory=dict)
    _zeros: dict[int, Nodes] = field(default_factory=dict)
    _fresh: set[int] = field(default_factory=set)  # ids of the families, which live on
    _gone: set[int] = field(default_factory=set)  # those of them that are pinned, whole
    _merged_from: dict[tuple[int, tuple[int, ...]], Sequence[Nodes]] = field(default_factory=dict)

    def fresh(self, size: int) -> Nodes:
        """`size` new nodes, one per index; a dimension of size one has nothing to choose."""
        if size == 1:
            return self.zeros(1)
        nodes = np.arange(self.count, self.count + size, dtype=np.int64)
        self.count += size
        self.families.append(nodes)
        self._fresh.add(id(nodes))
        return nodes

    def zeros(self, size: int) -> Nodes:
        """A pinned dimension."""
        if size not in self._zeros:
            self._zeros[size] = np.zeros(size, dtype=np.int64)
        return self._zeros[size]

    def batch(self) -> Nodes:
        return np.array([FIRST_IMAGE, SECOND_IMAGE], dtype=np.int64)

    def tie(self, first: Nodes, second: Nodes, why: str) -> None:
        """Index i of both stays or goes together; where one is pinned, so is the other."""
        if first is second:
            return
        if len(first) != len(second):
            raise AssertionError(f"cannot tie {len(first)} labels with {len(second)} ({why})")
        one, two = first != PINNED, second != PINNED
        both = one & two
        if both.all():
            self.ties.append((first, second))
            return
        if both.any():
            self.ties.append((first[both], second[both]))
        else:
            self._gone |= {id(first), id(second)} & self._fresh
        self.pin(first[one & ~two], why)
        self.pin(second[two & ~one], why)

    def pin(self, nodes: Nodes, why: str) -> None:
        """Pin these nodes. The images of the batch are never pruned, so they need no pin."""
        self._gone |= {id(nodes)} & self._fresh
        nodes = nodes[nodes > SECOND_IMAGE]
        if len(nodes):
            self.pins.append((nodes, why))

    def merge(self, dimensions: Sequence[Nodes]) -> Nodes:
        """Labels of several dimensions flattened into one, in row-major order.

        Fresh labels that are pinned by now (positions of tokens) say nothing in a product, and
        would multiply the number of labels; `split` knows which dimensions a product came from.
        """
        if len(dimensions) == 1:
            return dimensions[0]
        shape = tuple(len(nodes) for nodes in dimensions)
        tracked = tuple(axis for axis, nodes in enumerate(dimensions) if self._tells(nodes))
        if not tracked:
            return self.zeros(prod(shape))
        factors = tuple(dimensions[axis] for axis in tracked)
        others = (id(nodes) for axis, nodes in enumerate(dimensions) if axis not in tracked)
        key = (shape, tracked, tuple(nodes.tobytes() for nodes in factors), tuple(others))
        if key not in self._merges:
            result = self._merges[key] = self._merged(factors, tracked, shape)
            self._merged_from[id(result), shape] = tuple(dimensions)
        return self._merges[key]

    def _tells(self, nodes: Nodes) -> bool:
        return bool(nodes.any()) and id(nodes) not in self._gone

    def _merged(
        self, factors: tuple[Nodes, ...], axes: tuple[int, ...], shape: tuple[int, ...]
    ) -> Nodes:
        spread = _spread(factors, axes, shape)
        if len(spread) == 1:
            return spread[0].copy()
        result = self._product(np.column_stack(spread))
        self.rectangles.append(Rectangle(result, shape, axes, factors))
        return result

    def split(self, nodes: Nodes, shape: Sequence[int]) -> list[Nodes]:
        """Labels of the dimensions that `nodes`, viewed with `shape`, falls into."""
        shape = tuple(int(size) for size in shape)
        if not nodes.any():
            return [self.zeros(size) for size in shape]
        if len(shape) == 1:
            return [nodes]
        if (id(nodes), shape) in self._merged_from:
            return list(self._merged_from[id(nodes), shape])
        table = nodes.reshape(shape)
        varying = [axis for axis in range(len(shape)) if _varies(table, axis)]
        result = [self.zeros(size) for size in shape]
        if not varying:  # one label all over: it can only go as a whole
            self.pin(nodes, "its only channel is spread over several dimensions")
            return result
        corner = table[tuple(slice(None) if a in varying else 0 for a in range(len(shape)))]
        for axis, part in zip(varying, self._factor(corner), strict=True):
            result[axis] = part
        return result

    def _factor(self, table: Nodes) -> list[Nodes]:
        """Row, column, ... labels of a table that varies along each of its axes."""
        if table.ndim == 1:
            return [table]
        key = (table.tobytes(), table.shape)
        if key not in self._splits:
            self._splits[key] = self._recovered(table) or self._fresh_factors(table)
        return self._splits[key]

    def _recovered(self, table: Nodes) -> list[Nodes] | None:
        """The labels that an earlier merge multiplied into this table, if it is one."""
        parts = self._parts(table.reshape(-1))
        if parts is None:
            return None
        columns = parts.reshape(*table.shape, parts.shape[1])
        owned: list[list[int]] = [[] for _ in range(table.ndim)]
        for index in range(parts.shape[1]):
            along = [a for a in range(table.ndim) if _varies(columns[..., index], a)]
            if len(along) != 1:
                return None
            owned[along[0]].append(index)
        if not all(owned):
            return None
        lines = (
            np.moveaxis(columns, a, 0).reshape(n, -1, parts.shape[1])[:, 0]
            for a, n in enumerate(table.shape)
        )
        return [self._product(line[:, own]) for line, own in zip(lines, owned, strict=True)]

    def _parts(self, nodes: Nodes) -> Nodes | None:
        """(nodes, k) labels that each node is the product of; None unless all are products."""
        if not self.products:
            return None
        starts = np.array([first for first, _ in self.products])
        block = np.searchsorted(starts, nodes, side="right") - 1
        used = np.unique(block)
        if used[0] < 0 or len({self.products[b][1].shape[1] for b in used}) > 1:
            return None
        result = np.empty((len(nodes), self.products[used[0]][1].shape[1]), dtype=np.int64)
        for number in used.tolist():
            first, rows = self.products[number]
            where = block == number
            if int(nodes[where].max()) >= first + len(rows):
                return None
            result[where] = rows[nodes[where] - first]
        return result

    def _fresh_factors(self, table: Nodes) -> list[Nodes]:
        factors = [self.fresh(size) for size in table.shape]
        axes = tuple(range(table.ndim))
        split = Rectangle(table.reshape(-1), table.shape, axes, tuple(factors))
        self.rectangles.append(split)
        self.splits.append(split)
        return factors

    def _product(self, rows: Nodes) -> Nodes:
        """(n, k) labels -> (n,) their products; equal sets share a node."""
        rows = self._expanded(rows)
        sets = _canonical(rows)
        result = sets[:, 0].copy()  # a set of one is its member
        several = np.flatnonzero((sets != 0).sum(axis=1) > 1)
        if len(several):
            first, inverse, _ = distinct_rows(sets[several])
            self.products.append((self.count, rows[several[first]]))
            result[several] = self.count + inverse
            self.count += len(first)
        return result

    def _expanded(self, rows: Nodes) -> Nodes:
        """Columns that are products themselves, replaced by the columns of their parts."""
        columns = []
        for column in rows.T:
            parts = self._parts(column)
            columns.append(column[:, None] if parts is None else parts)
        return np.concatenate(columns, axis=1)

    def solve(self) -> Solution:
        """Classes of nodes, after products that mean the same are identified."""
        return _Solver(self).run()


def _unpinnable(component: Nodes) -> Nodes:
    """Classes that are pinned, and those of the batch, which cannot be and would come for ever."""
    return component[[PINNED, FIRST_IMAGE, SECOND_IMAGE]]


def _along(nodes: Nodes, axis: int, rank: int) -> Nodes:
    return nodes.reshape(tuple(-1 if a == axis else 1 for a in range(rank)))


def _spread(factors: Sequence[Nodes], axes: Sequence[int], shape: tuple[int, ...]) -> list[Nodes]:
    """Each factor, repeated over all cells of a table of that shape, row-major."""
    return [
        np.broadcast_to(_along(nodes, axis, len(shape)), shape).reshape(-1)
        for nodes, axis in zip(factors, axes, strict=True)
    ]


def _varies(table: Nodes, axis: int) -> bool:
    return table.shape[axis] > 1 and bool((table != table.take([0], axis=axis)).any())


class _Solver:
    """Connected components and congruence, repeated until nothing changes."""

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.left, self.rows = _equation_rows(labels)
        self.family = np.full(labels.count, -1, dtype=np.int64)
        for index, nodes in enumerate(labels.families):
            self.family[nodes] = index
        self.pins: list[tuple[Nodes, str]] = list(labels.pins)
        self.plain = np.arange(labels.count)  # class of each node, pins aside
        self.first: list[Nodes] = [one for one, _ in labels.ties]
        self.second: list[Nodes] = [two for _, two in labels.ties]

    def run(self) -> Solution:
        component = self._components()
        while len(self.left) and self._propagate(component):
            component = self._components()
        reasons: dict[int, str] = {}
        for nodes, why in self.pins:
            for number in np.unique(self.plain[nodes]).tolist():
                reasons.setdefault(number, why)
        return Solution(self._atoms(component), reasons, self.plain)

    def _connect(self, one: Nodes, two: Nodes) -> None:
        self.first.append(one)
        self.second.append(two)

    def _pin(self, nodes: Nodes, why: str) -> None:
        self.pins.append((nodes, why))

    def _components(self) -> Nodes:
        """(nodes,) class of each node, all that is pinned in class 0."""
        if self.first:
            self.plain = self._joined(np.concatenate(self.first), np.concatenate(self.second))
            self.first, self.second = [], []
        pinned = np.zeros(int(self.plain.max()) + 1, dtype=bool)
        for nodes, _ in self.pins:
            pinned[self.plain[nodes]] = True
        # the images of the batch are never pruned, whatever they are joined with: leave them
        pinned[self.plain[[FIRST_IMAGE, SECOND_IMAGE]]] = False
        pinned[self.plain[PINNED]] = True
        return np.where(pinned[self.plain], PINNED, self.plain)

    def _joined(self, one: Nodes, two: Nodes) -> Nodes:
        """The classes after these nodes were tied; node 0 stays in class 0."""
        merged = _connected(self.plain[one], self.plain[two], int(self.plain.max()) + 1)
        result: Nodes = merged[self.plain]
        zero = result[PINNED]
        return np.where(result == zero, 0, np.where(result == 0, zero, result))

    def _propagate(self, component: Nodes) -> bool:
        """One round of consequences; True if something new was tied or pinned."""
        left, rows = component[self.left], _canonical(component[self.rows])
        if self._pin_parts_of_pinned(component, left, rows):
            return True
        size = (rows != 0).sum(axis=1)
        gone = self.left[(size == 0) & ~np.isin(left, _unpinnable(component))]
        if len(gone):
            self._pin(gone, "all that it is made of cannot change")
        single = (size == 1) & (left != rows[:, 0])
        if single.any():
            self._connect(self.left[single], _representatives(component)[rows[single, 0]])
        changed = bool(len(gone)) or bool(single.any())
        changed |= self._congruence(component, rows)
        changed |= self._same_rectangles(component)
        return changed or self._resolve_conflict(component, left, rows)

    def _congruence(self, component: Nodes, rows: Nodes) -> bool:
        """Equal products are equal."""
        first, inverse, _ = distinct_rows(rows)
        partner = self.left[first[inverse]]
        new = component[partner] != component[self.left]
        if new.any():
            self._connect(self.left[new], partner[new])
        return bool(new.any())

    def _same_rectangles(self, component: Nodes) -> bool:
        """One dimension viewed twice as a rectangle of one shape: the rows are the rows."""
        known: dict[tuple[bytes, tuple[int, ...], tuple[int, ...]], Rectangle] = {}
        changed = False
        for rectangle in self.labels.rectangles:
            seen = component[rectangle.nodes]
            if not seen.all():
                continue  # its rows or columns are pinned
            key = (seen.tobytes(), rectangle.shape, rectangle.axes)
            first = known.setdefault(key, rectangle)
            for one, two in zip(first.factors, rectangle.factors, strict=True):
                if not np.array_equal(component[one], component[two]):
                    self._connect(one, two)
                    changed = True
        return changed

    def _pin_parts_of_pinned(self, component: Nodes, left: Nodes, rows: Nodes) -> bool:
        pinned = (left == 0)[:, None] & ~np.isin(rows, _unpinnable(component))
        if not pinned.any():
            return False
        nodes = _representatives(component)[np.unique(rows[pinned])]
        self._pin(nodes, "part of a dimension that cannot change")
        return True

    def _resolve_conflict(self, component: Nodes, left: Nodes, rows: Nodes) -> bool:
        """One class, two products: equate what differs, or give up one of the rectangles."""
        telling = rows[:, 0] != left  # "it is itself" contradicts nothing
        left, rows = left[telling], rows[telling]
        first, *_ = distinct_rows(np.column_stack([left, rows]))
        owners, counts = np.unique(left[first], return_counts=True)
        clashing = owners[(counts > 1) & (owners != 0)]
        if not len(clashing):
            return False
        first = first[np.isin(left[first], clashing)]
        first = first[np.argsort(left[first], kind="stable")]
        if self._unify(component, np.column_stack([left[first], rows[first]])):
            return True
        clash = np.isin(left, clashing)
        given_up = self._smallest_families(component, left[clash], self.rows[telling][clash])
        for family in given_up:
            self._pin(self.labels.families[family], "it is viewed as two different rectangles")
        return bool(given_up)

    def _smallest_families(self, component: Nodes, left: Nodes, rows: Nodes) -> list[int]:
        """Of all families in equations that have to do with each other, the smallest."""
        kept = _unpinnable(component)
        equation, column = np.nonzero((self.family[rows] >= 0) & ~np.isin(component[rows], kept))
        families, which = np.unique(self.family[rows[equation, column]], return_inverse=True)
        members = [component[self.labels.families[family]] for family in families]
        lengths = [len(classes) for classes in members]
        one = np.concatenate([*members, left[equation]])
        two = np.concatenate([np.repeat(np.arange(len(members)), lengths), which])
        own, count = ~np.isin(one, kept), int(component.max()) + 1
        together = _connected(one[own], two[own] + count, count + len(members))[count:]
        smallest: dict[int, int] = {}
        for _, family, group in sorted(
            zip(lengths, families.tolist(), together.tolist(), strict=True)
        ):
            smallest.setdefault(group, family)
        return list(smallest.values())

    def _unify(self, component: Nodes, pairs: Nodes) -> bool:
        """batch x heads = batch x other heads: then the heads are the other heads."""
        same = np.flatnonzero(pairs[1:, 0] == pairs[:-1, 0])
        one, two = pairs[same, 1:], pairs[same + 1, 1:]
        mine = np.where((one[:, :, None] == two[:, None, :]).any(axis=2), 0, one)
        other = np.where((two[:, :, None] == one[:, None, :]).any(axis=2), 0, two)
        single = ((mine != 0).sum(axis=1) == 1) & ((other != 0).sum(axis=1) == 1)
        if not single.any():
            return False
        nodes = _representatives(component)
        self._connect(nodes[mine[single].max(axis=1)], nodes[other[single].max(axis=1)])
        return True

    def _atoms(self, component: Nodes) -> Nodes:
        """Replace each product class by the classes of its parts, until only atoms are left."""
        if not len(self.left):
            return component[:, None]
        left, rows = component[self.left], _canonical(component[self.rows])
        proper = (left != 0) & ((rows != 0).sum(axis=1) > 1)
        owners, first = np.unique(left[proper], return_index=True)
        parts = rows[proper][first]
        table = np.zeros((int(component.max()) + 1, max(1, parts.shape[1])), dtype=np.int64)
        table[:, 0] = np.arange(len(table))
        table[owners] = parts
        nested = np.isin(parts, owners).any(axis=1)
        if not nested.any():
            return table[component]
        content = {
            int(o): tuple(p for p in row if p)
            for o, row in zip(owners, parts.tolist(), strict=True)
        }
        flat = {int(owner): _expand(int(owner), content, frozenset()) for owner in owners[nested]}
        width = max(table.shape[1], *(len(atoms) for atoms in flat.values()))
        table = np.pad(table, ((0, 0), (0, width - table.shape[1])))
        for owner, atoms in flat.items():
            table[owner] = 0
            table[owner, : len(atoms)] = atoms
        return table[component]


def _expand(owner: int, content: dict[int, tuple[int, ...]], above: frozenset[int]) -> list[int]:
    if owner not in content or owner in above:
        return [owner]
    below = above | {owner}
    return sorted({atom for part in content[owner] for atom in _expand(part, content, below)})


def _equation_rows(labels: Labels) -> tuple[Nodes, Nodes]:
    """All "node = product of nodes" facts: left sides (n,), right sides (n, k) padded with 0."""
    left = [np.arange(first, first + len(rows)) for first, rows in labels.products]
    right = [rows for _, rows in labels.products]
    left += [split.nodes for split in labels.splits]
    right += [split.rows() for split in labels.splits]
    if not left:
        return np.zeros(0, dtype=np.int64), np.zeros((0, 1), dtype=np.int64)
    width = max(rows.shape[1] for rows in right)
    padded = [np.pad(rows, ((0, 0), (0, width - rows.shape[1]))) for rows in right]
    return np.concatenate(left), np.concatenate(padded)


def _canonical(rows: Nodes) -> Nodes:
    """Rows as sets: sorted downwards, repetitions replaced by 0."""
    if rows.shape[1] == 0:
        return rows
    rows = -np.sort(-rows, axis=1)
    repeated = np.zeros_like(rows, dtype=bool)
    repeated[:, 1:] = rows[:, 1:] == rows[:, :-1]
    return -np.sort(-np.where(repeated, 0, rows), axis=1)


def _connected(one: Nodes, two: Nodes, count: int) -> Nodes:
    """(count,) component of each of so many vertices, after these were joined in pairs."""
    graph = coo_array((np.ones(len(one), dtype=np.int8), (one, two)), shape=(count, count))
    result: Nodes = connected_components(graph, directed=False)[1].astype(np.int64)
    return result


def _representatives(component: Nodes) -> Nodes:
    """One node of each class."""
    nodes = np.zeros(int(component.max()) + 1, dtype=np.int64)
    nodes[component[::-1]] = np.arange(len(component) - 1, -1, -1)
    return nodes
