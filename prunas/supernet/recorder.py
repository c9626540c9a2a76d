"""One labelled run of a network on the meta device."""

import operator
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from prunas.errors import InputError
from prunas.supernet.blocks import BlockWatch, Seen, Together
from prunas.supernet.imagined import executed, name_of
from prunas.supernet.integers import SizeWatch, owned_integers
from prunas.supernet.labels import BATCH, Labels, Nodes
from prunas.supernet.lengths import (
    Derived,
    Length,
    Multiple,
    Order,
    OwnedInt,
    Scaled,
    Share,
    Told,
    plain,
)
from prunas.supernet.operators import ELEMENTWISE, RULES, Call, Dims, pinned
from prunas.supernet.scoped import Place
from prunas.supernet.skeleton import FORWARD_ERRORS, called, tensors_in
from prunas.supernet.tensors import buffers_of, tensors_of
from prunas.supernet.zeros import lifts

_INDICES: Final = frozenset((torch.int64, torch.int32))

LONGEST = 1_048_576
"""Longer dimensions are pinned: their labels would cost too much, and channels they are not."""

SAME_TENSOR: Final = frozenset(
    f"aten.{name}"
    for name in (
        "t",
        "transpose",
        "permute",
        "detach",
        "alias",
        "view",
        "_to_copy",
        "clone",
        "expand",
    )
)


@dataclass(frozen=True)
class Operation:
    """One executed operator: the labels that went in and came out, and where they are kept."""

    name: str
    inputs: list[Dims]
    outputs: list[Dims]
    reads: tuple[int, ...] = ()
    """Memory that it was given, as `memory_of` names it."""
    writes: tuple[int, ...] = ()
    """Memory of what it returned; for a view or in place, some that it was given."""
    inside: tuple[str, ...] = ()
    """The modules that were running."""
    products: int = 0
    """How many contractions it is."""


@dataclass(frozen=True)
class Memory:
    """Some memory of the run, as the first tensor in it was."""

    dims: Dims
    itemsize: int


@dataclass(frozen=True)
class Product:
    """One contraction, not yet in terms of genes."""

    module: str
    operator: str
    constant: int
    dims: tuple[Nodes, ...]
    inside: tuple[str, ...]
    """The modules that were running."""


@dataclass(frozen=True)
class Consumption:
    """A weight and the input channels that it contracts."""

    weight: str
    nodes: Nodes
    depthwise: bool


@dataclass(frozen=True)
class Comparison:
    """Two numbers that the forward compared, one of them at least the length of something."""

    left: float
    order: Order
    right: float


@dataclass
class Record:
    """What one labelled run found."""

    labels: Labels = field(default_factory=Labels)
    tensors: dict[str, Dims] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    consumptions: list[Consumption] = field(default_factory=list)
    normalised: list[Nodes] = field(default_factory=list)
    pieces: list[Nodes] = field(default_factory=list)
    sizes: list[tuple[Place, int, Nodes]] = field(default_factory=list)
    lengths: list[tuple[Nodes, Nodes, str]] = field(default_factory=list)
    comparisons: dict[object, Comparison] = field(default_factory=dict)
    """Each kind once: what is compared in every block of a stage is one."""
    unknown: dict[str, int] = field(default_factory=dict)
    blocks: list[Seen] = field(default_factory=list)
    choices: list[Together] = field(default_factory=list)
    renewed: frozenset[str] = frozenset()
    outputs: Any = None
    memory: dict[int, Memory] = field(default_factory=dict)
    """What the run computed, and its inputs; what parameters and buffers lie in is not in it."""
    given: frozenset[int] = frozenset()
    """Memory of the inputs."""
    returned: frozenset[int] = frozenset()
    """Memory of the outputs."""


def record(network: nn.Module, inputs: Any, fixed: frozenset[str]) -> Record:
    """Run `network` (on the meta device, eval mode) on `inputs`, labelling every tensor.

    Args:
        network: a skeleton; its integers are wrapped during the run and put back.
        inputs: meta tensors with `BATCH` images.
        fixed: names of tensors that the user wants left alone.

    Raises:
        InputError: the network does not run on these inputs.
    """
    run = _Run(network, inputs, fixed)
    owned = owned_integers(network, run.told)
    with torch.no_grad(), owned, run.blocks.watching(network), run.watch, run:
        try:
            out = called(network, inputs)
        except InputError:  # of a module of ours
            raise
        except FORWARD_ERRORS as error:
            raise InputError(_refusal(network, inputs, error)) from error
    run.finish(out)
    run.record.renewed = run.replaced_in(network)
    return run.record


