"""Which widths a group may take."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import prunas
from prunas.errors import InputError
from prunas.supernet.grid import DEFAULT, EVERY, GRIDS, METAPRUNING, WidthGrid, as_grid


@given(full=st.integers(1, 3000), name=st.sampled_from(sorted(GRIDS)))
def test_widths_ascend_within_the_full_width(full: int, name: str) -> None:
    widths = GRIDS[name].widths(full)
    assert list(widths) == sorted(set(widths))
    assert widths[0] >= 1
    assert widths[-1] == full


def test_the_default_takes_sixteenths_in_multiples_of_eight() -> None:
    # 64 / 16 = 4, 8, 12, 16 stay (up to 16 is free), then 20 -> 16 or 24 ... by 8
    assert DEFAULT.widths(64) == (4, 8, 12, 16, 24, 32, 40, 48, 56, 64)
    assert DEFAULT.widths(3) == (1, 2, 3)
    assert all(width % 8 == 0 or width <= 16 or width == 100 for width in DEFAULT.widths(100))


def test_metapruning_rounds_thirty_one_ratios_down() -> None:
    # 0.10, 0.13, ..., 1.00 of 100
    assert METAPRUNING.widths(100) == tuple(range(10, 101, 3))
    assert METAPRUNING.widths(64)[:3] == (6, 8, 10)  # 6.4, 8.32, 10.24


def test_every_width() -> None:
    assert EVERY.widths(4) == (1, 2, 3, 4)


@pytest.mark.parametrize("ratio", [0.0, -0.5, 1.5])
def test_a_ratio_outside_is_refused(ratio: float) -> None:
    with pytest.raises(InputError, match=rf"width ratio {ratio} is outside \(0, 1\]"):
        WidthGrid((0.5, ratio))


def test_a_divisor_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="width divisor 0 is not positive"):
        WidthGrid(divisor=0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"ratios": (0.3, 0.7), "divisor": 1.5}, "width divisor 1.5 is not positive and whole"),
        ({"ratios": 0.5}, r"ratios are several, such as \(0\.5, 1\.0\), not 0\.5"),
        ({"ratios": ("a",)}, "width ratio a is outside"),
        ({"divisor": None}, "width divisor None is not"),
        ({"free_below": "16"}, "a number of channels, not '16'"),
    ],
)
def test_what_is_no_grid_is_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        WidthGrid(**arguments)


def test_a_grid_by_name() -> None:
    assert as_grid("every") is EVERY
    for wrong in ("fine", 8, [0.5]):
        with pytest.raises(InputError, match=r"no width grid is called .*; choose one of default"):
            as_grid(wrong)  # type: ignore[arg-type]


def test_trace_takes_a_grid_by_name() -> None:
    network = nn.Sequential(nn.Linear(4, 30), nn.Linear(30, 2))
    by_name = prunas.trace(network, (4,), grid="metapruning")
    assert by_name == prunas.trace(network, (4,), grid=METAPRUNING)
    with pytest.raises(prunas.InputError, match="no width grid is called 'fine'"):
        prunas.trace(network, (4,), grid="fine")
