"""What a criterion is asked, and what it answers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from prunas.errors import InputError
from prunas.eval.batches import Loader
from prunas.eval.criteria.discriminant import Array, Elimination
from prunas.supernet.space import SearchSpace


@dataclass(frozen=True)
class Verdict:
    """What a criterion says of each gene.

    Attributes:
        eliminations: for every gene the channel positions in the order in which to remove them,
            least important first, each with what its removal costs (>= 0, in units that can be
            compared between genes); None where the criterion cannot judge a gene, and for blocks.
        reasons: for every gene of width without an elimination, why, in a sentence.
        notes: what the user should know about it, in sentences.
    """

    eliminations: tuple[Elimination | None, ...]
    reasons: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Criterion(Protocol):
    """A function that judges the channels of every gene; it leaves the network as it was.

    A score per channel becomes an `Elimination` by sorting; a criterion that looks again after
    every removal gives its path. Equal arguments must give equal verdicts. Options are further
    keyword arguments with defaults; `functools.partial` makes another criterion of them.
    """

    def __call__(
        self,
        network: nn.Module,
        space: SearchSpace,
        batches: Loader,
        *,
        device: torch.device | str,
    ) -> Verdict: ...


def width_genes(space: SearchSpace) -> range:
    """Indices of the genes that have channels; those of blocks and kernels follow them."""
    return range(sum(gene.kind == "width" for gene in space.genes))


def judge(
    space: SearchSpace, judgements: Iterable[ArrayLike | Elimination | str], *notes: str
) -> Verdict:
    """The verdict from one judgement per gene of width.

    Args:
        space: whose genes were judged.
        judgements: for every gene a score per channel (its removal costs that much), a path, or a
            sentence that says why there is neither.
        notes: as in `Verdict`.

    Raises:
        InputError: a score, or what a removal costs, is NaN or infinite.
    """
    eliminations: list[Elimination | None] = []
    reasons = {}
    for gene, judgement in zip(width_genes(space), judgements, strict=True):
        if isinstance(judgement, str):
            reasons[gene] = judgement
            eliminations.append(None)
        elif isinstance(judgement, Elimination):
            _require_finite(space, gene, judgement.drops)
            eliminations.append(judgement)
        else:
            scores = np.asarray(judgement, dtype=np.float64)
            _require_finite(space, gene, scores)
            eliminations.append(_one_shot(scores))
    eliminations += [None] * (len(space.genes) - len(eliminations))
    return Verdict(tuple(eliminations), reasons, tuple(notes))


def shares(scores: ArrayLike) -> Array:
    """Scores divided by their sum, for criteria whose scales differ from layer to layer."""
    values = np.asarray(scores, dtype=np.float64)
    return np.asarray(values / (values.sum() or 1.0))


def scores_of(elimination: Elimination) -> Array:
    """(channels,) what each channel cost when it was removed, by position."""
    scores = np.empty(len(elimination.order))
    scores[list(elimination.order)] = elimination.drops
    return scores


def _require_finite(space: SearchSpace, gene: int, scores: ArrayLike) -> None:
    if not np.isfinite(scores).all():
        raise InputError(
            f"the scores of gene {space.genes[gene].name!r} hold NaN or infinite values; check the"
            " weights and what the network computes from the images"
        )


def _one_shot(scores: Array) -> Elimination:
    """Removal by ascending score, equal ones by position."""
    order = np.argsort(scores, kind="stable")
    return Elimination(tuple(order.tolist()), tuple(scores[order].tolist()))


def names_of(space: SearchSpace, genes: Sequence[int]) -> str:
    """The first few names, for a sentence."""
    shown = ", ".join(space.genes[gene].name for gene in genes[:3])
    return shown + (", ..." if len(genes) > 3 else "")
