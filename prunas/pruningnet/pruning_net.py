"""A network whose weights are generated from the candidate: a weights source."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from prunas.pruningnet.generator import Generator, Told, cropped
from prunas.pruningnet.width_norms import WidthNorms
from prunas.supernet.blocks import lies_in
from prunas.supernet.elastic import Elastic
from prunas.supernet.space import SearchSpace
from prunas.supernet.tensors import tensors_of


@final
class PruningNet(Elastic):
    """The network with weights that a generator makes for each candidate.

    What the generator does not make is shared, as in a `Supernet`. Weights are made once for all
    forwards inside `running` or `frozen`, and only for blocks that the candidate has. Liu et al.,
    "MetaPruning", ICCV 2019.

    Args:
        network: the traced network, its channels sorted; it is not copied.
        space: its search space.
        generator: makes some of its tensors.
        norms: batch norms with statistics of their own for every width, as published; without
            them statistics are shared, and mean nothing until they are recalibrated.
        small_memory: make the weight of a layer only while the layer runs, and anew for its
            gradient; backward passes must then be inside `running` too.

    Raises:
        InputError: the network is not the one the space was traced from.
    """

    def __init__(
        self,
        network: nn.Module,
        space: SearchSpace,
        generator: Generator,
        *,
        norms: WidthNorms | None = None,
        small_memory: bool = False,
    ) -> None:
        super().__init__(network, space)
        self.generator = generator
        self.norms = norms
        self.small_memory = small_memory
        parts: dict[str, Any] = {"network": network, "generator": generator, "norms": norms}
        self._learnt = nn.ModuleDict({name: part for name, part in parts.items() if part})

    @property
    def learnt(self) -> nn.Module:
        return self._learnt

    def weights(self, candidate: Sequence[int]) -> Mapping[str, Tensor]:
        """The candidate's tensors that are generated, and those that are cut."""
        return self._made(candidate, self._wanted(candidate))

    def _at_once(self, candidate: Sequence[int]) -> Mapping[str, Tensor]:
        late = self._late(candidate) if self.small_memory else ()
        return self._made(candidate, (n for n in self._wanted(candidate) if n not in late))

    def _wanted(self, candidate: Sequence[int]) -> list[str]:
        """The tensors to generate: not those of blocks that are left out."""
        gone = {block.path for block in self.space.left_out(self.space.candidate(candidate))}
        return [name for name in self.generator.names if not lies_in(name, gone)]

    def _made(self, candidate: Sequence[int], wanted: Iterable[str]) -> dict[str, Tensor]:
        told = Told.of(self.space, candidate, self._device)
        held = tensors_of(self.network)
        made = set(self.generator.names)
        result = {n: cropped(held[n], kept) for n, kept in told.kept.items() if n not in made}
        for name in wanted:
            kept = told.kept.get(name, {})
            result[name] = self.generator.made(name, told.ratios, kept, held[name])
        if self.norms is not None:
            result |= self.norms.tensors(told.kept)
        return self._with_aliases(result)

    @property
    def _device(self) -> torch.device:
        return next(self._learnt.parameters()).device

    # -- small memory ------------------------------------------------------------------------------

    def _late(self, candidate: Sequence[int]) -> list[str]:
        """The weights that can wait for their layer: it alone uses them, in a forward of its own.

        Attention of torch, for one, reads the weight of a linear layer and never calls the layer.
        """
        running = {contraction.module for contraction in self.space.contractions}
        tied = set(self.space.aliases.values())
        return [
            name
            for name in self._wanted(candidate)
            if name.endswith(".weight")
            and len(self.space.shapes[name]) > 1
            and name.removesuffix(".weight") in running
            and name not in tied
        ]

    @contextmanager
    def _holding(
        self, candidate: Sequence[int], weights: Mapping[str, Tensor]
    ) -> Iterator[nn.Module]:
        with super()._holding(candidate, weights) as network, ExitStack() as undo:
            for name in self._late(candidate) if self.small_memory else ():
                layer = network.get_submodule(name.removesuffix(".weight"))
                undo.enter_context(_generating(layer, self._making(name, candidate)))
            yield network

    def _making(self, name: str, candidate: Sequence[int]) -> Callable[[], Tensor]:
        shared = tensors_of(self.network)[name]
        told = Told.of(self.space, candidate, self._device)
        kept = told.kept.get(name, {})
        return lambda: self.generator.made(name, told.ratios, kept, shared)


@contextmanager
def _generating(layer: nn.Module, make: Callable[[], Tensor]) -> Iterator[None]:
    """The layer makes its weight in each forward, and makes it again in the backward pass."""
    forward = layer.forward
    parameters: dict[str, Any] = layer._parameters

    def run(*inputs: Any) -> Any:
        before = parameters["weight"]
        parameters["weight"] = make()
        try:
            return forward(*inputs)
        finally:
            parameters["weight"] = before

    def again(*inputs: Any) -> Any:
        if not torch.is_grad_enabled():
            return run(*inputs)
        return checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False)

    layer.forward = again
    try:
        yield
    finally:
        del layer.forward
