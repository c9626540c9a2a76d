"""Criteria that look at what a channel carries, where the layers that read it receive it.

z is the input of a reading layer (after the activation before it), in evaluation mode. A channel's
score is its mean, or sum where said, over the layers that read it; depthwise layers, which hand
each channel on by itself, count only where no other layer reads it. A channel that has several
features there (a head) gets their mean, or their sum.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import torch
from torch import nn

from prunas.errors import InputError
from prunas.eval.accuracy import evaluating
from prunas.eval.batches import Loader
from prunas.eval.criteria.discriminant import Array
from prunas.eval.criteria.gradients import labelled, loss_of
from prunas.eval.criteria.observe import UNSEEN, by_gene, layer_of, maps_of, observe, over_positions
from prunas.eval.criteria.slices import Slice, checked_parameters, joined, places_of, slices_of
from prunas.eval.criteria.verdict import Verdict, judge
from prunas.eval.device import require_on
from prunas.supernet.space import SearchSpace, Tap

_BINS: Final = 100


def apoz(
    network: nn.Module, space: SearchSpace, batches: Loader, *, device: torch.device | str
) -> Verdict:
    """1 - average percentage of zeros: the share of images and positions with z != 0.

    Hu et al., "Network Trimming" (2016). Says little where no ReLU precedes.
    """
    layers = means_of(network, space, batches, device, lambda z: (z != 0).double())
    return judge(space, _gathered(space, layers))


def mean_activation(
    network: nn.Module, space: SearchSpace, batches: Loader, *, device: torch.device | str
) -> Verdict:
    """Mean |z| over images and positions, as a share of the layer's largest."""
    layers = means_of(network, space, batches, device, lambda z: z.abs().double())
    return judge(space, _gathered(space, {name: _to_one(v) for name, v in layers.items()}))


def entropy(
    network: nn.Module,
    space: SearchSpace,
    batches: Loader,
    *,
    device: torch.device | str,
    bins: int = _BINS,
) -> Verdict:
    """-sum p log p of the histogram over images of the channel's mean, in nats.

    Luo & Wu, "An Entropy-based Pruning Method" (2017). Bins span each channel's own range; a
    constant channel has entropy 0.
    """

    def of(rows: Array) -> Array:
        return np.array([_entropy(column, bins) for column in rows.T])

    layers = rows_of(network, space, batches, device, over_positions)
    return judge(space, _gathered(space, {name: of(rows) for name, rows in layers.items()}))


def hrank(
    network: nn.Module, space: SearchSpace, batches: Loader, *, device: torch.device | str
) -> Verdict:
    """Mean rank of the channel's map over images, as a share of the largest possible.

    Lin et al., "HRank" (2020). Tokens in a row are no map.
    """

    def shares_of_rank(maps: torch.Tensor) -> torch.Tensor:
        if maps.ndim != 4:
            return maps.new_empty(maps.shape[:2], dtype=torch.float64).fill_(torch.nan)
        ranks: torch.Tensor = torch.linalg.matrix_rank(maps.float())
        return ranks.double() / min(maps.shape[2:])

    layers = means_of(network, space, batches, device, shares_of_rank)
    seen = {name: values for name, values in layers.items() if not np.isnan(values).any()}
    missing = "no layer that reads its channels is given maps of two dimensions, which have ranks"
    return judge(space, _gathered(space, seen, missing))


def wanda(
    network: nn.Module, space: SearchSpace, batches: Loader, *, device: torch.device | str
) -> Verdict:
    """||Z_j||_2 * sum_i |W_ij|, its sum over the reading layers, as a share of its layer's sum.

    Sun et al., "Wanda" (2024), for whole input channels j; ||Z_j|| over images and positions.
    """
    squares = means_of(network, space, batches, device, lambda z: z.double() ** 2)
    weights = _read_weights(network, space, lambda rows: np.abs(rows).sum(1))
    return _weighted(space, {name: np.sqrt(v) for name, v in squares.items()}, weights)


