"""The pace of a device: how much slower everything on it is for a while.

A machine that is shared with others slows down and recovers within seconds, and whatever is timed
meanwhile seems slower. What is timed beside it seems slower too, by the same factor, which is
therefore seen in it and taken out:

    seconds = time of the piece * pace at the visit * noise
    pace at a visit = median of seconds / time of the piece over the visits to others around it

Times and paces are found in turn. A piece never has a part in its own pace, so that noise of its
own stays noise.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

NEAR: Final = 5
"""Visits before and after that show the pace of one, but for those to the same piece."""

_TURNS: Final = 5  # more change times by less than a thousandth

Values = NDArray[np.float64]


def at_usual_pace(order: NDArray[np.intp], seconds: Values) -> tuple[Values, Values]:
    """What visits had taken at the median pace, and the paces.

    Args:
        order: (rounds, pieces), which piece was visited when.
        seconds: (rounds, pieces), what its visit took, in the same order.

    Returns:
        (rounds, pieces) seconds, a column a piece; and (rounds, pieces) paces in order of time,
        with median 1. Nothing shows the pace of a single piece, and it is 1.
    """
    logs, column = np.log(seconds), np.argsort(order, axis=1)
    pace = np.zeros_like(logs)
    others = _others(order.ravel())
    for _ in range(_TURNS if order.shape[1] > 1 else 0):
        usual = np.median(np.take_along_axis(logs - pace, column, axis=1), axis=0)
        around = np.where(others, _windows((logs - usual[order]).ravel()), np.nan)
        pace = np.nanmedian(around, axis=1).reshape(logs.shape)
        pace -= np.median(pace)
    return np.exp(np.take_along_axis(logs - pace, column, axis=1)), np.exp(pace)


def _others(pieces: NDArray[np.intp]) -> NDArray[np.bool_]:
    """(visits, 2 `NEAR` + 1): which visits around each are to other pieces."""
    around = _windows(pieces.astype(np.float64))
    there: NDArray[np.bool_] = ~np.isnan(around)
    other: NDArray[np.bool_] = around != pieces[:, None]
    return there & other


def _windows(values: Values) -> Values:
    padded = np.pad(values, NEAR, constant_values=np.nan)
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * NEAR + 1)
