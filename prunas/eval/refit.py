"""What is left of a cut network, solved anew by least squares to do what the whole one did."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
from torch import nn
from torch.nn import functional as F

from prunas.errors import InputError
from prunas.eval.accuracy import evaluating, running
from prunas.eval.batches import Loader, images_at
from prunas.eval.criteria.discriminant import RIDGE_SHARE
from prunas.eval.device import require_on
from prunas.supernet.resolution import side_of
from prunas.supernet.space import Candidate, SearchSpace

_MOST_BYTES: Final = 2**30  # of the largest output: the cut network sees all images at once
_FEWEST_IMAGES: Final = 16
_ROWS: Final = (2048, 8192)  # samples of a layer, about four a weight of one filter
_WIDE: Final = 8192  # weights of a filter from which on samples are as few as they may be

_CHUNK: Final = 64  # images that pass through the whole network at a time

Hook = Callable[..., None]


@torch.no_grad()
def refit_(
    small: nn.Module,
    whole: nn.Module,
    space: SearchSpace,
    candidate: Candidate,
    batches: Loader,
    *,
    device: torch.device | str,
    ridge_share: float = RIDGE_SHARE,
    seed: int = 0,
) -> None:
    """Change the weights of a cut network so that its layers give what the whole network's do.

    Layer after layer in the order of execution, with X what the layer is given in the cut network
    (its predecessors solved already) and Y what it gives in the whole one, on the same samples:

        W' = argmin ||Y - X W'||^2 + rho ||W' - W||^2 = W + (X'X + rho I)^-1 X' (Y - X W),

    both centered where there is a bias, which then takes the difference of the means. This is what
    `reconstruction` and `discriminant` take for granted when they call a channel redundant, and
    the weight update of Optimal Brain Surgeon (Hassibi & Stork 1993) for X of the whole network;
    taking X from the cut one keeps errors from piling up (as in channel pruning by He et al. 2017).
    Batch norms keep the statistics of the whole network, which its outputs again have; do not
    recalibrate them. Plain ungrouped convolutions and linears are solved, if they run once in a
    forward and have weights of their own; all other layers stay as they are.

    Where the side of images is a gene both networks see images of the candidate's side: only then
    do their maps have the same positions, and X and Y the same rows. So this mends what went with
    channels, not what went with pixels; batch norms of `whole` should know such images.

    Args:
        small: `cut(whole, space, candidate)`, on `device`; changed in place.
        whole: the network it was cut from, in the same order of channels.
        space: the search space of both.
        candidate: the widths of `small`.
        batches: images (targets are not looked at), see `prunas.eval.batches.pairs`; as many of
            the first ones are used as fit into memory at once.
        device: where to compute.
        ridge_share: rho as a share of the mean diagonal of X'X.
        seed: of the choice of positions in the maps of the images.

    Raises:
        InputError: no images, or activations that are NaN or infinite.
    """
    require_on(whole, device)
    require_on(small, device)
    layers = _plain_layers(small)
    stream = images_at(side_of(space, candidate), batches, device=device)
    head = _at_least(2, stream)
    with evaluating(whole), evaluating(small):
        outputs = _outputs(whole, layers, torch.cat(head)[:2])
        most = _that_fit(outputs)
        more = _at_least(most - sum(map(len, head)), stream)
        images = torch.cat([*head, *more])[:most]
        rows = {
            name: _Rows.of(whole.get_submodule(name), output, len(images), seed)
            for name, output in outputs.items()
        }
        targets = _targets(whole, rows, images, _kept_outputs(space, candidate))
        solving = {name: _solving(name, rows[name], targets[name], ridge_share) for name in rows}
        with _hooked(small, solving, before=True):
            small(images)


def _plain_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Those that compute what their class does, every output from all inputs, by their own weight.

    A weight that is computed from others (weight norm) or shared is none of their own.
    """
    uses = Counter(id(tensor) for _, tensor in network.named_parameters(remove_duplicate=False))
    return {
        name: layer
        for name, layer in network.named_modules()
        if _is_plain(layer) and all(uses[id(tensor)] == 1 for tensor in layer.parameters())
    }


def _is_plain(layer: nn.Module) -> bool:
    computes = type(layer).forward
    connected = computes is nn.Linear.forward or (
        computes is nn.Conv2d.forward and cast(nn.Conv2d, layer).groups == 1
    )
    return connected and layer._parameters.get("weight") is not None


