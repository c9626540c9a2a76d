"""What is shown while something runs."""

import pytest

from prunas.pipeline.progress import Progress


def test_names_in_brackets_are_said_and_shown_as_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = Progress(visible=True)
    progress.say("resnet[macs50] on photos[/b] :fire:")
    with progress.task("scores, [/b]") as task:
        task.update(1, 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert "resnet[macs50] on photos[/b] :fire:\n" in err
    assert "scores, [/b]" in err
