"""Runs as wholes: listed, merged and exported."""

from prunas.pipeline.runs.exporting import FORMATS as FORMATS
from prunas.pipeline.runs.exporting import export_runs as export_runs
from prunas.pipeline.runs.listing import Listed as Listed
from prunas.pipeline.runs.listing import list_runs as list_runs
from prunas.pipeline.runs.merging import Merged as Merged
from prunas.pipeline.runs.merging import merge_runs as merge_runs
from prunas.pipeline.runs.source import fingerprints_of as fingerprints_of
from prunas.pipeline.runs.source import is_merged as is_merged
