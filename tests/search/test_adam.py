"""Adam against PyTorch's."""

import numpy as np
import torch

from prunas.search.adam import Adam, ascended
from prunas.search.learnt import Learnt


def test_steps_are_those_of_pytorch() -> None:
    rng = np.random.default_rng(0)
    start = rng.standard_normal(7)
    parameter = torch.nn.Parameter(torch.from_numpy(start.copy()))
    adam = torch.optim.Adam([parameter], lr=0.05, maximize=True)
    learnt = Learnt({"policy": start})
    moments, moved = Adam.fresh(start), start.copy()
    for _ in range(20):
        gradient = rng.standard_normal(7) * rng.random()
        parameter.grad = torch.from_numpy(gradient)
        adam.step()
        learnt = ascended(learnt, "policy", gradient, 0.05)
        moments.ascend(moved, gradient, 0.05)
        expected = parameter.detach().numpy()
        assert np.allclose(learnt["policy"], expected, rtol=1e-12, atol=1e-14)
        assert np.allclose(moved, expected, rtol=1e-12, atol=1e-14)
    assert learnt["policy steps"] == 20


def test_precision_and_blocks() -> None:
    """Entries far apart in a long array of float32 are treated alike."""
    parameters = np.zeros(40_000, np.float32)
    adam = Adam.fresh(parameters)
    adam.ascend(parameters, np.ones(40_000, np.float32), 0.1)
    assert adam.mean.dtype == adam.square.dtype == parameters.dtype == np.float32
    assert np.allclose(parameters, 0.1, rtol=1e-6)
