"""One-shot pruning: inside the budget, by every criterion, from the command line as well."""

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

import prunas
from prunas.errors import InputError
from prunas.eval.criteria.table import CRITERIA, WEIGHTS_ALONE
from prunas.eval.recalibration import recalibrate_
from prunas.pipeline.cli import main
from prunas.pipeline.networks import create_network
from prunas.pipeline.pruning import Adaptation, Widths, cut_adapted
from prunas.supernet.resolution import resized, side_of
from prunas.supernet.space import SearchSpace
from tests.supernet.networks import IMAGE, Network, Shifted


def network_and_space() -> tuple[nn.Module, SearchSpace]:
    network = Network(["Residual", "Depthwise"])
    return network, prunas.trace(network, IMAGE)


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(64, *IMAGE, generator=generator)
    return [(images[:32], torch.arange(32) % 5), (images[32:], torch.arange(32) % 5)]


@pytest.mark.parametrize("name", CRITERIA)
def test_every_criterion_prunes_into_the_budget(name: str) -> None:
    network, space = network_and_space()
    found = prunas.prune(network, space, "macs=60%", criterion=name, batches=batches())
    assert found.macs[0] <= 0.6 * found.macs[1]
    assert found.macs[0] > 0.4 * found.macs[1]
    assert found.params[0] == sum(parameter.numel() for parameter in found.network.parameters())
    assert found.network(batches()[0][0]).shape == (32, 5)


@pytest.mark.parametrize("name", sorted(WEIGHTS_ALONE))
def test_weights_alone_need_no_images(name: str) -> None:
    network, space = network_and_space()
    found = prunas.prune(network, space, "macs=60%", criterion=name)
    assert found.macs[0] <= 0.6 * found.macs[1]


def test_several_limits_hold_together() -> None:
    network, space = network_and_space()
    found = prunas.prune(network, space, "macs=70%,params=50%", criterion="l1")
    assert found.macs[0] <= 0.7 * found.macs[1]
    assert found.params[0] <= 0.5 * found.params[1]


def test_uniform_widths_are_those_of_the_baseline() -> None:
    network, space = network_and_space()
    one, two = (
        prunas.prune(network, space, "macs=60%", criterion=name, widths="uniform")
        for name in ("l1", "random")
    )
    assert one.candidate == two.candidate
    assert one.ranking.orders != two.ranking.orders


def test_channels_of_no_use_go_first() -> None:
    """Half of the channels of a layer hold no weights: cutting there costs nothing."""
    network, space = network_and_space()
    network.eval()
    with torch.no_grad():
        network.get_parameter("3.body.0.weight")[::2] = 0
        network.get_parameter("3.body.1.bias")[::2] = 0
        network.get_parameter("3.body.3.weight")[:, ::2] = 0
        expected = network(batches()[0][0])
    gene = next(i for i, g in enumerate(space.genes) if g.name.startswith("3.body"))
    ranking = prunas.prune(network, space, "macs=80%", criterion="group-l1").ranking
    candidate = list(space.full())
    candidate[gene] = 6
    small = prunas.cut(
        prunas.permute(network, space, ranking.orders), space, space.candidate(candidate)
    )
    with torch.no_grad():
        torch.testing.assert_close(small(batches()[0][0]), expected)


def test_refuses_a_criterion_without_what_it_looks_at() -> None:
    network, space = network_and_space()
    with pytest.raises(InputError, match="'di-curvature' looks at images; give some"):
        prunas.prune(network, space, "macs=60%")
    with pytest.raises(InputError, match="there is no criterion 'l3'"):
        prunas.prune(network, space, "macs=60%", criterion="l3")


def test_a_criterion_of_ones_own_is_a_function() -> None:
    network, space = network_and_space()
    mine = CRITERIA["l1"]
    own = prunas.prune(network, space, "macs=60%", criterion=mine)
    named = prunas.prune(network, space, "macs=60%", criterion="l1")
    assert own.candidate == named.candidate
    with pytest.raises(InputError, match="7 is no criterion; give a name, or a function"):
        prunas.prune(network, space, "macs=60%", criterion=7)  # type: ignore[arg-type]


