"""What is to be compared, in one immutable value."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from prunas.errors import InputError
from prunas.pipeline.comparison.contenders import Contender, contenders
from prunas.pipeline.sealed import read_sealed
from prunas.search.budget import Budget

_AT: Final = (50, 100, 200, 500)
_MOST: Final = 1_000_000
"""Seeds, evaluations, a batch: beyond any space that is compared on, before memory is gone."""

_TABLE_TOLERANCE: Final = 0.10  # 2 % of a small space leaves next to nothing to search


@dataclass(frozen=True)
class Comparison:
    """Everything that decides the result; equal requests give equal results.

    Attributes:
        methods: contenders such as "evolution" and "evolution+di", or "all" alone.
        tables: names or files of tables.
        run: instead of tables, the folder of a run whose weights score candidates.
        budgets: each of them on each table; of a run, its own if none is given.
        seeds: of the runs; the evaluation seed of a table is the remainder by its number of them.
        evaluations: distinct candidates that a run scores.
        start: random candidates among these that all contenders begin with.
        batch: candidates asked for at once.
        tolerance: share below a limit that counts as on the budget; None: 0.10 on tables, 0.02
            on a run.
        at: numbers of evaluations after which contenders are compared; `evaluations` always is.

    Raises:
        InputError: something is missing, repeated or out of range.
    """

    methods: tuple[str, ...]
    tables: tuple[str, ...] = ()
    run: str | None = None
    budgets: tuple[str, ...] = ()
    seeds: tuple[int, ...] = tuple(range(20))
    evaluations: int = 500
    start: int = 20
    batch: int = 10
    tolerance: float | None = None
    at: tuple[int, ...] = _AT

    def __post_init__(self) -> None:
        _require_names(self)
        _require_numbers(self)
        if len(self.contenders) < 2:
            raise InputError(
                f"{self.methods[0]} alone cannot be compared; add another, such as --method random"
            )
        _require_other_budgets(self)

    @property
    def contenders(self) -> list[Contender]:
        return contenders(self.methods)

    @property
    def points(self) -> list[int]:
        """Numbers of evaluations after which contenders are compared, ascending."""
        return sorted({*(at for at in self.at if at < self.evaluations), self.evaluations})

    def budget(self, text: str) -> Budget:
        usual = _TABLE_TOLERANCE if self.run is None else Budget.tolerance
        return Budget.parse(text, tolerance=usual if self.tolerance is None else self.tolerance)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Comparison":
        """Read what `to_json` wrote, or a person did; "seeds" may be a number, from 0 on.

        Raises:
            InputError: a field is unknown, or is not what it should be.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(data) - set(known))
        if unknown:
            raise InputError(f"a comparison has no {unknown[0]!r}; it has {', '.join(known)}")
        values = {name: _CHECKED[name](name, value) for name, value in data.items()}
        return cls(**{"methods": (), **values})

    def to_json(self) -> dict[str, Any]:
        """Plain values; the contenders by name, since "all" may be others another day."""
        lists = {name: list(getattr(self, name)) for name in ("tables", "budgets", "seeds", "at")}
        return {**asdict(self), **lists, "methods": [each.name for each in self.contenders]}


def read_request(file: Path) -> dict[str, Any]:
    """The fields of a comparison in a JSON file, unchecked.

    Raises:
        InputError: it cannot be read, or holds no object.
    """
    try:
        return read_sealed(file)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{file} cannot be read as a comparison ({error}); write an object such as"
            " {'methods': ...}"
        ) from None


def _require_names(request: Comparison) -> None:
    if not request.methods:
        raise InputError("name the methods, such as --method evolution --method random")
    if bool(request.tables) == bool(request.run):
        raise InputError("name either tables, such as --table NAME, or one run, --run RUN")
    if request.tables and not request.budgets:
        raise InputError("a comparison on tables needs budgets, such as --budget macs=40%")
    for what, names in (("table", request.tables), ("budget", request.budgets)):
        _require_distinct(what, names)


def _require_numbers(request: Comparison) -> None:
    if not request.seeds:
        raise InputError("0 seeds compare nothing; 20 or more tell methods apart")
    for seed in request.seeds:
        if seed < 0:
            raise InputError(f"seed {seed} is negative; seeds count from 0")
    _require_distinct("seed", request.seeds)
    for name in ("evaluations", "batch"):
        if getattr(request, name) < 1:
            raise InputError(f"{name}={getattr(request, name)} must be at least 1")
        if getattr(request, name) > _MOST:
            raise InputError(f"{name}={getattr(request, name)} must be at most {_MOST}")
    if not 0 <= request.start <= request.evaluations:
        raise InputError(
            f"start={request.start} is outside 0..{request.evaluations}, the number of"
            " evaluations, among which start points count"
        )
    if min(request.at, default=1) < 1:
        raise InputError(f"at={min(request.at)} must be at least 1")


def _require_distinct(what: str, values: Sequence[object]) -> None:
    seen = set[object]()
    for value in values:
        if value in seen:
            raise InputError(f"the {what} {value} is given twice; name each once")
        seen.add(value)


def _require_other_budgets(request: Comparison) -> None:
    """Refuse one that is written in two ways: its problem would count twice."""
    seen = dict[frozenset[str], str]()
    for text in request.budgets:
        limits = frozenset(map(repr, request.budget(text).limits))
        if limits in seen:
            raise InputError(f"the budgets {seen[limits]} and {text} are the same; name one")
        seen[limits] = text


# -- fields of a file ------------------------------------------------------------------------------


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise InputError(f"{name} must be a list of texts, not {value!r}")
    return tuple(value)


def _integer(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{name} must be a whole number, not {value!r}")
    return value


def _integers(name: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list | tuple):
        raise InputError(f"{name} must be a list of whole numbers, not {value!r}")
    return tuple(_integer(name, each) for each in value)


def _seeds(name: str, value: Any) -> tuple[int, ...]:
    if isinstance(value, list | tuple):
        return _integers(name, value)
    if _integer(name, value) > _MOST:
        raise InputError(f"{name}={value} must be at most {_MOST}")
    return tuple(range(value))


def _text(name: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InputError(f"{name} must be a text, not {value!r}")
    return value


def _share(name: str, value: Any) -> float | None:
    if value is not None and (not isinstance(value, int | float) or isinstance(value, bool)):
        raise InputError(f"{name} must be a number, not {value!r}")
    try:
        return None if value is None else float(value)
    except OverflowError:
        raise InputError(f"{name}={value} is too large; give a share such as 0.02") from None


_CHECKED: Final[Mapping[str, Callable[[str, Any], Any]]] = {
    "methods": _texts,
    "tables": _texts,
    "run": _text,
    "budgets": _texts,
    "seeds": _seeds,
    "evaluations": _integer,
    "start": _integer,
    "batch": _integer,
    "tolerance": _share,
    "at": _integers,
}
