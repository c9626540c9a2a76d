"""Two oracles that a coupling is right; neither is satisfied by "a forward runs"."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Final

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from prunas.errors import InputError, RunError
from prunas.supernet.blocks import leave_out, lies_in
from prunas.supernet.choice import choose
from prunas.supernet.cut import copied_with, cut, require_same
from prunas.supernet.labels import BATCH
from prunas.supernet.permute import permute
from prunas.supernet.resolution import resized, side_of
from prunas.supernet.scoped import evaluating
from prunas.supernet.skeleton import (
    FORWARD_ERRORS,
    called,
    copied,
    imagined,
    tensors_in,
    with_batch,
)
from prunas.supernet.space import Candidate, SearchSpace
from prunas.supernet.tensors import require_values, tensors_of

TOLERANCE: Final = 1e-9
"""Largest difference, relative to the largest output, in float64."""
_AMPLIFIED: Final = 1000
"""So many times what one rounding of the inputs does, a whole run's roundings may do."""
_NUDGE: Final = 2.0**-40
"""Of the inputs: small, and far above one rounding, which sums would often swallow."""
_MEASURED: Final = 8
"""Images for the statistics of batch norms, those of the comparison among them: statistics of two
images on small maps, or of others, make deep networks chaotic."""
_NEVER: Final = 1e-6
"""A network that amplifies rounding beyond this cannot be told right from wrong."""


class VerificationError(RunError):
    """A search space does not describe its network: cutting by it would be wrong."""


@dataclass(frozen=True)
class Verification:
    """Largest differences found, relative to the largest output, in float64.

    Attributes:
        permutation: after permuting the channels of every gene.
        masked: between a cut network and the full one with the removed channels set to zero, over
            the genes without a normalisation across their channels; the larger of two candidates,
            one that keeps all blocks and one that does not.
        candidate: the first of these.
        rounding: what a change of the inputs by one rounding (2^-52) does, for comparison.
    """

    permutation: float
    masked: float
    candidate: Candidate
    rounding: float


@torch.inference_mode(False)
def verify(network: nn.Module, space: SearchSpace, *, seed: int = 0) -> Verification:
    """Check on numbers that the channels the space ties together are all that belongs together.

    1. Permuting the channels of every gene, consistently over all its slots, leaves the output
       unchanged. One missing slot breaks it.
    2. Setting all slots of the removed channels to zero in the full network, and letting blocks
       that are left out compute nothing, gives the output of the cut one, wherever no
       normalisation runs over the channels.

    Both run in float64 (also where the code asks for less) on a copy whose weights are shaken and
    whose batch-norm statistics are measured, so that zero-initialised layers hide nothing. The
    differences must be below 1e-9; or below 1,000 times what one rounding of the inputs does (and
    below 1e-6), in networks that amplify it: deep ones on a few pixels, say.

    Raises:
        InputError: the network is not the one the space was traced from, or has no values, or the
            seed is negative.
        VerificationError: an oracle fails.
        RunError: the network does not run in double precision.
    """
    if not isinstance(seed, Integral) or seed < 0:
        raise InputError(f"seed {seed!r} is not a whole number from 0 up")
    require_same(network, space)
    require_values(network)
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    twin = _shaken(network, generator)
    many = _drawn(with_batch(imagined(space.inputs), _MEASURED), generator)
    inputs = _first(BATCH, many)
    with torch.no_grad(), evaluating(twin), _InDouble():
        _measure_batch_norm(twin, many)
        expected = _output(twin, inputs)
        nudged = _difference(expected, _output(twin, _nudged(inputs, generator)))
        rounding = nudged * torch.finfo(torch.float64).eps / _NUDGE
        allowed = max(TOLERANCE, min(_AMPLIFIED * rounding, _NEVER))
        orders = _random_orders(space, rng)
        permutation = _difference(expected, _output(permute(twin, space, orders), inputs))
        _require(
            permutation,
            allowed,
            "permuting the channels of its genes changes the network's output",
        )
        candidate, *others = _random_candidates(space, rng)
        masked = max(_against_masked(twin, space, c, inputs) for c in (candidate, *others))
        _require(
            masked,
            allowed,
            "a cut network differs from the full one with the same channels zeroed",
        )
    return Verification(permutation, masked, candidate, rounding)


def _against_masked(
    network: nn.Module, space: SearchSpace, candidate: Candidate, inputs: Any
) -> float:
    side = side_of(space, candidate)
    given = inputs if side is None else resized(inputs, side)
    cut_output = _output(cut(network, space, candidate), given)
    return _difference(_output(_masked(network, space, candidate), given), cut_output)


def _require(difference: float, allowed: float, what: str) -> None:
    if not difference <= allowed:
        raise VerificationError(f"{what} (relative difference {difference:.2g}); do not cut by it")


