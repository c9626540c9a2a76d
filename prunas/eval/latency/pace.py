"""The pace of a device: how much slower everything on it is for a while.

A machine that is shared with others slows down and recovers within seconds, and whatever is timed
meanwhile seems slower. What is timed beside it seems slower too, by the same factor, which is
therefore seen in it and taken out:

    seconds = time of the piece * pace at the visit * noise
    pace at a visit = median of seconds / time of the piece over the nearest visits to other pieces

Times and paces are found in turn. A visit never has a part in its own pace, so that noise of its
own stays noise.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

NEAR: Final = 5
"""Visits before and after, of the same round, that show the pace of one."""

_TURNS: Final = 5  # more change times by less than a thousandth

Values = NDArray[np.float64]


def at_usual_pace(order: NDArray[np.intp], seconds: Values) -> tuple[Values, Values]:
    """What visits had taken at the median pace, and the paces.

    Args:
        order: (rounds, pieces), which piece was visited when.
        seconds: (rounds, pieces), what its visit took, in the same order.

    Returns:
        (rounds, pieces) seconds, a column a piece; and (rounds, pieces) paces in order of time,
        with median 1. Of `NEAR` pieces or fewer none shows the pace of another, and it is 1.
    """
    logs, column = np.log(seconds), np.argsort(order, axis=1)
    pace = np.zeros_like(logs)
    for _ in range(_TURNS if order.shape[1] > NEAR else 0):
        usual = np.median(np.take_along_axis(logs - pace, column, axis=1), axis=0)
        pace = _around(logs - usual[order])
        pace -= np.median(pace)
    return np.exp(np.take_along_axis(logs - pace, column, axis=1)), np.exp(pace)


def _around(values: Values) -> Values:
    """Median of the neighbours in each row, without the value itself; there must be one."""
    padded = np.pad(values, ((0, 0), (NEAR, NEAR)), constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * NEAR + 1, axis=1)
    return np.nanmedian(np.delete(windows, NEAR, axis=2), axis=2)
