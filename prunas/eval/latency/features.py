"""What the time of a candidate depends on: quantities of its layers and of what is between them.

Contractions that do the same amount of work at every position (same operator, kernel and image
size) are one family. A convolution of c_in to c_out channels takes, as long as a device works on
single channels,

    a + b c_in + c c_out + d c_in c_out,

since it starts, reads, writes and multiplies. Devices work on vectors: they fill channels up to a
multiple of `VECTOR`, or leave their fast path where channels are not one. So each family has the
sizes of its members, their product, and the product of the sizes filled up; and all contractions
with as many sizes share what is done by those with a size that is no multiple of `VECTOR`, or of
`PART`. Every other operator has the bytes that it moves, and how often it runs. None of them
depends on a device or a runtime: what fusing saves, and what starting costs, is in the
coefficients (`prunas.eval.latency.predictor`).

A layer whose kernel is a gene belongs to the family of the kernel that is chosen. On images of
another side it stays in the family that it has on the largest ones, whose quantities then count by
the share of the positions. What is left out, or not chosen, counts nothing.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Final, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import nn

from prunas.eval.products import Products, table_of
from prunas.supernet.activations import Activations, Passage, Step, Stored, activations
from prunas.supernet.conditions import Condition, Held, both, where
from prunas.supernet.resolution import rows_by_side, sides_of
from prunas.supernet.space import Candidate, Contraction, SearchSpace, Size, present

Columns = NDArray[np.float64]

VECTOR: Final = 16
"""Channels that AVX-512 treats at once in float32; ONNX Runtime's blocks."""

PART: Final = 4
"""ONNX Runtime's blocks can be filled from multiples of this."""

_FREE: Final = frozenset(f"aten.{name}" for name in ("empty", "empty_like", "detach", "alias"))


@dataclass(frozen=True)
class _Layer:
    """A contraction as it is timed, with one of its kernels.

    Attributes:
        family: equal for layers that do the same work at every position.
        operator: what contracts.
        constant: MACs, for each product of the sizes.
        sizes: the lengths that widths decide, in order.
        share: of the positions that there are on the largest images.
        runs: when.
        moves: places of what it reads and writes.
    """

    family: str
    operator: str
    constant: int
    sizes: tuple[Size, ...]
    share: float
    runs: Condition
    moves: tuple[int, ...]


@final
class Features:
    """The quantities of candidates that latency is a sum of.

    Args:
        network: the traced network; it is not changed, and its weights are not read.
        space: its search space.

    Attributes:
        names: of the quantities, in order; the last one is 1 for every candidate.

    Raises:
        InputError: the network is not the traced one, or computes other intermediate results with
            a smaller kernel.
    """

    def __init__(self, network: nn.Module, space: SearchSpace) -> None:
        self.space = space
        found = {side: activations(network, space, side) for side in sides_of(space)}
        *_, largest = found.values()
        self._at = {side: _Quantities(each, largest, space) for side, each in found.items()}
        names = dict.fromkeys(name for at in self._at.values() for name in at.names)
        self.names: tuple[str, ...] = (*names, "start")
        place = {name: index for index, name in enumerate(self.names)}
        self._places = {
            side: np.array([place[name] for name in at.names]) for side, at in self._at.items()
        }

    def values(self, candidates: Sequence[Candidate] | ArrayLike) -> Columns:
        """(n, quantities) of candidates, or of an integer array (n, genes) of chosen values.

        Raises:
            InputError: the rows do not have one value per gene.
        """
        table = table_of(self.space, candidates)
        result = np.zeros((len(table), len(self.names)))
        for side, rows in rows_by_side(self.space, table):
            result[np.ix_(rows, self._places[side])] = self._at[side].values(table[rows])
        result[:, -1] = 1
        return result


