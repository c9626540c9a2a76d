"""Labels: which entries of which tensor dimensions must stay or go together.

Every index of every tracked dimension carries a *node*, an integer. Node 0 means pinned. During a
trace nodes are only *tied* ("stay or go together"), *pinned*, or *split*: when one dimension is
viewed as a rectangle of several (groups x channels, heads x head width), an entry survives exactly
if its row and its column survive, so its node becomes the product of a row node and a column node.
All of it is solved once, at the end, as connected components plus congruence of products.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

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


@dataclass
class Labels:
    """The growing record of one trace; `solve` turns it into classes."""

    count: int = 3  # 0 pinned, 1 and 2 the two images of the batch
    ties: list[tuple[Nodes, Nodes]] = field(default_factory=list)
    pins: list[tuple[Nodes, str]] = field(default_factory=list)
    products: dict[tuple[int, ...], int] = field(default_factory=dict)
    parts: dict[int, tuple[int, ...]] = field(default_factory=dict)
    equations: list[tuple[Nodes, list[Nodes]]] = field(default_factory=list)
    families: list[Nodes] = field(default_factory=list)
    _splits: dict[tuple[bytes, tuple[int, ...]], list[Nodes]] = field(default_factory=dict)
    _zeros: dict[int, Nodes] = field(default_factory=dict)

    def fresh(self, size: int) -> Nodes:
        """`size` new nodes, one per index; a dimension of size one has nothing to choose."""
        if size == 1:
            return self.zeros(1)
        nodes = np.arange(self.count, self.count + size, dtype=np.int64)
        self.count += size
        self.families.append(nodes)
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
        self.pin(first[one & ~two], why)
        self.pin(second[two & ~one], why)

    def pin(self, nodes: Nodes, why: str) -> None:
        """Pin these nodes. The images of the batch are never pruned, so they need no pin."""
        nodes = nodes[nodes > SECOND_IMAGE]
        if len(nodes):
            self.pins.append((nodes, why))

    def merge(self, dimensions: Sequence[Nodes]) -> Nodes:
        """Labels of several dimensions flattened into one, in row-major order."""
        shape = tuple(len(nodes) for nodes in dimensions)
        tracked = [axis for axis, nodes in enumerate(dimensions) if nodes.any()]
        if not tracked:
            return self.zeros(int(np.prod(shape)))
        if len(dimensions) == 1:
            return dimensions[0]
        spread = [
            np.broadcast_to(_along(dimensions[axis], axis, len(shape)), shape).reshape(-1)
            for axis in tracked
        ]
        return spread[0].copy() if len(spread) == 1 else self._product(spread)

    def split(self, nodes: Nodes, shape: Sequence[int]) -> list[Nodes]:
        """Labels of the dimensions that `nodes`, viewed with `shape`, falls into."""
        shape = tuple(int(size) for size in shape)
        if not nodes.any():
            return [self.zeros(size) for size in shape]
        if len(shape) == 1:
            return [nodes]
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
        if not all(int(node) in self.parts for node in table.flat):
            return None
        sets = np.empty(table.shape, dtype=object)
        for index in np.ndindex(table.shape):
            sets[index] = frozenset(self.parts[int(table[index])])
        factors: list[Nodes] = []
        for axis in range(table.ndim):
            rows = np.moveaxis(sets, axis, 0).reshape(table.shape[axis], -1)
            shared = [frozenset.intersection(*row) for row in rows]
            if any(len(common) != 1 for common in shared):
                return None
            factors.append(np.array([next(iter(common)) for common in shared], dtype=np.int64))
        spread = [
            np.broadcast_to(_along(part, axis, table.ndim), table.shape).reshape(-1)
            for axis, part in enumerate(factors)
        ]
        return factors if np.array_equal(self._product(spread), table.reshape(-1)) else None

    def _fresh_factors(self, table: Nodes) -> list[Nodes]:
        factors = [self.fresh(size) for size in table.shape]
        spread = [
            np.broadcast_to(_along(part, axis, table.ndim), table.shape).reshape(-1)
            for axis, part in enumerate(factors)
        ]
        self.equations.append((table.reshape(-1), spread))
        return factors

    def _product(self, spread: list[Nodes]) -> Nodes:
        """One node per index, for the joint survival of several; equal sets share a node."""
        result = np.empty(len(spread[0]), dtype=np.int64)
        for position, row in enumerate(zip(*(nodes.tolist() for nodes in spread), strict=True)):
            result[position] = self._joint(row)
        return result

    def _joint(self, row: tuple[int, ...]) -> int:
        members: set[int] = set()
        for node in row:
            members.update(self.parts.get(node, (node,)))
        members.discard(PINNED)
        key = tuple(sorted(members))
        if len(key) <= 1:
            return key[0] if key else PINNED
        if key not in self.products:
            self.products[key] = self.count
            self.parts[self.count] = key
            self.count += 1
        return self.products[key]

    def solve(self) -> Solution:
        """Classes of nodes, after products that mean the same are identified."""
        return _Solver(self).run()


def _along(nodes: Nodes, axis: int, rank: int) -> Nodes:
    return nodes.reshape(tuple(-1 if a == axis else 1 for a in range(rank)))


def _varies(table: Nodes, axis: int) -> bool:
    return table.shape[axis] > 1 and bool((table != table.take([0], axis=axis)).any())


class _Solver:
    """Connected components and congruence, repeated until nothing changes."""

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.first = [np.zeros(0, dtype=np.int64)]
        self.second = [np.zeros(0, dtype=np.int64)]
        for one, two in labels.ties:
            self._connect(one, two)
        self.left, self.rows = _equation_rows(labels)
        self.family = np.full(labels.count, -1, dtype=np.int64)
        for index, nodes in enumerate(labels.families):
            self.family[nodes] = index
        self.reasons_of_nodes: list[tuple[Nodes, str]] = list(labels.pins)

    def run(self) -> Solution:
        component = self._components(merge_pins=True)
        while len(self.left) and self._propagate(component):
            component = self._components(merge_pins=True)
        plain = self._components(merge_pins=False)
        reasons: dict[int, str] = {}
        for nodes, why in self.reasons_of_nodes:
            for number in np.unique(plain[nodes]).tolist():
                reasons.setdefault(number, why)
        return Solution(self._atoms(component), reasons, plain)

    def _connect(self, one: Nodes, two: Nodes) -> None:
        self.first.append(one)
        self.second.append(two)

    def _components(self, *, merge_pins: bool) -> Nodes:
        component = self._connected([], [])
        if merge_pins:
            # the images of the batch are never pruned, whatever they are joined with: leave them
            images = component[[FIRST_IMAGE, SECOND_IMAGE]]
            pins = [n[~np.isin(component[n], images)] for n, _ in self.reasons_of_nodes]
            component = self._connected(pins, [np.zeros_like(nodes) for nodes in pins])
        # the class of node 0 becomes class 0, so that "pinned" stays one number
        zero = component[PINNED]
        return np.where(component == zero, 0, np.where(component == 0, zero, component))

    def _connected(self, more: list[Nodes], others: list[Nodes]) -> Nodes:
        rows, columns = np.concatenate(self.first + more), np.concatenate(self.second + others)
        size = self.labels.count
        graph = coo_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(size, size))
        result: Nodes = connected_components(graph, directed=False)[1].astype(np.int64)
        return result

    def _propagate(self, component: Nodes) -> bool:
        """One round of consequences; True if something new was tied or pinned."""
        left, rows = component[self.left], _canonical(component[self.rows])
        if self._pin_parts_of_pinned(component, left, rows):
            return True
        size = (rows != 0).sum(axis=1)
        changed = self._tie_where(component, size == 0, np.zeros_like(rows[:, 0]))
        changed |= self._tie_where(component, size == 1, rows[:, 0])
        changed |= self._congruence(component, rows)
        return changed or self._resolve_conflict(component, left, rows)

    def _tie_where(self, component: Nodes, where: NDArray[np.bool_], target: Nodes) -> bool:
        new = where & (component[self.left] != target)
        if not new.any():
            return False
        nodes = _representatives(component)[target[new]]
        self._connect(self.left[new], nodes)
        return True

    def _congruence(self, component: Nodes, rows: Nodes) -> bool:
        _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
        partner = self.left[first[inverse.reshape(-1)]]
        new = component[partner] != component[self.left]
        if new.any():
            self._connect(self.left[new], partner[new])
        return bool(new.any())

    def _pin_parts_of_pinned(self, component: Nodes, left: Nodes, rows: Nodes) -> bool:
        images = {int(component[FIRST_IMAGE]), int(component[SECOND_IMAGE])} - {0}
        pinned = (left == 0)[:, None] & (rows != 0) & ~np.isin(rows, list(images))
        if not pinned.any():
            return False
        nodes = _representatives(component)[np.unique(rows[pinned])]
        self.reasons_of_nodes.append((nodes, "part of a dimension that cannot change"))
        return True

    def _resolve_conflict(self, component: Nodes, left: Nodes, rows: Nodes) -> bool:
        """One class, two products: equate what differs, or give up one of the rectangles."""
        pairs = np.unique(np.column_stack([left, rows]), axis=0)
        owners, counts = np.unique(pairs[:, 0], return_counts=True)
        clashing = owners[(counts > 1) & (owners != 0)]
        if not len(clashing):
            return False
        if self._unify(component, pairs[np.isin(pairs[:, 0], clashing)]):
            return True
        parts = np.unique(self.rows[np.isin(left, clashing)])
        families = np.unique(self.family[parts[parts > SECOND_IMAGE]])
        sizes = [(len(self.labels.families[f]), int(f)) for f in families if f >= 0]
        smallest = min((size, f) for size, f in sizes if not self._is_pinned(f))[1]
        nodes = self.labels.families[smallest]
        self.reasons_of_nodes.append((nodes, "it is viewed as two different rectangles"))
        return True

    def _unify(self, component: Nodes, pairs: Nodes) -> bool:
        """batch x heads = batch x other heads: then the heads are the other heads."""
        nodes = _representatives(component)
        one, two = [], []
        for before, after in pairwise(pairs.tolist()):
            if before[0] != after[0]:
                continue
            first, second = set(before[1:]) - {0}, set(after[1:]) - {0}
            mine, other = first - second, second - first
            if len(mine) == len(other) == 1:
                one.append(nodes[mine.pop()])
                two.append(nodes[other.pop()])
        if one:
            self._connect(np.array(one), np.array(two))
        return bool(one)

    def _is_pinned(self, family: int) -> bool:
        node = self.labels.families[family][0]
        return any(node in nodes for nodes, _ in self.reasons_of_nodes)

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
        content = {int(o): tuple(p for p in row if p) for o, row in zip(owners, parts.tolist(), strict=True)}
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
    width = max(
        [len(key) for key in labels.products] + [len(parts) for _, parts in labels.equations],
        default=0,
    )
    left: list[Nodes] = [np.array(list(labels.parts), dtype=np.int64)]
    rows: list[Nodes] = [np.zeros((len(labels.parts), width), dtype=np.int64)]
    for index, parts in enumerate(labels.parts.values()):
        rows[0][index, : len(parts)] = parts
    for nodes, spread in labels.equations:
        block = np.zeros((len(nodes), width), dtype=np.int64)
        block[:, : len(spread)] = np.column_stack(spread)
        left.append(nodes)
        rows.append(block)
    return np.concatenate(left), np.concatenate(rows)


def _canonical(rows: Nodes) -> Nodes:
    """Rows as sets: sorted downwards, repetitions replaced by 0."""
    if rows.shape[1] == 0:
        return rows
    rows = -np.sort(-rows, axis=1)
    repeated = np.zeros_like(rows, dtype=bool)
    repeated[:, 1:] = rows[:, 1:] == rows[:, :-1]
    return -np.sort(-np.where(repeated, 0, rows), axis=1)


def _representatives(component: Nodes) -> Nodes:
    """One node of each class."""
    nodes = np.zeros(int(component.max()) + 1, dtype=np.int64)
    nodes[component[::-1]] = np.arange(len(component) - 1, -1, -1)
    return nodes
