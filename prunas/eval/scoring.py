"""Score candidates on shared or generated weights, all on the same images."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from torch import nn

from prunas.eval.accuracy import Batches, accuracy
from prunas.eval.recalibration import recalibrated
from prunas.supernet.space import Candidate


class WeightsSource(Protocol):
    """Gives any candidate its weights, by turning one network into it for a while."""

    def frozen(self, candidate: Candidate) -> AbstractContextManager[nn.Module]:
        """The network as this candidate, without gradients; as found afterwards."""
        ...


def scorer(
    source: WeightsSource, calibration: Batches, held_out: Batches
) -> Callable[[Sequence[Candidate]], Iterator[float]]:
    """A function from candidates to their accuracies on `held_out`, in 0..1.

    Each candidate gets batch-norm statistics of its own, the true average over `calibration`;
    nothing of one candidate is left when the next one runs.

    Args:
        source: where weights come from.
        calibration: fixed training batches for the statistics; iterated once per candidate.
        held_out: fixed batches that no training has seen; iterated once per candidate.
    """

    def score(candidates: Sequence[Candidate]) -> Iterator[float]:
        for candidate in candidates:
            with source.frozen(candidate) as network, recalibrated(network, calibration):
                result = accuracy(network, held_out)
            yield result

    return score
