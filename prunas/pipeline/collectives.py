"""What processes do together, and a sentence when one of them is gone."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, distributed

from prunas.errors import RunError


@contextmanager
def talking() -> Iterator[None]:
    """Turns a broken connection into a sentence."""
    try:
        yield
    except RuntimeError as error:
        raise RunError(
            "another process of this training has ended or cannot be reached; its own message"
            f" says why ({str(error).splitlines()[0]})"
        ) from None


def summed(values: Tensor) -> Tensor:
    """The sum over all processes, a new tensor."""
    total = values.detach().clone()
    with talking():
        distributed.all_reduce(total)
    return total
