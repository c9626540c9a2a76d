"""What the operators of a network compute, in terms of the genes: sizes, order and lifetimes.

The trace is recorded once more, and the classes of its labels are matched with the atoms of the
space, so that every intermediate result has a size in closed form. Results that lie in the same
memory (views, in-place operators) are one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from prunas.errors import InputError
from prunas.supernet.cut import require_same
from prunas.supernet.labels import FIRST_IMAGE, PINNED, SECOND_IMAGE, Nodes, Solution
from prunas.supernet.operators import Dims
from prunas.supernet.recorder import Memory, Record, record
from prunas.supernet.skeleton import imagined, skeleton
from prunas.supernet.space import SearchSpace, Size, size_polynomial
from prunas.supernet.trace import solved

KINDS = ("width", "depth")
"""Kinds of genes that decide the sizes of what one recorded run computes."""


@dataclass(frozen=True)
class Stored:
    """Some memory: constant * product of sizes bytes for one image."""

    constant: int
    sizes: tuple[Size, ...]


@dataclass(frozen=True)
class Step:
    """One operator.

    Attributes:
        operator: its name, such as "aten.convolution".
        reads: places in `Activations.stored` of what it is given; weights are not among them.
        writes: of what it returns; one that it also reads is a view, or written in place.
        blocks: genes of the blocks that it runs in: without one of them it does not run.
        contractions: places in the space's `contractions` of those that it is.
    """

    operator: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    blocks: tuple[int, ...]
    contractions: tuple[int, ...]


@dataclass(frozen=True)
class Activations:
    """One run of a network on one image, for all candidates at once.

    Attributes:
        stored: the memory that is written, and that of the inputs.
        steps: the operators in the order in which they run.
        given: places in `stored` of the network's inputs.
        returned: of its outputs.
        passes: gene of a block -> what its input and its output lie in; without the block they
            are the same.
    """

    stored: tuple[Stored, ...]
    steps: tuple[Step, ...]
    given: frozenset[int]
    returned: frozenset[int]
    passes: Mapping[int, tuple[int, int]]


def activations(network: nn.Module, space: SearchSpace) -> Activations:
    """Sizes and order of what `network` computes, for every candidate of its space.

    Args:
        network: the traced network; it is not changed, and its weights are not read.
        space: its search space, with genes of width and of depth.

    Raises:
        InputError: the space has genes of another kind, or the network is not the traced one.
    """
    for gene in space.genes:
        if gene.kind not in KINDS:
            raise InputError(
                f"gene {gene.name!r} is one of {gene.kind}, whose effect on intermediate results is"
                f" not known in closed form; known are {' and '.join(KINDS)}"
            )
    require_same(network, space)
    bare = skeleton(network)
    for module in bare.modules():
        module.training = False
    floating = (p.dtype for p in bare.parameters() if p.is_floating_point())
    found = record(bare, imagined(space.inputs, next(floating, None)), frozenset())
    return _Reading(space, found, solved(found)).all()


class _Reading:
    """Turns labels into sizes."""

    def __init__(self, space: SearchSpace, found: Record, solution: Solution) -> None:
        self.space, self.found = space, found
        self.atoms = solution.atoms
        self.second_image = _second_image(solution.atoms)
        self.gene_of_class = _genes_of_classes(space, found.tensors, solution.atoms)
        self.gene_of_block = {block.path: gene for gene, block in space.blocks.items()}
        self.place = {memory: place for place, memory in enumerate(found.memory)}
        self._sizes: dict[int, Size] = {}

    def all(self) -> Activations:
        passes = {
            self.gene_of_block[seen.block.path]: (self.place[before], self.place[after])
            for seen in self.found.blocks
            for before, after in (seen.memory,)
            if seen.block.path in self.gene_of_block
        }
        return Activations(
            stored=tuple(self._stored(memory) for memory in self.found.memory.values()),
            steps=self._steps(),
            given=frozenset(self._places(self.found.given)),
            returned=frozenset(self._places(self.found.returned)),
            passes=passes,
        )

    def _places(self, memory: Sequence[int] | frozenset[int]) -> tuple[int, ...]:
        return tuple(dict.fromkeys(self.place[key] for key in memory if key in self.place))

    def _steps(self) -> tuple[Step, ...]:
        steps, first = [], 0
        for operation in self.found.operations:
            paths = (path for path in operation.inside if path in self.gene_of_block)
            step = Step(
                operator=operation.name,
                reads=self._places(operation.reads),
                writes=self._places(operation.writes),
                blocks=tuple(self.gene_of_block[path] for path in paths),
                contractions=tuple(range(first, first + operation.products)),
            )
            steps.append(step)
            first += operation.products
        return tuple(steps)

    def _stored(self, memory: Memory) -> Stored:
        constant, sizes = memory.itemsize, []
        for nodes in memory.dims:
            size = self._size(nodes)
            if all(not genes for _, genes in size):
                constant *= sum(count for count, _ in size)
            else:
                sizes.append(size)
        return Stored(constant, tuple(sizes))

    def _size(self, nodes: Nodes) -> Size:
        if id(nodes) not in self._sizes:
            rows = self.atoms[nodes[~self.second_image[nodes]]]
            factors = tuple(np.ascontiguousarray(column) for column in rows.T)
            self._sizes[id(nodes)] = size_polynomial(factors, self.gene_of_class, self.space.widths)
        return self._sizes[id(nodes)]


def _second_image(atoms: Nodes) -> Nodes:
    """(nodes,) what belongs to the second image of the batch alone."""
    first, second = atoms[FIRST_IMAGE, 0], atoms[SECOND_IMAGE, 0]
    apart = first != second and second != PINNED
    found: Nodes = (atoms == second).any(axis=1)
    return found if apart else np.zeros_like(found)


def _genes_of_classes(space: SearchSpace, tensors: Mapping[str, Dims], atoms: Nodes) -> Nodes:
    """(classes,) the gene that decides each class of labels; -1 where none does."""
    genes = np.full(int(atoms.max()) + 1, -1, dtype=np.int64)
    for name, dimensions in space.slots.items():
        for dimension, factors in dimensions.items():
            columns = list(atoms[tensors[name][dimension]].T)
            for factor in factors:
                classes = _alike(columns, factor)
                decided = factor != 0
                genes[classes[decided]] = space.gene_of_atom[factor[decided]]
    return genes


def _alike(columns: Sequence[Nodes], factor: Nodes) -> Nodes:
    """The column of classes that tells the same indices apart as a factor does."""
    decided = factor != 0
    atoms = factor[decided]
    for column in columns:
        classes = column[decided]
        pairs = len(np.unique(np.stack([classes, atoms]), axis=1).T)
        if classes.all() and pairs == len(np.unique(atoms)) == len(np.unique(classes)):
            return column
    raise AssertionError("the labels of the same network tell its channels apart in the same way")
