"""Which widths a channel group may take."""

from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Final

from prunas.errors import InputError


@dataclass(frozen=True)
class WidthGrid:
    """Widths round(ratio * full) for every ratio, rounded to `divisor` above `free_below`.

    Attributes:
        ratios: shares of the full width, each in (0, 1]; empty means every width from 1 up.
        divisor: widths above `free_below` are rounded to the nearest multiple of it.
        free_below: widths up to this one are left as they are (small groups have no multiples).
        truncate: round ratio * full down instead of to the nearest integer.
    """

    ratios: tuple[float, ...] = ()
    divisor: int = 1
    free_below: int = 0
    truncate: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.ratios, Iterable):
            raise InputError(f"width ratios are several, such as (0.5, 1.0), not {self.ratios!r}")
        for ratio in self.ratios:
            if not isinstance(ratio, Real) or not 0 < ratio <= 1:
                raise InputError(
                    f"width ratio {ratio} is outside (0, 1]; give shares of the full width"
                )
        if not isinstance(self.divisor, Integral) or self.divisor < 1:
            raise InputError(
                f"width divisor {self.divisor} is not positive and whole; use 1 for no rounding"
            )
        if not isinstance(self.free_below, Integral):
            raise InputError(f"free_below is a number of channels, not {self.free_below!r}")

    def widths(self, full: int) -> tuple[int, ...]:
        """Ascending widths of a group with `full` channels; the last is always `full`."""
        if not self.ratios:
            wanted = list(range(1, full + 1))
        else:
            half = 0.0 if self.truncate else 0.5
            # 1e-9: 0.1 + 0.03 * 30 is not quite 1 in binary
            wanted = [max(1, int(full * ratio + half + 1e-9)) for ratio in self.ratios]
        rounded = {self._rounded(width, full) for width in wanted}
        return tuple(sorted(rounded | {full}))

    def _rounded(self, width: int, full: int) -> int:
        if width <= self.free_below or self.divisor == 1:
            return width
        return min(full, max(self.divisor, round(width / self.divisor) * self.divisor))


DEFAULT: Final = WidthGrid(tuple(k / 16 for k in range(1, 17)), divisor=8, free_below=16)
"""Sixteenths of the full width, in multiples of 8 above 16 (what vector units like)."""

METAPRUNING: Final = WidthGrid(tuple(0.1 + 0.03 * k for k in range(31)), truncate=True)
"""The 31 ratios 0.10, 0.13, ..., 1.00 of MetaPruning (ICCV 2019); widths are rounded down."""

EVERY: Final = WidthGrid()
"""Every width from one channel up."""

GRIDS: Final = {"default": DEFAULT, "metapruning": METAPRUNING, "every": EVERY}


def as_grid(grid: WidthGrid | str) -> WidthGrid:
    """The grid itself, or the one of that name.

    Raises:
        InputError: it is no grid, and no grid is called so.
    """
    if isinstance(grid, WidthGrid):
        return grid
    if grid not in tuple(GRIDS):  # what has no hash can be asked for, too
        raise InputError(f"no width grid is called {grid!r}; choose one of {', '.join(GRIDS)}")
    return GRIDS[grid]
