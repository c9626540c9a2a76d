"""One executed operator, and the table of rules."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch

from prunas.supernet.labels import Labels, Nodes

Dims = tuple[Nodes, ...]


class Recorder(Protocol):
    """What a rule may ask of the running trace."""

    labels: Labels

    def dims(self, tensor: torch.Tensor) -> Dims: ...
    def contraction(
        self, tensor: torch.Tensor, operator: str, constant: int, *dims: Nodes
    ) -> None: ...
    def normalises(self, nodes: Nodes) -> None: ...
    def consumes(self, weight: torch.Tensor, nodes: Nodes, depthwise: bool) -> None: ...
    def counts(self, weight: torch.Tensor, what: str, nodes: Nodes) -> None: ...
    def lifted(self, tensor: torch.Tensor) -> bool: ...
    def parted(self, pieces: Sequence[Nodes]) -> None: ...


@dataclass(frozen=True)
class Call:
    """One executed operator."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    trace: Recorder

    @property
    def labels(self) -> Labels:
        return self.trace.labels

    def dims(self, tensor: torch.Tensor) -> Dims:
        return self.trace.dims(tensor)

    def get(self, position: int, name: str, default: Any = None) -> Any:
        """An argument, wherever the caller put it."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    def tie(self, first: Nodes, second: Nodes) -> None:
        self.labels.tie(first, second, f"{self.name} joins it with a dimension that cannot change")

    def pin(self, nodes: Nodes, why: str) -> None:
        self.labels.pin(nodes, why)


Rule = Callable[[Call], Any]
RULES: Final[dict[str, Rule]] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for the ATen operators of these names (all their overloads)."""

    def register(function: Rule) -> Rule:
        for name in names:
            if name in RULES:
                raise AssertionError(f"operator {name} has two rules")
            RULES[name] = function
        return function

    return register


def pinned(call: Call) -> Any:
    """The way out: everything the operator touches stays as it is.

    Dimensions that keep place and length keep their (now pinned) labels too: the images of a batch
    must still be told apart for the costs of one image.
    """
    touched = _tensors(call.args) + _tensors(tuple(call.kwargs.values()))
    for tensor in touched:
        for nodes in call.dims(tensor):
            call.pin(nodes, f"operator {call.name} has no rule")
    before = call.dims(touched[0]) if touched else ()
    if isinstance(call.out, tuple | list):
        return [pinned_like(call, tensor, before) for tensor in call.out]
    return pinned_like(call, call.out, before)


def _tensors(values: Sequence[Any]) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for value in values:
        if is_tensor(value):
            found.append(value)
        elif isinstance(value, tuple | list):
            found.extend(_tensors(value))
    return found


def pinned_like(call: Call, tensor: Any, before: Dims = ()) -> Dims:
    if not is_tensor(tensor):
        return ()
    known = dict(enumerate(before))
    sizes = enumerate(tensor.shape)
    return tuple(
        known[i] if i in known and len(known[i]) == size else call.labels.zeros(size)
        for i, size in sizes
    )


def broadcast(call: Call, tensors: Sequence[torch.Tensor]) -> Dims:
    """Tie equal dimensions of tensors that broadcast together; a size of one ties nothing."""
    return common(call, [call.dims(tensor) for tensor in tensors])


def common(call: Call, operands: Sequence[Dims]) -> Dims:
    """Labels of what operands of these labels broadcast to."""
    rank = max(len(dims) for dims in operands)
    result: list[Nodes | None] = [None] * rank
    for dims in operands:
        for position, nodes in enumerate(dims, start=rank - len(dims)):
            known = result[position]
            if known is None or (len(known) == 1 and len(nodes) > 1):
                result[position] = nodes
            elif len(nodes) == len(known):
                call.tie(known, nodes)
                result[position] = known if known.any() else nodes
    return tuple(nodes for nodes in result if nodes is not None)


def tied(call: Call, nodes: Sequence[Nodes]) -> Nodes:
    for other in nodes[1:]:
        call.tie(nodes[0], other)
    return next((array for array in nodes if array.any()), nodes[0])


def is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)
