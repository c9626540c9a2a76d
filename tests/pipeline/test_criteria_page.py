"""The page about criteria, and the sensitivities in it."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import prunas
from prunas.errors import RunError
from prunas.eval.accuracy import accuracy
from prunas.eval.criteria.sensitivity import narrowing
from prunas.eval.criteria.verdict import width_genes
from prunas.eval.recalibration import recalibrated
from prunas.pipeline import criteria_study
from prunas.pipeline.cli import main
from prunas.pipeline.criteria_study import Subject, study
from prunas.pipeline.processes import single_threaded
from prunas.pipeline.progress import Progress
from prunas.pipeline.workers import HERE, Workers
from tests.supernet.networks import IMAGE, Network


def test_a_sensitivity_is_the_accuracy_of_that_cut() -> None:
    network = Network(["Residual"])
    space = prunas.trace(network, IMAGE)
    rng = np.random.default_rng(0)
    orders = [rng.permutation(width).tolist() for width in space.widths]
    images = torch.randn(64, *IMAGE, generator=torch.Generator().manual_seed(0))
    batches = [(images, network(images).argmax(1).detach())]
    measure = narrowing(network, space, orders, batches, batches, shares=(0.5,))
    rows = [measure(gene) for gene in width_genes(space)]
    assert [row.gene for row in rows] == list(width_genes(space))
    ordered = prunas.permute(network, space, orders)
    for row in rows:
        assert row.widths[-1] == space.widths[row.gene]
        for width, found in zip(row.widths, row.accuracies, strict=True):
            candidate = list(space.full())
            candidate[row.gene] = width
            small = prunas.cut(ordered, space, space.candidate(candidate))
            with recalibrated(small, batches):
                assert found == accuracy(small, batches)


def test_workers_judge_and_measure_as_this_process_does() -> None:
    subject = Subject("test_byobnet", "digits", images=64)
    silent = Progress()
    with single_threaded():
        here = study(subject, ["l1", "di", "hrank"], HERE, silent)
    named = ["l1", "l1", "di", "hrank"]  # what is named twice is judged once
    there = study(subject, named, Workers("processes", 2), silent)
    assert list(there.verdicts) == ["l1", "di", "hrank"]
    assert there.verdicts == here.verdicts
    assert there.sensitivities == here.sensitivities
    assert [row.gene for row in there.sensitivities] == list(width_genes(there.space))
    assert there.ordered_by == here.ordered_by == "di"


def test_a_criterion_at_which_every_worker_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object, **named: object) -> None:
        raise ValueError("a fault of its own")

    monkeypatch.setattr(criteria_study, "criterion_named", lambda name, images: broken)
    with pytest.raises(RunError, match=r"criteria: l1 cannot be done: .*a fault of its own"):
        study(Subject("test_byobnet"), ["l1"], HERE, Progress())


class Reader(HTMLParser):
    """Collects the figures and the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.figures: dict[str, Any] = {}
        self.text, self._inside = "", ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag if dict(attrs).get("id") != "figures" else "figures"

    def handle_data(self, data: str) -> None:
        if self._inside == "figures":
            self.figures = json.loads(data)
            self._inside = ""
        elif self._inside not in ("script", "style"):
            self.text += data


def test_the_page_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    words = ["criteria", "test_byobnet", "--data", "digits", "--images", "64", "--json"]
    named = [part for name in ("di", "l1", "lamp", "hrank") for part in ("--criterion", name)]
    assert main([*words, *named, "--out", str(page)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["criteria"] == ["di", "l1", "lamp", "hrank"]
    reader = Reader()
    reader.feed(page.read_text())
    drawn = {"similarity", "overlap", "spread", "filters", "sensitivity"}
    assert set(reader.figures) == drawn
    assert reader.figures["similarity"]["data"][0]["x"] == answer["criteria"]
    assert all(sentence in reader.text for sentence in answer["findings"])
    assert "which have ranks" in reader.text  # why hrank cannot judge the last group


def test_without_data_only_weights_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert main(["criteria", "resnet10t", "--out", str(page)]) == 0
    assert "pointless" in capsys.readouterr().out
    reader = Reader()
    reader.feed(page.read_text())
    assert "sensitivity" not in reader.figures
    assert "group-l1" in reader.figures["overlap"]["data"][0]["x"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--out", "/"], "/ is a folder; give the name of a file with --out"),
        (["--out", f"{__file__}/page.html"], f"cannot be written ({__file__} is no folder)"),
        (["--criterion", "di"], "'di' looks at images"),
        (["--weights", "a.pth", "--pretrained"], "or the weights file a.pth, not both"),
        (["--criterion", "best"], "there is no criterion 'best'"),
        (["--executor", "processes"], "say how many processes"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert main(["criteria", "resnet10t", "--out", str(page), *words]) == 2
    assert sentence in capsys.readouterr().err
    assert not page.exists()
