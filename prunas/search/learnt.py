"""What a search has learnt, as named arrays that nobody changes."""

from collections.abc import Iterator, Mapping
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@final
class Learnt(Mapping[str, Array]):
    """Named arrays of float64, a plain value: compared by content, written as lists.

    The arrays are copies and read-only; `changed` gives the next value.
    """

    def __init__(self, arrays: Mapping[str, Any] | None = None) -> None:
        self._arrays = {name: _fixed(array) for name, array in (arrays or {}).items()}

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Learnt):
            return NotImplemented
        same = self._arrays.keys() == other._arrays.keys()
        return same and all(np.array_equal(array, other[name]) for name, array in self.items())

    def __hash__(self) -> int:
        return hash(tuple(sorted(self._arrays)))

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}: {array.shape}" for name, array in self.items())
        return f"Learnt({shapes})"

    def changed(self, **arrays: Any) -> "Learnt":
        """The same with these arrays added or replaced."""
        result = Learnt()
        result._arrays = self._arrays | {name: _fixed(array) for name, array in arrays.items()}
        return result

    def to_json(self) -> dict[str, Any]:
        """Lists, and their shapes (an empty list does not tell)."""
        return {
            name: {"shape": list(array.shape), "values": array.ravel().tolist()}
            for name, array in self.items()
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Learnt":
        return cls(
            {name: np.array(each["values"]).reshape(each["shape"]) for name, each in data.items()}
        )


def _fixed(array: Any) -> Array:
    result = np.array(array, dtype=np.float64)
    result.setflags(write=False)
    return result