def _random_orders(space: SearchSpace, rng: np.random.Generator) -> list[list[int]]:
    """For every gene; the rows of kernels and images stay in their places."""
    return [
        rng.permutation(width).tolist() if gene.kind == "width" else list(range(width))
        for gene, width in zip(space.genes, space.widths, strict=True)
    ]


def _random_candidates(space: SearchSpace, rng: np.random.Generator) -> list[Candidate]:
    """Random choices, first with all blocks, then, if there are any, with random ones of them.

    Genes under a normalisation are left whole (there, zeroed is not removed).
    """
    whole = (space.normalised | space.blocks.keys(), space.normalised)
    drawn = space.sample(rng, 2 if space.blocks else 1)
    return [
        Candidate(
            gene.choices[-1] if index in fixed else value
            for index, (gene, value) in enumerate(zip(space.genes, row, strict=True))
        )
        for row, fixed in zip(drawn, whole, strict=False)
    ]


def _shaken(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """A float64 copy with noise in every parameter, in eval mode scale."""

    def noise(tensor: torch.Tensor) -> torch.Tensor:
        # single precision is noise enough, and drawn in a quarter of the time
        return torch.randn(tensor.shape, generator=generator)

    def shaken(tensor: torch.Tensor) -> torch.Tensor:
        value = tensor.detach().cpu()
        if not value.is_floating_point() or not value.numel():
            return value.clone()
        value = value.double()
        if not isinstance(tensor, nn.Parameter):
            return value.clone()
        if value.dim() < 2:
            return value.add(noise(value), alpha=0.2)
        # heads may begin near zero, and would hide behind their bias
        spread = max(1 / math.sqrt(value[0].numel()), float(value.std(correction=0)))
        return value.add(noise(value), alpha=0.2 * spread)

    return copied(network, shaken)


def _drawn(description: Any, generator: torch.Generator) -> Any:
    """Random values for meta tensors: normal where floating, zeros and ones where integer."""

    def draw(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        if value.is_floating_point():
            return torch.randn(value.shape, generator=generator, dtype=torch.float64)
        return torch.randint(0, 2, value.shape, generator=generator).to(value.dtype)

    return tree_map(draw, description)


def _first(count: int, inputs: Any) -> Any:
    def first(value: Any) -> Any:
        return value[:count] if isinstance(value, torch.Tensor) and value.dim() else value

    return tree_map(first, inputs)


def _nudged(inputs: Any, generator: torch.Generator) -> Any:
    """The floating ones a little more or less, at random."""

    def nudged(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return value
        noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        return value * (1 + _NUDGE * noise)

    return tree_map(nudged, inputs)


class _InDouble(TorchDispatchMode):
    """No conversion to a lower precision, such as some attention asks for, takes place."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if options.get("dtype") in _LOWER:
            options = options | {"dtype": torch.float64}
        return func(*args, **options)


_LOWER: Final = (torch.float32, torch.float16, torch.bfloat16)


def _measure_batch_norm(network: nn.Module, inputs: Any) -> None:
    """Give every batch norm the statistics of these inputs, so that activations keep a scale."""
    layers = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    layers = [layer for layer in layers if layer.track_running_stats]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.training, layer.momentum = True, 1.0
    try:
        _called(network, inputs)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.training, layer.momentum = False, momentum
            if layer.running_var is not None:  # a few images of one pixel may have none
                layer.running_var.clamp_(min=0.1)


def _masked(network: nn.Module, space: SearchSpace, candidate: Sequence[int]) -> nn.Module:
    """A copy in full width that does what the cut network should."""
    held = tensors_of(network)
    blocks = space.left_out(candidate)
    gone = {block.path for block in blocks}
    zeroed: dict[str, torch.Tensor] = {}
    for name, dimensions in space.removed(candidate).items():
        if name in space.aliases or lies_in(name, gone):
            continue
        tensor = held[name].detach().clone()
        for dimension, indices in dimensions.items():
            tensor.index_fill_(dimension, indices, 0)
        zeroed[name] = tensor
    twin = copied_with(network, zeroed)
    choose(twin, space.chosen(candidate))
    leave_out(twin, blocks)  # a block that runs might overwrite its input
    return twin


def _output(network: nn.Module, inputs: Any) -> list[torch.Tensor]:
    return [tensor.double() for tensor in tensors_in(_called(network, inputs))]


def _called(network: nn.Module, inputs: Any) -> Any:
    try:
        return called(network, inputs)
    except FORWARD_ERRORS as error:
        raise RunError(
            f"the network does not run in double precision, in which it is verified ({error}); make"
            " its tensors parameters or buffers, and create others in x.dtype"
        ) from error


def _difference(expected: list[torch.Tensor], found: list[torch.Tensor]) -> float:
    """Largest absolute difference over the largest absolute value, worst output."""
    pairs = zip(expected, found, strict=True)
    worst = [float((a - b).abs().max()) / max(float(a.abs().max()), 1e-30) for a, b in pairs]
    return float(np.max(worst)) if worst else 0.0  # np.max keeps NaN, which fails the oracle
