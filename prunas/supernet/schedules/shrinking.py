"""Progressive shrinking: one kind of gene after another."""

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Final, final

import numpy as np

from prunas.supernet.schedules.schedule import Step
from prunas.supernet.space import Candidate, SearchSpace

Choices = tuple[int, ...]


@final
@dataclass(frozen=True)
class Phase:
    """A part of the training, in which a kind of gene opens.

    Attributes:
        kinds: those that open, or open further.
        length: in epochs there; here its share counts.
        paths: random candidates in a step.
        partly: open the wider half of the choices, of blocks every second one; else everything.
    """

    kinds: tuple[str, ...]
    length: int
    paths: int
    partly: bool = False


# Lengths and numbers of paths as in train_ofa_net.py of mit-han-lab/once-for-all: kernels {3, 5, 7}
# 120 epochs, 1 path; depth {3, 4} 25, {2, 3, 4} 120, 2 paths; expansion {4, 6} 25, {3, 4, 6} 120, 4
# paths. Deviations: images have all sizes from the start there, and a phase as long as that of
# kernels here; the full network arrives trained, and then runs alone for as long as the short
# phases; operators, which are not searched there, open with the kernels.
PHASES: Final = (
    Phase((), 25, paths=0),
    Phase(("resolution",), 120, paths=1),
    Phase(("kernel", "operator"), 120, paths=1),
    Phase(("depth",), 25, paths=2, partly=True),
    Phase(("depth",), 120, paths=2),
    Phase(("width",), 25, paths=4, partly=True),
    Phase(("width",), 120, paths=4),
)


@final
@dataclass(frozen=True, eq=False)
class Shrinking:
    """First the full network, then smaller ones too: resolutions, kernels, depths, widths.

    Cai et al., "Once for all", ICLR 2020, section 3.3: what is open in a phase stays open in later
    ones, and paths are uniform over all that is open. The full network runs in every step and
    teaches (deviation: there its weights are those of before the first phase). A phase of kinds
    that the space does not have is left out, and the others are longer in proportion.

    Attributes:
        space: the candidates.
        paths: multiplies the numbers of paths of the phases.
    """

    space: SearchSpace
    paths: int = 1

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        """Those of this space."""
        there = {gene.kind for gene in self.space.genes}
        return tuple(phase for phase in PHASES if not phase.kinds or there & set(phase.kinds))

    def phase(self, number: int, steps: int) -> int:
        """Which of `phases` a step belongs to."""
        ends = list(accumulate(phase.length for phase in self.phases))
        return next(place for place, end in enumerate(ends) if number * ends[-1] < end * steps)

    def open(self, phase: int) -> tuple[Choices, ...]:
        """Per gene the choices that paths of a phase may take."""
        return self._open[phase]

    def step(self, number: int, steps: int, rng: np.random.Generator) -> Step:
        phase = self.phase(number, steps)
        count = self.paths * self.phases[phase].paths
        columns = [rng.choice(np.array(choices), size=count) for choices in self.open(phase)]
        paths = (Candidate(row) for row in np.column_stack(columns).tolist())
        return Step(tuple(paths), teacher=self.space.full())

    @cached_property
    def _open(self) -> tuple[tuple[Choices, ...], ...]:
        rows = [[gene.choices[-1:] for gene in self.space.genes]]
        for phase in self.phases[1:]:
            changed = self._opened(phase)
            rows.append([changed.get(gene, choices) for gene, choices in enumerate(rows[-1])])
        return tuple(map(tuple, rows))

    def _opened(self, phase: Phase) -> dict[int, Choices]:
        """The genes whose choices a phase changes."""
        genes = [g for g, gene in enumerate(self.space.genes) if gene.kind in phase.kinds]
        choices = {gene: self.space.genes[gene].choices for gene in genes}
        if not phase.partly:
            return choices
        if phase.kinds == ("depth",):  # from the last one on, as the last of a stage go first there
            return {gene: choices[gene] for gene in genes[::-1][::2]}
        return {gene: row[len(row) // 2 :] for gene, row in choices.items()}
