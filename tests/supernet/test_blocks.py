"""Which names lie in which blocks, against asking every block."""

from hypothesis import given
from hypothesis import strategies as st

from prunas.supernet.blocks import Block, lies_in, outermost

paths = st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=4).map(".".join)
blocks = st.lists(paths, max_size=8, unique=True).map(lambda all_: [Block(p, True) for p in all_])


@given(blocks, paths)
def test_a_name_lies_in_a_block_that_holds_it(some: list[Block], name: str) -> None:
    held = any(block.holds(name) for block in some)
    assert lies_in(name, {block.path for block in some}) == held


@given(blocks)
def test_outermost_blocks_lie_in_no_other(some: list[Block]) -> None:
    alone = [b for b in some if not any(o.holds(b.path) for o in some if o is not b)]
    assert outermost(some) == tuple(alone)