@pytest.mark.parametrize("choice", ["widths", "adaptation"])
def test_a_choice_that_there_is_not(choice: str) -> None:
    network, space = network_and_space()
    with pytest.raises(InputError, match=f"{choice} cannot be 'odd'; choose one of (all|refit)"):
        prunas.prune(network, space, "macs=60%", criterion="l1", **{choice: "odd"})  # type: ignore[arg-type]


def test_images_that_come_as_a_stream() -> None:
    class Stream(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
        def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            return iter(batches())

    network, space = network_and_space()
    stream = DataLoader(Stream(), batch_size=None)  # has no length
    one, two = (
        prunas.prune(network, space, "macs=60%", batches=images) for images in (stream, batches())
    )
    assert one.candidate == two.candidate


def test_refuses_images_that_come_only_once() -> None:
    network, space = network_and_space()
    for once in (iter(batches()), (pair for pair in batches())):
        with pytest.raises(
            InputError, match=r"iterated more than once, .* give a list or a loader"
        ):
            prunas.prune(network, space, "macs=60%", batches=once)
    with pytest.raises(InputError, match="the batches are one tensor of shape"):
        prunas.prune(network, space, "macs=60%", batches=batches()[0][0])


def test_a_network_of_two_inputs_is_pruned_by_its_weights_alone() -> None:
    network = Shifted().eval()
    space = prunas.trace(network, example=[torch.zeros(1, *IMAGE), torch.zeros(1, *IMAGE)])
    found = prunas.prune(network, space, "macs=60%", criterion="l1")
    assert found.macs[0] <= 0.6 * found.macs[1]
    with pytest.raises(InputError, match=r"2 inputs \(images, offsets\), .* without batches"):
        prunas.prune(network, space, "macs=60%", criterion="l1", batches=batches())


@pytest.mark.parametrize("budget", [None, 0.5, {"macs": 0.5}])
def test_refuses_what_is_no_budget(budget: Any) -> None:
    network, space = network_and_space()
    with pytest.raises(InputError, match="is not a budget; give one such as 'macs=50%'"):
        prunas.prune(network, space, budget, criterion="l1")


@pytest.mark.parametrize("criterion", ["di-curvature", "l1", "taylor"])
def test_refuses_images_that_the_network_does_not_run_on(criterion: str) -> None:
    network, space = network_and_space()
    images = torch.rand(4, *IMAGE)
    for wrong in (images.double(), images[:, :1], images.to(torch.uint8)):
        given = [(wrong, torch.arange(4))]
        with pytest.raises(InputError, match="does not run on images of shape"):
            prunas.prune(network, space, "macs=60%", criterion=criterion, batches=given)


def test_refuses_a_budget_out_of_reach() -> None:
    network, space = network_and_space()
    with pytest.raises(InputError, match="the smallest one has"):
        prunas.prune(network, space, "macs=2", criterion="l1")


def test_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["prune", "mobilenetv2_050", "--budget", "macs=50%", "--data", "digits"]
    assert main([*words, "--criterion", "di", "--images", "256", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["macs"]["pruned"] <= 0.5 * answer["macs"]["full"]
    assert set(answer["held_out_accuracy"]) == {"full", "pruned"}
    assert any("random weights" in note for note in answer["notes"])
    small = prunas.load(answer["model"])
    assert sum(p.numel() for p in small.parameters()) == answer["params"]["pruned"]
    assert main([*words, "--widths", "uniform", "--criterion", "l1", "--out", "small"]) == 0
    assert "held-out accuracy without training" in capsys.readouterr().out
    assert (tmp_path / "small" / "arch.json").exists()


def test_a_classifier_that_weights_do_not_fit_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = create_network("test_resnet", classes=7, input_size=(1, 8, 8))
    save_file(other.state_dict(), tmp_path / "w.safetensors")
    given = ["test_resnet", "--data", "digits", "--weights", str(tmp_path / "w.safetensors")]
    small = ["--budget", "macs=50%", "--criterion", "l1", "--out", str(tmp_path / "small")]
    assert main(["prune", *given, *small, "--json"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    said = "The classifier in w.safetensors is for another number of classes"
    assert any(note.startswith(said) for note in notes)
    page = ["--criterion", "l1", "--criterion", "l2", "--out", str(tmp_path / "page.html")]
    assert main(["criteria", *given[:3], *page, "--json"]) == 0
    first = "The network has random weights; give --pretrained or --weights."
    assert json.loads(capsys.readouterr().out)["findings"][0] == first
    assert first in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--criterion", "taylor"], "'taylor' looks at images"),
        (["--criterion", "l1", "--widths", "measured"], "no images"),
        (["--criterion", "l1", "--widths", "odd"], "widths cannot be 'odd'; choose one of all"),
        (["--criterion", "magic"], "there is no criterion 'magic'"),
        (["--criterion", "l1", "--weights", "missing.safetensors"], "missing.safetensors"),
        (
            ["--criterion", "l1", "--weights", "a.pth", "--pretrained"],
            "give either pretrained weights or the weights file a.pth, not both",
        ),
    ],
)
def test_what_cannot_be_pruned_is_refused_in_a_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "small"
    arguments = ["prune", "resnet10t", "--budget", "macs=50%", "--out", str(folder), *words]
    assert main(arguments) == 2
    assert sentence in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.parametrize(
    ("out", "sentence"),
    [
        ("notes", "notes holds something else than an artifact, diary.txt; move it away"),
        ("notes/diary.txt", "notes/diary.txt is no folder; give another one"),
        ("notes/diary.txt/a/b", "cannot be written (notes/diary.txt is no folder); name another"),
        ("locked/small", "cannot be written (locked is write-protected); name another place"),
        ("link", "locked/small cannot be written (locked is write-protected); name another"),
    ],
)
def test_a_place_for_the_small_network_is_looked_at_first(
    out: str,
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("notes", "locked"):
        Path(name).mkdir()
    Path("notes/diary.txt").write_text("mine")
    Path("link").symlink_to("locked/small")
    # root may write anywhere
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "locked")
    monkeypatch.setattr("prunas.pipeline.commands.prune.network_for", None)  # no work is begun
    assert main(["prune", "resnet10t", "--budget", "macs=50%", "--out", out]) == 2
    assert sentence in capsys.readouterr().err.replace(f"{tmp_path}/", "")
    left = sorted(path.name for path in tmp_path.rglob("*"))
    assert left == ["diary.txt", "link", "locked", "notes"]


def test_measured_widths_follow_the_answers_not_the_criterion() -> None:
    """Nothing listens to a block: it is left out, which its weights do not tell."""
    network, space = network_and_space()
    network.eval()
    with torch.no_grad():
        network.get_parameter("3.body.3.weight").zero_()
    block = next(i for i, g in enumerate(space.genes) if g.kind == "depth")
    by_weights, by_answers = (
        prunas.prune(network, space, "macs=40%", criterion="l1", batches=batches(), widths=widths)
        for widths in ("allocated", "measured")
    )
    assert by_weights.candidate[block] == 1
    assert by_answers.candidate[block] == 0
    assert by_answers.ranking.orders == by_weights.ranking.orders
    assert by_answers.ranking.values[block][-1] == pytest.approx(0, abs=1e-6)
    assert by_answers.macs[0] <= 0.4 * by_answers.macs[1]


def test_by_default_no_labels_are_needed() -> None:
    network, space = network_and_space()
    images = [images for images, _ in batches()]
    found = prunas.prune(network, space, "macs=60%", batches=images)
    named = prunas.prune(network, space, "macs=60%", batches=images, criterion="di-curvature")
    assert found.ranking == named.ranking
    assert found.macs[0] <= 0.6 * found.macs[1]


def network_of_sides() -> tuple[nn.Module, SearchSpace]:
    """A network whose answers are others when its images are smaller."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
        ).eval()  # fmt: skip
        recalibrate_(network, batches())
        with torch.no_grad():
            network.get_parameter("5.weight").mul_(20)
    return network, prunas.trace(network, IMAGE, resolutions=(4,))


def answers_lost(network: nn.Module, small: nn.Module, side: int) -> float:
    """Mean KL of what a network answers to images of this side from what it does to whole ones."""
    images = torch.cat([images for images, _ in batches()])
    with torch.no_grad():
        whole = network(images).double().log_softmax(1)
        found = small(resized(images, side)).double().log_softmax(1)
    return float((whole.exp() * (whole - found)).sum(1).mean())


@pytest.mark.parametrize("adaptation", get_args(Adaptation))
def test_a_measured_side_is_worth_what_smaller_images_cost(adaptation: Adaptation) -> None:
    """With all channels there is nothing to solve: a smaller side costs what its images do."""
    network, space = network_of_sides()
    found = prunas.prune(
        network, space, "macs=90%", criterion="l1", batches=batches(), widths="measured",
        adaptation=adaptation,
    )  # fmt: skip
    smaller = copy.deepcopy(network)
    recalibrate_(smaller, [(resized(images, 4), images) for images, _ in batches()])
    lost = answers_lost(network, smaller, 4)
    assert lost > 0.05
    assert found.ranking.values[-1][-1] == pytest.approx(lost, rel=1e-4)
    assert side_of(space, found.candidate) == 8


@pytest.mark.parametrize("adaptation", get_args(Adaptation))
def test_a_candidate_of_small_images_is_adapted_on_small_images(adaptation: Adaptation) -> None:
    """As if the network had been given images of that side from the start."""
    network, space = network_of_sides()
    small_ones = [(resized(images, 4), labels) for images, labels in batches()]
    candidate = space.candidate([6, 4])
    found = cut_adapted(network, space, candidate, batches(), adaptation, "cpu")
    used = copy.deepcopy(network)
    recalibrate_(used, small_ones)
    plain = prunas.trace(used, (3, 4, 4))
    expected = cut_adapted(used, plain, plain.candidate([6]), small_ones, adaptation, "cpu")
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], tensor)


def test_sides_are_valued_by_their_length_without_images() -> None:
    network, space = network_of_sides()
    found = prunas.prune(network, space, "macs=60%", criterion="l1")
    assert found.macs[0] <= 0.6 * found.macs[1]
    assert np.diff(found.ranking.values[-1]) == pytest.approx(found.ranking.values[-1][-1] / 8)
    said = "sides of images are valued by their length: there are no images"
    assert said in found.ranking.notes


def test_refuses_to_measure_maps_of_several_sizes() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 5, 1))
    space = prunas.trace(network, IMAGE, resolutions=(4,))
    with pytest.raises(InputError, match=r"answers \(5, 4, 4\) to smaller images and \(5, 8, 8\)"):
        prunas.prune(
            network, space, "macs=60%", criterion="l1", batches=batches(), widths="measured"
        )


class ByKeyword(nn.Module):
    """Calls its layers by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 12, 3)
        self.last = nn.Linear(12, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.second(input=self.first(input=images).relu()).relu()
        answers: torch.Tensor = self.last(input=maps.mean((2, 3)))
        return answers


def test_layers_that_are_called_by_keyword_are_solved_anew() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ByKeyword().eval()
    space = prunas.trace(network, IMAGE)
    found = prunas.prune(network, space, "macs=60%", batches=batches())
    plain = prunas.cut(prunas.permute(network, space, found.ranking.orders), space, found.candidate)
    images = torch.cat([images for images, _ in batches()])
    with torch.no_grad():
        whole = network(images)
        assert (found.network(images) - whole).norm() < 0.7 * (plain(images) - whole).norm()


def test_inference_mode_makes_no_difference() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(144, 5)
    ).eval()
    with torch.inference_mode():
        batches = [(torch.randn(8, 3, 8, 8), torch.arange(8) % 5)]
        space = prunas.trace(network, (3, 8, 8))
        prunas.verify(network, space)
        small = prunas.prune(network, space, "macs=60%,memory=90%", batches=batches).network
    assert space.genes == prunas.trace(network, (3, 8, 8)).genes
    assert all(parameter.requires_grad for parameter in small.parameters())
    small(torch.randn(2, 3, 8, 8)).sum().backward()


class Counting(nn.Module):
    """Its forwards change buffers in eval mode too, in place and by another tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 3), nn.Linear(16, 5)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("images", torch.zeros(()))
        self.calls: torch.Tensor
        self.images: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1)
        self.images = self.images + len(x)
        out: torch.Tensor = self.last(self.first(x).relu().mean((2, 3)))
        return out


@pytest.mark.parametrize("widths", ["allocated", "measured"])
def test_buffers_that_a_forward_changes_are_left_as_they_were(widths: Widths) -> None:
    network = Counting().eval()
    space = prunas.trace(network, (3, 8, 8))
    batches = [(torch.randn(8, 3, 8, 8), torch.arange(8) % 5)]
    calls, images = network.calls, network.images
    prunas.prune(network, space, "macs=60%", batches=batches, widths=widths)
    assert network.calls is calls
    assert network.images is images
    assert calls.item() == images.item() == 0
