"""A network through torch.compile, with a sentence where that cannot be."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from prunas.errors import RunError


def compiled(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """The forward of `network`, compiled when it is first called for a shape.

    It shares the weights of the network. Compiled kernels round differently from eager ones.
    The call raises RunError where compilation fails.
    """
    from torch._dynamo.exc import TorchDynamoException  # a second that others need not wait

    torch.compiler.reset()  # it compiles so many networks of a class, and then runs them eagerly
    forward = torch.compile(network)

    def call(images: Tensor) -> Tensor:
        try:
            result: Tensor = forward(images)
        except TorchDynamoException as error:
            reason = str(error).strip().splitlines()[0]
            raise RunError(
                f"the network cannot be compiled ({reason}); train without --compile"
            ) from None
        return result

    return call
