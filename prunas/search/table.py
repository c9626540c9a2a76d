"""Tables: small spaces of which every candidate has been evaluated, so that regret is exact.

A table holds, for several evaluation seeds (each a full network, channel order, shared weights
and split of the data of its own), how many held-out and how many test images every candidate gets
right. A search on a table asks and is told as on a network, in microseconds.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from prunas.errors import InputError
from prunas.eval.cost import Cost
from prunas.json_text import parsed
from prunas.npz import UNREADABLE
from prunas.search.costs import Values
from prunas.search.enumeration import enumerated
from prunas.search.prior import Prior
from prunas.supernet.space import Candidate, SearchSpace

FORMAT: Final = 1
_FOLDER: Final = Path(__file__).parent / "tables"

Counts = NDArray[np.uint16]


@dataclass(frozen=True, eq=False)
class Table:
    """Every candidate of a space with its scores.

    Candidate number i is entry i of the product of the genes' choices, the last gene fastest.

    Attributes:
        name: of the table.
        about: network, data, command: what the scores are, by keyword.
        space: the candidates.
        held_out: (seeds, candidates) held-out images that are classified right.
        test: (seeds, candidates) test images that are.
        images: number of held-out images.
        test_images: number of test images.
        priors: what is known before the search, by name, one for each seed.
    """

    name: str
    about: Mapping[str, Any]
    space: SearchSpace
    held_out: Counts
    test: Counts
    images: int
    test_images: int
    priors: Mapping[str, tuple[Prior, ...]]

    @property
    def seeds(self) -> int:
        return len(self.held_out)

    @cached_property
    def candidates(self) -> Values:
        """(candidates, genes) all of them, in the order of the table."""
        return enumerated(self.space)

    @cached_property
    def costs(self) -> "TableCosts":
        """What candidates cost, looked up."""
        return TableCosts(self)

    def places(self, values: Values) -> NDArray[np.int64]:
        """(n,) the number of each candidate."""
        return np.asarray(self._strides[np.arange(len(self.space.genes)), values].sum(axis=1))

    @cached_property
    def _strides(self) -> NDArray[np.int64]:
        """(genes, largest width + 1) what a choice of a gene adds to a candidate's number."""
        genes = self.space.genes
        result = np.zeros((len(genes), 1 + max(gene.choices[-1] for gene in genes)), np.int64)
        stride = 1
        for place, gene in reversed(list(enumerate(genes))):
            result[place, list(gene.choices)] = stride * np.arange(len(gene.choices))
            stride *= len(gene.choices)
        return result

    def scores(self, candidates: Sequence[Candidate], seed: int) -> NDArray[np.float64]:
        """(n,) held-out accuracies under one evaluation seed, in 0..1."""
        places = self.places(np.array(candidates, dtype=np.int64))
        return np.asarray(self.held_out[seed, places] / self.images)

    def test_scores(self, candidates: Sequence[Candidate], seed: int) -> NDArray[np.float64]:
        """(n,) test accuracies under one evaluation seed, in 0..1."""
        places = self.places(np.array(candidates, dtype=np.int64))
        return np.asarray(self.test[seed, places] / self.test_images)


class TableCosts:
    """The costs of a table's candidates; see `prunas.search.budget.Costs`."""

    def __init__(self, table: Table) -> None:
        cost = Cost(table.space)
        self._table = table
        self._macs, self._params = cost.macs(table.candidates), cost.params(table.candidates)

    def macs(self, candidates: Values, /) -> NDArray[np.int64]:
        """(n,) multiply-accumulates of one image."""
        return self._macs[self._table.places(candidates)]

    def params(self, candidates: Values, /) -> NDArray[np.int64]:
        """(n,) number of parameters."""
        return self._params[self._table.places(candidates)]


# -- files -----------------------------------------------------------------------------------------


def shipped() -> Mapping[str, Path]:
    """The tables that come with prunas, by name."""
    return MappingProxyType({file.stem: file for file in sorted(_FOLDER.glob("*.npz"))})


def read_table(name_or_path: str | Path) -> Table:
    """A table of prunas by its name, or one in a file that `write_table` wrote.

    Raises:
        InputError: there is no such table, or it is damaged.
    """
    known = shipped()
    path = known.get(str(name_or_path), Path(name_or_path))
    if not path.is_file():
        near = get_close_matches(str(name_or_path), known, n=1)
        there = f"there are {', '.join(known)}" if known else "none comes with prunas, give a file"
        hint = f"did you mean {near[0]}?" if near else there
        raise InputError(f"no table is called {str(name_or_path)!r}, nor is it a file; {hint}")
    try:
        return _table(path)
    except UNREADABLE as error:
        raise InputError(
            f"the table {path} is damaged or no table ({error}); make it anew"
        ) from None


def write_table(table: Table, file: BinaryIO) -> None:
    """Write a table, for `read_table`; numbers and JSON in one compressed .npz."""
    rest = {
        "format": FORMAT,
        "name": table.name,
        "about": dict(table.about),
        "space": table.space.to_json(),
        "images": table.images,
        "test_images": table.test_images,
        "priors": {
            name: [{"orders": each.orders, "values": each.values} for each in priors]
            for name, priors in table.priors.items()
        },
    }
    text = np.frombuffer(json.dumps(rest).encode(), dtype=np.uint8)
    np.savez_compressed(file, rest=text, held_out=table.held_out, test=table.test)


def _table(path: Path) -> Table:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        rest = parsed(arrays["rest"].tobytes())
        held_out, test = arrays["held_out"], arrays["test"]
    if rest["format"] != FORMAT:
        raise ValueError(f"format {rest['format']}, and this prunas reads {FORMAT}")
    if not isinstance(rest["name"], str):
        raise ValueError(f"its name {rest['name']!r} is no text")
    priors = {
        name: tuple(
            Prior(tuple(map(tuple, each["orders"])), tuple(map(tuple, each["values"])))
            for each in known
        )
        for name, known in rest["priors"].items()
    }
    table = Table(
        rest["name"],
        MappingProxyType(rest["about"]),
        SearchSpace.from_json(rest["space"]),
        held_out,
        test,
        int(rest["images"]),
        int(rest["test_images"]),
        MappingProxyType(priors),
    )
    _require_whole(table)
    return table


def _require_whole(table: Table) -> None:
    shape, widths = (table.seeds, table.space.size), tuple(table.space.widths)
    for name, priors in table.priors.items():
        if len(priors) != table.seeds:
            raise ValueError(f"it has {table.seeds} seeds and {len(priors)} priors {name!r}")
        if any(tuple(map(len, each.orders)) != widths for each in priors):
            raise ValueError(f"its prior {name!r} is of other genes than its space")
    for counts, images in ((table.held_out, table.images), (table.test, table.test_images)):
        if counts.shape != shape or counts.dtype != np.uint16:
            raise ValueError(
                f"it has scores of shape {counts.shape} and type {counts.dtype} where uint16 of"
                f" {shape} belong"
            )
        if images < 1 or counts.max() > images:
            raise ValueError(f"of {images} images {counts.max()} are right")
