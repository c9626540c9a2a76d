"""What was asked and told so far: a tuple that grows without being copied."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Generic, TypeVar, final, overload

from prunas.supernet.space import Candidate

Entry = TypeVar("Entry")


@final
class History(Sequence[Entry], Generic[Entry]):
    """Entries in their order, each about a candidate of its own; a plain value, equal to a tuple.

    `history + entries` is the next value. All values that came from one another share one list, of
    which each sees its beginning, so that adding to the latest, and asking for a candidate, take
    the same time however much there is. Adding to an earlier one copies.

    Args:
        of: the candidate that an entry is about.
        entries: the first ones.
    """

    def __init__(self, of: Callable[[Entry], Candidate], entries: Iterable[Entry] = ()) -> None:
        self._of = of
        self._entries: list[Entry] = []
        self._places: dict[Candidate, int] = {}
        self._length = 0
        self._extend(entries)

    def __add__(self, entries: Iterable[Entry]) -> "History[Entry]":
        latest = 0 < self._length == len(self._entries)  # an empty one may be anybody's beginning
        result = History(self._of, () if latest else self)
        if latest:
            result._entries, result._places = self._entries, self._places
        result._extend(entries)
        return result

    def has(self, candidate: Candidate) -> bool:
        """Whether there is an entry about this candidate."""
        return self._places.get(candidate, self._length) < self._length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Entry]:
        return islice(self._entries, self._length)

    @overload
    def __getitem__(self, place: int) -> Entry: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Entry, ...]: ...

    def __getitem__(self, place: int | slice) -> Entry | tuple[Entry, ...]:
        places = range(self._length)[place]
        if isinstance(places, int):
            return self._entries[places]
        return tuple(self._entries[each] for each in places)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, History):
            return self[:] == other[:]
        return self[:] == other

    def __hash__(self) -> int:
        return hash(self[:])

    def __repr__(self) -> str:
        return repr(self[:])

    def _extend(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._places.setdefault(self._of(entry), len(self._entries))
            self._entries.append(entry)
        self._length = len(self._entries)
