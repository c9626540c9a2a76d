"""Prunas: channel pruning and architecture search as one search over one network."""

from prunas import interruption as interruption
from prunas import kernel_cache as kernel_cache
from prunas import torchvision_schemas as torchvision_schemas
from prunas.errors import InputError, RunError
from prunas.eval.cost import Cost
from prunas.pipeline.artifact import load, save
from prunas.pipeline.pruning import Pruned, prune
from prunas.supernet.choice import Choice
from prunas.supernet.cut import cut
from prunas.supernet.grid import WidthGrid
from prunas.supernet.permute import permute
from prunas.supernet.space import Candidate, Gene, SearchSpace
from prunas.supernet.trace import trace
from prunas.supernet.verify import verify

__all__ = [
    "Candidate",
    "Choice",
    "Cost",
    "Gene",
    "InputError",
    "Pruned",
    "RunError",
    "SearchSpace",
    "WidthGrid",
    "cut",
    "load",
    "permute",
    "prune",
    "save",
    "trace",
    "verify",
]
