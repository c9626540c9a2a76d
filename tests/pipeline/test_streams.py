"""Output streams that are closed, full or of few letters cost no work."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from prunas.pipeline.cli import main
from prunas.pipeline.progress import Progress
from prunas.pipeline.streams import lenient_streams
from tests.pipeline.made_up_run import a_run, evaluations


class Refusing(io.RawIOBase):
    """What a stream writes to when there is no room, or nobody."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self._code = code

    def writable(self) -> bool:
        return True

    def write(self, _: object) -> int:
        raise OSError(self._code, os.strerror(self._code))


def refusing(code: int) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedWriter(Refusing(code)), encoding="utf-8")


def work() -> None:
    """Something with a display."""
    progress = Progress(visible=True)
    progress.say("it begins")
    with progress.task("scores") as task:
        task.update(1, 2)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("terminal", [True, False])
def test_a_display_that_fails_is_dropped(
    code: int, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = refusing(code)
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    with lenient_streams():
        work()
    assert sys.stderr is stream


def test_a_display_that_nobody_reads_any_more_ends_the_program(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "stderr", refusing(errno.EPIPE))
    with (tmp_path / "out").open("w") as out:  # which then leads nowhere
        monkeypatch.setattr(sys, "stdout", out)
        with pytest.raises(SystemExit), lenient_streams():
            work()


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_closed_stream_leads_nowhere(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_run(tmp_path / "run", evaluations(3))
    monkeypatch.setattr(sys, name, None)
    with lenient_streams():
        work()
    assert main(["runs", "list", str(tmp_path)]) == 0
    assert main(["runs", "list", str(tmp_path / "none")]) == 2
    assert main(["--nope"]) == 2
    assert getattr(sys, name) is None


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_letters_that_an_encoding_lacks(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / os.fsdecode(b"\xc3\xbc \xe2\x82\xac \xff")  # ü, €, and no letter
    a_run(tmp_path / "run", evaluations(3)).rename(folder)
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    monkeypatch.setenv("COLUMNS", "400")
    assert main(["runs", "list", str(tmp_path)]) == 0
    assert main(["report", str(folder)]) == 0
    assert main(["runs", "export", str(folder), "--out", f"{folder}.csv"]) == 0
    assert rb"\udcff" in written.getvalue()


def test_what_cannot_be_printed_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a_run(tmp_path / "run", evaluations(3))
    for words in (["runs", "list", str(tmp_path)], ["report", str(tmp_path / "run")]):
        monkeypatch.setattr(sys, "stdout", refusing(errno.ENOSPC))
        assert main(words) == 1
        assert capsys.readouterr().err == (
            "prunas: standard output: No space left on device; what was finished is kept\n"
        )


@pytest.mark.parametrize(
    ("redirected", "words", "code"),
    [
        (">&- 2>&-", "runs list .", 0),
        (">/dev/full", "runs list .", 1),
        ("2>/dev/full", "runs list none", 2),
    ],
)
def test_the_exit_code_of_a_process_says_what_happened(
    redirected: str, words: str, code: int, tmp_path: Path
) -> None:
    """Python's own would be 120 where a stream holds text that it cannot get rid of."""
    a_run(tmp_path / "run", evaluations(3))
    command = f"{sys.executable} -m prunas.pipeline.cli {words} {redirected}"
    ended = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (code, b"")
    assert b"Traceback" not in ended.stderr
