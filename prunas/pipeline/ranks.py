"""The processes that train one network together, and what they tell each other."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar, cast, final

import torch
from torch import Tensor, distributed, nn
from torch.distributed.rendezvous import rendezvous

from prunas.errors import InputError, RunError
from prunas.pipeline.collectives import summed, talking
from prunas.pipeline.splits import Share
from prunas.pipeline.synchronised import SynchronisedNorms
from prunas.supernet.tensors import tensors_of

_T = TypeVar("_T")

# The others wait while the first one searches. That a process has died is seen at once all the
# same, since its connection breaks or its launcher ends those that are left.
_PATIENCE: Final = timedelta(days=30)

_MEETING: Final = timedelta(minutes=5)
"""How long the processes wait for each other to begin."""


@final
@dataclass(frozen=True)
class Ranks:
    """All processes, seen from one of them; they must make the same calls in the same order.

    Attributes:
        index: of this process, from 0.
        count: of processes.
    """

    index: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return self.index == 0

    def share(self, parts: int) -> Share:
        """Of every batch, in so many parts."""
        return Share(self.index, self.count, parts)

    def require_share(self, images: int, parts: int) -> None:
        """Refuse batches that leave one of the `parts` of a process without an image.

        Raises:
            InputError: as said.
        """
        if images < self.count * parts:
            raise InputError(
                f"a batch of {images} images cannot be shared by {self.count} processes in"
                f" {parts} parts each; take larger batches, fewer parts or fewer processes"
            )

    def summed(self, parameters: Sequence[nn.Parameter], measures: Tensor) -> Tensor:
        """Gradients of the parameters become their sums over the processes; so do `measures`.

        A parameter that no process has a gradient of is left without one.
        """
        if self.count == 1:
            return measures
        reached = measures.new_tensor([p.grad is not None for p in parameters])
        whole = torch.cat(
            [measures, reached, *(_gradient(p).to(measures.dtype).flatten() for p in parameters)]
        )
        sizes = [len(measures), len(parameters), *(p.numel() for p in parameters)]
        total: Tensor
        total, counts, *gradients = summed(whole).split(sizes)
        everywhere = all(p.grad is not None for p in parameters)  # else wait for the device
        wanted = [True] * len(parameters) if everywhere else (counts > 0).tolist()
        for parameter, gradient, some in zip(parameters, gradients, wanted, strict=True):
            if some:
                parameter.grad = _shaped(gradient, parameter)
        return total

    def hand_out(self, module: nn.Module) -> None:
        """Parameters and buffers become those that the first process has."""
        if self.count == 1:
            return
        with torch.no_grad(), talking():
            for tensor in tensors_of(module).values():
                sent = tensor.detach().contiguous()
                distributed.broadcast(sent, 0)
                tensor.copy_(sent)

    def decided(self, decide: Callable[[], _T]) -> _T:
        """What the first process decides, or raises, in all of them; a value that pickles."""
        if self.count == 1:
            return decide()
        outcome: _T | InputError | RunError | None = None
        if self.first:
            try:
                outcome = decide()
            except (InputError, RunError) as error:
                outcome = error
        outcome = self.told(outcome)
        if isinstance(outcome, InputError | RunError):
            raise outcome
        return cast(_T, outcome)

    def told(self, value: _T) -> _T:
        """The value of the first process, in all of them."""
        if self.count == 1:
            return value
        box: list[Any] = [value]
        with talking():
            distributed.broadcast_object_list(box, 0, device=torch.device("cpu"))
        told: _T = box[0]
        return told

    def synchronised(self) -> AbstractContextManager[object]:
        """In it batch norms in training normalise with the statistics of all processes."""
        return nullcontext() if self.count == 1 else SynchronisedNorms()


ALONE: Final = Ranks()

_SAID: Final = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""By every launcher; some clusters say the second alone, to single processes."""


def begun() -> Ranks:
    """The processes that `torchrun` or `accelerate launch` has begun; one if neither did.

    Raises:
        InputError: accelerate is not installed, or a variable says what no launcher does.
        RunError: the processes do not find each other.
    """
    if not os.environ.keys() >= set(_SAID):
        return ALONE
    count = _number("WORLD_SIZE")
    if count == 1:
        return ALONE
    index = _number("RANK", below=count)
    for name in {"MASTER_PORT", "LOCAL_RANK", "LOCAL_WORLD_SIZE"} & os.environ.keys():
        _number(name)
    try:
        from accelerate import PartialState
    except ImportError:
        raise InputError(
            "training in several processes needs accelerate; pip install 'prunas[train]'"
        ) from None
    own_device = torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    with _meeting(index, count):
        store, *_ = next(rendezvous("env://", timeout=_MEETING))
    store.set_timeout(_PATIENCE)
    with talking():
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if own_device else "gloo",
            timeout=_PATIENCE,
            store=store,
            rank=index,
            world_size=count,
        )
    state = PartialState(cpu=not torch.cuda.is_available())  # takes its device, too
    return Ranks(state.process_index, state.num_processes)


def _number(name: str, below: int = 2**16) -> int:
    said = os.environ[name]
    if not (said.isdecimal() and int(said) < below):
        raise InputError(f"{name}={said!r} is nothing that a launcher says; {_UNSET}")
    return int(said)


@contextmanager
def _meeting(index: int, count: int) -> Iterator[None]:
    """Turns what is raised where processes do not meet into a sentence."""
    try:
        yield
    except (RuntimeError, ValueError) as error:  # the latter of an address that is empty
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise RunError(
            f"{', '.join(_SAID)} say that this is process {index} of {count}, which meet at"
            f" {place}, but they did not ({str(error).splitlines()[0]}); {_UNSET}"
        ) from None


_UNSET: Final = f"begin all processes by a launcher; or none, and: unset {' '.join(_SAID)}"


def ended() -> None:
    """Leave the others in peace."""
    distributed.destroy_process_group()


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _shaped(flat: Tensor, parameter: nn.Parameter) -> Tensor:
    """With the shape, type and strides of the parameter."""
    return torch.empty_like(parameter).copy_(flat.view(parameter.shape)).detach()
