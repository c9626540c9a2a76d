"""What removed channels carried on average, added to the biases of the layers that read them."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from prunas.eval.batches import Loader, images_at
from prunas.eval.criteria.activations import means_of
from prunas.eval.criteria.discriminant import Array
from prunas.supernet.cut import copied_with
from prunas.supernet.resolution import side_of
from prunas.supernet.space import Candidate, SearchSpace, Tap


def absorbed(
    network: nn.Module,
    space: SearchSpace,
    candidate: Candidate,
    batches: Loader,
    *,
    device: torch.device | str,
) -> nn.Module:
    """A copy of the full network whose cut at `candidate` starts nearer to it.

    For every linear and ungrouped convolution with a bias, over its removed input channels R,

        b' = b + sum_{c in R} (sum over the kernel of W[:, c]) mean(Z_c),

    Z what the layer is given on these batches, at the side that the candidate sees. Exact for
    channels that are constant, except where zero padding cuts a kernel; layers without a bias are
    left as they are (a batch norm behind them takes the mean away anyway, once it is
    recalibrated). As in FLAP (An et al. 2024).

    Raises:
        InputError: no image, or another network than the space's.
    """
    kept = space.kept(space.candidate(candidate))
    losing = [
        (tap, gone)
        for tap in space.taps
        if (gone := np.asarray(~kept[np.stack(tap.atoms)].all(0))).any()
        and _reads_all(network.get_submodule(tap.module), tap)
    ]
    images = images_at(side_of(space, candidate), batches, device=device)
    means = means_of(network, space, images, device, lambda z: z.double(), [t for t, _ in losing])
    biases = {}
    for tap, gone in losing:
        if tap.module in means:
            layer = network.get_submodule(tap.module)
            biases[f"{tap.module}.bias"] = _shifted(layer, means[tap.module], gone)
    return copied_with(network, {name: new for name, new in biases.items() if name in space.shapes})


def _reads_all(layer: nn.Module, tap: Tap) -> bool:
    if tap.depthwise or getattr(layer, "bias", None) is None:
        return False
    if isinstance(layer, _ConvNd):
        return layer.groups == 1 and not isinstance(layer, _ConvTransposeNd)
    return isinstance(layer, nn.Linear)


def _shifted(layer: nn.Module, means: Array, gone: np.typing.NDArray[np.bool_]) -> nn.Parameter:
    held: Mapping[str, torch.Tensor] = dict(layer.named_parameters())
    weight, bias = held["weight"].detach(), held["bias"].detach()
    per_channel = weight.flatten(2).sum(2) if weight.ndim > 2 else weight
    lost = torch.from_numpy(np.where(gone, means, 0.0)).to(weight.device)
    shifted = bias + (per_channel.double() @ lost).to(bias.dtype)
    return nn.Parameter(shifted, requires_grad=held["bias"].requires_grad)
