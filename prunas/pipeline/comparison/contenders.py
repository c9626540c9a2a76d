"""Who takes part: each search method, with what is known before the search or without it."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from prunas.errors import InputError
from prunas.search.method import Search
from prunas.search.methods import SEARCHES

EVERY: Final = "all"
RANDOM: Final = "random"
"""The control: what every other method has to beat."""

DI: Final = "di"
DAIS: Final = "dais"
PRIORS: Final = (DI, DAIS)
"""What a method may be told before: discriminant information, or indicators that were learnt."""

_SIGN: Final = "+"


@dataclass(frozen=True)
class Contender:
    """A search method, with a prior or without.

    Attributes:
        method: its name.
        prior: one of `PRIORS` that it is told, or None.
    """

    method: str
    prior: str | None

    @property
    def name(self) -> str:
        return self.method if self.prior is None else self.method + _SIGN + self.prior

    @property
    def search(self) -> Search:
        return SEARCHES[self.method]


def contenders(names: Sequence[str]) -> list[Contender]:
    """The contenders called `names`, in that order; "all" is every method
    without a prior and with that of discriminant information.

    Raises:
        InputError: one is not known, or named twice.
    """
    if EVERY in names:
        if len(names) > 1:
            other = next(name for name in names if name != EVERY) if len(set(names)) > 1 else EVERY
            raise InputError(f"{EVERY} names every method already; leave out {other}")
        return [Contender(name, prior) for name in SEARCHES for prior in (None, DI)]
    found = [_contender(name) for name in names]
    for each in found:
        if found.count(each) > 1:
            raise InputError(f"the method {each.name} is given twice; name each once")
    return found


def of_name(name: str) -> Contender:
    """What `Contender.name` gave."""
    method, _, prior = name.partition(_SIGN)
    return Contender(method, prior or None)


def _contender(name: str) -> Contender:
    found = of_name(name)
    if found.method not in SEARCHES:
        near = get_close_matches(found.method, SEARCHES, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(
            f"no search is called {found.method!r}; {hint}known are {', '.join(SEARCHES)}, each"
            f" also with a prior, as {RANDOM}{_SIGN}{DI}"
        )
    if found.prior is not None and found.prior not in PRIORS:
        raise InputError(
            f"no prior is called {found.prior!r}; there are {', '.join(PRIORS)}, as in"
            f" {found.method}{_SIGN}{DI}"
        )
    return found
