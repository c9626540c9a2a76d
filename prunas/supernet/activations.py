"""What the operators of a network compute, in terms of the genes: sizes, order and lifetimes.

The trace is recorded once more, and the classes of its labels are matched with the atoms of the
space, so that every intermediate result has a size in closed form. Results that lie in the same
memory (views, in-place operators) are one. All alternatives of a choice run in the recorded run,
each under the condition that it is chosen; the sum of their results, which no candidate computes,
is the result of the chosen one. What images of another side need is another record.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import prod

import numpy as np
import torch
from torch import nn

from prunas.supernet.choice import run_together
from prunas.supernet.conditions import Condition, where
from prunas.supernet.cut import require_same
from prunas.supernet.kernels import kernels_of
from prunas.supernet.labelled import solved
from prunas.supernet.labels import Nodes, Solution
from prunas.supernet.margins import Margins, unknown
from prunas.supernet.operators import Dims
from prunas.supernet.presence import Presence
from prunas.supernet.recorder import Memory, Product, Record, record
from prunas.supernet.resolution import seen
from prunas.supernet.skeleton import imagined, skeleton
from prunas.supernet.space import Contraction, SearchSpace, Size, present, size_polynomial


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
        runs: when it runs: with the blocks, and the alternatives, that it is in.
        contractions: those that it is, as if it always ran.
    """

    operator: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    runs: Condition
    contractions: tuple[Contraction, ...]


@dataclass(frozen=True)
class Passage:
    """Where a condition holds, what lies in memory `after` otherwise lies in `before`.

    Without a block its output is its input; the output of a choice is that of an alternative.
    """

    when: Condition
    before: int
    after: int


@dataclass(frozen=True)
class Activations:
    """One run of a network on one image, for all candidates at once.

    Attributes:
        stored: the memory that is written, and that of the inputs.
        steps: the operators in the order in which they run.
        given: places in `stored` of the network's inputs.
        returned: of its outputs.
        passages: what hands its input on. Where several of one `after` hold, the last one counts;
            what is `before` has been `after` in earlier ones only.
        conditions: (gene, value) pairs that `stored` depends on; see `Size`.
    """

    stored: tuple[Stored, ...]
    steps: tuple[Step, ...]
    given: frozenset[int]
    returned: frozenset[int]
    passages: tuple[Passage, ...]
    conditions: tuple[tuple[int, int], ...]


@torch.inference_mode(False)  # which runs other operators, and makes tensors that cannot learn
def activations(network: nn.Module, space: SearchSpace, side: int | None = None) -> Activations:
    """Sizes and order of what `network` computes, for every candidate of its space.

    Args:
        network: the traced network; it is not changed, and its weights are not read.
        space: its search space.
        side: of the images, for a space with a gene of that: what is returned then holds for the
            candidates that see this side. None: the images that the space was traced with.

    Raises:
        InputError: the network is not the traced one, or other operators run with a smaller
            kernel.
    """
    require_same(network, space)
    bare = skeleton(network)
    for module in bare.modules():
        module.training = False
    floating = (p.dtype for p in bare.parameters() if p.is_floating_point())
    inputs = imagined(space.inputs, next(floating, None))
    if side is not None:
        inputs = inputs.new_empty(seen(inputs.shape, side))
    run_together(bare)
    found = record(bare, inputs, frozenset())
    margins = Margins.of(bare, space, inputs, found)
    return _Reading(space, found, solved(found), Presence.of(bare, space), margins).all()


