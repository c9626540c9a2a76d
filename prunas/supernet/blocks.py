"""Blocks: what a network can do without, whole.

A module that computes y = x + f(x), perhaps with an activation or a normalisation after it, or
y = x * g(x), a gate such as squeeze-and-excitation, hands its input on; without it the network
still runs. Which modules these are is read from the run itself: the input is followed through the
operators, not through the code.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import nn

from prunas.supernet.choice import Choice, choices_of
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


@dataclass(frozen=True)
class Alternatives:
    """A choice block: what stands in one place.

    Attributes:
        path: of the block.
        names: of its alternatives, in the order of the gene's choices.
    """

    path: str
    names: tuple[str, ...]

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The alternatives, as what a network may do without."""
        return tuple(Block(f"{self.path}.{name}", True) for name in self.names)

    def holder(self, name: str) -> int | None:
        """The number of the alternative that a module or tensor of that name is part of."""
        holders = (number for number, block in enumerate(self.blocks) if block.holds(name))
        return next(holders, None)


class Bypass(nn.Identity):
    """In the place of a block that took more than its input: hands that input on."""

    def forward(self, input: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:  # noqa: A002
        return input


def lies_in(name: str, paths: Set[str]) -> bool:
    """Whether a module or tensor of that name is, or is part of, a module at one of the paths.

    It takes as many steps as the name has parts, however many paths there are.
    """
    while name and name not in paths:
        name = name.rpartition(".")[0]
    return bool(name)


def outermost(blocks: Iterable[Block]) -> tuple[Block, ...]:
    """These blocks, but for those inside another one of them."""
    chosen = tuple(blocks)
    paths = {block.path for block in chosen}
    return tuple(b for b in chosen if not lies_in(b.path.rpartition(".")[0], paths))


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
    """`network` with these blocks left out, none inside another; they are back afterwards."""
    modules = dict(modules_of(network)) if blocks else {}
    homes = [_home(modules, block.path) for block in blocks]
    held = [home[key] for home, key in homes]
    identity, bypass = nn.Identity(), Bypass()  # they know nothing: one will do for all places
    try:
        for (home, key), block in zip(homes, blocks, strict=True):
            home[key] = identity if block.alone else bypass
        yield network
    finally:
        for (home, key), module in zip(homes, held, strict=True):
            home[key] = module


def _home(modules: Mapping[str, nn.Module], path: str) -> tuple[dict[str, nn.Module | None], str]:
    parent, _, key = path.rpartition(".")
    return modules[parent]._modules, key


# -- finding them ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """A block as it ran once.

    Attributes:
        block: which one.
        gate: it multiplies its input; otherwise it adds something to it.
        before: labels of its input.
        after: labels of its output.
        memory: what its input and its output lie in.
    """

    block: Block
    gate: bool
    before: tuple[Nodes, ...]
    after: tuple[Nodes, ...]
    memory: tuple[int, int]


@dataclass(frozen=True)
class Together:
    """A choice block as it ran once, all of its alternatives one after another.

    Attributes:
        path: of the block.
        results: what that of each alternative lies in.
        total: what their sum lies in.
    """

    path: str
    results: tuple[int, ...]
    total: int


@dataclass
class _Run:
    """One call of a module that is going on, or is over.

    Attributes:
        path: of the module.
        input: its first argument, if that is a tensor.
        alone: there is no other argument.
        reach: how far the input came, by tensor: unchanged, gated, or with something added.
        changes: the operators (by number) that added something to it, or gated it.
    """

    path: str
    input: torch.Tensor | None
    alone: bool
    reach: dict[int, int] = field(default_factory=dict)
    changes: set[int] = field(default_factory=set)


_UNCHANGED, _ADDED_TO, _GATED = 0, 1, 2

_MOVES: Final = frozenset(
    f"aten.{name}"
    for name in (
        *("view", "_unsafe_view", "reshape", "permute", "transpose", "t", "clone", "contiguous"),
        *("detach", "alias", "_to_copy", "lift_fresh", "unsqueeze", "squeeze", "dropout"),
    )
)
_ADDS: Final = frozenset(f"aten.{name}" for name in ("add", "add_", "sub", "addcmul", "addcmul_"))
_GATES: Final = frozenset(("aten.mul", "aten.mul_"))
_SCALES: Final = _GATES | {"aten.div", "aten.div_"}
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
        self._alternatives: frozenset[str] = frozenset()
        self._choices: Mapping[str, Choice] = {}

    @contextmanager
    def watching(self, network: nn.Module) -> Iterator[None]:
        """Inside the block, calls of the modules of `network` are seen."""
        handles = []
        alternatives = dict(_alternatives(network))
        self._alternatives = frozenset(alternatives)
        self._choices = dict(choices_of(network))
        watched = {**dict(_suspects(network)), **self._choices, **alternatives}
        for path, module in watched.items():
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

    def found(self) -> Iterator[tuple[Block, bool, torch.Tensor, torch.Tensor]]:
        """Blocks that ran once: whether each is a gate, its input and its output.

        A module that is nothing but blocks one after another is not one itself.
        """
        blocks = [(run, out) for run, out in self._over if self._hands_on(run, out)]
        for run, out in blocks:
            block = Block(run.path, run.alone)
            inner = [other for other, _ in blocks if other is not run and block.holds(other.path)]
            own = run.changes.difference(*(other.changes for other in inner))
            if own and run.input is not None:
                yield block, run.reach[id(out)] == _GATED, run.input, out

    def choices(self) -> Iterator[tuple[str, list[torch.Tensor], torch.Tensor]]:
        """Choice blocks that ran: the results of their alternatives, and the sum of these."""
        latest: dict[str, torch.Tensor] = {}
        for run, out in self._over:
            choice = self._choices.get(run.path)
            if choice is not None:
                yield run.path, [latest[f"{run.path}.{name}"] for name in choice.names], out
            latest[run.path] = out

    def _hands_on(self, run: _Run, out: torch.Tensor) -> bool:
        given = run.input
        return (
            given is not None
            and run.path not in self._alternatives
            and run.path not in self._choices
            and self._calls[run.path] == 1
            and run.reach.get(id(out)) in (_ADDED_TO, _GATED)
            and out.shape == given.shape
            and out.dtype == given.dtype
        )

    def _reach(
        self, run: _Run, name: str, tensors: Sequence[torch.Tensor], known: Mapping[int, str]
    ) -> int | None:
        levels = [run.reach[id(tensor)] for tensor in tensors if id(tensor) in run.reach]
        if not levels:
            return None
        plain = [level for level in levels if level != _GATED]
        if name in _ADDS and len(tensors) > 1 and plain:
            run.changes.add(self._operators)
            return _ADDED_TO
        others = [tensor for tensor in tensors if id(tensor) not in run.reach]
        alone = len(levels) == 1
        by_constant = alone and name in _SCALES and all(id(tensor) in known for tensor in others)
        by_batch = name == "aten.native_batch_norm"  # the shortcut of RepVGG, say
        if name in _MOVES or by_constant or by_batch:
            return max(levels)
        if alone and name in _GATES and levels[0] != _ADDED_TO:
            run.changes.add(self._operators)
            return _GATED
        return _ADDED_TO if _ADDED_TO in levels and name in self._finishes else None

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
    alternatives = {path for path, _ in _alternatives(network)}
    for path, module in modules:
        own = type(module).__module__.startswith("torch.nn.")
        layer = own and next(module.children(), None) is None
        part = isinstance(module, Choice) or path in alternatives
        shared = paths[id(module)] > 1
        chain = type(module).forward is nn.Sequential.forward
        if path in weighty and not (layer or shared or chain or part):
            yield path, module


def _alternatives(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The alternatives of all choices, which are not blocks of their own."""
    for path, choice in choices_of(network):
        for name, module in choice.named_children():
            yield f"{path}.{name}", module


def _above(names: Iterable[str]) -> set[str]:
    """The paths of all modules, but the root, that hold one of these tensors."""
    paths: set[str] = set()
    for name in names:
        path = name.rpartition(".")[0]
        while path and path not in paths:
            paths.add(path)
            path = path.rpartition(".")[0]
    return paths
