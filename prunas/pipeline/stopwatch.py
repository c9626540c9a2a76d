"""What a run knows of time: a table of its space, and single networks, measured whole."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Final, final

import numpy as np
import torch
from torch import nn

from prunas.eval.latency.backends import Backend
from prunas.eval.latency.predictor import Predictor
from prunas.eval.latency.table import LatencyTable, built, fingerprint
from prunas.eval.latency.timing import Timed, Told
from prunas.eval.latency.whole import measured
from prunas.pipeline.latency_file import load_table, save_table
from prunas.search.budget import Budget, Feasible
from prunas.search.costs import Costs
from prunas.supernet.skeleton import copied
from prunas.supernet.space import Candidate, SearchSpace

NEAR: Final = 12
"""Networks near the budget that are measured to set the predictor right there."""

AGAIN: Final = 8
"""Networks, besides the full one, that each session measures again."""

_DRIFT: Final = 0.1  # of their times, from which on it is said


@final
@dataclass(frozen=True, eq=False)
class Stopwatch:
    """Times candidates of one network on one backend; every time is kept in files.

    All times are told as if the full network took what the table says: each session measures it
    again beside the others, with some more of those that are known, and divides by what they have
    become slower since, in the median.

    Args:
        network: the traced network, with weights; it is not changed.
        space: its search space.
        backend: what runs the networks.
        batch: images at a time.
        table: file of the table, which is built if there is none.
        kept: file of the single networks.
        seed: of the design, and of images and orders.
        told: hears what takes time, and when the device is busy.
    """

    network: nn.Module
    space: SearchSpace
    backend: Backend
    batch: int
    table: Path
    kept: Path
    seed: int
    told: Told

    @cached_property
    def full(self) -> Timed:
        """The full network's time: that of the table if there is one, else measured alone."""
        if self.table.exists():
            return self._table.full
        self._measure([self.space.full()])
        return self._known()[self.space.full()]

    def require_table(self) -> None:
        """Refuse a table that cannot be used, before anything takes long; there may be none.

        Raises:
            InputError: it is damaged, or of something else.
        """
        if self.table.exists():
            self._table  # noqa: B018  (it is read)

    @property
    def nanoseconds(self) -> int:
        """The full network's time, as budgets are counted."""
        return round(1e6 * self._table.full.milliseconds)

    @cached_property
    def predictor(self) -> Predictor:
        """Fitted to the table, which is built if there is none."""
        return self._table.predictor(self.network, self.space)

    def predictor_near(self, budget: Budget, prices: Costs) -> Predictor:
        """The predictor, set right on measured candidates of the budget (`Predictor.scaled`).

        Args:
            budget: with absolute latency.
            prices: that go by `predictor`.

        Raises:
            InputError: the budget is out of reach.
            RunError: the device is too busy.
        """
        feasible = Feasible(self.space, budget, prices)
        drawn = list(dict.fromkeys(feasible.sample(self._rng(1), NEAR)))
        return self.predictor.scaled(drawn, [t.milliseconds for t in self.times(drawn)])

    def times(self, candidates: Sequence[Candidate]) -> tuple[Timed, ...]:
        """How long candidates take, measured whole; those measured before are read.

        Raises:
            RunError: the device is too busy, or the disk full.
        """
        self._measure(candidates)
        known = self._known()
        return tuple(known[candidate] for candidate in candidates)

    @cached_property
    def _table(self) -> LatencyTable:
        if self.table.exists():
            return load_table(self.table, self.space, self.backend.device, self.batch)
        self.told(f"measuring networks of the space with {self.backend.device.sentence}")
        rng = self._rng(0)
        table = built(
            self._network, self.space, self.backend, rng, batch=self.batch, told=self.told
        )
        save_table(table, self.table)
        return table

    def _measure(self, candidates: Sequence[Candidate]) -> None:
        known, full = self._known(), self.space.full()
        new = [each for each in dict.fromkeys(candidates) if each not in known and each != full]
        if known and not new:
            return
        before = self._before(known)
        together = list(dict.fromkeys([full, *before, *new]))
        found = measured(
            self._network,
            self.space,
            together,
            self.backend,
            self._rng(2, len(known)),
            batch=self.batch,
            told=self.told,
        )
        now = dict(zip(together, found, strict=True))
        factor = self._since(before, now)
        times = {full: before.get(full, now[full]), **known}
        times |= {each: now[each].scaled(factor) for each in new}
        table = LatencyTable(
            device=self.backend.device,
            space=fingerprint(self.space),
            batch=self.batch,
            dtype="float32",
            candidates=tuple(times),
            times=tuple(times.values()),
        )
        save_table(table, self.kept)

    def _before(self, known: Mapping[Candidate, Timed]) -> dict[Candidate, Timed]:
        """What networks took that are measured again, the full one first; {} at the first time."""
        if not known and self.table.exists():
            known = _times_of(self._table)
        return dict(islice(known.items(), 1 + AGAIN))

    def _since(self, before: Mapping[Candidate, Timed], now: Mapping[Candidate, Timed]) -> float:
        """What times of now are multiplied by, to be as they were before."""
        if not before:
            return 1.0
        ratios = [time.milliseconds / now[each].milliseconds for each, time in before.items()]
        factor = float(np.median(ratios))
        if abs(factor - 1) > _DRIFT:
            self.told(
                f"what was measured before takes {1 / factor:.2g} times as long now; times are told"
                " as if it did not"
            )
        return factor

    def _known(self) -> dict[Candidate, Timed]:
        """What was measured alone, the full network first; {} before that."""
        if not self.kept.exists():
            return {}
        return _times_of(load_table(self.kept, self.space, self.backend.device, self.batch))

    @cached_property
    def _network(self) -> nn.Module:
        """On the CPU, as a loaded artifact would be."""
        twin = copied(self.network, lambda tensor: tensor.detach().cpu()).eval()
        return twin.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload, no-any-return]

    def _rng(self, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *purpose])


def _times_of(table: LatencyTable) -> dict[Candidate, Timed]:
    return dict(zip(table.candidates, table.times, strict=True))
