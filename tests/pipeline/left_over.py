"""What killed processes leave bears their numbers."""

import subprocess
import sys


def an_ended_process() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        return process.pid
