"""Batch norms of the paper: one for every width that a layer can have.

The released code of MetaPruning keeps 31 batch norms behind each convolution, one a ratio. They
have no scale and shift, but for some of MobileNetV1. A layer of the same width sees other inputs
when the layers before it change, so their running statistics mean little, and the search estimates
them anew; what they change is training, where each width has a scale of its own.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunas.pruningnet.generator import Kept, key
from prunas.supernet.space import SearchSpace, surviving
from prunas.supernet.tensors import modules_of


@final
class WidthNorms(nn.Module):
    """Statistics, and perhaps scale and shift, of every batch norm at each of its widths.

    Batch norms whose channels several genes decide, or that keep no statistics, stay as they are.

    Args:
        network: the traced network.
        space: its search space.
        scaled: patterns of paths of batch norms with a scale and a shift for every width; the
            others have none.
    """

    def __init__(self, network: nn.Module, space: SearchSpace, *, scaled: Sequence[str]) -> None:
        super().__init__()
        self.full: dict[str, int] = {}
        self.of = nn.ModuleDict()
        for path, module in modules_of(network):
            if isinstance(module, _BatchNorm) and module.running_mean is not None:
                widths = _widths(space, f"{path}.running_mean", module.num_features)
                if widths:
                    affine = any(fnmatchcase(path, pattern) for pattern in scaled)
                    self.full[path] = module.num_features
                    self.of[key(path)] = nn.ModuleDict(
                        {str(width): _Norm(module, width, affine=affine) for width in widths}
                    )

    def tensors(self, kept: Mapping[str, Kept]) -> dict[str, Tensor]:
        """The tensors of the batch norms of a candidate, by name."""
        result: dict[str, Tensor] = {}
        for path, full in self.full.items():
            left = kept.get(f"{path}.running_mean", {}).get(0)
            norm = self.of[key(path)][str(full if left is None else len(left))]  # type: ignore[index]
            result |= {f"{path}.{name}": tensor for name, tensor in norm.tensors.items()}
        return result


def _widths(space: SearchSpace, name: str, full: int) -> list[int]:
    """Every length that the channels of a batch norm can have; none if several genes decide."""
    factors = space.slots.get(name, {}).get(0)
    if factors is None:
        return [full]
    genes = {int(g) for factor in factors for g in space.gene_of_atom[factor]} - {-1}
    if len(genes) != 1:
        return []
    (gene,) = genes
    candidates = [list(space.full()) for _ in space.genes[gene].choices]
    for candidate, choice in zip(candidates, space.genes[gene].choices, strict=True):
        candidate[gene] = choice
    return sorted({int(surviving(factors, space.kept(c)).sum()) for c in candidates})


@final
class _Norm(nn.Module):
    """What one batch norm keeps at one width."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: _BatchNorm, width: int, *, affine: bool) -> None:
        super().__init__()
        zeros = norm.get_buffer("running_mean").new_zeros(width)
        ones = torch.ones_like(zeros)
        self.register_buffer("running_mean", zeros)
        self.register_buffer("running_var", ones)
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.long))
        if norm.affine and affine:
            self.weight, self.bias = nn.Parameter(ones.clone()), nn.Parameter(zeros.clone())
        elif norm.affine:
            self.register_buffer("weight", ones.clone(), persistent=False)
            self.register_buffer("bias", zeros.clone(), persistent=False)

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {**self._buffers, **self._parameters}  # type: ignore[dict-item]
