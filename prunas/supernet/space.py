"""The search space of a network: its genes, and which tensor entries each of them decides.

Every channel of every gene is one *atom*, numbered from 1; atom 0 stands for "always kept". A
tensor dimension that genes decide carries *factors*: arrays of atoms, one per index. An index
survives if all its atoms do; nearly always there is one factor, two where a dimension is a
rectangle (groups x channels, heads x head width). A gene of depth has one atom, its block; the
atoms of a kernel are its rows, and its columns, counted from the middle.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from numbers import Integral, Real
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from prunas.errors import InputError
from prunas.json_text import parsed
from prunas.supernet.blocks import Alternatives, Block, lies_in, outermost
from prunas.supernet.rows import distinct_rows

Atoms = NDArray[np.int64]
Factors = tuple[Atoms, ...]
Size = tuple[tuple[int, tuple[int, ...]], ...]
"""A dimension's length as a polynomial: ((coefficient, variables multiplied), ...).

Variable v is the value of gene v, or, from the number of genes on, 1 where a condition of the space
holds and 0 elsewhere.
"""

FORMAT: Final = 3


class Candidate(tuple[int, ...]):
    """One choice for every gene, in the order of the genes. Immutable, hashable, an int vector."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Candidate({', '.join(map(str, self))})"


@dataclass(frozen=True)
class Gene:
    """One free choice. `choices` ascend; the last one is the network as it came.

    Attributes:
        name: the module that it is about.
        kind: "width" (how many channels of a group stay), "depth" (a residual block is left out,
            0, or kept, 1), "operator" (the number of an alternative, or a gate that is left out,
            0, or kept, 1), "kernel" (the side of a depthwise kernel) or "resolution" (the shorter
            side of the images).
        choices: what it can be.
    """

    name: str
    kind: str
    choices: tuple[int, ...]


@dataclass(frozen=True)
class Pinned:
    """Something that could have been a gene and is not, with the reason in a sentence."""

    name: str
    reason: str


@dataclass(frozen=True)
class Attribute:
    """An integer that a module keeps and that follows the length of a dimension.

    Mostly it is that length (groups, split sizes ...); where the code multiplies it or divides it
    by a number first, it stays in proportion. `position` is the place in a tuple or list
    attribute, None for a plain integer; `full` its value in the full network.
    """

    module: str
    name: str
    position: int | None
    full: int
    factors: Factors


@dataclass(frozen=True)
class Tap:
    """The input channels of one contraction layer, as atoms: where activations can be observed."""

    module: str
    atoms: Factors
    depthwise: bool


@dataclass(frozen=True)
class Contraction:
    """One convolution, linear or attention product: constant * product of sizes MACs an image."""

    module: str
    operator: str
    constant: int
    sizes: tuple[Size, ...]


