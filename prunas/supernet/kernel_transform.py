"""A smaller depthwise kernel as a learnt map of the middle of the larger one."""

from typing import Final, final

from torch import Tensor, nn

from prunas.errors import InputError
from prunas.supernet.space import SearchSpace
from prunas.supernet.tensors import tensors_of

_STEP: Final = 2  # from one odd side to the next
_FIRST: Final = 2  # dimensions of a weight before those of its kernel


@final
class KernelTransform(nn.Module):
    """Maps of kernels for every layer whose kernel is a gene, from each side to the next.

    The weight of side k - 2 is, with the (k - 2)^2 entries of a channel as a vector,

        w_(k-2) = (1 + D_k) middle(w_k)

    one D_k for all channels of a layer, and the weight of side k - 4 is made of that, and so on.
    Cai et al., "Once for all", ICLR 2020, section 3.3. D is zero at first, which makes the weight
    its middle, exactly; the paper learns 1 + D, from the identity too. As D is what is kept here,
    weight decay leads to the middle and not to nothing.

    Args:
        network: the traced network.
        space: its search space.

    Raises:
        InputError: the space has no genes of kernels.
    """

    def __init__(self, network: nn.Module, space: SearchSpace) -> None:
        super().__init__()
        held = tensors_of(network)
        names = [
            f"{gene.name.removesuffix('[kernel]')}.weight"
            for gene in space.genes
            if gene.kind == "kernel"
        ]
        if not names:
            raise InputError(
                "there are no kernels here that could be smaller, so none to transform; search"
                " genes of kernel, in a network with depthwise kernels of side 5 or more"
            )
        self.names = frozenset(names)
        self.maps = nn.ParameterDict()
        for name in names:
            weight = held[name]
            axes = weight.dim() - _FIRST
            for side in range(weight.shape[-1] - _STEP, 1, -_STEP):
                self.maps[_key(name, side)] = nn.Parameter(weight.new_zeros(side**axes, side**axes))

    def smaller(self, name: str, weight: Tensor, side: int) -> Tensor:
        """The weight of that side, of the same channels.

        Args:
            name: of the weight.
            weight: (channels, 1, K, K), full in its kernel; other numbers of axes too.
            side: odd, at most K.
        """
        for reached in range(weight.shape[-1] - _STEP, side - 1, -_STEP):
            inner = _middle(weight)
            rows = inner.flatten(1)
            weight = (rows + rows @ self.maps[_key(name, reached)].T).view(inner.shape)
        return weight


def _middle(weight: Tensor) -> Tensor:
    """All but the outermost row at each end of each axis of the kernel."""
    for axis in range(_FIRST, weight.dim()):
        weight = weight.narrow(axis, 1, weight.shape[axis] - _STEP)
    return weight


def _key(name: str, side: int) -> str:
    """Names of parameters hold no dots."""
    return f"{name.removesuffix('.weight').replace('.', '/')}/{side}"
