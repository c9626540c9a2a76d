"""Criteria that look at weights alone; they never touch the images.

A channel's filter F_i is the vector of all weights that compute it, side by side where residual
connections give it several filters (`Slices.own`); its group is everything that leaves with it
(`Slices.all`). Formulas as in the papers named, from their standard definitions.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from scipy.spatial.distance import cdist
from torch import nn

from prunas.eval.batches import Loader
from prunas.eval.cost import Cost
from prunas.eval.criteria.discriminant import Array
from prunas.eval.criteria.slices import Slices, checked_parameters, joined, slices_of
from prunas.eval.criteria.verdict import Verdict, judge, shares, width_genes
from prunas.supernet.space import SearchSpace

Scope = Literal["own", "group"]
"""A channel's own filters, or all parameters that leave with it."""

_WEISZFELD_STEPS = 100
_NO_FILTERS = "no layer of its own computes its channels"


def magnitude(
    network: nn.Module,
    space: SearchSpace,
    batches: Loader,
    *,
    device: torch.device | str,
    power: float = 1,
    scope: Scope = "group",
) -> Verdict:
    """The norm (sum |w|^p)^(1/p) of a channel's weights, as a share of the sum over its gene.

    Li et al., "Pruning Filters for Efficient ConvNets" (2017) take p = 1 over a channel's own
    filter; over the whole group as in DepGraph (Fang et al. 2023).

    Args:
        power: p > 0.
        scope: "own" filters, where there are any, or the "group".
    """

    def norm(filters: Array) -> Array:
        return shares((np.abs(filters) ** power).sum(1) ** (1 / power))

    return _judged(network, space, norm, scope)


def fpgm(
    network: nn.Module, space: SearchSpace, batches: Loader, *, device: torch.device | str
) -> Verdict:
    """Sum of distances to the other filters, sum_j ||F_i - F_j||, as a share.

    He et al., "Filter Pruning via Geometric Median" (2019); on the raw filters, as in their code.
    """
    return _judged(network, space, lambda filters: shares(cdist(filters, filters).sum(1)))


def geometric_median(
    network: nn.Module, space: SearchSpace, batches: Loader, *, device: torch.device | str
) -> Verdict:
    """Distance to the geometric median, ||F_i - F*||, F* = argmin_v sum_j ||v - F_j||; a share.

    F* by Weiszfeld's iteration.
    """

    def distances(filters: Array) -> Array:
        return shares(np.linalg.norm(filters - median_of(filters), axis=1))

    return _judged(network, space, distances)


def bn_scale(
    network: nn.Module, space: SearchSpace, batches: Loader, *, device: torch.device | str
) -> Verdict:
    """|gamma_i| of the batch normalisations that a channel passes, their mean.

    Liu et al., "Network Slimming" (2017), where gamma was trained with an L1 penalty.
    """
    held = checked_parameters(network, space)
    return judge(
        space,
        (
            np.abs(joined(slices.norms, held)).mean(1)
            if slices.norms
            else "no batch normalisation scales its channels"
            for slices in slices_of(network, space)
        ),
    )


def lamp(
    network: nn.Module, space: SearchSpace, batches: Loader, *, device: torch.device | str
) -> Verdict:
    """u_i / sum of all u_k >= u_i in its gene, with u_i = ||F_i||^2; the largest scores 1.

    Lee et al., "Layer-Adaptive Sparsity for the Magnitude-based Pruning" (2021), by filters.
    """

    def relative(filters: Array) -> Array:
        u = (filters**2).sum(1)
        ascending = np.sort(u)
        first = np.searchsorted(ascending, u)  # the first of equal ones: u_k >= u_i
        above = np.cumsum(ascending[::-1])[::-1][first]
        return np.asarray(np.divide(u, above, out=np.zeros_like(u), where=above > 0))

    return _judged(network, space, relative)