class _Quantities:
    """Those of the candidates that see images of one side."""

    def __init__(self, found: Activations, largest: Activations, space: SearchSpace) -> None:
        self._stored = Products(found.stored, found.conditions)
        self._passages = _resizing(found)
        layers = list(_layers(found, largest, space))
        numbers = sorted({len(layer.sizes) for layer in layers})
        places = len(found.stored)
        self._layers = [
            _Layers([layer for layer in layers if len(layer.sizes) == number], places)
            for number in numbers
        ]
        steps = [step for step in found.steps if not step.contractions and _works(step)]
        self._others = _Others(steps, places)
        self.names = (*(n for each in self._layers for n in each.names), *self._others.names)

    def values(self, table: NDArray[np.int64]) -> Columns:
        """(n, names) for chosen values (n, genes)."""
        held = Held(table)
        stored = self._bytes(table, held)
        parts = [each.values(table, held, stored) for each in self._layers]
        return np.concatenate([*parts, self._others.values(held, stored)], axis=1)

    def _bytes(self, table: NDArray[np.int64], held: Held) -> Columns:
        """(n, places) of all memory; what is handed on is as large as what it was handed."""
        stored = self._stored.values(table)
        for passage in self._passages:
            there = held.all(passage.when)
            stored[there, passage.after] = stored[there, passage.before]
        return stored


class _Layers:
    """The quantities of layers with equally many sizes.

    Args:
        layers: which.
        places: how many pieces of memory there are.

    Attributes:
        names: of the quantities.
    """

    def __init__(self, layers: Sequence[_Layer], places: int) -> None:
        self._shape = (len(layers), len(layers[0].sizes))
        self._sizes = Products(Stored(1, (size,)) for layer in layers for size in layer.sizes)
        self._runs = [layer.runs for layer in layers]
        self._share = np.array([layer.share for layer in layers])
        self._constant = np.array([layer.constant for layer in layers], dtype=np.float64)
        self._moves = _incidence([layer.moves for layer in layers], places)
        families, self._family = _grouped([layer.family for layer in layers])
        operators, self._operator = _grouped([layer.operator for layer in layers])
        kinds = [f"{operator}, {self._shape[1]} sizes" for operator in operators]
        self.names = tuple(
            [f"{family}: {what}" for what in self._of_family() for family in families]
            + [f"{kind}: {what}" for what in self._of_kind() for kind in kinds]
        )

    def _of_family(self) -> list[str]:
        positions = range(self._shape[1])
        product = ["product"] if len(positions) > 1 else []
        return ["runs", *(f"size {position}" for position in positions), *product, "filled"]

    def _of_kind(self) -> list[str]:
        return [
            f"{what}, size {position} no multiple of {length}"
            for length in (VECTOR, PART)
            for position in range(self._shape[1])
            for what in ("macs", "bytes")
        ]

    def values(self, table: NDArray[np.int64], held: Held, stored: Columns) -> Columns:
        """(n, names) for chosen values (n, genes), and the bytes (n, places) of all memory."""
        sizes = self._sizes.values(table).reshape(len(table), *self._shape)
        each = np.moveaxis(sizes, 2, 0)
        runs = _there(held, self._runs, len(table))
        work, product = runs * self._share, sizes.prod(axis=2)
        filled = _filled(sizes, VECTOR).prod(axis=2)
        products = [product * work] if len(each) > 1 else []
        of_family = [runs, *(each * work), *products, filled * work]
        # what layers do whose sizes do not fill vectors, shared by those with as many sizes
        macs, moved = self._constant * product * runs, (stored @ self._moves) * runs
        of_kind = [
            what * (_filled(size, length) != size)
            for length in (VECTOR, PART)
            for size in each
            for what in (macs, moved)
        ]
        parts = [part @ self._family for part in of_family]
        return np.concatenate([*parts, *(part @ self._operator for part in of_kind)], axis=1)


class _Others:
    """How often every operator runs that contracts nothing, and the bytes that it moves.

    Args:
        steps: of these operators.
        places: how many pieces of memory there are.

    Attributes:
        names: of the quantities.
    """

    def __init__(self, steps: Sequence[Step], places: int) -> None:
        self._runs = [step.runs for step in steps]
        self._moves = _incidence([{*step.reads, *step.writes} for step in steps], places)
        operators, self._operator = _grouped([step.operator for step in steps])
        self.names = tuple(f"{each}: {what}" for what in ("runs", "bytes") for each in operators)

    def values(self, held: Held, stored: Columns) -> Columns:
        """(n, names) for the bytes (n, places) of all memory."""
        runs = _there(held, self._runs, len(stored))
        moved = (stored @ self._moves) * runs
        return np.concatenate([runs @ self._operator, moved @ self._operator], axis=1)