_VALUES_ARE_READ: Final = ("meta tensor", "data-independent", "data dependent", "data-dependent")
"""In torch's own words, what goes wrong where values are asked for and there are none."""
_ELSEWHERE: Final = ("expected device meta", "same device", "found at least two devices")
"""And where a tensor was not taken along to another device."""


def _refusal(network: nn.Module, inputs: Any, error: Exception) -> str:
    shapes = [tuple(leaf.shape) for leaf in tree_leaves(inputs) if isinstance(leaf, torch.Tensor)]
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    name = type(network).__name__
    if any(sign in first.lower() for sign in _VALUES_ARE_READ):
        return (
            f"the forward of {name} looks at values, and a trace has shapes alone ({first}); its"
            " control flow and its shapes must not depend on the data"
        )
    if any(sign in first.lower() for sign in _ELSEWHERE):
        return (
            f"the forward of {name} uses a tensor that is not on its input's device ({first}); make"
            " it a buffer, or create it on x.device"
        )
    return (
        f"{name} does not run on inputs of shape {shapes} ({first}); give the input_size it was"
        " made for, or example=(tensors its forward takes)"
    )


class _Run(TorchDispatchMode):
    """Applies the rules while the network runs."""

    def __init__(self, network: nn.Module, inputs: Any, fixed: frozenset[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.record = Record()
        self.labels = self.record.labels
        self.told = Told(self._enters, self.compared)
        self.watch = SizeWatch(
            self.dims,
            self._observe,
            self._tie,
            self._equally_long,
            self.normalises,
            self.told,
            self.labels.merge,
            self.labels.split,
        )
        self.blocks = BlockWatch(ELEMENTWISE)
        self._dims: dict[int, Dims] = {}
        self._alive: list[torch.Tensor] = []
        self._origin: dict[int, str] = {}
        self._last = ""
        self._used: set[int] = set()
        self._lifted: set[int] = set()
        self._entered: list[OwnedInt] = []
        self._held: set[int] = set()
        self._label_inputs(inputs)
        self._label_tensors(network, fixed)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # scripted functions come here without leaving the watch of sizes, which is not meant for us
        with torch._C.DisableTorchFunction():
            return self._executed(func, name_of(func), args, kwargs or {})

    def _executed(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = executed(func, name, args, kwargs)
        known = RULES.get(name)
        if known is None:
            key = f"{name} (near {self._last})" if self._last else name
            self.record.unknown[key] = self.record.unknown.get(key, 0) + 1
        products = len(self.record.products)
        call = Call(name, args, kwargs, out, self)
        outputs = self._assign(out, (known or pinned)(call))
        self._lift(call)
        self._follow_origin(name, args, out)
        self.blocks.executed(name, args, out, self._origin)
        inputs = [self._dims[id(t)] for t in args if id(t) in self._dims]
        reads = tuple(memory_of(tensor) for tensor in _operands(args, kwargs))
        writes = self._written(out, reads)
        products = len(self.record.products) - products
        self.record.operations.append(
            Operation(name, inputs, outputs, reads, writes, self.blocks.inside, products)
        )
        return out

    # -- what rules may ask --------------------------------------------------------------------

    def dims(self, tensor: torch.Tensor) -> Dims:
        self._used.add(id(tensor))
        found = self._dims.get(id(tensor))
        if found is None:  # a constant the network made outside the run
            found = tuple(self.labels.zeros(size) for size in tensor.shape)
            self._keep(tensor, found)
        return found

    def contraction(self, tensor: torch.Tensor, operator: str, constant: int, *dims: Nodes) -> None:
        module = self._module_of(tensor) or self._last
        row = Product(module, operator, constant, dims, self.blocks.inside)
        self.record.products.append(row)

    def normalises(self, nodes: Nodes) -> None:
        if nodes.any():
            self.record.normalised.append(nodes)

    def lifted(self, tensor: torch.Tensor) -> bool:
        """Whether it may be other than zero at channels that are zero."""
        return id(tensor) in self._lifted

    def parted(self, pieces: Sequence[Nodes]) -> None:
        self.record.pieces.extend(nodes for nodes in pieces if nodes.any())

    def consumes(self, weight: torch.Tensor, nodes: Nodes, depthwise: bool) -> None:
        name = self._origin.get(id(weight))
        if name is not None and nodes.any():
            self.record.consumptions.append(Consumption(name, nodes, depthwise))

    def counts(self, weight: torch.Tensor, what: str, nodes: Nodes) -> None:
        counted = self.watch.counted.get(what)
        if isinstance(counted, Multiple):  # groups for each image of the batch
            self._observe(counted.owned, self.watch.repeated(counted, nodes))
        elif counted is not None:
            self._observe(counted, nodes)

    def compared(self, left: float, order: Order, right: float, asking: str) -> None:
        """Torch's own layers ask for what spares them work, and compute the same either way."""
        equal = plain(left) == plain(right) and order in (operator.eq, operator.ne)
        if equal:
            self._found_equal(left, right)
        if asking.partition(".")[0] == "torch":
            return
        if equal and isinstance(left, Length) and isinstance(right, Length):
            self._equally_long(left.nodes, right.nodes)
        key = _name_of_number(left), order, _name_of_number(right)
        self.record.comparisons.setdefault(key, Comparison(left, order, right))

    # -- bookkeeping ---------------------------------------------------------------------------

    def finish(self, out: Any) -> None:
        """Pin the outputs, whose shape the user knows, and what nothing is known of."""
        self.record.outputs = out
        self._keep_ratios()
        for nodes in (nodes for number in self._entered for nodes in self._counted_by(number)):
            self.normalises(nodes)
        for block, gate, before, after in self.blocks.found():
            memory = memory_of(before), memory_of(after)
            row = Seen(block, gate, self.dims(before), self.dims(after), memory)
            self.record.blocks.append(row)
        for path, results, total in self.blocks.choices():
            lie = tuple(map(memory_of, results))
            self.record.choices.append(Together(path, lie, memory_of(total)))
        used = {name for identity, name in self._origin.items() if identity in self._used}
        for name, dims in self.record.tensors.items():
            if name not in used:  # auxiliary heads of training, say
                for nodes in dims:
                    self.labels.pin(nodes, "it is not used when the network runs in eval mode")
        self.record.returned = frozenset(map(memory_of, tensors_in(out)))
        for leaf in tensors_in(out):
            first, *rest = self.dims(leaf) or (self.labels.zeros(1),)
            if len(first) == BATCH and first.all():  # a batch expanded from a bare parameter, say
                self.labels.tie(first, self.labels.batch(), "it is the batch of an output")
                first = self.labels.batch()
            for nodes in (first, *rest):
                self.labels.pin(nodes, "it is an output of the network")

    def _keep_ratios(self) -> None:
        """Integers whose ratio to another one is a length that stays follow that other one."""
        followed = {place: nodes for place, _, nodes in self.record.sizes}
        for whole, part in self.watch.ratios:
            if part.place in followed and whole.place not in followed:
                self.record.sizes.append((whole.place, int(whole), followed[part.place]))

    def replaced_in(self, network: nn.Module) -> frozenset[str]:
        """Buffers that the run itself put another tensor in the place of."""
        held = buffers_of(network)
        names = (name for name in self.record.tensors if name in held)
        return frozenset(name for name in names if self._origin.get(id(held[name])) != name)

    def _label_inputs(self, inputs: Any) -> None:
        for leaf in tree_leaves(inputs):
            if isinstance(leaf, torch.Tensor) and leaf.dim():
                batched = leaf.shape[0] == BATCH
                first = self.labels.batch() if batched else self.labels.zeros(leaf.shape[0])
                dims = (first, *(self.labels.zeros(size) for size in leaf.shape[1:]))
                self._keep(leaf, dims)
                self.record.memory[memory_of(leaf)] = Memory(dims, leaf.element_size())
        self.record.given = frozenset(self.record.memory)

    def _label_tensors(self, network: nn.Module, fixed: frozenset[str]) -> None:
        for name, tensor in tensors_of(network).items():
            dims = tuple(self._nodes(size, tensor.dtype) for size in tensor.shape)
            self._keep(tensor, dims)
            self._held.add(memory_of(tensor))
            self._origin[id(tensor)] = name
            self.record.tensors[name] = dims
            if name in fixed:
                for nodes in dims:
                    self.labels.pin(nodes, "it was asked to be left alone")

    def _nodes(self, size: int, dtype: torch.dtype) -> Nodes:
        """Labels of one dimension; kernels flattened into one, and tables of indices, need none."""
        worth = size <= LONGEST and dtype not in _INDICES
        return self.labels.fresh(size) if worth else self.labels.zeros(size)

    def _keep(self, tensor: torch.Tensor, dims: Dims) -> None:
        self._dims[id(tensor)] = dims
        self._alive.append(tensor)  # an id means nothing after its tensor is gone

    def _assign(self, out: Any, result: Any) -> list[Dims]:
        if isinstance(out, torch.Tensor):
            self._keep(out, result)
            return [result]
        if not isinstance(out, tuple | list):
            return []
        outputs = []
        for tensor, dims in zip(out, result, strict=False):
            if isinstance(tensor, torch.Tensor):
                self._keep(tensor, dims)
                outputs.append(dims)
        return outputs

    def _lift(self, call: Call) -> None:
        outputs = [call.out] if isinstance(call.out, torch.Tensor) else _flat(call.out)
        if outputs:
            first = replace(call, out=outputs[0])
            change = (
                self._lifted.update if lifts(first, self.lifted) else self._lifted.difference_update
            )
            change(map(id, outputs))

    def _written(self, out: Any, given: Collection[int]) -> tuple[int, ...]:
        """Memory of the outputs; what is new in it is noted."""
        outputs = [out] if isinstance(out, torch.Tensor) else _flat(out)
        for tensor in outputs:
            memory = memory_of(tensor)
            known = memory in given or memory in self._held or memory in self.record.memory
            if not known:
                self.record.memory[memory] = Memory(self.dims(tensor), tensor.element_size())
        return tuple(memory_of(tensor) for tensor in outputs)

    def _follow_origin(self, name: str, args: Any, out: Any) -> None:
        first = self._origin.get(id(args[0])) if args else None
        if first is not None and name in SAME_TENSOR and isinstance(out, torch.Tensor):
            self._origin[id(out)] = first
        for argument in args[:3]:
            found = self._origin.get(id(argument))
            if found is not None:
                self._last = found.rpartition(".")[0]

    def _module_of(self, tensor: torch.Tensor) -> str:
        return self._origin.get(id(tensor), "").rpartition(".")[0]

    def _enters(self, number: int) -> None:
        """A number of channels is another one without those that are zero."""
        if isinstance(number, Derived):
            self._enters(number.whole)
        elif isinstance(number, Length):
            self.normalises(number.nodes)
        elif isinstance(number, Share | Multiple):
            self.normalises(number.length.nodes)
            self._entered.append(number.owned)
        elif isinstance(number, OwnedInt | Scaled):
            self._entered.append(number.owned if isinstance(number, Scaled) else number)

    def _counted_by(self, number: OwnedInt) -> Iterator[Nodes]:
        """What an integer of a module is the number of, as far as it is known by now."""
        yield from (nodes for place, _, nodes in self.record.sizes if place == number.place)
        weight = self.record.tensors.get(f"{number.place.module}.weight", ())
        yield from (nodes for nodes in weight if len(nodes) == plain(number))

    def _observe(self, size: OwnedInt | Scaled, nodes: Nodes) -> None:
        if int(size) == len(nodes) and nodes.any():
            owner = size.owned if isinstance(size, Scaled) else size
            self.record.sizes.append((owner.place, int(owner), nodes))

    def _found_equal(self, left: float, right: float) -> None:
        """An integer of a module that the code has found to be a length may be used as one."""
        for one, two in ((left, right), (right, left)):
            if isinstance(one, Length) and isinstance(two, OwnedInt):
                self._observe(two, one.nodes)

    def _equally_long(self, first: Nodes, second: Nodes) -> None:
        if first is not second and len(first) == len(second):
            self.record.lengths.append((first, second, "it is as long as one that cannot change"))

    def _tie(self, first: Nodes, second: Nodes) -> None:
        self.labels.tie(first, second, "it is one of several equal parts, another cannot change")


def _name_of_number(number: float) -> object:
    if isinstance(number, Length):
        return id(number.nodes)
    if isinstance(number, OwnedInt):
        return number.place
    if isinstance(number, Derived):
        return number.how, _name_of_number(number.whole), _name_of_number(number.divisor)
    return "the number", plain(number)


def memory_of(tensor: torch.Tensor) -> int:
    """Names the memory that a tensor, and all views of it, lie in; as long as one of them lives."""
    memory: int = tensor.untyped_storage()._cdata
    return memory


def _operands(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[torch.Tensor]:
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor):
            yield value
        else:
            yield from _flat(value)


def _flat(value: Any) -> list[torch.Tensor]:
    """The tensors of a list or tuple, such as `cat` is given."""
    entries = value if isinstance(value, list | tuple) else ()
    return [entry for entry in entries if isinstance(entry, torch.Tensor)]
