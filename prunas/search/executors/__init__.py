"""Where work happens: in this process, in processes, or on a cluster; never what comes of it."""

from prunas.search.executors.crew import Crew as Crew
from prunas.search.executors.crew import Recipe as Recipe
from prunas.search.executors.crew import Work as Work
from prunas.search.executors.here import Here as Here
from prunas.search.executors.on_ray import OnRay as OnRay
from prunas.search.executors.on_ray import require_ray as require_ray
from prunas.search.executors.processes import Processes as Processes
from prunas.search.executors.processes import end_with_parent as end_with_parent
from prunas.search.executors.supervisor import ENDLESS as ENDLESS
from prunas.search.executors.supervisor import PATIENT as PATIENT
from prunas.search.executors.supervisor import Done as Done
from prunas.search.executors.supervisor import Executor as Executor
from prunas.search.executors.supervisor import Failed as Failed
from prunas.search.executors.supervisor import Patience as Patience
from prunas.search.executors.supervisor import Supervisor as Supervisor
from prunas.search.executors.supervisor import as_finished as as_finished
from prunas.search.executors.supervisor import in_order as in_order
from prunas.search.executors.supervisor import settled as settled
