"""Arrays as a value."""

import json

import numpy as np
import pytest

from prunas.search.learnt import Learnt


def test_equal_by_content() -> None:
    one, other = Learnt({"a": [1.0, 2.0]}), Learnt({"a": np.array([1.0, 2.0])})
    assert one == other
    assert hash(one) == hash(other)
    assert one != Learnt({"a": [1.0, 3.0]})
    assert one != Learnt({"a": [[1.0, 2.0]]})
    assert one != Learnt({"b": [1.0, 2.0]})
    assert one != {"a": [1.0, 2.0]}


def test_nobody_changes_it() -> None:
    source = np.zeros(2)
    learnt = Learnt({"a": source})
    source += 1
    assert learnt["a"].tolist() == [0, 0]
    with pytest.raises(ValueError, match="read-only"):
        learnt["a"][0] = 1
    more = learnt.changed(a=[3.0], b=[4.0])
    assert dict(learnt) == {"a": learnt["a"]}
    assert more == Learnt({"a": [3.0], "b": [4.0]})


def test_through_json() -> None:
    learnt = Learnt({"a": np.random.default_rng(0).random((3, 2)), "none": np.empty((0, 4))})
    assert Learnt.from_json(json.loads(json.dumps(learnt.to_json()))) == learnt
    assert repr(learnt) == "Learnt(a: (3, 2), none: (0, 4))"
