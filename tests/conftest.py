"""`import prunas` comes before any `import timm`, which may need what prunas declares."""

import signal

import prunas  # noqa: F401
from prunas.allocator import keep_freed_memory

# A shell has Ctrl-C ignored in what it runs in its background, and in all that this starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

keep_freed_memory()

collect_ignore = ["faults/trap.py"]  # which must never be imported
