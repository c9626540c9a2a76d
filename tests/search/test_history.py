"""A history is a tuple; the oracle is one."""

from hypothesis import given
from hypothesis import strategies as st

from prunas.search.history import History
from prunas.supernet.space import Candidate

Entry = tuple[Candidate, int]


def of(entry: Entry) -> Candidate:
    return entry[0]


def entries(values: list[int]) -> list[Entry]:
    return [(Candidate((value,)), -value) for value in values]


@given(st.lists(st.tuples(st.integers(0, 9), st.lists(st.integers(0, 3), max_size=3)), max_size=12))
def test_every_version_stays_what_it_was(steps: list[tuple[int, list[int]]]) -> None:
    """Whichever version is added to, and however often."""
    versions: list[tuple[History[Entry], tuple[Entry, ...]]] = [(History(of), ())]
    for number, (base, values) in enumerate(steps):
        history, expected = versions[base % len(versions)]
        added = entries([10 * number + value for value in dict.fromkeys(values)])
        versions.append((history + added, (*expected, *added)))
        for each, oracle in versions:
            assert each == oracle
            assert tuple(each) == oracle
            assert len(each) == len(oracle)
            for candidate, _ in entries(list(range(10 * len(steps)))):
                assert each.has(candidate) == (candidate in {of(entry) for entry in oracle})


@given(st.integers(0, 6), st.integers(-8, 8), st.integers(-8, 8), st.sampled_from([-2, -1, 1, 3]))
def test_parts_are_those_of_a_tuple(length: int, start: int, stop: int, step: int) -> None:
    oracle = tuple(entries(list(range(length))))
    history = History(of, oracle)
    longer = history + entries([100])
    assert history[start:stop:step] == oracle[start:stop:step]
    if -length <= start < length:
        assert history[start] == oracle[start]
    assert longer[-1] == entries([100])[0]
    assert len(history) == length
    assert history != longer
    assert hash(history) == hash(oracle)
    assert repr(history) == repr(oracle)


def test_a_candidate_named_twice_stays_known_to_all() -> None:
    """A damaged state may do so."""
    earlier = History(of, entries([1]))
    longer = earlier + entries([2, 1])
    assert earlier.has(Candidate((1,)))
    assert len(longer) == 3
