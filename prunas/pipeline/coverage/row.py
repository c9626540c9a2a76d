"""One row of the coverage table."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Final, final, get_type_hints

_LEFT_AT_MOST: Final = 0.6
"""Of the MACs at half width, for a model to pass."""


@final
@dataclass(frozen=True)
class Row:
    """What was found of one model; None where a stage was not reached.

    Attributes:
        model: its name in timm, or "torchvision/" and its name there.
        family: the file of its library that it is from.
        classifier_added: it has none of its own, and was given one of 1,000 classes.
        params: of the full network.
        macs: of the full network, for one image of `side`.
        side: height and width that it was traced and cut at, its own.
        genes: widths that can be chosen.
        blocks: that can be left out.
        pinned: channel groups that are none.
        why: the reasons for that, each with its number of groups.
        macs_can_go: share of the MACs that the smallest candidate is without.
        params_can_go: share of the parameters that the smallest candidate is without.
        macs_left: share of the MACs at half width in every gene.
        params_left: share of the parameters there.
        trace_s: seconds to trace, on the meta device.
        cut_s: seconds to cut at half width.
        oracle_side: height and width that the numerical oracles ran at, the smallest from 64
            that it takes or can be built for.
        oracle_width: share of every width that they ran at, 1 where the weights fit the memory.
        permutation: relative change of the output when the channels of every gene are permuted.
        masked: relative difference between a cut network and the full one with channels zeroed.
        runs: the network cut at half width gives outputs of the full one's shape.
        reloads: saved and loaded again, it gives the same outputs.
        seconds: for all of this.
        stage: where it ended (trace, oracles, cut, reload); "done" if nowhere.
        error: the sentence with which it ended, or why a part was left out.
    """

    model: str
    family: str
    classifier_added: bool | None = None
    params: int | None = None
    macs: int | None = None
    side: int | None = None
    genes: int | None = None
    blocks: int | None = None
    pinned: int | None = None
    why: str = ""
    macs_can_go: float | None = None
    params_can_go: float | None = None
    macs_left: float | None = None
    params_left: float | None = None
    trace_s: float | None = None
    cut_s: float | None = None
    oracle_side: int | None = None
    oracle_width: float | None = None
    permutation: float | None = None
    masked: float | None = None
    runs: bool | None = None
    reloads: bool | None = None
    seconds: float | None = None
    stage: str = ""
    error: str = ""

    @property
    def old_protocol(self) -> bool:
        """Uniform half width, the classifier kept: a forward runs, and parameters really drop."""
        return bool(self.runs) and self.params_left is not None and self.params_left < 1

    @property
    def passes(self) -> bool:
        """Enough can go, both oracles hold, the cut network runs, and it comes back from disk."""
        proven = self.permutation is not None and self.masked is not None  # or an error was raised
        small = self.macs_left is not None and self.macs_left <= _LEFT_AT_MOST
        return proven and small and bool(self.runs) and bool(self.reloads)

    def to_text(self) -> dict[str, str]:
        """The row in text, numbers to four digits; what follows from the others comes last."""
        follows = {"passes": self.passes, "old_protocol": self.old_protocol}
        return {name: _text(value) for name, value in (asdict(self) | follows).items()}

    @classmethod
    def from_text(cls, texts: dict[str, str]) -> "Row":
        """Read what `to_text` wrote.

        Raises:
            KeyError, ValueError: the texts are not those of a row.
        """
        kinds = get_type_hints(cls)
        return cls(**{f.name: _value(texts[f.name], kinds[f.name]) for f in fields(cls)})


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _value(text: str, kind: Any) -> Any:
    if kind is str:
        return text
    if text == "":
        return None
    if kind == bool | None:
        return {"True": True, "False": False}[text]
    return int(text) if kind == int | None else float(text)