@dataclass(frozen=True, eq=False)
class SearchSpace:
    """All candidates inside one network. Immutable; `prunas.trace` makes it.

    Attributes:
        genes: the free choices.
        widths: number of atoms of each gene: channels in the full network, 1 for a block, the side
            of a kernel, or of the images, one less than there are alternatives.
        pinned: what could not become a gene, each with its reason.
        network: class name of the traced network.
        inputs: shapes and types of its example inputs (without values).
        outputs: shapes and types of what it returns for them.
        shapes: every parameter and buffer's shape, by name.
        parameters: which of them are parameters.
        aliases: further names of tied tensors -> the name that `shapes` uses.
        renewed: buffers that the network itself computes anew, of shapes that inputs decide; they
            are not in `shapes`.
        slots: tensor name -> {dimension: factors} for the dimensions that genes decide.
        attributes: integers of modules that follow the genes.
        contractions: what costs multiply-accumulates.
        conditions: (gene, value) pairs that costs depend on: that the gene takes this value.
        taps: where a channel's activations can be seen.
        blocks: gene -> the block that it leaves out.
        alternatives: gene -> the choice block that it decides.
        outputs_at: side of the images -> shapes and types of what it returns for them, where these
            are others than `outputs`.
        normalised: genes over whose channels a normalisation or a mean runs, so that leaving a
            channel out differs from setting it to zero.
        notes: what the user should know about the trace, in sentences.
    """

    genes: tuple[Gene, ...]
    widths: tuple[int, ...]
    pinned: tuple[Pinned, ...]
    network: str
    inputs: Any
    outputs: Any
    shapes: Mapping[str, tuple[int, ...]]
    parameters: frozenset[str]
    aliases: Mapping[str, str]
    slots: Mapping[str, Mapping[int, Factors]]
    attributes: tuple[Attribute, ...]
    contractions: tuple[Contraction, ...]
    taps: tuple[Tap, ...]
    conditions: tuple[tuple[int, int], ...] = ()
    blocks: Mapping[int, Block] = field(default_factory=dict)
    alternatives: Mapping[int, Alternatives] = field(default_factory=dict)
    renewed: frozenset[str] = frozenset()
    outputs_at: Mapping[int, Any] = field(default_factory=dict)
    normalised: frozenset[int] = frozenset()
    notes: tuple[str, ...] = field(default=())

    @cached_property
    def size(self) -> int:
        """Number of candidates."""
        return prod(len(gene.choices) for gene in self.genes)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """First atom of each gene."""
        return tuple(1 + sum(self.widths[:index]) for index in range(len(self.widths)))

    @cached_property
    def gene_of_atom(self) -> Atoms:
        """(atoms + 1,) gene of each atom; -1 for atom 0."""
        owners = [np.array([-1], dtype=np.int64)]
        owners += [np.full(width, gene) for gene, width in enumerate(self.widths)]
        return np.concatenate(owners)

    def full(self) -> Candidate:
        """The network as it came."""
        return Candidate(gene.choices[-1] for gene in self.genes)

    def smallest(self) -> Candidate:
        """The smallest choice of every gene."""
        return Candidate(gene.choices[0] for gene in self.genes)

    def uniform(self, ratio: float) -> Candidate:
        """For every width the choice nearest to `ratio` of the full one (the larger on a tie).

        All else is that of the full network.

        Raises:
            InputError: the ratio is not in (0, 1].
        """
        if not isinstance(ratio, Real) or not 0 < ratio <= 1:
            raise InputError(f"uniform width {ratio!r} is outside (0, 1]; give a share such as 0.5")
        shares = (ratio if gene.kind == "width" else 1.0 for gene in self.genes)
        return Candidate(
            min(gene.choices, key=lambda choice: (abs(choice - share * gene.choices[-1]), -choice))
            for gene, share in zip(self.genes, shares, strict=True)
        )

    def sample(self, rng: np.random.Generator, n: int) -> list[Candidate]:
        """`n` independent candidates, every choice of every gene equally likely.

        Raises:
            InputError: rng is no generator, or n no number of candidates.
        """
        if not isinstance(rng, np.random.Generator):
            raise InputError(f"{rng!r} draws nothing; give numpy.random.default_rng(seed)")
        if not isinstance(n, Integral) or n < 0:
            raise InputError(f"{n!r} candidates cannot be drawn; give a whole number")
        columns = [rng.choice(np.array(gene.choices), size=n) for gene in self.genes]
        return [Candidate(row) for row in np.column_stack(columns).tolist()]

    def candidate(self, values: Sequence[int]) -> Candidate:
        """`values` as a candidate of this space.

        Raises:
            InputError: wrong number of values, or a value that its gene does not offer.
        """
        if not isinstance(values, Iterable):
            raise InputError(
                f"a candidate has a value for each of {len(self.genes)} genes, and is not"
                f" {values!r}"
            )
        values = list(values)
        if len(values) != len(self.genes):
            raise InputError(
                f"the candidate has {len(values)} values but the space has {len(self.genes)} genes;"
                " it belongs to another space"
            )
        for gene, value in zip(self.genes, values, strict=True):
            if _whole(value) not in gene.choices:
                raise InputError(
                    f"{value} is not a choice of gene {gene.name!r}; choose one of {gene.choices}"
                )
        return Candidate(int(value) for value in values)

    def kept(self, values: Sequence[int]) -> NDArray[np.bool_]:
        """(atoms + 1,) which atoms a candidate keeps: the first ones of every gene."""
        mask = np.zeros(sum(self.widths) + 1, dtype=bool)
        mask[0] = True
        for offset, value in zip(self.offsets, values, strict=True):
            mask[offset : offset + value] = True
        return mask

    def left_out(self, candidate: Sequence[int]) -> tuple[Block, ...]:
        """The blocks, and the alternatives, that a candidate does without.

        What is inside one of them goes with it, and is not named.
        """
        gone = [block for gene, block in self.blocks.items() if candidate[gene] == 0]
        for gene, choice in self.alternatives.items():
            gone += [b for number, b in enumerate(choice.blocks) if number != candidate[gene]]
        return outermost(gone)

    def chosen(self, candidate: Sequence[int]) -> dict[str, int]:
        """{path of a choice block: number of the alternative that runs}."""
        return {choice.path: candidate[gene] for gene, choice in self.alternatives.items()}

    def survivors(self, candidate: Sequence[int]) -> Iterator[tuple[str, int, Atoms]]:
        """(tensor name, dimension, surviving indices) for every dimension that shrinks.

        Tensors of blocks that are left out do not appear.
        """
        kept = self.kept(self.candidate(candidate))
        gone = {block.path for block in self.left_out(candidate)}
        seen: dict[tuple[int, ...], Atoms | None] = {}
        for name, dimensions in self.slots.items():
            if lies_in(name, gone):
                continue
            for dimension, factors in dimensions.items():
                key = tuple(id(factor) for factor in factors)
                if key not in seen:
                    alive = surviving(factors, kept)
                    seen[key] = None if alive.all() else np.flatnonzero(alive)
                indices = seen[key]
                if indices is not None:
                    yield name, dimension, indices

    def removed(self, candidate: Sequence[int]) -> dict[str, dict[int, torch.Tensor]]:
        """{tensor name: {dim: removed indices}} for the parameters and buffers that shrink.

        Tied tensors appear under each of their names. A tensor of a block that is left out loses
        all indices of its first dimension; one without dimensions has an empty entry.
        """
        result: dict[str, dict[int, torch.Tensor]] = {}
        left_out = {block.path for block in self.left_out(self.candidate(candidate))}
        for name, shape in self.shapes.items():
            if lies_in(name, left_out):
                result[name] = {0: torch.arange(shape[0])} if shape else {}
        for name, dimension, indices in self.survivors(candidate):
            gone = np.setdiff1d(np.arange(self.shapes[name][dimension]), indices)
            result.setdefault(name, {})[dimension] = torch.from_numpy(gone)
        for alias, name in self.aliases.items():
            if name in result:
                result[alias] = dict(result[name])
        return result

    def reordered(self, orders: Sequence[Sequence[int]]) -> "SearchSpace":
        """The same space, in which gene g keeps its channels in the order `orders[g]`.

        `orders[g]` lists the positions of the channels, the one to keep longest first. Kernels
        have one order only.
        """
        atom = self.renumbering(orders)
        return self._replace_atoms(lambda factor: atom[factor])

    def renumbering(self, orders: Sequence[Sequence[int]]) -> Atoms:
        """(atoms + 1,) new number of each atom when each gene's channels are put in that order.

        Raises:
            InputError: an order is not a permutation of its gene's channels.
        """
        if not isinstance(orders, Iterable):
            raise InputError(f"each of {len(self.genes)} genes has an order, and not {orders!r}")
        orders = list(orders)
        if len(orders) != len(self.genes):
            raise InputError(f"{len(orders)} orders were given for {len(self.genes)} genes")
        atom = np.arange(sum(self.widths) + 1)
        rows = zip(self.genes, self.offsets, self.widths, orders, strict=True)
        for gene, offset, width, order in rows:
            places = np.asarray(order)
            if places.dtype.kind not in "iu" or not np.array_equal(
                np.sort(places), np.arange(width)
            ):
                raise InputError(
                    f"the order of gene {gene.name!r} is not a permutation of 0..{width - 1}"
                )
            if gene.kind != "width" and (np.diff(places) < 0).any():
                raise InputError(
                    f"gene {gene.name!r} is one of {gene.kind}, whose choices have one order; give"
                    f" 0..{width - 1}"
                )
            atom[offset + places] = offset + np.arange(width)
        return atom

    def _replace_atoms(self, change: Any) -> "SearchSpace":
        memo: dict[int, Atoms] = {}

        def changed(factors: Factors) -> Factors:
            for factor in factors:
                if id(factor) not in memo:
                    memo[id(factor)] = change(factor)
            return tuple(memo[id(factor)] for factor in factors)

        values = dict(self.__dict__)
        names = self.__dataclass_fields__
        fields = {name: values[name] for name in names}
        fields["slots"] = {
            name: {d: changed(factors) for d, factors in dimensions.items()}
            for name, dimensions in self.slots.items()
        }
        fields["attributes"] = tuple(
            replace(a, factors=changed(a.factors)) for a in self.attributes
        )
        fields["taps"] = tuple(Tap(t.module, changed(t.atoms), t.depthwise) for t in self.taps)
        return SearchSpace(**fields)

    def to_json(self) -> str:
        """The space as text; `from_json` reads it back, in any process."""
        table = _FactorTable()
        data = {
            "format": FORMAT,
            "network": self.network,
            "inputs": self.inputs,
            "outputs": self.outputs,
            "genes": [[gene.name, gene.kind, list(gene.choices)] for gene in self.genes],
            "widths": list(self.widths),
            "pinned": [[entry.name, entry.reason] for entry in self.pinned],
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "parameters": sorted(self.parameters),
            "aliases": dict(self.aliases),
            "slots": {
                name: {str(d): table.add(factors) for d, factors in dimensions.items()}
                for name, dimensions in self.slots.items()
            },
            "attributes": [
                [a.module, a.name, a.position, a.full, table.add(a.factors)]
                for a in self.attributes
            ],
            "contractions": [
                [c.module, c.operator, c.constant, c.sizes] for c in self.contractions
            ],
            "conditions": self.conditions,
            "taps": [[t.module, table.add(t.atoms), t.depthwise] for t in self.taps],
            "renewed": sorted(self.renewed),
            "blocks": [[gene, b.path, b.alone] for gene, b in self.blocks.items()],
            "alternatives": [[gene, c.path, c.names] for gene, c in self.alternatives.items()],
            "outputs_at": [[side, outputs] for side, outputs in self.outputs_at.items()],
            "normalised": sorted(self.normalised),
            "notes": list(self.notes),
            "factors": table.rows,
        }
        return json.dumps(data)

    @classmethod
    def from_json(cls, text: str) -> "SearchSpace":
        """Read what `to_json` wrote.

        Raises:
            InputError: the text is not such a space, or of another format.
        """
        try:
            data = parsed(text)
            if data["format"] != FORMAT:
                raise InputError(
                    f"the search space has format {data['format']}, this prunas reads {FORMAT};"
                    " trace the network again"
                )
            space = _from_data(data)
            space.to_json()  # a value of another type shows when it is written
            return space
        except InputError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InputError(f"the text is not a saved search space ({error})") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SearchSpace) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((self.network, self.genes))

    def __repr__(self) -> str:
        kinds = Counter(gene.kind for gene in self.genes)
        genes = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "no"
        return (
            f"SearchSpace({self.network}: {genes} genes, {self.size:.3g} candidates,"
            f" {len(self.pinned)} pinned)"
        )