def flap(
    network: nn.Module, space: SearchSpace, batches: Loader, *, device: torch.device | str
) -> Verdict:
    """Var(Z_j) ||W_:j||^2, its sum over the reading layers, as a share of its layer's sum.

    An et al., "FLAP" (2024): what is lost when a channel is replaced by its mean, which
    `prunas.eval.criteria.absorb` adds to the biases. Variance over images and positions.
    """

    def moments(z: torch.Tensor) -> torch.Tensor:
        return torch.cat([z.double(), z.double() ** 2], 1)

    variance = {}
    for name, both in means_of(network, space, batches, device, moments).items():
        mean, square = np.split(both, 2)
        variance[name] = np.maximum(square - mean**2, 0)
    weights = _read_weights(network, space, lambda rows: (rows**2).sum(1))
    return _weighted(space, variance, weights)


def zero_channel(
    network: nn.Module, space: SearchSpace, batches: Loader, *, device: torch.device | str
) -> Verdict:
    """max |z| over images and positions, as a share of the layer's largest.

    A channel of score 0 can go without changing anything on these images: it is zero wherever it
    is read. The strict form of zero-channel pruning (in the spirit of ArtNet, An et al. 2020).
    """

    def largest(maps: torch.Tensor) -> torch.Tensor:
        return maps.abs().reshape(*maps.shape[:2], -1).amax(2).double()

    layers = rows_of(network, space, batches, device, largest)
    seen = {name: _to_one(rows.max(0)) for name, rows in layers.items()}
    return judge(space, _gathered(space, seen))


def taylor_activation(
    network: nn.Module, space: SearchSpace, batches: Loader, *, device: torch.device | str
) -> Verdict:
    """Mean over images of |sum over positions of z dL/dz|, over its layer's L2 norm.

    Molchanov et al., "Pruning CNNs for Resource Efficient Inference" (2017). The gradient is that
    of each image's own loss.
    """
    require_on(network, device)
    sums: dict[str, Array] = {}
    with evaluating(network):
        for images, targets in labelled(batches):
            found = _products(network, space, images.to(device), targets.to(device))
            for name, values in found.items():
                sums[name] = sums.get(name, 0) + values
    layers = {name: total / (np.linalg.norm(total) or 1.0) for name, total in sums.items()}
    return judge(space, _gathered(space, layers))


