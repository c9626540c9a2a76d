"""Trials of a search space: the skeleton is cut and run, and what fails is blamed on few genes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from prunas.supernet.check import Check, OtherOperatorError, ShapeMismatchError
from prunas.supernet.draft import Draft
from prunas.supernet.scoped import sizes_of, swapped
from prunas.supernet.skeleton import FORWARD_ERRORS, META, called, dictionaries, forget
from prunas.supernet.space import Gene, SearchSpace, size_polynomial
from prunas.supernet.tensors import tensors_of

_SEED: Final = 20190  # any fixed number: the probe only has to be the same each time

_SMALL: Final = 8
"""Parts of a dimension up to this width are tried at their ends too."""


@dataclass(frozen=True)
class _Failure:
    """Where a cut skeleton went wrong, and which genes meet there (all of them if nobody knows)."""

    position: int
    genes: list[int]
    reason: str


def blamed(
    bare: nn.Module, inputs: Any, draft: Draft, space: SearchSpace, *, sparing: bool
) -> dict[int, str]:
    """{class: reason} of what stands in the way of one of the trials; empty if nothing does."""
    trials = [(_distinct_widths(space.widths), True), (_distant_choices(space.genes), True)]
    if _has_small_parts(space):
        trials += [(values, False) for values in _extremes(space.genes)]  # many are ones
    probes = (
        _Probe(bare, inputs, draft, space, values, anchored=anchored) for values, anchored in trials
    )
    return next((blame for probe in probes if (blame := probe.blame(sparing=sparing))), {})


class _Probe:
    """Cuts the skeleton at some widths and runs it."""

    def __init__(
        self,
        bare: nn.Module,
        inputs: Any,
        draft: Draft,
        space: SearchSpace,
        values: Sequence[int],
        *,
        anchored: bool,
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
        self.anchored = anchored
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
        check = Check(
            self.draft.found.operations, alive, strict=self.strict, anchored=self.anchored
        )
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
    rng = np.random.default_rng(_SEED)
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


def _has_small_parts(space: SearchSpace) -> bool:
    """Whether a dimension has a small part, where the code may share it out by its length.

    Beside a small part a share is often right by rounding alone at most widths. A part is small
    where a gene is, or where few channels stay as they are.
    """
    different = {id(f): f for slots in space.slots.values() for f in slots.values()}
    sizes = (size_polynomial(f, space.gene_of_atom, space.widths) for f in different.values())
    return any(len(size) > 1 and any(_is_small(part, space) for part in size) for size in sizes)


def _is_small(part: tuple[int, tuple[int, ...]], space: SearchSpace) -> bool:
    count, genes = part
    return any(space.widths[gene] <= _SMALL for gene in genes) or (not genes and count <= _SMALL)


def _extremes(genes: Sequence[Gene]) -> list[list[int]]:
    """The smallest and the full choices in turn, and the other way round.

    Parts of one dimension mostly follow one another, and differ most in this way.
    """
    return [
        [gene.choices[0 if number % 2 == turn else -1] for number, gene in enumerate(genes)]
        for turn in (0, 1)
    ]


def _slot_aliases(space: SearchSpace) -> dict[str, str]:
    return {alias: name for alias, name in space.aliases.items() if name in space.slots}
