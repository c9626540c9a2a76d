"""Small search spaces written by hand, so that every atom in them can be checked by eye."""

import numpy as np

from prunas.supernet.space import Factors, Gene, SearchSpace, Tap


def tap(module: str, *factors: list[int], depthwise: bool = False) -> Tap:
    return Tap(module, tuple(np.array(factor) for factor in factors), depthwise)


def space_of(
    widths: list[int],
    taps: list[Tap],
    slots: dict[str, dict[int, Factors]] | None = None,
    shapes: dict[str, tuple[int, ...]] | None = None,
) -> SearchSpace:
    """A space of width genes `gene0`, `gene1` ... with the given taps and slots."""
    return SearchSpace(
        genes=tuple(Gene(f"gene{g}", "width", (1, width)) for g, width in enumerate(widths)),
        widths=tuple(widths),
        pinned=(),
        network="Hand",
        inputs=None,
        outputs=(),
        shapes=shapes or {},
        parameters=frozenset(shapes or {}),
        aliases={},
        slots=slots or {},
        attributes=(),
        contractions=(),
        taps=tuple(taps),
    )
