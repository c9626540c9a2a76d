"""Criteria beside each other: how alike they rank, how far they can rank at all, and on what.

After the questions of Huang et al., "Rethinking the Pruning Criteria" (NeurIPS 2021): criteria
that order channels alike are one criterion, and scores that lie close together tell nothing apart.
Filters that are independent Gaussians of one scale predict both: Spearman's correlation of L1 and
L2 norms nears (6 / pi) asin(r / 2) = 0.930 with r = 0.936, and the coefficients of variation near
0.756 / sqrt(d) and 0.707 / sqrt(d), d weights a filter. Which statistics to use is our choice.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import asin, pi, sqrt
from typing import Final

import numpy as np
import scipy.stats
from torch import nn

from prunas.eval.criteria.discriminant import Array, Elimination
from prunas.eval.criteria.slices import checked_parameters, joined, slices_of
from prunas.eval.criteria.verdict import Verdict, scores_of, width_genes
from prunas.supernet.space import SearchSpace

GAUSSIAN_PEARSON: Final = sqrt(2 / pi) / (sqrt(2) * sqrt(1 - 2 / pi))
GAUSSIAN_SPEARMAN: Final = 6 / pi * asin(GAUSSIAN_PEARSON / 2)
TOO_CLOSE: Final = 0.05
"""Scores with a smaller coefficient of variation tell the channels of a gene hardly apart."""
ALIKE: Final = 0.95
"""From this mean correlation on, choosing between two criteria is pointless."""

Paths = tuple[Elimination | None, ...]
"""For every gene of width the path of its removals; None where a criterion cannot judge."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Criteria on the genes of one network.

    Attributes:
        names: the criteria.
        similarity: (criteria, criteria) Spearman's rank correlation of the orders in which the
            channels of a gene are removed, its mean over the genes that both judge; NaN if there
            are none. Channels that cost the same one after the other share a rank. Not of costs:
            along a path they need not rise.
        overlap: (criteria, criteria) |A and B| / |A or B| of the channels removed at half width,
            its mean over genes; 1/3 is chance.
        variation: (criteria, genes) coefficient of variation of the scores (of what removals cost,
            along a path), std / mean; NaN where a criterion does not judge.
    """

    names: tuple[str, ...]
    similarity: Array
    overlap: Array
    variation: Array


def compared(space: SearchSpace, verdicts: Mapping[str, Verdict]) -> Comparison:
    """Compare verdicts on one space."""
    names = tuple(verdicts)
    tables = [_paths(space, verdict) for verdict in verdicts.values()]
    return Comparison(
        names,
        np.array([[_mean(one, two, _spearman) for two in tables] for one in tables]),
        np.array([[_mean(one, two, _jaccard) for two in tables] for one in tables]),
        np.array([[_variation(path) for path in table] for table in tables]),
    )


@dataclass(frozen=True)
class Normality:
    """How far the filters of one gene are from independent Gaussians of one scale.

    Attributes:
        weights: d, weights a filter.
        quantiles: R^2 of the normal quantile plot of all weights, each filter at unit scale; 1 is
            Gaussian.
        shift: |mean| / std of all weights.
        scales: coefficient of variation of the filters' standard deviations, less what chance
            makes of equal ones, 1 / sqrt(2 d); at least 0.
        correlation: ||off-diagonal|| / ||all|| of the correlation matrix of the filters' weights,
            over what independent ones would have; 1 is independent. NaN if it cannot be told.
    """

    weights: int
    quantiles: float
    shift: float
    scales: float
    correlation: float


def normality(network: nn.Module, space: SearchSpace) -> tuple[Normality | None, ...]:
    """Of every gene's own filters; None where a gene has none, or fewer than 8 filters."""
    held = checked_parameters(network, space)
    return tuple(
        _normality(joined(s.own, held)) if s.own and len(s.own[0].places) >= 8 else None
        for s in slices_of(network, space)
    )


def findings(found: Comparison) -> list[str]:
    """What a user should take from it, in sentences; where choosing is pointless first."""
    return [*_pointless(found), *_blind(found), *_opposed(found)]


def _paths(space: SearchSpace, verdict: Verdict) -> Paths:
    return tuple(verdict.eliminations[gene] for gene in width_genes(space))


def _mean(one: Paths, two: Paths, measure: Callable[[Elimination, Elimination], float]) -> float:
    pairs = [(a, b) for a, b in zip(one, two, strict=True) if a is not None and b is not None]
    values = [measure(a, b) for a, b in pairs if len(a.order) > 2]
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else np.nan