def _whole(value: Any) -> int | None:
    """The whole number that this is; None if it is none."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number == value else None


def surviving(factors: Factors, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which indices of a dimension survive, given which atoms do."""
    alive = kept[factors[0]]
    for factor in factors[1:]:
        alive = alive & kept[factor]
    return alive


def size_polynomial(factors: Factors, gene_of_atom: Atoms, widths: Sequence[int]) -> Size:
    """Length of a dimension as a polynomial in the widths of its genes.

    An index decided by genes g and h belongs to a full rectangle of width_g * width_h entries
    (`prunas.supernet.trace` pins what is not), so count / (width_g * width_h) is its coefficient.
    """
    terms: dict[tuple[int, ...], int] = {}
    for row, count in _owners(factors, gene_of_atom):
        genes = tuple(sorted({gene for gene in row if gene >= 0}))
        terms[genes] = terms.get(genes, 0) + count
    result = []
    for genes, count in sorted(terms.items()):
        cells = prod(widths[gene] for gene in genes)
        if count % cells:
            raise AssertionError(f"{count} entries do not fill {cells} cells of genes {genes}")
        result.append((count // cells, genes))
    return tuple(result)


def present(variable: int) -> Size:
    """A factor of what is there where a block's gene is 1, or where a condition holds."""
    return ((1, (variable,)),)


def _owners(factors: Factors, gene_of_atom: Atoms) -> list[tuple[list[int], int]]:
    """(genes that decide an index, number of such indices)."""
    if len(factors) == 1:
        counts = np.bincount(gene_of_atom[factors[0]] + 1)
        return [([index - 1], int(counts[index])) for index in np.flatnonzero(counts).tolist()]
    table = np.stack([gene_of_atom[factor] for factor in factors], axis=1)
    first, _, counts = distinct_rows(table + 1)  # -1 means no gene
    return list(zip(table[first].tolist(), counts.tolist(), strict=True))


class _FactorTable:
    """Factors by reference, each written once as runs [first, step, repeat-free length]."""

    def __init__(self) -> None:
        self.rows: list[list[list[int]]] = []
        self._known: dict[int, int] = {}
        self._alive: list[Atoms] = []

    def add(self, factors: Factors) -> list[int]:
        return [self._row(factor) for factor in factors]

    def _row(self, factor: Atoms) -> int:
        if id(factor) not in self._known:
            self._known[id(factor)] = len(self.rows)
            self._alive.append(factor)
            self.rows.append(_runs(factor))
        return self._known[id(factor)]


def _runs(values: Atoms) -> list[list[int]]:
    """[first, step, length] pieces; joined they give `values`."""
    runs: list[list[int]] = []
    position, total = 0, len(values)
    steps = np.diff(values)
    while position < total:
        if position == total - 1:
            runs.append([int(values[position]), 0, 1])
            break
        step = int(steps[position])
        other = np.flatnonzero(steps[position:] != step)
        length = (int(other[0]) if len(other) else total - 1 - position) + 1
        runs.append([int(values[position]), step, length])
        position += length
    return runs


def _unrolled(runs: list[list[int]]) -> Atoms:
    pieces = [first + step * np.arange(length) for first, step, length in runs]
    return np.concatenate(pieces).astype(np.int64)


def _from_data(data: Any) -> SearchSpace:
    table = [_unrolled(runs) for runs in data["factors"]]

    def factors(rows: list[int]) -> Factors:
        return tuple(table[row] for row in rows)

    return SearchSpace(
        genes=tuple(Gene(name, kind, tuple(choices)) for name, kind, choices in data["genes"]),
        widths=tuple(data["widths"]),
        pinned=tuple(Pinned(name, reason) for name, reason in data["pinned"]),
        network=data["network"],
        inputs=data["inputs"],
        outputs=data["outputs"],
        shapes={name: tuple(shape) for name, shape in data["shapes"].items()},
        parameters=frozenset(data["parameters"]),
        aliases=data["aliases"],
        slots={
            name: {int(d): factors(rows) for d, rows in dimensions.items()}
            for name, dimensions in data["slots"].items()
        },
        attributes=tuple(
            Attribute(module, name, position, full, factors(rows))
            for module, name, position, full, rows in data["attributes"]
        ),
        contractions=tuple(
            Contraction(module, operator, constant, _sizes(sizes))
            for module, operator, constant, sizes in data["contractions"]
        ),
        taps=tuple(
            Tap(module, factors(rows), depthwise) for module, rows, depthwise in data["taps"]
        ),
        conditions=tuple((gene, value) for gene, value in data["conditions"]),
        blocks={gene: Block(path, alone) for gene, path, alone in data["blocks"]},
        alternatives={
            g: Alternatives(path, tuple(names)) for g, path, names in data["alternatives"]
        },
        renewed=frozenset(data["renewed"]),
        outputs_at={int(side): outputs for side, outputs in data.get("outputs_at", ())},
        normalised=frozenset(data["normalised"]),
        notes=tuple(data["notes"]),
    )


def _sizes(sizes: Any) -> tuple[Size, ...]:
    return tuple(tuple((c, tuple(genes)) for c, genes in size) for size in sizes)
