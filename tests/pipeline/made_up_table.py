"""Tables with made-up scores, on spaces small enough to search all of them."""

from pathlib import Path

import numpy as np

from prunas.search.enumeration import enumerated
from prunas.search.table import Counts, Table, write_table
from tests.search.toys import chain_space, prior_of

IMAGES = 1000
TEST_IMAGES = 800


def made_up(name: str = "toy", *, genes: int = 4, seeds: int = 3, seed: int = 0) -> Table:
    """Scores with an optimum inside, and noise of their own under each evaluation seed."""
    space = chain_space(genes, steps=5)
    rng = np.random.default_rng(seed)
    values = enumerated(space)
    likes = 6 + rng.integers(0, 20, genes)
    height = 0.9 - ((values - likes) ** 2).sum(axis=1) / (genes * 32**2)

    def counts(images: int) -> Counts:
        noisy = height + rng.normal(0, 0.02, (seeds, len(values)))
        return np.asarray(np.rint(images * np.clip(noisy, 0, 1)), dtype=np.uint16)

    return Table(
        name,
        {"network": "made up"},
        space,
        counts(IMAGES),
        counts(TEST_IMAGES),
        IMAGES,
        TEST_IMAGES,
        {"di": tuple(prior_of(space, each) for each in range(seeds))},
    )


def write_made_up(file: Path, **options: int) -> Path:
    with file.open("wb") as opened:
        write_table(made_up(file.stem, **options), opened)
    return file