def _turns(path: Elimination) -> Array:
    """(channels,) when each goes; the same for those that cost the same one after the other."""
    turns = np.empty(len(path.order))
    turns[list(path.order)] = np.cumsum(np.diff(path.drops, prepend=path.drops[0]) != 0)
    return turns


def _spearman(one: Elimination, two: Elimination) -> float:
    a, b = _turns(one), _turns(two)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return np.nan  # equal scores have no order
    return float(scipy.stats.spearmanr(a, b).statistic)


def _jaccard(one: Elimination, two: Elimination) -> float:
    a, b = (set(path.order[: len(path.order) // 2]) for path in (one, two))
    return len(a & b) / len(a | b)


def _variation(path: Elimination | None) -> float:
    scores = None if path is None else scores_of(path)
    if scores is None or not scores.mean():
        return np.nan
    return float(scores.std() / scores.mean())


def _normality(filters: Array) -> Normality:
    width = filters.shape[1]
    scale = filters.std(1)
    scale = np.where(scale > 0, scale, 1.0)
    spread = float(scale.std() / scale.mean())
    whole = filters.std() or 1.0
    standardised = ((filters - filters.mean(1, keepdims=True)) / scale[:, None]).ravel()
    return Normality(
        width,
        _quantile_fit(standardised),
        abs(float(filters.mean() / whole)),
        max(0.0, spread - 1 / sqrt(2 * width)),
        _correlation(filters),
    )


def _quantile_fit(values: Array) -> float:
    """R^2 of sorted values against normal quantiles, at 2,001 evenly spaced probabilities."""
    at = (np.arange(2001) + 0.5) / 2001
    theory, found = scipy.stats.norm.ppf(at), np.quantile(values, at)
    return float(np.corrcoef(theory, found)[0, 1] ** 2) if np.ptp(found) else 0.0


def _correlation(filters: Array) -> float:
    """||offdiag(R)||_F over its expectation for independent weights, sqrt(d (d - 1) / (n - 1))."""
    channels, width = filters.shape
    if width < 2 or channels < 3 or not (filters.std(0) > 0).all():
        return np.nan
    standard = (filters - filters.mean(0)) / filters.std(0)
    # ||R||^2 from the smaller Gram matrix
    gram = standard @ standard.T if channels < width else standard.T @ standard
    squares = float((gram**2).sum()) / channels**2
    return float(sqrt(max(0.0, squares - width) / (width * (width - 1) / (channels - 1))))


def _pointless(found: Comparison) -> list[str]:
    if len(found.names) < 2:
        return []
    pairs = _pairs(found)
    alike = sorted((p for p in pairs if p[0] >= ALIKE), reverse=True)
    if not alike:
        return ["No two of these criteria order the channels alike: the choice matters here."]
    listed = "; ".join(f"{one} and {two} ({value:.2f})" for value, one, two in alike[:8])
    more = f", and {len(alike) - 8} more pairs" if len(alike) > 8 else ""
    return [
        f"Choosing between these is pointless, they order channels alike (mean rank correlation):"
        f" {listed}{more}."
    ]


def _blind(found: Comparison) -> list[str]:
    counts = []
    for name, row in zip(found.names, found.variation, strict=True):
        known = row[~np.isnan(row)]
        if close := int((known < TOO_CLOSE).sum()):
            counts.append((close / len(known), f"{name} in {close} of {len(known)} groups"))
    if not counts:
        return []
    listed = "; ".join(words for _, words in sorted(counts, reverse=True))
    return [
        f"Some scores lie so close together (coefficient of variation below {TOO_CLOSE:.0%}) that"
        f" which channels they remove is next to chance: {listed}."
    ]


def _opposed(found: Comparison) -> list[str]:
    opposed = sorted(p for p in _pairs(found) if p[0] < -0.2)
    return [
        f"{one} and {two} contradict each other (mean rank correlation {value:.2f})."
        for value, one, two in opposed[:4]
    ]


def _pairs(found: Comparison) -> list[tuple[float, str, str]]:
    pairs = []
    for i, one in enumerate(found.names):
        for j, two in enumerate(found.names[:i]):
            if not np.isnan(found.similarity[i, j]):
                pairs.append((float(found.similarity[i, j]), two, one))
    return pairs
