"""Weights of every source: trained, stopped, taken up, and refused where they do not belong."""

import copy
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

import prunas
from prunas.pipeline import alone, source_training, sources
from prunas.pipeline.cli import main
from prunas.pipeline.found import run_search_stages
from prunas.pipeline.learner import Learner
from prunas.pipeline.progress import Progress
from prunas.pipeline.recipe import optimizer_for
from prunas.pipeline.request import SOURCES, Request
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.source_files import load_source, save_source
from prunas.pipeline.sources import train_source
from prunas.pipeline.stages import Job
from prunas.pruningnet import forms
from prunas.pruningnet.forms import lean_net
from prunas.supernet.elastic import Elastic, Supernet
from prunas.supernet.grid import EVERY, WidthGrid
from prunas.supernet.schedules.table import SCHEDULES, WARMED_UP
from prunas.supernet.training import train_supernet
from tests.pipeline.pictures import bright_pictures
from tests.supernet.networks import IMAGE, Network

every = pytest.mark.parametrize("name", SOURCES)


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> Request:
    file = bright_pictures(tmp_path_factory.mktemp("data"))
    return Request(
        model="test_resnet", data=str(file), budget="macs=50%", evaluations=4, seeds=1,
        epochs=1, supernet_epochs=3, finalists=2, finalist_epochs=1, final_epochs=1,
        batch_size=24, learning_rate=0.02, calibration=48, prior=False,
    )  # fmt: skip


def job_of(folder: Path, request: Request, *, resume: bool = False) -> Job:
    run = RunFolder.create(folder, request, resume=resume)
    return Job(run, torch.device("cpu"), Progress())


def learnt(source: Elastic) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in source.learnt.state_dict().items()}


@every
def test_a_whole_search_on_every_source(
    name: str, request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alone, "_cores", lambda: 1)
    job = job_of(tmp_path / "run", replace(request_, source=name))
    found = run_search_stages(job)
    entries = json.loads((tmp_path / "run" / "run.json").read_text())
    assert entries["result"]["candidate"] == list(found)
    assert entries["request"]["source"] == name
    assert prunas.load(tmp_path / "run" / "model")(torch.zeros(2, *job.data.input_size)).shape == (
        2,
        3,
    )


