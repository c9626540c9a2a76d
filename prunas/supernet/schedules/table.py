"""Every schedule on offer, by the name that the command line takes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Final, final

from prunas.errors import InputError
from prunas.supernet.schedules.fair import Fair
from prunas.supernet.schedules.sandwich import Sandwich
from prunas.supernet.schedules.schedule import Paths, Schedule
from prunas.supernet.schedules.shrinking import Shrinking
from prunas.supernet.schedules.single_path import SinglePath
from prunas.supernet.schedules.warm_up import WarmUp
from prunas.supernet.space import SearchSpace

DEFAULT: Final = "sandwich"
WARMED_UP: Final = "+warm-up"
"""Behind a name: with `WarmUp`."""


@final
@dataclass(frozen=True)
class Setting:
    """What a schedule is made for.

    Attributes:
        space: the candidates.
        in_budget: draws those where the search will look.
        paths: random candidates in a step, which a schedule may multiply.
        seed: of what outlasts a step.
    """

    space: SearchSpace
    in_budget: Paths
    paths: int = 1
    seed: int = 0


SCHEDULES: Final[Mapping[str, Callable[[Setting], Schedule]]] = MappingProxyType(
    {
        "sandwich": lambda at: Sandwich(at.space.full(), at.in_budget, at.paths),
        "sandwich-published": lambda at: Sandwich(
            at.space.full(), at.space.sample, at.paths, always=(at.space.smallest(),)
        ),
        "single-path": lambda at: SinglePath(at.space.sample, at.paths),
        "bounded": lambda at: SinglePath(at.in_budget, at.paths),
        "fair": lambda at: Fair(at.space, at.paths, at.seed),
        "shrinking": lambda at: Shrinking(at.space, at.paths),
    }
)


def schedule_of(name: str, setting: Setting) -> Schedule:
    """The schedule of a name such as "fair" or "fair+warm-up".

    Raises:
        InputError: no schedule is called so, or it cannot be had in this space.
    """
    require_schedule(name)
    schedule = SCHEDULES[name.removesuffix(WARMED_UP)](setting)
    return WarmUp(schedule, setting.space) if name.endswith(WARMED_UP) else schedule


def require_schedule(name: str) -> None:
    """Refuse a name that `schedule_of` does not know.

    Raises:
        InputError: no schedule is called so; says which ones nearly are.
    """
    if name.removesuffix(WARMED_UP) in SCHEDULES:
        return
    known = [*SCHEDULES, *(each + WARMED_UP for each in SCHEDULES)]
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise InputError(
        f"no schedule is called {name!r}; {hint}known are {', '.join(SCHEDULES)}, each also with"
        f" {WARMED_UP} behind it"
    )