def _outputs(
    whole: nn.Module, layers: Mapping[str, nn.Module], images: torch.Tensor
) -> dict[str, torch.Size]:
    """{layer: (rows, ...) what it gives for one image}, of those that can be solved.

    That is if they run once, and have the rows of an image (its windows, say) together: what they
    give for the first image is what they give for it alone.
    """
    alone, both = (_given(whole, layers, part) for part in (images[:1], images))
    return {
        name: alone[name][0].shape
        for name, calls in both.items()
        if len(calls) == 1 and _begins_with(calls[0], alone[name][0], len(images))
    }


def _given(
    whole: nn.Module, layers: Mapping[str, nn.Module], images: torch.Tensor
) -> dict[str, list[torch.Tensor]]:
    """What each call of the layers gives."""
    found: dict[str, list[torch.Tensor]] = {}

    def look(name: str) -> Hook:
        def remember(layer: nn.Module, arguments: Any, output: torch.Tensor) -> None:
            found.setdefault(name, []).append(output)

        return remember

    with _hooked(whole, {name: look(name) for name in layers}), running(whole, images):
        whole(images)
    return found


def _begins_with(whole: torch.Tensor, first: torch.Tensor, images: int) -> bool:
    if whole.shape != (images * len(first), *first.shape[1:]):
        return False
    tolerance = 1e-3 * first.abs().max()
    return not bool((whole[: len(first)] - first).abs().max() > tolerance)  # NaN is refused later


