"""A few kills; benchmarks/faults.py makes as many as one likes."""

import signal
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.faults.kills import Change, Words, go_on, outcome, run, same_weights, whole
from tests.pipeline.pictures import bright_pictures

MOMENTS = 3


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing stopped."""

    folder: Path
    begin: Words
    seconds: float
    outcome: dict[str, Any]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    place = tmp_path_factory.mktemp("kills")
    folder, begin = place / "undisturbed", small_search(bright_pictures(place))
    ended = run(go_on(folder, [*begin, "--out", str(folder)]))
    assert ended.code == 0
    whole(folder)
    return Undisturbed(folder, begin, ended.seconds, outcome(folder))


def require_same_result(folder: Path, words: Words, undisturbed: Undisturbed) -> None:
    """Go on with a killed run, which must come to what an undisturbed one found."""
    known = whole(folder)
    assert run(go_on(folder, words)).code == 0
    assert known.items() <= whole(folder).items(), "an evaluation was lost"
    assert outcome(folder) == undisturbed.outcome
    assert same_weights(folder / "model", undisturbed.folder / "model")


def test_a_run_that_is_killed_at_a_moment_goes_on_to_the_same_result(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    shares = (np.arange(MOMENTS) + rng.random(MOMENTS)) / MOMENTS  # one in each third
    for number, share in enumerate(shares):
        folder = tmp_path / f"killed-{number}"
        words = [*undisturbed.begin, "--out", str(folder)]
        run(go_on(folder, words), kill_after=share * undisturbed.seconds)
        require_same_result(folder, words, undisturbed)


@pytest.mark.parametrize(
    "step", [70, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "every"]
)
def test_a_run_that_is_killed_before_a_change_goes_on_to_the_same_result(
    step: int, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    for number in count(step // 2, step):
        folder = tmp_path / f"killed-{number}"
        words = [*undisturbed.begin, "--out", str(folder)]
        ended = run(go_on(folder, words), kill_before=Change(folder, number))
        if ended.code == 0:
            break
        assert ended.code == -signal.SIGKILL
        require_same_result(folder, words, undisturbed)
    assert number > 100, "most changes were not seen"


def small_search(pictures: Path) -> list[str]:
    """A search of seconds, all stages included."""
    options = {
        "--data": str(pictures),
        "--budget": "macs=50%",
        "--evaluations": "6",
        "--seeds": "1",
        "--epochs": "2",
        "--supernet-epochs": "2",
        "--finalists": "2",
        "--finalist-epochs": "1",
        "--final-epochs": "2",
        "--batch-size": "24",
    }
    return ["search", "test_resnet", *(word for pair in options.items() for word in pair)]
