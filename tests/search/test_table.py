"""Tables: every candidate has its place, and damage is told."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from prunas.errors import InputError
from prunas.eval.cost import Cost
from prunas.search.budget import as_candidates
from prunas.search.enumeration import enumerated
from prunas.search.table import Table, read_table, shipped, write_table
from prunas.supernet.space import SearchSpace
from tests.search.toys import everything, prior_of, spaces, toy_space

SPACE = toy_space([(1, 2, 5), (2, 3), (1, 4, 6, 7)], [(3, (0, 1)), (2, (1, 2))])


def table_of(space: SearchSpace, seeds: int = 2) -> Table:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 101, (2, seeds, space.size)).astype(np.uint16)
    priors = {"di": tuple(prior_of(space, seed) for seed in range(seeds))}
    return Table("toy", {"data": "none"}, space, counts[0], counts[1], 100, 120, priors)


def written(table: Table, file: Path) -> Path:
    with file.open("wb") as opened:
        write_table(table, opened)
    return file


@given(space=spaces())
def test_all_candidates_in_order(space: SearchSpace) -> None:
    table = table_of(space, seeds=1)
    assert table.candidates.tolist() == everything(space).tolist()
    assert table.places(table.candidates).tolist() == list(range(space.size))


def test_scores_and_costs_are_those_of_the_candidate() -> None:
    table, cost = table_of(SPACE), Cost(SPACE)
    drawn = SPACE.sample(np.random.default_rng(1), 10)
    listed = [tuple(row) for row in everything(SPACE).tolist()]
    for seed in range(2):
        wanted = [table.held_out[seed, listed.index(candidate)] / 100 for candidate in drawn]
        assert table.scores(drawn, seed).tolist() == wanted
        tested = [table.test[seed, listed.index(candidate)] / 120 for candidate in drawn]
        assert table.test_scores(drawn, seed).tolist() == tested
    values = np.array(drawn)
    assert table.costs.macs(values).tolist() == cost.macs(drawn).tolist()
    assert table.costs.params(values).tolist() == cost.params(drawn).tolist()


def test_through_a_file(tmp_path: Path) -> None:
    table = table_of(SPACE)
    read = read_table(written(table, tmp_path / "toy.npz"))
    assert (read.name, dict(read.about), read.seeds) == ("toy", {"data": "none"}, 2)
    assert read.space.to_json() == SPACE.to_json()
    assert (read.images, read.test_images, read.priors) == (100, 120, table.priors)
    assert np.array_equal(read.held_out, table.held_out)
    assert np.array_equal(read.test, table.test)


def changed(table: Table, file: Path, **arrays: Any) -> Path:
    buffer = io.BytesIO()
    write_table(table, buffer)
    buffer.seek(0)
    with np.load(buffer) as kept:
        np.savez(file, **{**kept, **arrays})
    return file


def rest(table: Table, **entries: Any) -> Any:
    buffer = io.BytesIO()
    write_table(table, buffer)
    buffer.seek(0)
    with np.load(buffer) as kept:
        known = json.loads(kept["rest"].tobytes())
    return np.frombuffer(json.dumps({**known, **entries}).encode(), dtype=np.uint8)


def test_damage_is_told(tmp_path: Path) -> None:
    table, file = table_of(SPACE), tmp_path / "toy.npz"
    whole = written(table, file).read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"nothing of the kind", whole[:50] + whole[60:]):
        file.write_bytes(broken)
        with pytest.raises(InputError, match="is damaged or no table"):
            read_table(file)
    other = toy_space([(1, 2), (2, 3)], [(3, (0, 1))])
    bad: list[dict[str, Any]] = [
        {"held_out": table.held_out[:, :-1]},
        {"test": table.test.astype(np.int64)},
        {"held_out": np.full_like(table.held_out, 101)},
        {"rest": rest(table, format=99)},
        {"rest": rest(table, images=0)},
        {"rest": rest(table, priors={"di": []})},
        {"rest": rest(table, name=5)},
        {"rest": rest(table, priors={"di": 2 * [{"orders": [[0]], "values": [[0, 1]]}]})},
        {"rest": rest(table, space=other.to_json())},
        {"rest": rest(table, space="{}")},
    ]
    for arrays in bad:
        with pytest.raises(InputError, match="is damaged or no table"):
            read_table(changed(table, file, **arrays))


def test_pickles_are_not_loaded(tmp_path: Path) -> None:
    file = changed(table_of(SPACE), tmp_path / "toy.npz", test=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="is damaged or no table"):
        read_table(file)


def test_unknown_tables_name_near_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no table is called 'nothing', nor is it a file"):
        read_table("nothing")
    for name in shipped():
        with pytest.raises(InputError, match=f"did you mean {name}"):
            read_table(name[:-1])


@pytest.mark.parametrize("name", shipped())
def test_shipped_tables_are_whole(name: str) -> None:
    """Ground truth of tens of thousands of candidates and three seeds, that differ from one."""
    table = read_table(name)
    assert table.name == name
    assert table.seeds == 3
    assert table.space.size > 20_000
    assert len(np.unique(table.held_out[0])) > 50
    full = as_candidates(enumerated(table.space)[-1:])
    for seed in range(3):
        assert table.scores(full, seed)[0] > np.median(table.held_out[seed]) / table.images
        agreement = np.corrcoef(table.held_out[seed], table.test[seed])[0, 1]
        assert agreement > 0.7
