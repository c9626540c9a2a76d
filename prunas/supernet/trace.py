"""From a network to its search space: label one run, solve, name the channel groups, try them."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from math import prod
from numbers import Integral
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils._pytree import tree_leaves

from prunas.errors import InputError
from prunas.supernet.blocks import Seen
from prunas.supernet.choice import run_together
from prunas.supernet.choosing import with_choices, without_unchosen
from prunas.supernet.comparisons import turned
from prunas.supernet.depth import with_blocks
from prunas.supernet.grid import DEFAULT, WidthGrid, as_grid
from prunas.supernet.kernels import with_kernels
from prunas.supernet.labels import BATCH, FIRST_IMAGE, PINNED, SECOND_IMAGE, Nodes, Solution
from prunas.supernet.recorder import Check, OtherOperatorError, Record, ShapeMismatchError, record
from prunas.supernet.resolution import seen, stride_of, with_resolutions
from prunas.supernet.rows import distinct_rows
from prunas.supernet.scoped import Place, sizes_of, swapped
from prunas.supernet.skeleton import (
    FORWARD_ERRORS,
    META,
    called,
    describe,
    dictionaries,
    forget,
    skeleton,
    with_batch,
)
from prunas.supernet.space import (
    Attribute,
    Contraction,
    Factors,
    Gene,
    Pinned,
    SearchSpace,
    Size,
    Tap,
    size_polynomial,
)
from prunas.supernet.tensors import aliases_of, parameters_of, tensors_of

KINDS: Final = ("width", "depth", "operator", "kernel")
"""What a gene can be about."""

_PROBE_SEED = 20190  # any fixed number: the probe only has to be the same each time
_CAREFUL_ROUNDS = 24  # so often few genes are blamed; after that all that meet, to come to an end


def trace(
    network: nn.Module,
    input_size: Sequence[int] | None = None,
    *,
    example: Any = None,
    grid: WidthGrid | str = DEFAULT,
    keep: Sequence[str] = (),
    genes: Collection[str] = ("width", "depth"),
    resolutions: Collection[int] = (),
) -> SearchSpace:
    """Find all that `network` can do without: channels, with what goes together, blocks, kernels.

    The network runs once on the meta device (no weights are read, nothing is computed); labels
    are propagated through the ATen operators that really run, so residual sums, concatenations,
    shared modules, tied weights and parameters used bare all come out as what they are. The
    result is tried: a network cut at random widths must produce every intermediate result in the
    predicted shape, and a gene that stands in the way is pinned with the reason.

    Args:
        network: any module; it is not modified.
        input_size: (channels, height, width) of one image, or the shape of one input without the
            batch.
        example: instead, the tensors that `forward` takes (a tensor, a tuple for positional or a
            dict for keyword arguments), batch first; only shapes and types are used.
        grid: which widths a channel group may take, or the name of a grid: "default" (sixteenths,
            multiples of 8 above 16), "metapruning" (its 31 ratios), "every" (from 1 up).
        keep: patterns of parameter or module names that stay untouched (`"stages.3.*"`).
        genes: the kinds of genes to offer.
            "width": channel groups.
            "depth": blocks may be left out, modules that compute y = x + f(x), perhaps with an
            activation or a normalisation after it, in which input and output are the same
            channels. Blocks without a shortcut are never offered, since their input and output
            would have to be tied, and with them the widths of all layers of a plain stage.
            "operator": gates may be left out, modules that compute y = x * g(x) with layers of
            their own, such as squeeze-and-excitation; of a `prunas.Choice` one alternative runs.
            "kernel": depthwise kernels of side 5 and more may be smaller; see `with_kernels`.
        resolutions: further sides that images may have, in pixels of the shorter one; that of
            `input_size` is always offered. The largest of all is the full one.

    Returns:
        The search space.

    Raises:
        InputError: neither or both of input_size and example are given, the network does not run
            on them, a pattern matches nothing, a kind of gene is unknown, a resolution is below
            the network's stride, or nothing in the network can be pruned.
    """
    if resolutions:
        sizes = _sizes(network, input_size, resolutions)
        return with_resolutions(
            {
                side: trace(network, size, grid=grid, keep=keep, genes=genes)
                for side, size in sizes.items()
            }
        )
    wanted = kinds_of(genes)
    bare = _bare(network)
    fixed = _fixed(network, keep)
    inputs = _inputs(network, input_size, example)
    was_training = [module for module in bare.modules() if module.training]
    for module in was_training:
        module.training = False
    run_together(bare)
    found = record(bare, inputs, fixed)
    solution = solved(found)
    widths = as_grid(grid)
    draft = _Draft(network, inputs, found, solution, widths)
    dropped = {} if "width" in wanted else draft.all_classes("widths are not searched")
    space = draft.space(dropped)
    rounds = 0
    while space.genes:
        blame = draft.turned(bare, space)
        if not blame:
            blame = _blamed(bare, inputs, draft, space, sparing=rounds < _CAREFUL_ROUNDS)
            rounds += 1
        if not blame:
            break
        dropped |= blame
        space = draft.space(dropped)
    space = with_blocks(space, found, wanted, draft.hands_on, bare, inputs, fixed)
    if "kernel" in wanted:
        space = with_kernels(space, bare, inputs, fixed)
    if "operator" in wanted:
        space = with_choices(space, found, bare, fixed)
    space = without_unchosen(space, found, bare)
    if not space.genes:
        raise InputError(_nothing(network, space, found))
    return space


def kinds_of(genes: Collection[str]) -> frozenset[str]:
    """These kinds of genes.

    Raises:
        InputError: one is unknown, or there is none.
    """
    if isinstance(genes, str):
        genes = (genes,)
    for kind in genes:
        if kind not in KINDS:
            raise InputError(f"no kind of gene is called {kind!r}; choose from {', '.join(KINDS)}")
    if not genes:
        raise InputError(f"no kind of gene was given; choose from {', '.join(KINDS)}")
    return frozenset(genes)


def solved(found: Record) -> Solution:
    """Classes in which dimensions that must stay equally long do.

    Two dimensions made of the same classes, in whatever order, are equally long anyway; others
    are tied index by index.
    """
    solution = found.labels.solve()
    united: dict[bytes, bytes] = {}

    def representative(nodes: Nodes) -> bytes:
        table = np.sort(solution.atoms[nodes], axis=1)
        key = table[np.lexsort(table.T)].tobytes()
        while key in united:
            key = united[key]
        return key

    tied = False
    for one, two, why in _equal_lengths(found):
        first, second = representative(one), representative(two)
        if first != second:
            united[second] = first
            found.labels.tie(one, two, why)
            tied = True
    return found.labels.solve() if tied else solution


def _equal_lengths(found: Record) -> Iterator[tuple[Nodes, Nodes, str]]:
    """Pairs of dimensions that have the same length in every candidate, with the reason."""
    yield from found.lengths
    first: dict[Place, Nodes] = {}
    for place, _, nodes in found.sizes:
        known = first.setdefault(place, nodes)
        if known is not nodes and len(known) == len(nodes):
            yield known, nodes, f"{place.module}.{place.name} is also a fixed length"


def _bare(network: nn.Module) -> nn.Module:
    for wrapper in (nn.DataParallel, nn.parallel.DistributedDataParallel):
        if isinstance(network, wrapper):
            raise InputError(f"the network is wrapped in {wrapper.__name__}; pass network.module")
    if isinstance(network, torch.jit.ScriptModule):
        raise InputError("a scripted network has no Python code to trace; pass the original module")
    if hasattr(network, "_orig_mod"):
        raise InputError("the network is compiled; pass the module that torch.compile was given")
    if not isinstance(network, nn.Module):
        raise InputError(f"a network must be an nn.Module, not {type(network).__name__}")
    for name, module in network.named_modules():
        if ".quantized" in type(module).__module__:
            raise InputError(
                f"{name or 'the network'} is a quantised {type(module).__name__}, whose weights"
                " cannot be cut; prune first and quantise the result"
            )
    return skeleton(network)


def _fixed(network: nn.Module, keep: Sequence[str]) -> frozenset[str]:
    if not keep:
        return frozenset()
    names = tensors_of(network)
    fixed: set[str] = set()
    for pattern in keep:
        matched = [
            name
            for name in names
            if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")
        ]
        if not matched:
            raise InputError(f"keep pattern {pattern!r} matches no parameter of the network")
        fixed.update(matched)
    return frozenset(fixed)


def _inputs(network: nn.Module, input_size: Sequence[int] | None, example: Any) -> Any:
    if (input_size is None) == (example is None):
        raise InputError("give either input_size=(3, 224, 224) or example=tensors, one of the two")
    if input_size is None:
        for leaf in tree_leaves(example):
            if not isinstance(leaf, torch.Tensor | bool | int | float | str | None):
                raise InputError(
                    f"the example holds a {type(leaf).__name__}; give tensors, plain numbers, words"
                    " and None, in tuples, lists and dicts"
                )
        return with_batch(example, BATCH)
    if not _is_shape(input_size):
        raise InputError(
            f"input_size {input_size!r} is not a shape of positive lengths; give one such as"
            " (3, 224, 224)"
        )
    floating = (p.dtype for p in network.parameters() if p.is_floating_point())
    dtype = next(floating, torch.float32)
    return torch.empty((BATCH, *map(int, input_size)), dtype=dtype, device="meta")


def _sizes(
    network: nn.Module, input_size: Sequence[int] | None, resolutions: Collection[int]
) -> dict[int, tuple[int, ...]]:
    """Side -> the shape of an image, of two sides or more."""
    if input_size is None or not _is_shape(input_size) or len(input_size) != 3:
        raise InputError(
            "resolutions are of images, so give input_size=(channels, height, width) with them"
        )
    own = min(input_size[-2:])
    sizes = {int(side): seen(input_size, int(side)) for side in {own, *resolutions}}
    least = stride_of(network, seen(input_size, max(sizes)))
    for side in sizes:
        if side < max(least, 1):
            raise InputError(
                f"images of side {side} are smaller than the network's stride, {least}; give"
                f" resolutions from {max(least, 1)} up"
            )
    if len(sizes) == 1:
        raise InputError(f"{own} is the only resolution; give another one beside it")
    return sizes


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and len(value) > 0
        and all(isinstance(size, Integral) and int(size) > 0 for size in value)
    )


def _nothing(network: nn.Module, space: SearchSpace, found: Record) -> str:
    reasons = [*space.notes, *sorted({entry.reason for entry in space.pinned})][:3]
    because = "; ".join(reasons) or "it has no parameters"
    return f"nothing in {type(network).__name__} can be pruned: {because}"


@dataclass(frozen=True)
class _Groups:
    """Channel classes of the solution, gathered into genes."""

    names: list[str]
    widths: list[int]
    atom: Nodes  # class -> atom number, 0 = pinned

    @cached_property
    def gene_of_atom(self) -> Nodes:
        """(1 + atoms,) the gene of each atom; -1 for what is always kept."""
        owners = np.repeat(np.arange(len(self.widths)), self.widths)
        return np.concatenate([np.array([-1]), owners]).astype(np.int64)


class _Draft:
    """Turns one solved record into search spaces, with fewer and fewer genes if need be."""

    def __init__(
        self,
        network: nn.Module,
        inputs: Any,
        found: Record,
        solution: Solution,
        grid: WidthGrid,
    ) -> None:
        self.network = network
        self.held = tensors_of(network)
        self.aliases = aliases_of(network)
        self.parameters = frozenset(parameters_of(network).keys() & self.held.keys())
        self.inputs = inputs
        self.found = found
        self.grid = grid
        self.reasons = solution.reasons
        self.plain = solution.component
        self.classes = self._without_batch(solution.atoms)
        self.second_image = self._second_image(solution.atoms)
        self.slots = [
            (name, dimension, nodes)
            for name, dims in found.tensors.items()
            for dimension, nodes in enumerate(dims)
            if name not in found.renewed and self.classes[nodes].any()
        ]
        self.signature = self._signatures()
        self._factors: dict[int, Factors] = {}
        self._equal: dict[bytes, Factors] = {}
        self.groups = _Groups([], [], np.zeros(0, dtype=np.int64))

    # -- classes -------------------------------------------------------------------------------

    @staticmethod
    def _images(atoms: Nodes) -> Nodes:
        return np.unique(atoms[[FIRST_IMAGE, SECOND_IMAGE]])

    def _without_batch(self, atoms: Nodes) -> Nodes:
        """Classes of each node, the images of the batch aside: they are never pruned."""
        classes = np.where(np.isin(atoms, self._images(atoms)), 0, atoms)
        columns = np.flatnonzero(classes.any(axis=0))
        return classes[:, columns] if len(columns) else classes[:, :1]

    @staticmethod
    def _second_image(atoms: Nodes) -> NDArray[np.bool_]:
        """Nodes that belong to the second image alone: they do not count in costs per image."""
        first, second = atoms[FIRST_IMAGE, 0], atoms[SECOND_IMAGE, 0]
        found: NDArray[np.bool_] = (atoms == second).any(axis=1)
        return found if first != second and second != PINNED else np.zeros_like(found)

    def _observed(self) -> list[Nodes]:
        """Every label array whose length must be a polynomial in the genes."""
        arrays = [nodes for _, _, nodes in self.slots]
        arrays += [nodes for product in self.found.products for nodes in product.dims]
        arrays += [nodes for _, _, nodes in self.found.sizes]
        arrays += [consumption.nodes for consumption in self.found.consumptions]
        unique = {id(nodes): nodes for nodes in (*arrays, *self.found.labels.families)}
        return list(unique.values())

    def _signatures(self) -> NDArray[np.uint64]:
        """(classes,) hash of how often each class occurs in each observed dimension.

        Classes with equal signatures are interchangeable, and form one channel group. Channels
        that the code tells apart, by splitting or slicing, are not.
        """
        total = int(self.classes.max()) + 1
        signature = np.zeros(total, dtype=np.uint64)
        draw = np.random.default_rng(_PROBE_SEED)
        for nodes in (*self._observed(), *self.found.pieces):
            np.add.at(signature, self.classes[nodes], draw.integers(1, 2**63, dtype=np.uint64))
        signature[0] = 0
        return signature

    # -- genes ---------------------------------------------------------------------------------

    def space(self, dropped: dict[int, str]) -> SearchSpace:
        """The space without the classes in `dropped` ({class: why it was pinned})."""
        while True:
            self._factors.clear()
            self._equal.clear()
            self.groups = self._grouped(dropped)
            broken = self._not_a_rectangle()
            if broken is None:
                break
            dropped = dropped | broken
        genes = tuple(
            Gene(name, "width", self.grid.widths(width))
            for name, width in zip(self.groups.names, self.groups.widths, strict=True)
        )
        renewed = self.found.renewed
        return SearchSpace(
            genes=genes,
            widths=tuple(self.groups.widths),
            pinned=self._pinned(dropped),
            network=type(self.network).__name__,
            inputs=describe(self.inputs),
            outputs=describe(self.found.outputs),
            shapes={name: tuple(t.shape) for name, t in self.held.items() if name not in renewed},
            parameters=self.parameters,
            aliases=self.aliases,
            renewed=renewed,
            slots=self._slots(),
            attributes=self._attributes(),
            contractions=self._contractions(),
            taps=self._taps(),
            normalised=self._normalised(),
            notes=tuple(
                f"operator {name} has no rule and pinned what it touched ({count} times)"
                for name, count in sorted(self.found.unknown.items())
            ),
        )

    def _grouped(self, dropped: Mapping[int, str]) -> _Groups:
        classes, names = self._classes_in_slots(dropped)
        _, first, group, sizes = np.unique(
            self.signature[classes], return_index=True, return_inverse=True, return_counts=True
        )
        appearance = np.argsort(first)
        kept = appearance[sizes[appearance] > 1]
        rank = np.full(len(sizes), len(kept))
        rank[kept] = np.arange(len(kept))
        by_group = np.argsort(rank[group], kind="stable")[: int(sizes[kept].sum())]
        atom = np.zeros(len(self.signature), dtype=np.int64)
        atom[classes[by_group]] = np.arange(1, len(by_group) + 1)
        return _Groups(_distinct([names[i] for i in first[kept]]), sizes[kept].tolist(), atom)

    def _classes_in_slots(self, dropped: Mapping[int, str]) -> tuple[Nodes, list[str]]:
        """Prunable classes in order of appearance, with the module that appears first."""
        seen = np.zeros(len(self.signature), dtype=bool)
        seen[0] = True
        seen[list(dropped)] = True
        classes: list[Nodes] = [np.zeros(0, dtype=np.int64)]
        names: list[str] = []
        for name, _, nodes in sorted(self.slots, key=lambda slot: slot[1] != 0):
            for column in self.classes[nodes].T:
                fresh = column[~seen[column]]
                if len(fresh):
                    _, first = np.unique(fresh, return_index=True)
                    numbers = fresh[np.sort(first)]
                    seen[numbers] = True
                    classes.append(numbers)
                    names += [name.rpartition(".")[0] or name] * len(numbers)
        return np.concatenate(classes), names

    def _not_a_rectangle(self) -> dict[int, str] | None:
        """Classes of a gene whose product with another does not fill all cells equally."""
        gene = self.groups.gene_of_atom
        different = {id(factors): factors for factors in map(self.factors, self._observed())}
        for factors in different.values():
            if len(factors) < 2:
                continue
            bad = _uneven(factors, gene, self.groups.widths)
            if bad is not None:
                atoms = np.flatnonzero(gene == bad)
                numbers = np.flatnonzero(np.isin(self.groups.atom, atoms)).tolist()
                return dict.fromkeys(numbers, "it is not a full rectangle with its partner")
        return None

    # -- parts of the space --------------------------------------------------------------------

    def factors(self, nodes: Nodes) -> Factors:
        """Atoms of each index of a label array, the arrays without any atom left out.

        Equal ones are the same object.
        """
        if id(nodes) not in self._factors:
            table = self.groups.atom[self.classes[nodes]]
            columns = [np.ascontiguousarray(column) for column in table.T if column.any()]
            key = b"|".join(column.tobytes() for column in columns)
            self._factors[id(nodes)] = self._equal.setdefault(key, tuple(columns))
        return self._factors[id(nodes)]

    def _slots(self) -> dict[str, dict[int, Factors]]:
        slots: dict[str, dict[int, Factors]] = {}
        for name, dimension, nodes in self.slots:
            factors = self.factors(nodes)
            if factors:
                slots.setdefault(name, {})[dimension] = factors
        return slots

    def _size(self, nodes: Nodes) -> Size:
        counted = nodes[~self.second_image[nodes]]
        if len(counted) != len(nodes):
            factors = tuple(self.groups.atom[self.classes[counted]].T)
        else:
            factors = self.factors(nodes)
        if not factors:
            return ((len(counted), ()),)
        return size_polynomial(factors, self.groups.gene_of_atom, self.groups.widths)

    def _contractions(self) -> tuple[Contraction, ...]:
        sizes: dict[int, Size] = {}
        result = []
        for product in self.found.products:
            constant, polynomials = product.constant, []
            for nodes in product.dims:
                if id(nodes) not in sizes:
                    sizes[id(nodes)] = self._size(nodes)
                size = sizes[id(nodes)]
                if all(not genes for _, genes in size):
                    constant *= sum(count for count, _ in size)
                else:
                    polynomials.append(size)
            row = Contraction(product.module, product.operator, constant, tuple(polynomials))
            result.append(row)
        return tuple(result)

    def _attributes(self) -> tuple[Attribute, ...]:
        found: dict[Place, Attribute] = {}
        for place, full, nodes in self.found.sizes:
            factors = self.factors(nodes)
            if factors:
                row = Attribute(place.module, place.name, place.position, full, factors)
                found.setdefault(place, row)
        return tuple(found.values())

    def _taps(self) -> tuple[Tap, ...]:
        found: dict[str, Tap] = {}
        for consumption in self.found.consumptions:
            factors = self.factors(consumption.nodes)
            module = consumption.weight.rpartition(".")[0]
            if factors and module:
                found.setdefault(module, Tap(module, factors, consumption.depthwise))
        return tuple(found.values())

    def _normalised(self) -> frozenset[int]:
        gene = self.groups.gene_of_atom
        arrays = {id(nodes): nodes for nodes in self.found.normalised}
        genes = [gene[np.unique(f)] for nodes in arrays.values() for f in self.factors(nodes)]
        return frozenset(int(g) for block in genes for g in np.unique(block) if g >= 0)

    def _pinned(self, dropped: Mapping[int, str]) -> tuple[Pinned, ...]:
        """One entry per channel group that is no gene, named by the first tensor that holds it."""
        entries: dict[tuple[str, int], list[str]] = {}
        owner: dict[int, tuple[str, int]] = {}
        for name, dims in self.found.tensors.items():
            for dimension, nodes in enumerate(dims[:2]):
                atoms = self.groups.atom[self.classes[nodes]]
                stuck = nodes[~atoms.any(axis=1)]
                if not stuck.any():
                    continue
                where = f"{name}[{dimension}]"
                first = int(self.plain[stuck[0]])
                key = owner.get(first, (self._reason(stuck, dropped), first))
                entries.setdefault(key, []).append(where)
                owner.update(dict.fromkeys(self.plain[stuck].tolist(), key))
        return tuple(
            Pinned(places[0], f"{reason}{_more(places)}") for (reason, _), places in entries.items()
        )

    def _reason(self, nodes: Nodes, dropped: Mapping[int, str]) -> str:
        for number in np.unique(self.classes[nodes]).tolist():
            if number in dropped:
                return dropped[number]
        for number in self.plain[nodes].tolist():
            if number in self.reasons:
                return self.reasons[number]
        return "it has a single channel, or none like it to choose from"

    def classes_of(self, gene: int) -> list[int]:
        """The classes that a gene of the latest space is made of."""
        atoms = np.flatnonzero(self.groups.gene_of_atom == gene)
        return np.flatnonzero(np.isin(self.groups.atom, atoms)).tolist()

    def turned(self, bare: nn.Module, space: SearchSpace) -> dict[int, str]:
        """{class: reason} of a gene that decides about what the forward does; see `turned`."""
        found = turned(self.found.comparisons.values(), space, bare, self.factors)
        if found is None:
            return {}
        gene, reason = found
        return dict.fromkeys(self.classes_of(gene), reason)

    def all_classes(self, reason: str) -> dict[int, str]:
        """{class: reason} of everything that could be a channel."""
        return dict.fromkeys(range(1, len(self.signature)), reason)

    def hands_on(self, seen: Seen) -> bool:
        """Whether a block's output has the channels of its input."""
        pairs = zip(seen.before, seen.after, strict=True)
        return all(np.array_equal(self.classes[one], self.classes[two]) for one, two in pairs)

    def alive(self, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(nodes,) which labels survive, given which atoms of the latest space do."""
        alive: NDArray[np.bool_] = np.logical_and.reduce(
            kept[self.groups.atom[self.classes]], axis=1
        )
        return alive


def _more(places: list[str]) -> str:
    return f" (with {len(places) - 1} more tensors)" if len(places) > 1 else ""


def _distinct(names: list[str]) -> list[str]:
    """A second group of the same module is called module[2], and so on."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}[{seen[name]}]")
    return result


