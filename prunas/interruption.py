"""Ctrl-C while the program `prunas` is still being loaded.

Importing torch takes seconds, in which Python answers Ctrl-C with a traceback from wherever it
was. The package imports this module first; where the package is imported by another program, it
does nothing.
"""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from threading import current_thread, main_thread

STOPPED = 130  # what a shell expects after Ctrl-C


def _stop(*_: object) -> None:
    if sys.stderr is not None:  # as it is after 2>&-
        with suppress(OSError):
            os.write(sys.stderr.fileno(), b"prunas: stopped; nothing had been made yet\n")
    os._exit(STOPPED)  # not an exception: half-made imports have nothing to clean up


def loaded() -> None:
    """From here on the program answers Ctrl-C itself."""
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)


_is_program = Path(sys.argv[0] if sys.argv else "").stem == "prunas"
_undecided = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if _is_program and _undecided and current_thread() is main_thread():
    signal.signal(signal.SIGINT, _stop)
