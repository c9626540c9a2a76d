"""Hypothesis strategies: networks of random blocks."""

from hypothesis import strategies as st

from tests.supernet.networks import BLOCKS, Network


@st.composite
def networks(draw: st.DrawFn, *, without: frozenset[str] = frozenset()) -> Network:
    """One to three random blocks with random weights."""
    names = sorted(set(BLOCKS) - without)
    blocks = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3))
    return Network(blocks, seed=draw(st.integers(0, 99)), flatten=draw(st.booleans()))