def _uneven(factors: Factors, gene: Nodes, widths: Sequence[int]) -> int | None:
    """A gene to drop because its cells with another gene are not filled equally; None if fine."""
    table = np.sort(np.stack(factors, axis=1), axis=1)
    table = table[np.count_nonzero(table, axis=1) > 1]
    if not len(table):
        return None
    first, _, counts = distinct_rows(table)
    owners = gene[table[first]]
    one, group, _ = distinct_rows(owners + 1)  # -1 means no gene
    for index, row in enumerate(owners[one].tolist()):
        mine = counts[group == index]
        genes = [g for g in row if g >= 0]
        full = len(set(genes)) == len(genes) and len(mine) == prod(widths[g] for g in genes)
        if not full or (mine != mine[0]).any():
            return int(min(genes, key=lambda g: (widths[g], g)))
    return None


# -- trying it -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Failure:
    """Where a cut skeleton went wrong, and which genes meet there (all of them if nobody knows)."""

    position: int
    genes: list[int]
    reason: str


def _blamed(
    bare: nn.Module, inputs: Any, draft: _Draft, space: SearchSpace, *, sparing: bool
) -> dict[int, str]:
    """{class: reason} of what stands in the way of one of the trials; empty if nothing does."""
    first = _Probe(bare, inputs, draft, space, _distinct_widths(space.widths))
    second = _Probe(bare, inputs, draft, space, _distant_choices(space.genes))
    return first.blame(sparing=sparing) or second.blame(sparing=sparing)


