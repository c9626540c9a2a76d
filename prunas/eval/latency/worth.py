"""Whether cutting pays: what fewer multiply-accumulates do to the time that a network takes."""

from dataclasses import dataclass
from typing import Final, final

from prunas.eval.latency.timing import Timed

_NOTHING: Final = 0.03
"""A saving of time that a second measurement may not see again."""

_LITTLE: Final = 0.5
"""Of the saving that multiply-accumulates promise, less than this is worth a warning."""


@final
@dataclass(frozen=True)
class Worth:
    """A smaller network beside the full one, both measured whole, side by side.

    Attributes:
        full: the full network's time.
        small: the smaller network's.
        macs_share: multiply-accumulates of the smaller network, as a share of the full one's.
    """

    full: Timed
    small: Timed
    macs_share: float

    @property
    def time_share(self) -> float:
        """Time of the smaller network, as a share of the full one's."""
        return self.small.milliseconds / self.full.milliseconds

    @property
    def pays(self) -> bool:
        """Whether the smaller network is faster at all: by 3 % or more."""
        return self.time_share <= 1 - _NOTHING

    @property
    def sentence(self) -> str:
        """Both savings, and what to make of them."""
        saved, promised = 1 - self.time_share, 1 - self.macs_share
        times = f"{self.small.milliseconds:.3g} ms for the full network's {self._full}"
        if not self.pays:
            return (
                f"cutting does not pay here: {promised:.0%} fewer multiply-accumulates, and"
                f" {times}; what a layer costs however narrow it is decides, so take a network of"
                " fewer layers, larger batches, or a runtime that fuses more"
            )
        if saved < _LITTLE * promised:
            return (
                f"cutting pays little here: {promised:.0%} fewer multiply-accumulates save"
                f" {saved:.0%} of the time, {times}"
            )
        return f"{promised:.0%} fewer multiply-accumulates save {saved:.0%} of the time, {times}"

    @property
    def _full(self) -> str:
        return f"{self.full.milliseconds:.3g} ms"