def _that_fit(outputs: Mapping[str, torch.Size]) -> int:
    largest = max((shape.numel() for shape in outputs.values()), default=1)
    return max(_FEWEST_IMAGES, _MOST_BYTES // (4 * largest))


def _at_least(count: int, stream: Iterator[torch.Tensor]) -> list[torch.Tensor]:
    """Batches until they hold so many images, or end; what follows is not read."""
    taken, held = list[torch.Tensor](), 0
    while held < count and (part := next(stream, None)) is not None:
        taken.append(part)
        held += len(part)
    return taken


def _kept_outputs(space: SearchSpace, candidate: Candidate) -> dict[str, torch.Tensor]:
    """Which outputs of each layer are left, where some are gone."""
    return {
        name.removesuffix(".weight"): torch.from_numpy(indices)
        for name, dimension, indices in space.survivors(candidate)
        if dimension == 0 and name.endswith(".weight")
    }


@dataclass(frozen=True, eq=False)
class _Rows:
    """The samples of one layer: some positions of every image.

    Attributes:
        picked: (images, samples of each) positions.
        positions: how many there are.
    """

    picked: torch.Tensor
    positions: int

    @classmethod
    def of(cls, layer: nn.Module, output: torch.Size, images: int, seed: int) -> "_Rows":
        """About four samples a weight of a filter, given what it gives for one image."""
        weight = layer.get_parameter("weight")
        positions = output.numel() // len(weight)
        features = weight[0].numel()
        wanted = _ROWS[0] if features > _WIDE else min(max(4 * features, _ROWS[0]), _ROWS[1])
        each = min(positions, -(-wanted // images))
        generator = torch.Generator().manual_seed(seed)
        scores = torch.rand(images, positions, generator=generator)
        return cls(scores.topk(each, dim=1).indices, positions)

    def among(self, first: int, count: int) -> torch.Tensor:
        """Their places among the rows of the images first .. first + count - 1."""
        starts = self.positions * torch.arange(count)[:, None]
        return (starts + self.picked[first : first + count]).flatten()


def _targets(
    whole: nn.Module,
    rows: Mapping[str, _Rows],
    images: torch.Tensor,
    kept: Mapping[str, torch.Tensor],
) -> dict[str, torch.Tensor]:
    """(samples, outputs that are left) what the layers of the whole network give."""
    found: dict[str, list[torch.Tensor]] = {name: [] for name in rows}
    first = 0

    def look(name: str) -> Hook:
        def remember(layer: nn.Module, arguments: Any, output: torch.Tensor) -> None:
            places = rows[name].among(first, count).to(output.device)
            sampled = _channels_last(layer, output)[places]
            chosen = kept.get(name)
            found[name].append(sampled if chosen is None else sampled[:, chosen.to(output.device)])

        return remember

    with _hooked(whole, {name: look(name) for name in rows}):
        for part in images.split(_CHUNK):
            count = len(part)
            whole(part)
            first += count
    return {name: torch.cat(parts) for name, parts in found.items()}


def _solving(name: str, rows: _Rows, targets: torch.Tensor, ridge_share: float) -> Hook:
    """Before a layer runs, solve it for what it is about to be given."""

    def solve(
        layer: nn.Module, arguments: tuple[torch.Tensor, ...], named: Mapping[str, torch.Tensor]
    ) -> None:
        (given,) = (*arguments, *named.values())  # plain layers take one tensor
        places = rows.among(0, len(rows.picked)).to(given.device)
        X, Y = _inputs(layer, given, places).double(), targets.double()
        if not (X.isfinite().all() and Y.isfinite().all()):
            raise InputError(
                f"layer {name!r} is given or gives NaN or infinite values; check the weights and"
                " the images"
            )
        weight, bias = layer.get_parameter("weight"), getattr(layer, "bias", None)
        offset = 0 if bias is None else X.mean(0)
        aim = Y if bias is None else Y - Y.mean(0)
        before = weight.flatten(1).double()
        after = before + _nearest(X - offset, aim - (X - offset) @ before.T, ridge_share)
        weight.copy_(after.reshape(weight.shape))
        if bias is not None:
            bias.copy_(Y.mean(0) - after @ offset)

    return solve


def _nearest(X: torch.Tensor, missing: torch.Tensor, ridge_share: float) -> torch.Tensor:
    """(outputs, features) D = argmin ||missing - X D'||^2 + rho ||D||^2, by the smaller system."""
    count, features = X.shape
    ridge = ridge_share * float(X.square().sum()) / max(features, 1) or 1.0
    shifted = torch.eye(min(count, features), dtype=X.dtype, device=X.device) * ridge
    if features <= count:
        return _solved(X.T @ X + shifted, X.T @ missing).T
    return (X.T @ _solved(X @ X.T + shifted, missing)).T


def _solved(matrix: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    solution: torch.Tensor = torch.linalg.solve(matrix, right)
    return solution


def _inputs(layer: nn.Module, x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """(samples, weights of a filter) what filters are multiplied with at some positions."""
    if not isinstance(layer, nn.Conv2d):
        return x.reshape(-1, x.shape[-1])[places]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(x, _padding(layer), mode=mode).movedim(1, -1)
    kernel, stride, dilation = (
        cast(tuple[int, int], setting)
        for setting in (layer.kernel_size, layer.stride, layer.dilation)
    )
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    height, width = (
        (side - r) // s + 1 for side, r, s in zip(padded.shape[1:3], reach, stride, strict=True)
    )
    image, position = places // (height * width), places % (height * width)
    corner = position // width * stride[0], position % width * stride[1]
    steps = [d * torch.arange(k, device=x.device) for k, d in zip(kernel, dilation, strict=True)]
    at_row, at_column = (c[:, None] + step for c, step in zip(corner, steps, strict=True))
    patches = padded[image[:, None, None], at_row[:, :, None], at_column[:, None, :]]
    return patches.movedim(-1, 1).flatten(1)


def _padding(layer: nn.Conv2d) -> list[int]:
    """Left, right, top, bottom. Not torch's own list, which is made once, at construction."""
    sides = []
    for axis in (1, 0):
        if layer.padding == "same":
            total = layer.dilation[axis] * (layer.kernel_size[axis] - 1)
            sides += [total // 2, total - total // 2]
        else:
            side = 0 if isinstance(layer.padding, str) else layer.padding[axis]
            sides += [side, side]
    return sides


def _channels_last(layer: nn.Module, output: torch.Tensor) -> torch.Tensor:
    """(images x positions, outputs)."""
    last = output.movedim(1, -1) if isinstance(layer, nn.Conv2d) else output
    return last.reshape(-1, last.shape[-1])


@contextmanager
def _hooked(
    network: nn.Module, hooks: Mapping[str, Hook], *, before: bool = False
) -> Iterator[None]:
    with ExitStack() as handles:
        for name, hook in hooks.items():
            layer = network.get_submodule(name)
            if before:
                handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
            else:
                handle = layer.register_forward_hook(hook)
            handles.callback(handle.remove)
        yield
