"""Budgets, searches that are asked and told, the archive of a run, and the one loop."""

from prunas.search.archive import Archive as Archive
from prunas.search.archive import Evaluation as Evaluation
from prunas.search.budget import Budget as Budget
from prunas.search.budget import Feasible as Feasible
from prunas.search.evolution import Evolution as Evolution
from prunas.search.loop import Progress as Progress
from prunas.search.loop import run_search as run_search
from prunas.search.method import Scored as Scored
from prunas.search.method import Search as Search
from prunas.search.method import State as State
from prunas.search.methods import SEARCHES as SEARCHES
from prunas.search.nsga2 import Nsga2 as Nsga2
from prunas.search.prior import Prior as Prior
from prunas.search.prior import allocate as allocate
from prunas.search.randomly import Randomly as Randomly
from prunas.search.uniform import Uniform as Uniform
