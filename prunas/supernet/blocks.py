"""Residual blocks: what a network can do without, whole.

A module that computes y = x + f(x), perhaps with an activation or a normalisation after it, hands
its input on; without it the network still runs. Which modules these are is read from the run
itself: the input is followed through the operators, not through the code.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import nn

from prunas.supernet.labels import Nodes
from prunas.supernet.tensors import modules_of, parameters_of


@dataclass(frozen=True)
class Block:
    """A module that can be left out.

    Attributes:
        path: of the module in its network.
        alone: it is called with its input and nothing else.
    """

    path: str
    alone: bool

    def holds(self, name: str) -> bool:
        """Whether a module or tensor of that name is part of the block."""
        return name == self.path or name.startswith(f"{self.path}.")


class Bypass(nn.Identity):
    """In the place of a block that took more than its input: hands that input on."""

    def forward(self, input: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:  # noqa: A002
        return input


def leave_out(network: nn.Module, blocks: Iterable[Block]) -> None:
    """Put an identity in the place of each of the blocks."""
    for block in blocks:
        network.set_submodule(block.path, nn.Identity() if block.alone else Bypass())


def left_out_of(parent: nn.Module, network: nn.Module) -> list[Block]:
    """Blocks of `parent` in whose place `network` has an identity."""
    parts = dict(parent.named_modules())
    return [
        block
        for block in identities(network)
        if block.path in parts and not isinstance(parts[block.path], nn.Identity)
    ]


def identities(network: nn.Module) -> list[Block]:
    """Everything that may have been left out: plain identities, those of the parent included."""
    return [
        Block(path, type(module) is nn.Identity)
        for path, module in network.named_modules()
        if type(module) in (nn.Identity, Bypass)
    ]


@contextmanager
def without(network: nn.Module, blocks: Sequence[Block]) -> Iterator[nn.Module]:
    """`network` with these blocks left out; they are back afterwards."""
    homes = [_home(network, block.path) for block in blocks]
    held = [home[key] for home, key in homes]
    try:
        leave_out(network, blocks)
        yield network
    finally:
        for (home, key), module in zip(homes, held, strict=True):
            home[key] = module


def _home(network: nn.Module, path: str) -> tuple[dict[str, nn.Module | None], str]:
    parent, _, key = path.rpartition(".")
    return network.get_submodule(parent)._modules, key


# -- finding them ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """A residual block as it ran once.

    Attributes:
        block: which one.
        before: labels of its input.
        after: labels of its output.
        memory: what its input and its output lie in.
    """

    block: Block
    before: tuple[Nodes, ...]
    after: tuple[Nodes, ...]
    memory: tuple[int, int]


@dataclass
class _Run:
    """One call of a module that is going on, or is over.

    Attributes:
        path: of the module.
        input: its first argument, if that is a tensor.
        alone: there is no other argument.
        reach: how far the input came, by tensor: unchanged, or with something added.
        additions: the operators (by number) that added something to it.
    """

    path: str
    input: torch.Tensor | None
    alone: bool
    reach: dict[int, int] = field(default_factory=dict)
    additions: set[int] = field(default_factory=set)


_UNCHANGED, _ADDED_TO = 0, 1

_MOVES: Final = frozenset(
    f"aten.{name}"
    for name in (
        *("view", "_unsafe_view", "reshape", "permute", "transpose", "t", "clone", "contiguous"),
        *("detach", "alias", "_to_copy", "lift_fresh", "unsqueeze", "squeeze", "dropout"),
    )
)
_ADDS: Final = frozenset(f"aten.{name}" for name in ("add", "add_", "sub", "addcmul", "addcmul_"))
_SCALES: Final = frozenset(f"aten.{name}" for name in ("mul", "mul_", "div", "div_"))
_NORMS: Final = frozenset(
    f"aten.{name}"
    for name in ("native_batch_norm", "native_layer_norm", "native_group_norm", "_fused_rms_norm")
)


class BlockWatch:
    """Follows the input of every module that has weights through the operators of one run.

    Args:
        elementwise: names of the operators that change every entry by itself.
    """

    def __init__(self, elementwise: frozenset[str]) -> None:
        self._finishes = elementwise | _NORMS
        self._open: list[_Run] = []
        self._over: list[tuple[_Run, torch.Tensor]] = []
        self._calls: dict[str, int] = {}
        self._operators = 0

    @contextmanager
    def watching(self, network: nn.Module) -> Iterator[None]:
        """Inside the block, calls of the modules of `network` are seen."""
        handles = []
        for path, module in _suspects(network):
            handles.append(
                module.register_forward_pre_hook(
                    lambda _, args, kwargs, path=path: self._enter(path, args, kwargs),
                    with_kwargs=True,
                )
            )
            handles.append(
                module.register_forward_hook(
                    lambda _, args, out, path=path: self._leave(path, out), always_call=True
                )
            )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @property
    def inside(self) -> tuple[str, ...]:
        """The modules that are running, the outermost first."""
        return tuple(run.path for run in self._open)

    def executed(self, name: str, args: Sequence[Any], out: Any, known: Mapping[int, str]) -> None:
        """An operator ran; `known` holds the ids of parameters."""
        self._operators += 1
        if name in _NORMS and isinstance(out, tuple):
            out = out[0]
        if not self._open or not isinstance(out, torch.Tensor):
            return
        tensors = [value for value in args if isinstance(value, torch.Tensor)]
        for run in self._open:
            reach = self._reach(run, name, tensors, known)
            if reach is not None:
                run.reach[id(out)] = reach

    def found(self) -> Iterator[tuple[Block, torch.Tensor, torch.Tensor]]:
        """Residual blocks that ran once, with their inputs and outputs.

        A module that is nothing but residual blocks one after another is not one itself.
        """
        residual = [(run, out) for run, out in self._over if self._is_residual(run, out)]
        for run, out in residual:
            block = Block(run.path, run.alone)
            inner = [other for other, _ in residual if other is not run and block.holds(other.path)]
            own = run.additions.difference(*(other.additions for other in inner))
            if own and run.input is not None:
                yield block, run.input, out

    def _is_residual(self, run: _Run, out: torch.Tensor) -> bool:
        given = run.input
        return (
            given is not None
            and self._calls[run.path] == 1
            and run.reach.get(id(out)) == _ADDED_TO
            and out.shape == given.shape
            and out.dtype == given.dtype
        )

    def _reach(
        self, run: _Run, name: str, tensors: Sequence[torch.Tensor], known: Mapping[int, str]
    ) -> int | None:
        levels = [run.reach[id(tensor)] for tensor in tensors if id(tensor) in run.reach]
        if not levels:
            return None
        if name in _ADDS and len(tensors) > 1:
            run.additions.add(self._operators)
            return _ADDED_TO
        others = [tensor for tensor in tensors if id(tensor) not in run.reach]
        by_constant = name in _SCALES and all(id(tensor) in known for tensor in others)
        by_batch = name == "aten.native_batch_norm"  # the shortcut of RepVGG, say
        if name in _MOVES or by_constant or by_batch:
            return max(levels)
        return _ADDED_TO if max(levels) == _ADDED_TO and name in self._finishes else None

    def _enter(self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = args[0] if args and isinstance(args[0], torch.Tensor) else None
        run = _Run(path, given, len(args) == 1 and not kwargs)
        if given is not None:
            run.reach[id(given)] = _UNCHANGED
        self._calls[path] = self._calls.get(path, 0) + 1
        self._open.append(run)

    def _leave(self, path: str, out: Any) -> None:
        while self._open:  # a module that raised, and was caught, never left
            run = self._open.pop()
            if run.path == path:
                if isinstance(out, torch.Tensor):
                    self._over.append((run, out))
                return


def _suspects(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules that may be residual: not those without weights, torch's own layers, and the root."""
    modules = modules_of(network)
    paths = Counter(id(module) for _, module in modules)
    weighty = _above(parameters_of(network))
    for path, module in modules:
        own = type(module).__module__.startswith("torch.nn.")
        layer = own and next(module.children(), None) is None
        shared = paths[id(module)] > 1
        chain = type(module).forward is nn.Sequential.forward
        if path in weighty and not (layer or shared or chain):
            yield path, module


def _above(names: Iterable[str]) -> set[str]:
    """The paths of all modules, but the root, that hold one of these tensors."""
    paths: set[str] = set()
    for name in names:
        path = name.rpartition(".")[0]
        while path and path not in paths:
            paths.add(path)
            path = path.rpartition(".")[0]
    return paths
