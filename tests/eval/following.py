"""A network followed operator by operator: the oracle of all that is known in closed form of it."""

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from prunas.supernet.imagined import name_of

Step = tuple[str, list[int], list[int]]
"""Name of an operator, and what memory it is given and returns, weights included."""


class Followed(TorchDispatchMode):
    """Notes which memory every operator reads and writes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[Step] = []
        self.sizes: dict[int, int] = {}
        self.alive: list[torch.Tensor] = []  # memory is named by its address

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = name_of(func)
        # with stored statistics a device computes none, for which this device has a tensor
        results = out[0] if name == "aten.native_batch_norm" else out
        self.steps.append((name, self.memory((args, kwargs)), self.memory(results)))
        return out

    def memory(self, value: Any) -> list[int]:
        tensors = [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]
        self.alive += tensors
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self.sizes.setdefault(storage._cdata, storage.nbytes())
        return [tensor.untyped_storage()._cdata for tensor in tensors]


class Following:
    """One run of a network on one image of this size, on the meta device."""

    def __init__(self, network: nn.Module, size: tuple[int, ...]) -> None:
        network = network.to("meta")
        image = torch.empty(1, *size, device="meta")
        with torch.no_grad(), Followed() as run:
            self.given = run.memory(image)
            self.returned = run.memory(network(image))
            self.weights = set(run.memory([*network.parameters(), *network.buffers()]))
        self.steps, self.sizes = run.steps, run.sizes

    def peak(self) -> int:
        """Bytes that are live at the worst operator, counted one by one."""
        end = len(self.steps)
        born, last = dict.fromkeys(self.given, 0), dict.fromkeys(self.returned, end)
        for index, (_, reads, writes) in enumerate(self.steps):
            for memory in set(writes) - set(reads) - self.weights:
                born.setdefault(memory, index)
            for memory in reads:
                last[memory] = max(index, last.get(memory, 0))
        live = (
            sum(self.sizes[m] for m in born if born[m] <= index <= last.get(m, -1))
            for index in range(end + 1)
        )
        return max(live, default=0)

    def moved(self) -> dict[str, tuple[int, int]]:
        """{operator: how often it runs, bytes of activations that it is given and returns}.

        Without those that return a view, or memory that nobody has written to.
        """
        result: dict[str, tuple[int, int]] = {}
        for name, reads, writes in self.steps:
            given, returned = set(reads) - self.weights, set(writes) - self.weights
            if name != "aten.empty" and (returned - given or (name.endswith("_") and returned)):
                runs, moved = result.get(name, (0, 0))
                result[name] = runs + 1, moved + sum(self.sizes[m] for m in given | returned)
        return result
