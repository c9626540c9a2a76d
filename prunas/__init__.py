"""Prunas: channel pruning and architecture search as one search over one network."""

from prunas import interruption as interruption
from prunas import kernel_cache as kernel_cache
from prunas import torchvision_schemas as torchvision_schemas
from prunas.errors import InputError as InputError
from prunas.errors import RunError as RunError
from prunas.eval.cost import Cost as Cost
from prunas.pipeline.artifact import load as load
from prunas.pipeline.artifact import save as save
from prunas.pipeline.pruning import Pruned as Pruned
from prunas.pipeline.pruning import prune as prune
from prunas.supernet.choice import Choice as Choice
from prunas.supernet.cut import cut as cut
from prunas.supernet.grid import WidthGrid as WidthGrid
from prunas.supernet.permute import permute as permute
from prunas.supernet.space import Candidate as Candidate
from prunas.supernet.space import Gene as Gene
from prunas.supernet.space import SearchSpace as SearchSpace
from prunas.supernet.trace import trace as trace
from prunas.supernet.verify import verify as verify
