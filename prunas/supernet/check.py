"""Whether a cut network does what the labels of the full one predict, operator by operator."""

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from prunas.supernet.imagined import executed, name_of
from prunas.supernet.labels import Nodes
from prunas.supernet.recorder import SAME_TENSOR, Operation

_ANCHORS: Final = frozenset(
    f"aten.{name}"
    for name in (
        "convolution",
        "addmm",
        "mm",
        "bmm",
        "native_batch_norm",
        "native_layer_norm",
        "native_group_norm",
        "cat",
        "mean",
        "sum",
        "index",
    )
)
"""Operators whose k-th call is the same call in a cut network, whatever happens in between."""

_INCIDENTAL: Final = SAME_TENSOR | frozenset(
    f"aten.{name}"
    for name in (
        "_unsafe_view",
        "_reshape_alias",
        "as_strided",
        "contiguous",
        "copy_",
        "empty_like",
        "flatten",
        "lift_fresh",
        "narrow",
        "reshape",
        "select",
        "slice",
        "squeeze",
        "unflatten",
        "unsqueeze",
    )
)
"""Operators that show the same entries otherwise; sizes decide whether they are needed."""


class Check(TorchDispatchMode):
    """Compares the shapes of intermediate results with what the labels predict.

    While the same operators run in the same order every result is compared. Sizes may change the
    order (a copy more, a slice that takes everything and is none): then the next operator that
    computes something is found again. If that is another one, the network does other things at
    these widths, which is an error if `strict`; else the k-th call of each anchor is compared from
    there on, or nothing, unless `anchored`: a product over one channel may run as a multiplication.
    """

    def __init__(
        self,
        operations: list[Operation],
        alive: NDArray[np.bool_],
        *,
        strict: bool,
        anchored: bool,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.strict, self.anchored = strict, anchored
        self.operations = operations
        self.alive = alive
        self.position = 0
        self.in_step = True
        self.lost = False
        self._lengths: dict[int, int] = {}
        self._calls: dict[str, int] = {}
        self._anchors: dict[tuple[str, int], int] = {}
        counts: dict[str, int] = {}
        for index, operation in enumerate(operations):
            counts[operation.name] = counts.get(operation.name, 0) + 1
            self._anchors[operation.name, counts[operation.name]] = index

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = name_of(func)
        index = self._index(name)
        if index is not None:
            self.position = index
        out = executed(func, name, args, kwargs or {})
        if index is not None:
            self._compare(out, self.operations[index])
            self.position = index + 1
        return out

    def _index(self, name: str) -> int | None:
        """Which recorded operation this call is; None if nobody knows."""
        self._calls[name] = self._calls.get(name, 0) + 1
        if not self.lost:
            found = self._next(name)
            self.in_step = found is not None
            self.lost = found is None and name not in _INCIDENTAL
            if self.lost and self.strict:
                raise OtherOperatorError(self._other(name))
        if not self.lost:
            return found
        known = self.anchored and name in _ANCHORS
        return self._anchors.get((name, self._calls[name])) if known else None

    def _other(self, name: str) -> str:
        place = self._computing(self.position)
        rest = self.operations[place : place + 1]
        return f"the forward runs {name}, not {rest[0].name if rest else 'nothing more'}"

    def finish(self) -> None:
        """The run is over: nothing may be missing."""
        if self.strict and self._computing(self.position) < len(self.operations):
            raise OtherOperatorError(self._other("nothing more"))

    def _next(self, name: str) -> int | None:
        """The operation that comes next, or the next one that computes something, if it is that."""
        here = self.position
        if self.in_step and self._is(here, name):
            return here
        here = self._computing(here)
        return here if self._is(here, name) else None

    def _is(self, index: int, name: str) -> bool:
        return index < len(self.operations) and self.operations[index].name == name

    def _computing(self, start: int) -> int:
        """The first operation from there on that does more than show the same entries."""
        rest = range(start, len(self.operations))
        return next((i for i in rest if self.operations[i].name not in _INCIDENTAL), rest.stop)

    def suspects(self) -> list[Operation]:
        """The operation that was running, or those that may have been."""
        if self.in_step:
            return self.operations[self.position : self.position + 1]
        rest = range(self.position, len(self.operations))
        stop = next((i for i in rest if self.operations[i].name in _ANCHORS), len(self.operations))
        return self.operations[self.position : stop + 1]

    def _compare(self, out: Any, operation: Operation) -> None:
        tensors = [out] if isinstance(out, torch.Tensor) else out or ()
        found = [tensor for tensor in tensors if isinstance(tensor, torch.Tensor)]
        for tensor, dims in zip(found, operation.outputs, strict=False):
            shape = tuple(self._length(nodes) for nodes in dims)
            if not self._agree(tuple(tensor.shape), shape, operation.name):
                raise ShapeMismatchError(f"{tuple(tensor.shape)} where {shape} was expected")

    @staticmethod
    def _agree(found: tuple[int, ...], expected: tuple[int, ...], name: str) -> bool:
        """Where a dimension of length one is put does not matter (`einsum` goes by lengths)."""
        if found == expected or name not in _INCIDENTAL:
            return found == expected
        return [n for n in found if n != 1] == [n for n in expected if n != 1]

    def _length(self, nodes: Nodes) -> int:
        if id(nodes) not in self._lengths:
            self._lengths[id(nodes)] = int(np.count_nonzero(self.alive[nodes]))
        return self._lengths[id(nodes)]


class ShapeMismatchError(RuntimeError):
    """An intermediate result of a cut network has another shape than its labels say."""


class OtherOperatorError(RuntimeError):
    """A cut network does other things than the full one."""
