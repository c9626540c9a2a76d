"""What survives what: runs killed with signal 9 at random moments, and files damaged at random.

    python benchmarks/faults.py                  # 200 moments and 10,000 damaged files
    python benchmarks/faults.py --moments 20 --damages 0

A moment is drawn from the whole time that an undisturbed run takes: search, transformation, final
training, artifact and reports. After every kill each file must be whole under its own name, and the
run must go on to the result, the evaluations, the loss curves and the weights of the undisturbed
one. A damaged file must be refused in a sentence or read as before. `--workers` kills a worker
process instead of the driver, which has to end as if nothing had happened.
"""

import argparse
import resource
import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import prunas  # noqa: F401  (before timm)

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.faults.fuzz import fuzz
from tests.faults.kills import go_on, outcome, run, run_and_kill_a_worker, same_weights, whole
from tests.faults.targets import targets
from tests.faults.test_kills import small_search
from tests.pipeline.pictures import bright_pictures

_MEMORY = 16 * 2**30  # a bomb that takes more ends the script


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("--moments", type=int, default=200, help="kills of the driver")
    asked.add_argument("--workers", type=int, default=0, help="kills of a worker")
    asked.add_argument("--damages", type=int, default=10_000, help="damaged files, of all kinds")
    asked.add_argument("--seed", type=int, default=0)
    options = asked.parse_args()
    with tempfile.TemporaryDirectory() as place:
        wrong = _kills(Path(place), options.moments, options.workers, options.seed)
        wrong += _damages(Path(place), options.damages, options.seed)
    sys.exit(1 if wrong else 0)


def _kills(place: Path, moments: int, workers: int, seed: int) -> int:
    if not moments + workers:
        return 0
    begin = small_search(bright_pictures(place))
    undisturbed = place / "undisturbed"
    ended = run(go_on(undisturbed, [*begin, "--out", str(undisturbed)]))
    assert ended.code == 0, "the undisturbed run fails"
    expected = outcome(undisturbed)
    print(f"an undisturbed run takes {ended.seconds:.1f} s")
    rng = np.random.default_rng(seed)
    where: Counter[str] = Counter()
    wrong = []
    for number in range(moments + workers):
        after = float(rng.random() * ended.seconds)
        folder = place / "killed"
        words = [*begin, "--out", str(folder)]
        if number < moments:
            run(go_on(folder, words), kill_after=after)
            where[_stage(folder)] += 1
        try:
            known = whole(folder)
            if number < moments:
                assert run(go_on(folder, words)).code == 0, "it does not go on"
            else:
                killed, code = run_and_kill_a_worker(go_on(folder, words), after)
                where["a worker" if killed else "no worker was there"] += 1
                assert code == 0, "the driver does not end well"
            assert known.items() <= whole(folder).items(), "an evaluation is lost"
            assert (found := outcome(folder)) == expected, _difference(found, expected)
            assert same_weights(folder / "model", undisturbed / "model"), "the weights are others"
        except Exception as error:  # noqa: BLE001  (whatever it is, it is counted)
            wrong.append(f"{number}, after {after:.3f} s: {type(error).__name__}: {error}")
            print(wrong[-1])
        print(f"{number + 1} kills, {len(wrong)} with another end", file=sys.stderr)
        _remove(folder)
    print(f"{moments + workers} kills, {len(wrong)} with another end; what had been made by then:")
    for stage, count in where.most_common():
        print(f"  {count:>4}  {stage}")
    return len(wrong)


def _stage(folder: Path) -> str:
    """The latest thing that is on record."""
    made = {
        "nothing": folder.parent,
        "the folder": folder,
        "the request": folder / "run.json",
        "an epoch of the full network": folder / "checkpoints" / "full.safetensors",
        "the prior": folder / "checkpoints" / "prior.json",
        "an epoch of the shared weights": folder / "checkpoints" / "supernet-training.safetensors",
        "the shared weights": folder / "checkpoints" / "supernet.safetensors",
        "the archive": folder / "archive.sqlite",
        "a finalist": next((folder / "checkpoints").glob("finalist-*.json"), folder / "none"),
        "the untrained artifact": folder / "model",
        "the first report": folder / "report.html",
        "a transformation": folder / "checkpoints" / "transformation.json",
        "an epoch of a final training": next(
            (folder / "checkpoints").glob("final-*.safetensors"), folder / "none"
        ),
        "a final training": next((folder / "checkpoints").glob("final-*.json"), folder / "none"),
    }
    return [name for name, path in made.items() if path.exists()][-1]


def _difference(found: Any, expected: Any, where: str = "the outcome") -> str:
    """Where two outcomes differ first."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for name in sorted({*found, *expected}):
            if found.get(name) != expected.get(name):
                return _difference(found.get(name), expected.get(name), f"{where}, {name}")
    return f"{where} is {str(found)[:500]}, not {str(expected)[:500]}"


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    if folder.exists():
        folder.rmdir()


def _damages(place: Path, count: int, seed: int) -> int:
    if not count:
        return 0
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    start = perf_counter()
    (place / "files").mkdir()
    every = targets(place / "files")
    each = -(-count // len(every))
    tally = fuzz(every, each, seed=seed, place=place / "place")
    seconds = perf_counter() - start
    print(f"{each * len(every):,} damaged files of {len(every)} kinds in {seconds:.0f} s")
    answers = sorted({answer for _, answer in tally.counts if answer in _FINE}, key=_FINE.index)
    print(f"  {'':<22}" + "".join(f"{answer:>13}" for answer in answers))
    for target in every:
        counts = [tally.counts[target.name, answer] for answer in answers]
        print(f"  {target.name:<22}" + "".join(f"{number:>13,}" for number in counts))
    for sentence in tally.wrong:
        print(f"  wrong: {sentence}")
    return len(tally.wrong)


_FINE = ("refused", "read", "in part", "taken")


if __name__ == "__main__":
    main()