def _filled(sizes: Columns, length: int) -> Columns:
    """Whole numbers, up to the next multiple."""
    return np.ceil(sizes / length) * length


def _there(held: Held, conditions: Sequence[Condition], n: int) -> Columns:
    """(n, conditions) 1 where one holds, and 0 where it does not."""
    known = {each: held.all(each) for each in set(conditions)}
    found = [known[each] for each in conditions]
    return np.array(found, dtype=np.float64).reshape(len(found), n).T


def _incidence(moves: Sequence[Collection[int]], places: int) -> Columns:
    """(places, rows) 1 where a row moves what lies there."""
    result = np.zeros((places, len(moves)))
    for row, each in enumerate(moves):
        result[list(each), row] = 1
    return result


def _grouped(names: Sequence[str]) -> tuple[list[str], Columns]:
    """The distinct names, and (rows, distinct) 1 where a row has that one."""
    distinct = list(dict.fromkeys(names))
    result = np.zeros((len(names), len(distinct)))
    result[range(len(names)), [distinct.index(name) for name in names]] = 1
    return distinct, result


def _resizing(found: Activations) -> list[Passage]:
    """The passages in which the two results are not equally large as a rule."""
    result, other = [], set[int]()
    for passage in found.passages:
        before, after = passage.before, passage.after
        if found.stored[before] != found.stored[after] or before in other:
            result.append(passage)
            other.add(after)
    return result


def _layers(found: Activations, largest: Activations, space: SearchSpace) -> Iterator[_Layer]:
    """All contractions, those with a gene of kernels once for each kernel."""
    pairs = zip(_contractions(found), _contractions(largest), strict=True)
    for (step, own), (full_step, full) in pairs:
        operands = (*full_step.reads, *full_step.writes)
        bytes_ = (_positions(largest.stored[place], len(space.genes)) for place in operands)
        positions = ",".join(map(str, bytes_))
        moves = tuple(sorted({*step.reads, *step.writes}))
        share = own.constant / full.constant
        for area, sizes, runs in _kernels(own, step.runs, space):
            work = f"{own.operator} {full.constant * area} of {positions}, {len(sizes)} sizes"
            yield _Layer(work, own.operator, own.constant * area, sizes, share, runs, moves)


def _contractions(found: Activations) -> Iterator[tuple[Step, Contraction]]:
    return ((step, contraction) for step in found.steps for contraction in step.contractions)


def _kernels(
    own: Contraction, runs: Condition, space: SearchSpace
) -> Iterator[tuple[int, tuple[Size, ...], Condition]]:
    """(entries of the kernel, sizes but for it, when) for every side that the kernel may have."""
    genes = [gene for gene, each in enumerate(space.genes) if each.kind == "kernel"]
    found = [gene for gene in genes if present(gene) in own.sizes]
    if not found:
        yield 1, own.sizes, runs
    for gene in found:
        sizes = tuple(size for size in own.sizes if size != present(gene))
        for side in space.genes[gene].choices:
            when = both(runs, where(gene, side))
            if when is not None:
                yield side ** own.sizes.count(present(gene)), sizes, when


def _positions(stored: Stored, genes: int) -> int:
    """Bytes but for what genes decide, which are the first variables; with the largest kernel."""
    margins = (s for s in stored.sizes if min(v for _, variables in s for v in variables) >= genes)
    return stored.constant * prod(max(count for count, _ in size) for size in margins)


def _works(step: Step) -> bool:
    """Whether an operator computes something: not a view, and not memory alone."""
    if step.operator in _FREE or not step.writes:
        return False
    in_place = step.operator.endswith("_")
    return in_place or not set(step.writes) <= set(step.reads)
