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
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import nn

from prunas.eval.products import Product, Products, table_of
from prunas.supernet.activations import Step, activations
from prunas.supernet.space import Candidate, Contraction, SearchSpace, Size, present

Columns = NDArray[np.float64]

VECTOR: Final = 16
"""Channels that AVX-512 treats at once in float32; ONNX Runtime's blocks."""

PART: Final = 4
"""ONNX Runtime's blocks can be filled from multiples of this."""

_FREE: Final = frozenset(f"aten.{name}" for name in ("empty", "empty_like", "detach", "alias"))


@dataclass(frozen=True)
class _Part:
    """constant * product of sizes."""

    constant: int
    sizes: tuple[Size, ...]


@dataclass(frozen=True)
class _Layer:
    """A contraction as it is timed.

    Attributes:
        family: equal for layers that do the same work at every position.
        sizes: the lengths that genes decide, in order.
        macs: how many there are in all.
        runs: 1 where the layer runs, 0 in a block that is left out.
        moves: places of what it reads and writes.
    """

    family: str
    sizes: tuple[Size, ...]
    macs: Contraction
    runs: tuple[Size, ...]
    moves: tuple[int, ...]


@final
class Features:
    """The quantities of candidates that latency is a sum of.

    Args:
        network: the traced network; it is not changed, and its weights are not read.
        space: its search space, with genes of width and of depth.

    Attributes:
        names: of the quantities, in order; the last one is 1 for every candidate.

    Raises:
        InputError: the space has genes of another kind, or the network is not the traced one.
    """

    def __init__(self, network: nn.Module, space: SearchSpace) -> None:
        self.space = space
        found = activations(network, space)
        self._stored = Products(found.stored)
        self._layers: list[_Layer] = []
        self._others: dict[str, list[Step]] = {}
        for step in found.steps:
            if step.contractions:
                self._layers += _layers_of(step, space, found.stored)
            elif _works(step):
                self._others.setdefault(step.operator, []).append(step)
        self._macs = Products(layer.macs for layer in self._layers)
        self._runs = Products(_Part(1, layer.runs) for layer in self._layers)
        self._sizes = [Products(_Part(1, (s,)) for s in layer.sizes) for layer in self._layers]
        self.names: tuple[str, ...] = tuple(self._columns(table_of(space, [space.full()])))

    def values(self, candidates: Sequence[Candidate] | ArrayLike) -> Columns:
        """(n, quantities) of candidates, or of an integer array (n, genes) of chosen values.

        Raises:
            InputError: the rows do not have one value per gene.
        """
        table = table_of(self.space, candidates)
        return np.column_stack(list(self._columns(table).values()))

    def _columns(self, table: NDArray[np.int64]) -> dict[str, Columns]:
        columns: dict[str, Columns] = {}

        def add(name: str, values: Columns) -> None:
            columns[name] = columns[name] + values if name in columns else values

        stored = self._stored.values(table)
        macs, runs = self._macs.values(table), self._runs.values(table)
        for index, layer in enumerate(self._layers):
            sizes = self._sizes[index].values(table)
            moved = stored[:, list(layer.moves)].sum(axis=1) * runs[:, index]
            self._add_family(layer, sizes, runs[:, index], add)
            _add_strays(layer, sizes, macs[:, index], moved, add)
        for operator, steps in self._others.items():
            self._add_operator(operator, steps, stored, table, add)
        add("start", np.ones(len(table)))
        return columns

    @staticmethod
    def _add_family(
        layer: _Layer, sizes: Columns, runs: Columns, add: Callable[[str, Columns], None]
    ) -> None:
        add(f"{layer.family}: runs", runs)
        for position in range(sizes.shape[1]):
            add(f"{layer.family}: size {position}", sizes[:, position] * runs)
        if sizes.shape[1] > 1:
            add(f"{layer.family}: product", sizes.prod(axis=1) * runs)
        filled = (np.ceil(sizes / VECTOR) * VECTOR).prod(axis=1)
        add(f"{layer.family}: filled", filled * runs)

    @staticmethod
    def _add_operator(
        operator: str,
        steps: Sequence[Step],
        stored: Columns,
        table: NDArray[np.int64],
        add: Callable[[str, Columns], None],
    ) -> None:
        for step in steps:
            runs = (table[:, list(step.blocks)] != 0).all(axis=1).astype(np.float64)
            places = sorted({*step.reads, *step.writes})
            add(f"{operator}: runs", runs)
            add(f"{operator}: bytes", stored[:, places].sum(axis=1) * runs)


def _layers_of(step: Step, space: SearchSpace, stored: Sequence[Product]) -> list[_Layer]:
    blocks = [present(gene) for gene in step.blocks]
    moves = tuple(sorted({*step.reads, *step.writes}))
    layers = []
    for number in step.contractions:
        contraction = space.contractions[number]
        sizes = tuple(size for size in contraction.sizes if size not in blocks)
        positions = ",".join(str(stored[place].constant) for place in (*step.reads, *step.writes))
        family = f"{contraction.operator} {contraction.constant} of {positions}, {len(sizes)} sizes"
        layers.append(_Layer(family, sizes, contraction, tuple(blocks), moves))
    return layers


def _add_strays(
    layer: _Layer,
    sizes: Columns,
    macs: Columns,
    moved: Columns,
    add: Callable[[str, Columns], None],
) -> None:
    """What layers do whose sizes do not fill vectors, shared by those with as many sizes."""
    kind = f"{layer.macs.operator}, {sizes.shape[1]} sizes"
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
