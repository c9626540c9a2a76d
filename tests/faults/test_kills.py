"""A few kills; benchmarks/faults.py makes as many as one likes."""

import json
import shlex
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


@pytest.mark.parametrize(
    "step", [8, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "every"]
)
def test_a_comparison_that_is_killed_before_a_change_goes_on_to_the_same_runs(
    step: int, tmp_path: Path
) -> None:
    assert run([[*COMPARE, "--out", str(tmp_path / "undisturbed")]]).code == 0
    expected = _compared(tmp_path / "undisturbed")
    for number in count(step // 2, step):
        folder = tmp_path / f"killed-{number}"
        words = [*COMPARE, "--out", str(folder)]
        ended = run([words], kill_before=Change(folder, number))
        if ended.code == 0:
            break
        assert ended.code == -signal.SIGKILL
        assert run([words]).code == 0
        assert _compared(folder) == expected
    assert number > 15, "most changes were not seen"


COMPARE = shlex.split(
    "compare --method random --method evolution --table resnet-digits --budget macs=40%"
    " --tolerance 0.25 --seeds 2 --start 5 --evaluations 20 --at 10 --jobs 1"
)


def _compared(folder: Path) -> dict[str, Any]:
    """The files of a comparison, and its runs without what they took."""
    rows = map(json.loads, (folder / "runs.jsonl").read_text().splitlines())
    found = [{k: v for k, v in r.items() if k not in ("seconds", "checksum")} for r in rows]
    return {"files": sorted(each.name for each in folder.iterdir()), "runs": found}


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
