"""How much of a zoo of networks can be cut, and is it right: one row a model, with the proof."""

from prunas.pipeline.coverage.protocol import examine
from prunas.pipeline.coverage.row import Row
from prunas.pipeline.coverage.table import cover, lost, read_rows

__all__ = ["Row", "cover", "examine", "lost", "read_rows"]
