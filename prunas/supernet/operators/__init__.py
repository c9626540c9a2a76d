"""One small rule per ATen operator: what it does to the labels of its inputs.

A rule gets the call and returns the labels of the output (a tuple of node arrays, one per
dimension), or a list of such tuples where the operator returns several tensors. What a rule ties or
pins it writes into `call.labels`. An operator without a rule pins everything it touches and is
reported by name: nothing is ever taken for element-wise in silence.
"""

from prunas.supernet.operators import (  # noqa: F401 - their rules enter the table
    entries,
    frequencies,
    pictures,
    products,
    shapes,
    statistics,
)
from prunas.supernet.operators.call import RULES, Call, Dims, pinned
from prunas.supernet.operators.elementwise import ELEMENTWISE

__all__ = ["ELEMENTWISE", "RULES", "Call", "Dims", "pinned"]
