"""The graph of a traced network: which features each replaceable operator reads.

The network runs once on the meta device. Every tensor is known by the nodes that its values come
from; what makes a tensor of others joins their nodes. So the graph is that of the tensors, whatever
the code looks like.

    a layer        one edge, to a node of its own
    a gate         the same
    a block        "branch" from its input to a node of the block, then what is inside, then
                   "fixed" to its output; and beside it the shortcut, a "skip_connect"

A block without its branch is a null edge: nothing that is inside is reached any more, and only the
shortcut is left. That is so where a block reads its input alone. Edges that bring two nodes
together are "fixed".

Nodes are called as their modules are. Others that a module has the name of (a layer called
"output") begin with a dot, as no path does.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from prunas.supernet.imagined import executed, name_of
from prunas.supernet.recorder import memory_of
from prunas.transformer_nat.operator_cost import Place
from prunas.transformer_nat.operators import BRANCH, FIXED, GATE, SKIP

Role = Literal["layer", "gate", "block"]
Nodes = frozenset[str]

_INPUT: Final = "images"
_OUTPUT: Final = "output"


@dataclass(frozen=True)
class Joint:
    """An edge as it was seen.

    Attributes:
        role: "layer", "gate" or "block" for what may be replaced, None for what is fixed.
        path: of the module, where there is one.
        operator: what it carries; empty for a layer, whose name its module knows.
        source: the node that it reads.
        target: the node that it makes.
        place: shapes of both.
    """

    role: Role | None
    path: str
    operator: str
    source: str
    target: str
    place: Place


@dataclass
class Flow:
    """What one run shows.

    Attributes:
        nodes: in the order in which they are made: the images first, the output last.
        joints: the edges, in the order in which they ran.
        entered: paths of blocks that read more than their input: another argument, or what they
            remember. Nodes inside are reached without the branch too, so that it is no edge.
    """

    nodes: list[str] = field(default_factory=list)
    joints: list[Joint] = field(default_factory=list)
    entered: set[str] = field(default_factory=set)


def flow_of(bare: nn.Module, images: torch.Tensor, roles: Mapping[str, Role]) -> Flow:
    """The nodes and edges of one run.

    Args:
        bare: the network on the meta device, in eval mode; left as found.
        images: a meta tensor that it takes.
        roles: {path of a module that runs once: what it is}. What is inside a gate has no edges.
    """
    watch = _Watch(roles)
    watch.own[id(images)] = frozenset((watch.node(watch.free(_INPUT)),))
    watch.alive.append(images)
    with torch.no_grad(), watch.hooked(bare), watch:
        out = bare(images)
    ends = frozenset().union(*(watch.nodes_of(tensor) for tensor in _tensors(out)))
    first = next(_tensors(out), images)
    watch.arrive(ends or watch.start, watch.free(_OUTPUT), first)
    return watch.flow


@dataclass(frozen=True)
class _Running:
    """A module that is an edge and has not returned yet.

    Attributes:
        path: of the module.
        role: what it is.
        source: the node that it reads.
        before: all nodes that there were.
    """

    path: str
    role: Role
    source: str
    before: Nodes


class _Watch(TorchDispatchMode):
    def __init__(self, roles: Mapping[str, Role]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flow = Flow()
        self.roles = roles
        self.own: dict[int, Nodes] = {}
        self.written: dict[int, Nodes] = {}  # into memory that other tensors show too
        self.alive: list[Any] = []  # an id means nothing after its object is gone
        self._open: list[_Running] = []
        self._joins: dict[tuple[Nodes, Place], str] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = executed(func, name_of(func), args, kwargs or {})
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        nodes = self.union(given)
        self._read(nodes)
        for tensor in _tensors(out):
            if nodes:
                if any(tensor is each for each in given):
                    memory = memory_of(tensor)
                    self.written[memory] = self.written.get(memory, frozenset()) | nodes
                self.own[id(tensor)] = nodes
                self.alive.append(tensor)
        return out

    def nodes_of(self, tensor: torch.Tensor) -> Nodes:
        """The nodes that its values come from."""
        own = self.own.get(id(tensor), frozenset())
        return own | self.written.get(memory_of(tensor), frozenset())

    def union(self, tensors: Iterable[torch.Tensor]) -> Nodes:
        return frozenset().union(*(self.nodes_of(tensor) for tensor in tensors))

    @contextmanager
    def hooked(self, network: nn.Module) -> Iterator[None]:
        handles = []
        for path in self.roles:
            module = network.get_submodule(path)
            handles += [
                module.register_forward_pre_hook(
                    lambda _, args, path=path: self._enter(path, args[0])
                ),
                module.register_forward_hook(
                    lambda _, args, out, path=path: self._leave(path, args[0], out)
                ),
            ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    # -- modules that are edges --------------------------------------------------------------------

    def _enter(self, path: str, given: torch.Tensor) -> None:
        if any(run.role == "gate" for run in self._open):
            return
        role = self.roles[path]
        nodes = self.nodes_of(given) or self.start
        self._read(nodes)
        source = self.joined(nodes, given)
        self._mark(given, frozenset((source,)))  # who else reads it reads the same node
        self._open.append(_Running(path, role, source, frozenset(self.flow.nodes)))
        if role == "block":
            branch = self.node(self._branch(path))
            self._add(role, path, BRANCH, source, branch, _place(given, given))
            self._mark(given, frozenset((branch,)))

    def _leave(self, path: str, given: torch.Tensor, out: torch.Tensor) -> None:
        if not self._open or self._open[-1].path != path:
            return  # inside a gate
        run = self._open.pop()
        role, source = run.role, run.source
        made = self.nodes_of(out)
        self._mark(given, frozenset((source,)))
        if role == "block":
            ends = made - {self._branch(path)} or made
            end = self.joined(ends, out)
            self.node(path)
            self._add(None, path, FIXED, end, path, _place(out, out))
            self._add(None, path, SKIP, source, path, _place(out, out))
        else:
            self.node(path)
            operator = GATE if role == "gate" else ""
            self._add(role, path, operator, source, path, _place(given, out))
        self._mark(out, frozenset((path,)))

    def _read(self, nodes: Nodes) -> None:
        """An operator reads these nodes; are they older than a block that it runs in?"""
        for run in self._open:
            if run.role == "block" and not nodes.isdisjoint(run.before):
                self.flow.entered.add(run.path)

    def _mark(self, tensor: torch.Tensor, nodes: Nodes) -> None:
        self.own[id(tensor)] = nodes
        self.written.pop(memory_of(tensor), None)
        self.alive.append(tensor)

    # -- nodes and fixed edges ---------------------------------------------------------------------

    @property
    def start(self) -> Nodes:
        return frozenset(self.flow.nodes[:1])

    def free(self, name: str) -> str:
        """The name of a node that is no module's."""
        return f".{name}" if name in self.roles else name

    def node(self, name: str) -> str:
        self.flow.nodes.append(name)
        return name

    def _branch(self, path: str) -> str:
        return self.free(f"{path} branch")

    def joined(self, nodes: Nodes, tensor: torch.Tensor) -> str:
        """One node for all of these: two at a time, in the order in which they were made."""
        first, *rest = sorted(nodes, key=self.flow.nodes.index)
        place = _place(tensor, tensor)
        if not rest or (nodes, place) in self._joins:
            return self._joins.get((nodes, place), first)
        for other in rest:
            name = self.node(self.free(f"join {len(self.flow.nodes)}"))
            for source in (first, other):
                self._add(None, "", FIXED, source, name, place)
            first = name
        self._joins[nodes, place] = first
        return first

    def arrive(self, nodes: Nodes, name: str, tensor: torch.Tensor) -> None:
        """The last node."""
        end = self.joined(nodes, tensor)
        self.node(name)
        self._add(None, "", FIXED, end, name, _place(tensor, tensor))

    def _add(
        self, role: Role | None, path: str, operator: str, source: str, target: str, place: Place
    ) -> None:
        self.flow.joints.append(Joint(role, path, operator, source, target, place))


def _place(given: torch.Tensor, out: torch.Tensor) -> Place:
    """Shapes of both; of the rows and columns that come in those that the output accounts for."""
    channels, *size = _shape(out)
    before, *whole = _shape(given)
    stride = max(1, -(-whole[0] // size[0]))
    if any(-(-side // stride) != end for side, end in zip(whole, size, strict=True)):
        whole = [end * stride for end in size]
    return Place(before, channels, whole[0], whole[1], stride)


def _shape(tensor: torch.Tensor) -> tuple[int, int, int]:
    """(channels, rows, columns) of maps; tokens and vectors have one column."""
    if tensor.dim() == 4:
        return int(tensor.shape[1]), int(tensor.shape[2]), int(tensor.shape[3])
    if tensor.dim() == 3:
        return int(tensor.shape[2]), int(tensor.shape[1]), 1
    return int(tensor.shape[-1]) if tensor.dim() else 1, 1, 1


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    return (leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor))
