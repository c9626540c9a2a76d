"""Search methods against each other: the same candidates, budgets, start points and seeds."""

from prunas.pipeline.comparison.request import Comparison, read_request
from prunas.pipeline.comparison.results import Results
from prunas.pipeline.comparison.study import Means, compare_methods

__all__ = ["Comparison", "Means", "Results", "compare_methods", "read_request"]
