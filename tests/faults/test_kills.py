"""A few kills; benchmarks/faults.py makes as many as one likes."""

from pathlib import Path

import numpy as np
import pytest

from tests.faults.kills import go_on, outcome, run, same_weights, whole
from tests.pipeline.pictures import bright_pictures

MOMENTS = 3


def test_a_killed_run_goes_on_to_the_same_result(tmp_path: Path) -> None:
    begin = small_search(bright_pictures(tmp_path))
    undisturbed = tmp_path / "undisturbed"
    ended = run(go_on(undisturbed, [*begin, "--out", str(undisturbed)]))
    assert ended.code == 0
    whole(undisturbed)
    expected = outcome(undisturbed)
    rng = np.random.default_rng(0)
    shares = (np.arange(MOMENTS) + rng.random(MOMENTS)) / MOMENTS  # one in each third
    for number, share in enumerate(shares):
        folder = tmp_path / f"killed-{number}"
        words = [*begin, "--out", str(folder)]
        killed = run(go_on(folder, words), kill_after=share * ended.seconds)
        known = whole(folder)
        assert run(go_on(folder, words)).code == 0
        assert known.items() <= whole(folder).items(), "an evaluation was lost"
        assert outcome(folder) == expected, f"killed after {killed.seconds:.3f} s"
        assert same_weights(folder / "model", undisturbed / "model")


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


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
