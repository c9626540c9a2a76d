"""In which candidates the parts of a network run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from prunas.supernet.choice import choices_of
from prunas.supernet.conditions import ALWAYS, Condition, both, where
from prunas.supernet.space import SearchSpace


@dataclass(frozen=True)
class Presence:
    """The blocks and the choices of a network.

    Attributes:
        blocks: path of a block -> its gene.
        choices: path of a choice block -> its gene, or None where it has none.
        fixed: path of a choice block -> number of the alternative that runs without a gene.
        alternatives: path of an alternative -> its choice block's path, and its number.
    """

    blocks: Mapping[str, int]
    choices: Mapping[str, int | None]
    fixed: Mapping[str, int]
    alternatives: Mapping[str, tuple[str, int]]

    @classmethod
    def of(cls, bare: nn.Module, space: SearchSpace) -> "Presence":
        """Of a network on the meta device, and a space of it."""
        found = dict(choices_of(bare))
        genes = {choice.path: gene for gene, choice in space.alternatives.items()}
        return cls(
            blocks={block.path: gene for gene, block in space.blocks.items()},
            choices={path: genes.get(path) for path in found},
            fixed={path: block.chosen for path, block in found.items()},
            alternatives={
                f"{path}.{name}": (path, number)
                for path, block in found.items()
                for number, name in enumerate(block.names)
            },
        )

    def runs(self, inside: Sequence[str]) -> Condition | None:
        """When what is inside these modules runs, the outermost first; None: in no candidate."""
        if inside and inside[-1] in self.choices:
            return None  # the sum over all alternatives
        result: Condition | None = ALWAYS
        for path in inside:
            if path in self.blocks and result is not None:
                result = both(result, where(self.blocks[path], 1))
            if path in self.alternatives and result is not None:
                choice, number = self.alternatives[path]
                when = self.chosen(choice, [number])
                result = None if when is None else both(result, when)
        return result

    def chosen(self, path: str, numbers: Sequence[int]) -> Condition | None:
        """When one of these alternatives of a choice runs; None: in no candidate."""
        gene = self.choices[path]
        if gene is not None:
            return where(gene, *numbers)
        return ALWAYS if self.fixed[path] in numbers else None
