"""Choice blocks: alternatives of which one runs."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor, nn

from prunas.errors import InputError


@final
class Choice(nn.Module):
    """Modules of equal input and output, one of which runs: a gene of operators.

    Guo et al., "Single path one-shot" (ECCV 2020), section 3.1. Beside a trace, the alternative
    number `chosen` runs alone, so that a step trains a single path.

    Args:
        alternatives: any modules of one input, by name or in order, the cheapest first and the
            dearest last, which runs until another is chosen. `nn.Identity` among them is the
            choice to do without.

    Raises:
        InputError: there are fewer than two, one of them is no module, or a name cannot be one.
    """

    def __init__(
        self, alternatives: Mapping[str, nn.Module] | Sequence[nn.Module] | nn.ModuleDict
    ) -> None:
        super().__init__()
        named = (
            dict(alternatives)
            if isinstance(alternatives, Mapping | nn.ModuleDict)
            else {str(place): each for place, each in enumerate(alternatives)}
        )
        if len(named) < 2:
            raise InputError(
                f"a choice between {len(named)} alternatives is none; give two modules or more"
            )
        self.chosen = len(named) - 1
        self.together = False
        for name, module in named.items():
            if not isinstance(module, nn.Module):
                raise InputError(
                    f"alternative {name!r} is a {type(module).__name__}; give an nn.Module"
                )
            if not _can_be_called(name):
                raise InputError(
                    f"an alternative cannot be called {name!r}; give a name without dots that"
                    " modules do not use"
                )
            self.add_module(name, module)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the alternatives."""
        return tuple(self._modules)

    def forward(self, x: Tensor) -> Tensor:
        """What the chosen alternative makes of x."""
        if self.together:
            return self._sum(x)
        out: Tensor = self.get_submodule(self.names[self.chosen])(x)
        return out

    def _sum(self, x: Tensor) -> Tensor:
        """The sum over all alternatives: in it their outputs are the same channels."""
        results = {name: module(x) for name, module in self.named_children()}
        shapes = {name: tuple(out.shape) for name, out in results.items()}
        if len(set(shapes.values())) > 1:
            listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise InputError(
                f"the alternatives of a choice return other shapes for an input of shape"
                f" {tuple(x.shape)}: {listed}; give modules of equal outputs"
            )
        return torch.stack(list(results.values()), -1).sum(-1)  # not +, which would be a shortcut


@final
class Chosen(nn.Sequential):
    """What a cut network has in the place of a choice: the chosen alternative, under its name."""


def _can_be_called(name: object) -> bool:
    """Whether a choice and what it is settled to can have a module of this name."""
    held = {*dir(Choice), *dir(Chosen), *Chosen().__dict__, "chosen", "together"}
    return isinstance(name, str) and name != "" and "." not in name and name not in held


def choices_of(network: nn.Module) -> Iterator[tuple[str, Choice]]:
    """The choice blocks of a network, with their paths."""
    return ((path, m) for path, m in network.named_modules() if isinstance(m, Choice))


def run_together(network: nn.Module) -> None:
    """Let all alternatives run from now on, and their outputs be added."""
    for _, block in choices_of(network):
        block.together = True


def choose(network: nn.Module, chosen: Mapping[str, int]) -> None:
    """Let these alternatives run from now on: {path: number}."""
    for path, number in chosen.items():
        block = network.get_submodule(path)
        assert isinstance(block, Choice), "spaces name choices alone"
        block.chosen = number


@contextmanager
def choosing(network: nn.Module, chosen: Mapping[str, int]) -> Iterator[nn.Module]:
    """Inside the `with`, these alternatives run: {path: number}."""
    before = {path: block.chosen for path, block in choices_of(network)} if chosen else {}
    try:
        choose(network, chosen)
        yield network
    finally:
        choose(network, before)


def settle(network: nn.Module, chosen: Mapping[str, str]) -> None:
    """Put the chosen alternative in the place of each choice: {path: name}."""
    for path, name in chosen.items():
        module = network.get_submodule(f"{path}.{name}")
        network.set_submodule(path, Chosen(OrderedDict({name: module})))


def settled(network: nn.Module) -> dict[str, str]:
    """Path and name of every alternative that `settle` has put in the place of a choice."""
    return {
        path: next(iter(module._modules))
        for path, module in network.named_modules()
        if isinstance(module, Chosen)
    }