class _Reading:
    """Turns labels into sizes."""

    def __init__(
        self,
        space: SearchSpace,
        found: Record,
        solution: Solution,
        presence: Presence,
        margins: Margins,
    ) -> None:
        self.space, self.found, self.presence, self.margins = space, found, presence, margins
        self.atoms = solution.atoms
        self.second_image = solution.second_image
        self.gene_of_class = _genes_of_classes(space, found.tensors, solution.atoms)
        self.place = {memory: place for place, memory in enumerate(found.memory)}
        self._kernels = {name.rpartition(".")[0]: gene for gene, name in kernels_of(space).items()}
        self._sizes: dict[int, Size] = {}

    def all(self) -> Activations:
        memory = self.found.memory.values()
        return Activations(
            stored=tuple(self._stored(place, each) for place, each in enumerate(memory)),
            steps=tuple(self._steps()),
            given=frozenset(self._places(self.found.given)),
            returned=frozenset(self._places(self.found.returned)),
            passages=tuple(sorted(self._passages(), key=lambda passage: passage.after)),
            conditions=self.margins.conditions,
        )

    def _places(self, memory: Collection[int]) -> tuple[int, ...]:
        return tuple(dict.fromkeys(self.place[key] for key in memory if key in self.place))

    def _steps(self) -> Iterator[Step]:
        products = iter(self.found.products)
        for operation in self.found.operations:
            own = [self._contraction(row) for row in islice(products, operation.products)]
            runs = self.presence.runs(operation.inside)
            if runs is not None:
                reads, writes = self._places(operation.reads), self._places(operation.writes)
                yield Step(operation.name, reads, writes, runs, tuple(own))

    def _passages(self) -> Iterator[Passage]:
        """In the order in which blocks and choices end, of each kind."""
        for block in self.found.blocks:
            gene = self.presence.blocks.get(block.block.path)
            if gene is not None:
                yield from self._passage(where(gene, 0), *block.memory)
        for choice in self.found.choices:
            for result in dict.fromkeys(choice.results):
                numbers = [n for n, other in enumerate(choice.results) if other == result]
                when = self.presence.chosen(choice.path, numbers)
                if when is not None:
                    yield from self._passage(when, result, choice.total)

    def _passage(self, when: Condition, before: int, after: int) -> Iterator[Passage]:
        if before != after and before in self.place:  # else handed on, or a weight
            yield Passage(when, self.place[before], self.place[after])

    def _stored(self, place: int, memory: Memory) -> Stored:
        constant, sizes = self._product(memory.itemsize, memory.dims)
        changes = self.margins.of_place.get(place)
        if changes is None:
            return Stored(constant, sizes)
        gene, lengths = changes
        own = tuple(map(len, memory.dims))
        fixed = [axis for axis, nodes in enumerate(memory.dims) if _is_fixed(self._size(nodes))]
        size = []
        for value, changed in lengths.items():
            axes = [axis for axis, length in enumerate(changed) if length != own[axis]]
            if not set(axes) <= set(fixed):
                raise unknown(self.space, gene)
            share = prod(changed[axis] for axis in axes), prod(own[axis] for axis in axes)
            size.append((constant * share[0] // share[1], (self.margins.variable(gene, value),)))
        return Stored(1, (*sizes, tuple(size)))

    def _contraction(self, product: Product) -> Contraction:
        constant, sizes = self._product(product.constant, product.dims)
        gene = self._kernels.get(product.module)
        if gene is not None:
            axes = len(self.space.shapes[f"{product.module}.weight"]) - 2
            constant //= self.space.widths[gene] ** axes
            sizes = (*sizes, *[present(gene)] * axes)
        return Contraction(product.module, product.operator, constant, sizes)

    def _product(self, constant: int, dims: Dims) -> tuple[int, tuple[Size, ...]]:
        sizes = []
        for nodes in dims:
            size = self._size(nodes)
            if _is_fixed(size):
                constant *= sum(count for count, _ in size)
            else:
                sizes.append(size)
        return constant, tuple(sizes)

    def _size(self, nodes: Nodes) -> Size:
        if id(nodes) not in self._sizes:
            rows = self.atoms[nodes[~self.second_image[nodes]]]
            factors = tuple(np.ascontiguousarray(column) for column in rows.T)
            self._sizes[id(nodes)] = size_polynomial(factors, self.gene_of_class, self.space.widths)
        return self._sizes[id(nodes)]


def _is_fixed(size: Size) -> bool:
    return all(not genes for _, genes in size)


def _genes_of_classes(space: SearchSpace, tensors: Mapping[str, Dims], atoms: Nodes) -> Nodes:
    """(classes,) the gene that decides each class of labels; -1 where none does."""
    genes = np.full(int(atoms.max()) + 1, -1, dtype=np.int64)
    kernels = set(kernels_of(space).values())
    for name, dimensions in space.slots.items():
        for dimension, factors in dimensions.items():
            if name in kernels and dimension > 1:
                continue  # no label is on the extent of a kernel
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