def leverage(
    network: nn.Module,
    space: SearchSpace,
    batches: Loader,
    *,
    device: torch.device | str,
    share: float = 0.5,
) -> Verdict:
    """Row norms of the leading right singular vectors of the filters, (fan-in x channels).

    With X = U S V^T and k = share * channels, score_i = ||(V_k)_i||; sum of squares k, at most 1.
    Where filters have fewer weights than there are channels, their L1 norms over the largest.
    Hou et al., "CHEX" (2022).

    Args:
        share: of the channels that is to stay.
    """

    def leading(filters: Array) -> Array:
        channels, fan_in = filters.shape
        if fan_in < channels:
            norms = np.abs(filters).sum(1)
            return np.asarray(norms / (norms.max() or 1.0))
        basis = np.linalg.svd(filters, full_matrices=False)[0]  # of the transpose: V
        return np.asarray(np.linalg.norm(basis[:, : max(1, round(share * channels))], axis=1))

    return _judged(network, space, leading)


def cpmc(
    network: nn.Module,
    space: SearchSpace,
    batches: Loader,
    *,
    device: torch.device | str,
    macs_power: float = 0.5,
    params_power: float = 0.5,
) -> Verdict:
    """V / (M^beta P^gamma): weights by what they cost, each over its largest in the network.

    V is the L1 norm of all weights that leave with a channel, M and P the multiply-accumulates
    and parameters that removing one channel of the full network saves, exactly. The idea is of
    Yan et al., "Channel Pruning via Multi-Criteria based on Weight Dependency" (2021); this way
    to combine the three is ours, since we could not read theirs.

    Args:
        macs_power: beta.
        params_power: gamma.
    """
    held = checked_parameters(network, space)
    values = [np.abs(joined(slices.all, held)).sum(1) for slices in slices_of(network, space)]
    macs, params = saved_by_one(space)
    top = max((float(value.max()) for value in values), default=0.0) or 1.0
    price = (macs / (macs.max(initial=0) or 1)) ** macs_power
    price = price * (params / (params.max(initial=0) or 1)) ** params_power
    return judge(
        space, (v / top / p if p > 0 else v / top for v, p in zip(values, price, strict=True))
    )


def random_order(
    network: nn.Module,
    space: SearchSpace,
    batches: Loader,
    *,
    device: torch.device | str,
    seed: int = 0,
) -> Verdict:
    """Uniform random scores: the control that every criterion has to beat."""
    rng = np.random.default_rng(seed)
    return judge(space, [rng.random(space.widths[gene]) for gene in width_genes(space)])


def median_of(points: Array) -> Array:
    """The geometric median of (n, d) points: argmin_v sum_j ||v - p_j||, by Weiszfeld's iteration.

    v <- sum(p_j / d_j) / sum(1 / d_j), from the mean; distances are kept off zero.
    """
    median = points.mean(0)
    floor = 1e-12 * (float(np.abs(points).max(initial=0)) or 1.0)
    for _ in range(_WEISZFELD_STEPS):
        weights = 1 / np.maximum(np.linalg.norm(points - median, axis=1), floor)
        moved = weights @ points / weights.sum()
        if np.allclose(moved, median, rtol=1e-12, atol=floor):
            break
        median = moved
    return np.asarray(median)


def saved_by_one(space: SearchSpace) -> tuple[Array, Array]:
    """(genes,) MACs and parameters that go when one channel of that gene does, exact integers."""
    cost = Cost(space)
    full = np.array(space.full())
    rows = np.tile(full, (len(width_genes(space)), 1))
    rows[np.arange(len(rows)), np.arange(len(rows))] -= 1
    macs, params = cost.macs(full[None])[0] - cost.macs(rows), cost.params(full[None])[0]
    return macs.astype(np.float64), (params - cost.params(rows)).astype(np.float64)


def _judged(
    network: nn.Module,
    space: SearchSpace,
    score: Callable[[Array], Array],
    scope: Scope = "own",
) -> Verdict:
    held = checked_parameters(network, space)

    def judgement(gene: int, slices: Slices) -> Array | str:
        if scope == "own" and not slices.own:
            return _NO_FILTERS
        chosen = slices.own if scope == "own" else slices.all
        return score(joined(chosen, held)) if chosen else np.zeros(space.widths[gene])

    return judge(space, (judgement(*pair) for pair in enumerate(slices_of(network, space))))
