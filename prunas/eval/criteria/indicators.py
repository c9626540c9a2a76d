"""Indicators of channels, learnt with the weights by gradient descent: DAIS.

Guan et al., "DAIS: Automatic Channel Pruning via Differentiable Annealing Indicator Search",
2020 (arXiv 2011.02166). Every channel i has a number alpha_i, and what its readers are given is
multiplied by

    I_i = sigmoid(alpha_i / T),

whose temperature T falls until nearly all I_i are 0 or 1. Weights descend on one half of the
images, and the alphas (as in differentiable architecture search, first order) on the other half:

    weights:  CE                alphas:  CE + l1 sum_i I_i + l2 R
    R = |log E / F| if E > F or E < (1 - t) F, else 0

with E the multiply-accumulates of the network when a gene's width is the sum of its I_i, and F
the wanted ones.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from prunas.eval.accuracy import evaluating
from prunas.eval.batches import Loader
from prunas.eval.cost import Polynomial, macs_polynomial
from prunas.eval.criteria.gradients import labelled, loss_of
from prunas.eval.criteria.observe import UNSEEN, by_gene, judging, layer_of
from prunas.eval.criteria.slices import checked_parameters
from prunas.eval.criteria.verdict import Verdict, judge, width_genes
from prunas.eval.device import require_on
from prunas.supernet.space import SearchSpace, Tap

_COLDEST: Final = 50  # 1 / T at the end
_START: Final = 0.5  # of every alpha
_TOLERANCE: Final = 0.01
_MOMENTUM: Final = 0.9


def dais(
    network: nn.Module,
    space: SearchSpace,
    batches: Loader,
    *,
    device: torch.device | str,
    share: float = 0.5,
    passes: int = 20,
    rate: float = 0.02,
    weight_rate: float = 0.01,
    sparsity: float = 1e-4,
    pressure: float = 2.0,
) -> Verdict:
    """sigmoid(alpha) of every channel after the search for a network of `share` of the MACs.

    What differs from the paper, whose own settings are not known to us: all alphas start at 0.5,
    not at random, so that equal channels are judged alike; coupled channels are one gene and share
    their indicator, so that no term for their agreement is needed; R has a smooth slope, the same
    as that of the paper's difference of logarithms. In the end sigmoid(alpha) stands for I, which
    is 0 or 1 and would not tell channels apart. Dropout is off, batch norms use each batch's
    statistics, or their running ones where it has a single value a channel. Blocks stay.

    Args:
        network: trained; a copy of it learns.
        space: its search space.
        batches: images and labels; the first half of each batch moves weights, the rest alphas.
        device: where to compute.
        share: of the full network's multiply-accumulates, F.
        passes: over all batches.
        rate: of the alphas, by Adam.
        weight_rate: of the weights, by SGD with momentum.
        sparsity: l1.
        pressure: l2.

    Raises:
        InputError: no images or targets, or targets that do not fit; as `taylor`.
    """
    require_on(network, device)
    checked_parameters(network, space)
    learner = copy.deepcopy(network).requires_grad_(True)
    halves = [_halves(i.to(device), t.to(device)) for i, t in labelled(batches)]
    gates = _Gates(space, device)
    costs = _SoftCost(space)
    wanted = share * costs.full
    on_alphas = torch.optim.Adam([gates.alphas], lr=rate)
    on_weights = torch.optim.SGD(learner.parameters(), lr=weight_rate, momentum=_MOMENTUM)
    steps = passes * len(halves)
    with evaluating(learner), gates.acting(learner), torch.enable_grad():
        for norm in (m for m in learner.modules() if isinstance(m, _BatchNorm)):
            norm.register_forward_pre_hook(_by_the_batch, with_kwargs=True)
        for step in range(steps):
            (images, targets), (others, goals) = halves[step % len(halves)]
            gates.temperature = 1 / (1 + (_COLDEST - 1) * step / steps)
            _descend(on_weights, on_alphas, loss_of(learner(images), targets))
            indicators = gates.indicators()
            loss = loss_of(learner(others), goals) + sparsity * indicators[1:].sum()
            pull = _away(costs.of(indicators) / wanted)
            _descend(on_alphas, on_weights, loss + pressure * pull)
    scores = torch.sigmoid(gates.alphas.detach()).cpu().double().numpy()
    return judge(
        space,
        (
            scores[offset : offset + width] if gene in gates.seen else UNSEEN
            for gene, offset, width in zip(
                width_genes(space), space.offsets, space.widths, strict=False
            )
        ),
    )


def _halves(images: Tensor, targets: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
    """Two halves of a batch; of a single image it is both times that one."""
    middle = len(images) // 2 or len(images)
    rest = slice(middle, None) if middle < len(images) else slice(None)
    return (images[:middle], targets[:middle]), (images[rest], targets[rest])


def _by_the_batch(norm: nn.Module, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
    """Before a batch norm of the learner runs: a single value a channel has no variance."""
    given = (*arguments, *named.values())[0]
    norm.training = given.numel() > given.shape[1]


def _descend(moving: torch.optim.Optimizer, resting: torch.optim.Optimizer, loss: Tensor) -> None:
    moving.zero_grad()
    loss.backward()
    moving.step()
    resting.zero_grad()  # first order: what the loss says of the others is not used


def _away(ratio: Tensor) -> Tensor:
    """|log ratio| outside [1 - tolerance, 1], 0 inside."""
    inside = 1 - _TOLERANCE <= float(ratio.detach()) <= 1
    return ratio.log().abs() * (0.0 if inside else 1.0)


class _Gates:
    """An alpha for every atom, and the hooks that multiply what layers are given.

    Attributes:
        alphas: (atoms + 1,); that of atom 0 does nothing.
        temperature: T.
        seen: genes whose channels a layer is given in a form that can be multiplied.
    """

    def __init__(self, space: SearchSpace, device: torch.device | str) -> None:
        count = sum(space.widths) + 1
        self.alphas = torch.full((count,), _START, device=device, requires_grad=True)
        self.temperature = 1.0
        self.seen: set[int] = set()
        self._space = space
        free = np.zeros(count, dtype=bool)
        for gene in width_genes(space):
            free[space.offsets[gene] : space.offsets[gene] + space.widths[gene]] = True
        self._free = torch.from_numpy(free).to(device)

    def indicators(self) -> Tensor:
        """(atoms + 1,) I; 1 for atom 0 and for blocks."""
        learnt = torch.sigmoid(self.alphas / self.temperature)
        return torch.where(self._free, learnt, torch.ones_like(learnt))

    @contextmanager
    def acting(self, network: nn.Module) -> Iterator[None]:
        """Layers are given their channels times I; depthwise ones where nothing else reads."""
        readers = judging(self._space, self._space.taps)
        first = {tap.module for taps in by_gene(self._space, readers) for tap in taps}
        with ExitStack() as handles:
            for tap in (tap for tap in readers if tap.module in first):
                hook = self._gate(tap, layer_of(network, tap))
                handles.callback(layer_of(network, tap).register_forward_pre_hook(hook).remove)
            yield

    def _gate(self, tap: Tap, layer: nn.Module) -> Any:
        atoms = [torch.from_numpy(factor).to(self.alphas.device) for factor in tap.atoms]
        genes = set(self._space.gene_of_atom[np.concatenate(tap.atoms)].tolist()) - {-1}

        def gate(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
            given = arguments[0] if arguments else None
            axis = 1 if isinstance(layer, _ConvNd) else -1
            if not isinstance(given, Tensor) or given.shape[axis] != len(atoms[0]):
                return None
            self.seen |= genes
            every = self.indicators()
            gates = torch.stack([every[factor] for factor in atoms]).prod(0).to(given.dtype)
            shape = [1] * given.ndim
            shape[axis] = -1
            return (given * gates.view(shape), *arguments[1:])

        return gate


class _SoftCost:
    """Multiply-accumulates of widths that are no whole numbers, on images of the full side."""

    def __init__(self, space: SearchSpace) -> None:
        self._polynomial: Polynomial = macs_polynomial(space)
        self._atoms = [slice(o, o + w) for o, w in zip(space.offsets, space.widths, strict=True)]
        full = space.full()
        holds = [float(full[gene] == value) for gene, value in space.conditions]
        self._conditions = torch.tensor(holds)
        ones = torch.ones(sum(space.widths) + 1)
        self.full = float(self.of(ones))

    def of(self, indicators: Tensor) -> Tensor:
        """A scalar, from I (atoms + 1,)."""
        widths = [indicators[atoms].sum() for atoms in self._atoms]
        return _evaluated(self._polynomial, [*widths, *self._conditions.to(indicators)])


def _evaluated(polynomial: Mapping[tuple[int, ...], int], widths: Sequence[Tensor]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64, device=widths[0].device)
    for genes, coefficient in polynomial.items():
        term = torch.full((), float(coefficient), dtype=torch.float64, device=total.device)
        for gene in genes:
            term = term * widths[gene].double()
        total = total + term
    return total