class _Probe:
    """Cuts the skeleton at some widths and runs it."""

    def __init__(
        self,
        bare: nn.Module,
        inputs: Any,
        draft: _Draft,
        space: SearchSpace,
        values: Sequence[int],
    ) -> None:
        self.bare = bare
        self.inputs = inputs
        self.draft = draft
        self.space = space
        self.values = values
        # what the network does at widths that are not offered is no matter; and where one of a kind
        # is left code may spare itself work, and what it computes stays
        pairs = zip(space.genes, values, strict=True)
        self.strict = all(value > 1 and value in gene.choices for gene, value in pairs)
        self.kept = dictionaries(bare)

    def blame(self, *, sparing: bool) -> dict[int, str]:
        """{class: reason} of what stands in the way; of as few genes as is enough."""
        failure = self._run(self.values)
        if failure is not None and self.strict and self._run(self.space.widths) is not None:
            self.strict = False  # what keeps tables does other things whenever it runs again
            failure = self._run(self.values)
        if failure is None:
            return {}
        genes = failure.genes
        if sparing:
            everything = list(range(len(self.space.genes)))
            known = self._gets_further(genes, failure)
            genes = self._needed([], genes if known else everything, failure, changed=False)
        return {number: failure.reason for gene in genes for number in self.draft.classes_of(gene)}

    def _needed(
        self, whole: list[int], suspects: list[int], failure: _Failure, *, changed: bool
    ) -> list[int]:
        """Few of the suspects that, left at full width with `whole`, let the run get further.

        QuickXplain (Junker, AAAI 2004): about k log n runs for k of n suspects. `changed` says
        that `whole` was added to since it was last tried.
        """
        if changed and self._gets_further(whole, failure):
            return []
        if len(suspects) == 1:
            return suspects
        first, second = suspects[: len(suspects) // 2], suspects[len(suspects) // 2 :]
        later = self._needed(whole + first, second, failure, changed=True)
        return later + self._needed(whole + later, first, failure, changed=bool(later))

    def _gets_further(self, whole: list[int], failure: _Failure) -> bool:
        """Whether the run passes the point of failure with these genes left at full width."""
        values = list(self.values)
        for gene in whole:
            values[gene] = self.space.widths[gene]
        again = self._run(values)
        return again is None or again.position > failure.position

    def _run(self, values: Sequence[int]) -> _Failure | None:
        kept = self.space.kept(values)
        alive = self.draft.alive(kept)
        check = Check(self.draft.found.operations, alive, strict=self.strict)
        sizes = sizes_of(self.space, kept)
        forget(self.kept)
        with swapped(self.bare, self._tensors(alive), sizes), torch.no_grad(), check:
            try:
                called(self.bare, self.inputs)
                check.finish()
            except FORWARD_ERRORS as error:
                return self._failure(check, error)
            finally:
                forget(self.kept)  # of this run, which was cut
        return None

    def _tensors(self, alive: NDArray[np.bool_]) -> dict[str, torch.Tensor]:
        held = tensors_of(self.bare)
        names = {name: name for name in self.space.slots} | _slot_aliases(self.space)
        tensors = {}
        for name, source in names.items():
            dims = self.draft.found.tensors[source]
            shape = [int(np.count_nonzero(alive[nodes])) for nodes in dims]
            # a gradient flag decides which operators a matrix product falls into
            flag, dtype = held[source].requires_grad, held[source].dtype
            tensors[name] = torch.empty(shape, dtype=dtype, device=META, requires_grad=flag)
        return tensors

    def _failure(self, check: Check, error: Exception) -> _Failure:
        suspects = check.suspects()
        factors = [
            factor
            for operation in suspects
            for dims in (*operation.inputs, *operation.outputs)
            for nodes in dims
            for factor in self.draft.factors(nodes)
        ]
        owner = self.draft.groups.gene_of_atom
        genes = {int(g) for factor in factors for g in np.unique(owner[factor]) if g >= 0}
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        where = suspects[0].name if suspects else "at the end"
        kind = "gives" if isinstance(error, ShapeMismatchError) else "fails"
        happens = f"operator {where} {kind}: {text}"
        reason = f"after cutting it, {text if isinstance(error, OtherOperatorError) else happens}"
        return _Failure(check.position, sorted(genes) or list(range(len(self.space.genes))), reason)


def _distinct_widths(widths: Sequence[int]) -> list[int]:
    """Reduced widths that differ from gene to gene, so that no two match by accident.

    A width of one is avoided where it can be: it broadcasts, and changes which tensors count as
    contiguous. Those up to a half come first: what is more than a half goes once into the whole,
    which a whole number that should have followed would not show.
    """
    rng = np.random.default_rng(_PROBE_SEED)
    orders = {}
    for width in sorted(set(widths)):
        order = rng.permutation(range(min(2, width - 1), width))
        large = order > width // 2
        orders[width] = [*order[~large].tolist(), *order[large].tolist()]
    used: dict[int, int] = {}
    values = []
    for width in widths:
        position = used.get(width, 0)
        used[width] = position + 1
        values.append(orders[width][position % len(orders[width])])
    return values


def _distant_choices(genes: Sequence[Gene]) -> list[int]:
    """Of every gene a choice, nearly the full one and a small one in turn.

    Genes that follow one another are often parts of one dimension. A share of it that the code
    computes is as long as one of them, but for a rounding, where all are cut alike. None is one.
    """
    used: dict[tuple[int, bool], int] = {}
    values = []
    for number, gene in enumerate(genes):
        choices = [choice for choice in gene.choices if choice > 1]
        smaller = choices[:-1] or choices
        key = len(smaller), number % 2 == 0
        place = used[key] = used.get(key, -1) + 1
        place %= len(smaller)
        values.append(smaller[-1 - place] if key[1] else smaller[place])
    return values


def _slot_aliases(space: SearchSpace) -> dict[str, str]:
    return {alias: name for alias, name in space.aliases.items() if name in space.slots}