@every
@pytest.mark.parametrize("epoch", [0, 2])
def test_training_goes_on_to_the_same_weights(
    name: str,
    epoch: int,
    request_: Request,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = replace(request_, source=name)
    job = job_of(tmp_path / "whole", request)
    wanted = learnt(train_source(job, job.network(), None))
    plain = train_supernet
    calls = 0

    def stopped(*args: object, **options: object) -> None:
        nonlocal calls
        calls += 1
        plain(*args, **options)  # type: ignore[arg-type]
        if calls == epoch + 1:
            raise KeyboardInterrupt

    again = job_of(tmp_path / "stopped", request)
    monkeypatch.setattr(source_training, "train_supernet", stopped)
    with pytest.raises(KeyboardInterrupt):
        train_source(again, again.network(), None)
    unfinished = again.folder.checkpoint(f"{name}-training")
    assert unfinished.exists() == (epoch > 0)
    found = learnt(train_source(again, again.network(), None))
    assert calls == 1 + epoch + (3 - epoch)  # what was finished is not repeated
    assert not unfinished.exists()
    for key, tensor in wanted.items():
        assert torch.equal(found[key], tensor), key
    assert learnt(train_source(again, again.network(), None)).keys() == wanted.keys()
    assert calls == 4


def test_what_is_trained_outlives_its_training(request_: Request, tmp_path: Path) -> None:
    """A kill may have come between the two."""
    job = job_of(tmp_path / "run", request_)
    train_source(job, job.network(), None)
    unfinished = job.folder.checkpoint(f"{request_.source}-training")
    unfinished.write_text("the last epoch but one")
    train_source(job, job.network(), None)
    assert not unfinished.exists()


def stopped_and_taken_up(
    job: Job, network: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> dict[str, torch.Tensor]:
    """What is learnt where training stops after two of three epochs and goes on."""
    plain, calls = train_supernet, 0

    def stopped(*args: object, **options: object) -> None:
        nonlocal calls
        calls += 1
        plain(*args, **options)  # type: ignore[arg-type]
        if calls == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(source_training, "train_supernet", stopped)
    with pytest.raises(KeyboardInterrupt):
        train_source(job, network(), None)
    found = learnt(train_source(job, network(), None))
    assert calls == 4
    return found


@pytest.mark.parametrize("name", [*SCHEDULES, f"fair{WARMED_UP}"])
def test_training_by_any_schedule_goes_on_to_the_same_weights(
    name: str, request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where parameters have their first gradient in a later step than others."""
    request = replace(request_, schedule=name, genes=("width", "depth"))
    job = job_of(tmp_path / "whole", request)
    wanted = learnt(train_source(job, job.network(), None))
    again = job_of(tmp_path / "stopped", request)
    found = stopped_and_taken_up(again, again.network, monkeypatch)
    for key, tensor in wanted.items():
        assert torch.equal(found[key], tensor), key
    assert json.loads((tmp_path / "whole" / "run.json").read_text())["request"]["schedule"] == name
    before = job.network().state_dict()
    assert any(not torch.equal(before[key], tensor) for key, tensor in wanted.items())


def test_dropout_is_the_same_where_training_goes_on(
    request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def network() -> nn.Module:
        found = job.network()
        for module in found.modules():
            if isinstance(module, nn.ReLU):
                module.register_forward_hook(
                    lambda _, args, out: F.dropout(out, 0.5, training=True)
                )
        return found

    job = job_of(tmp_path / "whole", request_)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    wanted = learnt(train_source(job, network(), None))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    job = job_of(tmp_path / "stopped", request_)
    found = stopped_and_taken_up(job, network, monkeypatch)
    for key, tensor in wanted.items():
        assert torch.equal(found[key], tensor), key


def test_the_default_schedule_is_the_training_there_was_before_schedules(
    request_: Request, tmp_path: Path
) -> None:
    """To the bit: the full network, then one path of the budget, which it teaches."""
    job = job_of(tmp_path / "run", request_)
    found = learnt(train_source(job, job.network(), None))
    oracle = Supernet(copy.deepcopy(job.network()), job.space)
    oracle.network.train()
    recipe = request_.supernet_recipe()
    optimizer = optimizer_for(oracle.network, recipe)
    draw = sources.paths_in_budget(job.feasible, None)
    steps, number = recipe.epochs * (len(job.data.train) // recipe.batch_size), 0
    for epoch in range(recipe.epochs):
        rng, order = (np.random.default_rng([request_.seed, stream, epoch]) for stream in (1, 2))
        for images, labels in job.data.train.batches(
            recipe.batch_size, shuffle=order, augment=True, device=job.device, channels_last=True
        ):
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate_at(number, steps)
            optimizer.zero_grad()
            with oracle.running(job.space.full()) as network:
                logits = network(images)
                F.cross_entropy(logits, labels, label_smoothing=0.1).backward()
            with oracle.running(draw(rng, 1)[0]) as path:
                F.cross_entropy(path(images), logits.detach().softmax(1)).backward()
            optimizer.step()
            number += 1
    assert number == steps
    for key, tensor in oracle.network.state_dict().items():
        assert torch.equal(found[key], tensor), key


def test_another_schedule_or_transform_is_another_run(request_: Request) -> None:
    assert request_.schedule == "sandwich"
    kernels = replace(request_, genes=("kernel",))
    for one, two in (
        (request_, replace(request_, schedule="fair")),
        (kernels, replace(kernels, kernel_transform=True)),
    ):
        assert one.fingerprint() != two.fingerprint()
        assert Request.from_json(two.to_json()) == two


# -- the transform of kernels ----------------------------------------------------------------------


@pytest.fixture
def mobile(request_: Request) -> Request:
    return replace(
        request_, model="lcnet_035", genes=("width", "kernel"), kernel_transform=True,
        schedule="shrinking", budget="macs=70%",
    )  # fmt: skip


def test_a_search_with_transformed_kernels(
    mobile: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alone, "_cores", lambda: 1)
    job = job_of(tmp_path / "run", mobile)
    found = run_search_stages(job)
    source = train_source(job, job.network(), None)  # from the file
    maps = {key: tensor for key, tensor in learnt(source).items() if "kernels.maps" in key}
    assert any(tensor.any() for tensor in maps.values())
    weights = source.weights(found)
    saved = prunas.load(tmp_path / "run" / "model").state_dict()
    for name, tensor in weights.items():
        if name.endswith("weight"):
            assert torch.equal(saved[name], tensor), name
    assert json.loads((tmp_path / "run" / "run.json").read_text())["request"]["kernel_transform"]


def test_training_of_the_transform_goes_on_to_the_same_maps(
    mobile: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(tmp_path / "whole", mobile)
    wanted = learnt(train_source(job, job.network(), None))
    again = job_of(tmp_path / "stopped", mobile)
    found = stopped_and_taken_up(again, again.network, monkeypatch)
    for key, tensor in wanted.items():
        assert torch.equal(found[key], tensor), key


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--schedule fiar", "no schedule is called 'fiar'; did you mean fair? known are sandwich,"),
        ("--kernel-transform", "there are no kernels here that could be smaller"),
        ("--genes depth --schedule fair+warm-up", "no widths here that could be warmed up"),
        ("--weights pruningnet --kernel-transform", "those of pruningnet are generated"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is(
    options: str,
    sentence: str,
    request_: Request,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["--data", request_.data, "--budget", "macs=90%", "--out", "run", *options.split()]
    assert main(["search", "test_resnet", *asked]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@every
def test_a_loss_that_diverges_leaves_the_last_good_weights(
    name: str, request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(tmp_path / "run", replace(request_, source=name))
    of_epoch = len(job.data.train) // request_.batch_size
    plain = Learner.rate_at
    monkeypatch.setattr(
        Learner, "rate_at", lambda self, step: plain(self, step) if step < of_epoch else 1e30
    )
    sentence = rf"not finite at step \d+.*the last good weights are kept in .*{name}-training"
    with pytest.raises(prunas.RunError, match=sentence):
        train_source(job, job.network(), None)
    kept = load_file(job.folder.checkpoint(f"{name}-training"))
    assert all(torch.isfinite(tensor).all() for tensor in kept.values())
    assert not job.folder.checkpoint(name).exists()


@pytest.mark.parametrize("every", [0.0, 600.0])
def test_a_loss_that_diverges_at_once_leaves_nothing(
    every: float, request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a checkpoint of a step before one hears of it."""
    job = job_of(tmp_path / "run", replace(request_, checkpoint_every=every))
    monkeypatch.setattr(Learner, "rate_at", lambda self, step: float("inf"))
    with pytest.raises(prunas.RunError, match=r"lower learning rate$"):
        train_source(job, job.network(), None)
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def stopping(monkeypatch: pytest.MonkeyPatch, steps: Sequence[int]) -> None:
    """Training stops after so many steps, of this run and then of each that goes on."""
    plain, left, done = Learner.finish, list(steps), 0

    def finish(self: Learner, step: int, losses: torch.Tensor) -> torch.Tensor:
        nonlocal done
        if left and done == left[0]:
            del left[0]
            done = 0
            raise KeyboardInterrupt
        done += 1
        return plain(self, step, losses)

    monkeypatch.setattr(Learner, "finish", finish)


@every
@settings(max_examples=2, deadline=None)
@given(stops=st.lists(st.integers(0, 11), min_size=1, max_size=3))
@example(stops=[1, 1, 1])
def test_training_goes_on_from_any_step(
    name: str, stops: list[int], request_: Request, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Stopped in the middle of epochs, with an average, in parts, and with blocks left out."""
    request = replace(
        request_, source=name, supernet_epochs=2, ema=0.5, accumulate=2, checkpoint_every=0.0,
        genes=("width", "depth") if name == "supernet" else ("width",),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("runs")
    job = job_of(folder / "whole", request)
    wanted = learnt(train_source(job, job.network(), None))
    again = job_of(folder / "stopped", request)
    with pytest.MonkeyPatch.context() as patch:
        stopping(patch, stops)
        for _ in stops:
            with suppress(KeyboardInterrupt):
                train_source(again, again.network(), None)
    found = learnt(train_source(again, again.network(), None))
    for key, tensor in wanted.items():
        assert torch.equal(found[key], tensor), key


def test_source_training_learn_in_narrow_types(request_: Request, tmp_path: Path) -> None:
    job = job_of(tmp_path / "run", replace(request_, precision="bf16"))
    wide = job_of(tmp_path / "wide", replace(request_, precision="no"))
    found, near = (learnt(train_source(each, each.network(), None)) for each in (job, wide))
    for key, tensor in found.items():
        assert tensor.dtype == near[key].dtype
        if tensor.dim() > 1:
            assert torch.isfinite(tensor).all()
            assert 0 < (tensor - near[key]).norm() < 0.2 * near[key].norm()


def test_small_memory_learns_the_same(request_: Request, tmp_path: Path) -> None:
    request = replace(request_, source="pruningnet", supernet_epochs=1)
    weights = []
    for small in (False, True):
        job = job_of(tmp_path / str(small), replace(request, small_memory=small))
        weights.append(learnt(train_source(job, job.network(), None)))
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-3, atol=1e-4)


def test_a_generator_that_does_not_fit_is_refused_before_anything_is_trained(
    request_: Request,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(forms, "_free", lambda device: 2**20)
    monkeypatch.chdir(tmp_path)
    options = ["--data", request_.data, "--budget", "macs=50%", "--out", "run"]
    assert main(["search", "test_resnet", *options, "--weights", "pruningnet-published"]) == 2
    said = capsys.readouterr().err
    assert "M numbers, which takes 0.1 GiB to train, and 0.0 GiB are free; use the lean" in said
    assert not (tmp_path / "run").exists()


# -- files -----------------------------------------------------------------------------------------


def lean(blocks: list[str], *, rank: int = 4, grid: WidthGrid = EVERY) -> Elastic:
    network = Network(blocks, seed=0)
    space = prunas.trace(network, IMAGE, grid=grid)
    return lean_net(network, space, rank=rank)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    one, two = lean(["Residual"]), lean(["Residual"])
    with torch.no_grad():
        for parameter in one.learnt.parameters():
            parameter.add_(1)
    save_source(one, tmp_path / "w.safetensors")
    load_source(two, tmp_path / "w.safetensors")
    for name, tensor in one.learnt.state_dict().items():
        assert torch.equal(two.learnt.state_dict()[name], tensor)


def of_another_network(file: Path) -> None:
    save_source(lean(["Plain"]), file)


def of_another_grid(file: Path) -> None:
    save_source(lean(["Residual"], grid=WidthGrid((0.5, 1.0))), file)


def of_another_rank(file: Path) -> None:
    save_source(lean(["Residual"], rank=2), file)


def of_a_supernet(file: Path) -> None:
    source = lean(["Residual"])
    save_source(Supernet(source.network, source.space), file)


def of_another_run(file: Path) -> None:
    save_source(lean(["Residual"]), file, owner="somebody")


def damaged(file: Path) -> None:
    of_another_run(file)
    file.write_bytes(file.read_bytes()[:100])


def of_another_program(file: Path) -> None:
    save_file({"a": torch.ones(1)}, file)


def nothing(file: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (of_another_network, "weights of another network or of another grid"),
        (of_another_grid, "weights of another network or of another grid"),
        (of_another_rank, r"another kind of weights source \(generator.*does not fit\)"),
        (of_a_supernet, "another kind of weights source"),
        (of_another_run, "belongs to another run"),
        (damaged, "cannot be read"),
        (of_another_program, "weights of another network or of another grid"),
        (nothing, "there is no weights file"),
    ],
)
def test_weights_that_do_not_belong_are_refused(
    write: Callable[[Path], None], sentence: str, tmp_path: Path
) -> None:
    file, source = tmp_path / "w.safetensors", lean(["Residual"])
    before = learnt(source)
    write(file)
    with pytest.raises(prunas.InputError, match=sentence):
        load_source(source, file)
    for name, tensor in learnt(source).items():
        assert torch.equal(tensor, before[name])


def test_weights_of_a_supernet_are_not_those_of_a_pruning_net(tmp_path: Path) -> None:
    source = lean(["Residual"])
    save_source(source, tmp_path / "w.safetensors")
    supernet = Supernet(source.network, source.space)
    with pytest.raises(prunas.InputError, match="another kind of weights source"):
        load_source(supernet, tmp_path / "w.safetensors")
