"""Damages files and sees what their readers make of them."""

import faulthandler
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prunas.errors import InputError, RunError
from tests.faults.damage import Damage, damaged
from tests.faults.targets import Target

_HUNG = 300.0  # seconds, after which the program ends with a traceback


@dataclass
class Tally:
    """How damaged files were taken.

    Attributes:
        counts: (target, answer) with answers "refused", "read" (as before), "in part", and
            "taken" (as what a file without a checksum, or somebody who made a new one, says).
        wrong: what must not happen: another exception, or another value in silence.
    """

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def fuzz(targets: Sequence[Target], count: int, *, seed: int, place: Path) -> Tally:
    """Damage each target `count` times; damage number i of a target is always the same.

    Args:
        targets: what to damage.
        count: how often.
        seed: decides.
        place: an empty folder to work in.
    """
    contents = {each.name: (each.folder / each.file).read_bytes() for each in targets}
    tally = Tally()
    for target in targets:
        others = [content for name, content in contents.items() if name != target.name]
        expected = target.read(_copied(target, place))
        for number in range(count):
            rng = np.random.default_rng([seed, number, *target.name.encode()])
            form = Path(target.file).suffix
            damage = damaged(contents[target.name], rng, others=others, form=form)
            answer = _answer(target, damage, expected, _copied(target, place))
            tally.counts[target.name, answer] += 1
            if answer not in ("refused", "read", "in part", "taken"):
                tally.wrong.append(f"{target.name}, {number}, {damage.name}: {answer}")
    return tally


def _copied(target: Target, place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(target.folder, place)
    return place


def _answer(target: Target, damage: Damage, expected: Any, folder: Path) -> str:
    (folder / target.file).write_bytes(damage.content)
    faulthandler.dump_traceback_later(_HUNG, exit=True)
    try:
        found = target.read(folder)
    except (InputError, RunError) as error:
        return "refused" if str(error) else "refused without a word"
    except Exception as error:  # noqa: BLE001  (whatever it is, it is what is looked for)
        return f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        faulthandler.cancel_dump_traceback_later()
    if repr(found) == repr(expected):
        return "read"
    if target.may_lack and _is_part(found, expected):
        return "in part"
    if damage.meant or not target.sealed:
        return "taken"
    return f"another value in silence: {repr(found)[:200]}"


def _is_part(found: Sequence[Any], expected: Sequence[Any]) -> bool:
    """Whether they are some of what is expected, in its order."""
    left = iter(map(repr, expected))
    return all(each in left for each in map(repr, found))