def _products(
    network: nn.Module, space: SearchSpace, images: torch.Tensor, targets: torch.Tensor
) -> dict[str, Array]:
    """(channels,) sum over images of |sum over positions of z dL/dz|, for every tap."""
    seen: list[tuple[Tap, nn.Module, torch.Tensor]] = []

    def look(tap: Tap) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def remember(module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
            if arguments and isinstance(arguments[0], torch.Tensor):
                seen.append((tap, module, arguments[0]))

        return remember

    handles = [layer_of(network, tap).register_forward_pre_hook(look(tap)) for tap in space.taps]
    try:
        with torch.enable_grad():
            output = network(images.detach().requires_grad_())
            loss = loss_of(output, targets) * len(images)
            inputs = [tensor for _, _, tensor in seen]
            gradients = torch.autograd.grad(loss, inputs, allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    result: dict[str, Array] = {}
    for (tap, module, tensor), gradient in zip(seen, gradients, strict=True):
        if gradient is None:
            continue
        maps = maps_of(module, (tensor * gradient).detach(), len(images), len(tap.atoms[0]))
        if maps is not None:
            whole = maps.reshape(*maps.shape[:2], -1).sum(2, dtype=torch.float64)
            result[tap.module] = result.get(tap.module, 0) + whole.abs().sum(0).cpu().numpy()
    return result


# -- statistics ------------------------------------------------------------------------------------


def means_of(
    network: nn.Module,
    space: SearchSpace,
    batches: Loader,
    device: torch.device | str,
    value: Callable[[torch.Tensor], torch.Tensor],
    taps: Sequence[Tap] | None = None,
) -> dict[str, Array]:
    """{tap: (channels,)} means over images and positions of a function of its maps.

    Of all taps of the space, or of these.

    Raises:
        InputError: maps that are NaN or infinite.
    """

    def averaged(layer: nn.Module, maps: torch.Tensor) -> torch.Tensor:
        if not maps.isfinite().all():
            (name,) = (name for name, module in network.named_modules() if module is layer)
            raise InputError(
                f"layer {name!r} is given NaN or infinite values; check the weights and the images"
            )
        return over_positions(value(maps))

    sums: dict[str, Array] = {}
    rows: dict[str, int] = {}
    chosen = space.taps if taps is None else taps
    for found in observe(network, chosen, batches, averaged, device=device):
        for name, calls in found.calls.items():
            for call in calls:
                sums[name] = sums.get(name, 0) + call.sum(0).cpu().numpy()
                rows[name] = rows.get(name, 0) + len(call)
    return {name: np.asarray(total / rows[name]) for name, total in sums.items()}


def rows_of(
    network: nn.Module,
    space: SearchSpace,
    batches: Loader,
    device: torch.device | str,
    value: Callable[[torch.Tensor], torch.Tensor],
) -> dict[str, Array]:
    """{tap: (samples, channels)} a number of every image and channel, a function of its map."""
    rows: dict[str, list[Array]] = {}
    for found in observe(network, space.taps, batches, lambda _, maps: value(maps), device=device):
        for name, calls in found.calls.items():
            rows.setdefault(name, []).extend(call.cpu().numpy() for call in calls)
    return {name: np.concatenate(parts) for name, parts in rows.items()}


def _entropy(values: Array, bins: int) -> float:
    if not np.isfinite(values).all():
        return np.nan
    if values.max() == values.min():
        return 0.0
    counts, _ = np.histogram(values, bins)
    p = counts[counts > 0] / len(values)
    return float(-(p * np.log(p)).sum())


def _to_one(values: Array) -> Array:
    return np.asarray(values / (np.abs(values).max(initial=0) or 1.0))


# -- from layers to genes --------------------------------------------------------------------------


def _gathered(
    space: SearchSpace, layers: Mapping[str, Array], missing: str = UNSEEN
) -> list[Array | str]:
    """For every gene the values of its channels, their mean over the layers that read them."""
    judgements: list[Array | str] = []
    for gene, taps in enumerate(by_gene(space, space.taps)):
        seen = [_of_channels(space, gene, t, layers[t.module]) for t in taps if t.module in layers]
        judgements.append(np.mean(seen, axis=0) if seen else missing)
    return judgements


def _of_channels(space: SearchSpace, gene: int, tap: Tap, values: Array) -> Array:
    """(channels,) mean value of each channel's features in one layer."""
    found = np.zeros(space.widths[gene])
    for atoms in tap.atoms:
        places = dict(places_of(space, atoms)).get(gene)
        if places is not None:
            real = places >= 0
            sums = np.where(real, values[places], 0.0).sum(1)
            found += sums / np.maximum(real.sum(1), 1)
    return found


def _read_weights(
    network: nn.Module, space: SearchSpace, reduce: Callable[[Array], Array]
) -> list[dict[str, Array]]:
    """For every gene, {reading layer: (channels,) its weights for each channel, reduced}."""
    held = checked_parameters(network, space)
    result = []
    for taps, slices in zip(by_gene(space, space.taps), slices_of(network, space), strict=True):
        found = {}
        for tap in taps:
            mine = [s for s in slices.all if s.parameter.rpartition(".")[0] == tap.module]
            reading = [s for s in mine if _reads(s, held[s.parameter])]
            if reading or mine:
                found[tap.module] = reduce(joined(reading or mine, held))
        result.append(found)
    return result


def _reads(s: Slice, parameter: torch.Tensor) -> bool:
    return parameter.ndim > 1 and s.dimension == 1


def _weighted(
    space: SearchSpace, layers: Mapping[str, Array], weights: Sequence[Mapping[str, Array]]
) -> Verdict:
    """Activation times weight, summed over the reading layers, each as shares of its own sum."""
    judgements: list[Array | str] = []
    for gene, taps in enumerate(by_gene(space, space.taps)):
        total, seen = np.zeros(space.widths[gene]), False
        for tap in taps:
            if tap.module in layers and tap.module in weights[gene]:
                values = _of_channels(space, gene, tap, layers[tap.module])
                product = values * weights[gene][tap.module]
                total, seen = total + product / (product.sum() or 1.0), True
        judgements.append(total if seen else UNSEEN)
    return judge(space, judgements)
