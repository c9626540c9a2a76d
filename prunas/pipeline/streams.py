"""The output streams, which may be closed or full, or lack letters: no reason to lose any work."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO, cast, final


@contextmanager
def lenient_streams() -> Iterator[None]:
    """Inside, both streams are there and take every letter, and the error stream never fails.

    What an encoding lacks is written with a backslash and its number. A stream that the shell has
    closed (`2>&-`) leads nowhere. Standard output may still fail: it is what a command is for.
    """
    with ExitStack() as undo:
        nowhere = undo.enter_context(open(os.devnull, "w"))
        if sys.stdout is None:
            undo.enter_context(redirect_stdout(nowhere))
        shown = nowhere if sys.stderr is None else sys.stderr
        undo.enter_context(redirect_stderr(cast(TextIO, _Droppable(shown))))
        for stream in (sys.stdout, shown):
            undo.callback(_let_go, stream, nowhere)
            if isinstance(stream, io.TextIOWrapper):
                with suppress(OSError):  # of what is still to be written
                    stream.reconfigure(errors="backslashreplace")
        yield


def is_stuck(stream: TextIO) -> bool:
    """Whether it holds text that it cannot get rid of."""
    try:
        stream.flush()
    except OSError:
        return True
    return False


@final
class _Droppable:
    """A stream of what nobody needs to see: where it cannot be written, it is dropped.

    A pipe that nobody reads any more is an error all the same, with which a program is to end.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with _dropping():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with _dropping():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _dropping() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError:
        pass


def _let_go(stream: TextIO, nowhere: TextIO) -> None:
    """Forget what it could not write, for which Python would end with a code of its own, 120."""
    if is_stuck(stream):
        with suppress(OSError):  # a stream of a test has no number
            os.dup2(nowhere.fileno(), stream.fileno())
