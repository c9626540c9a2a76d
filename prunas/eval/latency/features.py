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

from collections.abc import Callable, Iterator, Sequence
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


Add = Callable[[str, Columns], None]
"""Adds to the column of that name, (n,)."""


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
        full = table_of(space, [space.full()])
        names = dict.fromkeys(name for at in self._at.values() for name in at.columns(full))
        self.names: tuple[str, ...] = (*names, "start")

    def values(self, candidates: Sequence[Candidate] | ArrayLike) -> Columns:
        """(n, quantities) of candidates, or of an integer array (n, genes) of chosen values.

        Raises:
            InputError: the rows do not have one value per gene.
        """
        table = table_of(self.space, candidates)
        place = {name: index for index, name in enumerate(self.names)}
        result = np.zeros((len(table), len(place)))
        for side, rows in rows_by_side(self.space, table):
            for name, column in self._at[side].columns(table[rows]).items():
                result[rows, place[name]] = column
        result[:, -1] = 1
        return result


class _Quantities:
    """Those of the candidates that see images of one side."""

    def __init__(self, found: Activations, largest: Activations, space: SearchSpace) -> None:
        self._stored = Products(found.stored, found.conditions)
        self._passages = _resizing(found)
        self._layers = list(_layers(found, largest, space))
        self._sizes = [Products(Stored(1, (s,)) for s in layer.sizes) for layer in self._layers]
        self._others: dict[str, list[Step]] = {}
        for step in found.steps:
            if not step.contractions and _works(step):
                self._others.setdefault(step.operator, []).append(step)

    def columns(self, table: NDArray[np.int64]) -> dict[str, Columns]:
        """{name: (n,)} for chosen values (n, genes)."""
        columns: dict[str, Columns] = {}

        def add(name: str, values: Columns) -> None:
            columns[name] = columns[name] + values if name in columns else values

        held = Held(table)
        stored = self._bytes(table, held)
        for layer, products in zip(self._layers, self._sizes, strict=True):
            runs = held.all(layer.runs).astype(np.float64)
            sizes = products.values(table)
            _add_family(layer, sizes, runs, add)
            moved = stored[:, list(layer.moves)].sum(axis=1) * runs
            _add_strays(layer, sizes, runs, moved, add)
        for operator, steps in self._others.items():
            for step in steps:
                runs = held.all(step.runs).astype(np.float64)
                moved = stored[:, sorted({*step.reads, *step.writes})].sum(axis=1)
                add(f"{operator}: runs", runs)
                add(f"{operator}: bytes", moved * runs)
        return columns

    def _bytes(self, table: NDArray[np.int64], held: Held) -> Columns:
        """(n, places) of all memory; what is handed on is as large as what it was handed."""
        stored = self._stored.values(table)
        for passage in self._passages:
            there = held.all(passage.when)
            stored[there, passage.after] = stored[there, passage.before]
        return stored


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


def _add_family(layer: _Layer, sizes: Columns, runs: Columns, add: Add) -> None:
    work = runs * layer.share
    add(f"{layer.family}: runs", runs)
    for position in range(sizes.shape[1]):
        add(f"{layer.family}: size {position}", sizes[:, position] * work)
    if sizes.shape[1] > 1:
        add(f"{layer.family}: product", sizes.prod(axis=1) * work)
    filled = (np.ceil(sizes / VECTOR) * VECTOR).prod(axis=1)
    add(f"{layer.family}: filled", filled * work)


def _add_strays(layer: _Layer, sizes: Columns, runs: Columns, moved: Columns, add: Add) -> None:
    """What layers do whose sizes do not fill vectors, shared by those with as many sizes."""
    kind = f"{layer.operator}, {sizes.shape[1]} sizes"
    macs = layer.constant * sizes.prod(axis=1) * runs
    for length in (VECTOR, PART):
        for position in range(sizes.shape[1]):
            strays = (sizes[:, position] % length != 0).astype(np.float64)
            add(f"{kind}: macs, size {position} no multiple of {length}", macs * strays)
            add(f"{kind}: bytes, size {position} no multiple of {length}", moved * strays)


def _works(step: Step) -> bool:
    """Whether an operator computes something: not a view, and not memory alone."""
    if step.operator in _FREE or not step.writes:
        return False
    in_place = step.operator.endswith("_")
    return in_place or not set(step.writes) <= set(step.reads)
