import contextlib
import dataclasses
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch.nn import functional as F

from prunas.errors import InputError, RunError
from prunas.pipeline import precision, training
from prunas.pipeline.checkpoints import Every
from prunas.pipeline.data import load_data
from prunas.pipeline.recipe import Recipe
from prunas.pipeline.splits import Preparation, Split, from_memory
from prunas.pipeline.training import Epoch, train

QUICK = Recipe(epochs=3, batch_size=16, learning_rate=0.05)


def small_split(count: int = 64) -> Split:
    digits = load_data("digits", seed=0).train
    return dataclasses.replace(digits, indices=digits.indices[:count], labels=digits.labels[:count])


def small_network(seed: int = 0, dropout: float = 0.2) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(256, 10),
        )


def same(first: nn.Module, second: nn.Module) -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.state_dict().items())


def generators() -> bytes:
    """The state of every global generator."""
    others = np.random.get_state(), random.getstate()  # noqa: NPY002
    return torch.get_rng_state().numpy().tobytes() + pickle.dumps(others)


def test_learning_reduces_the_loss_and_ends_in_eval_mode() -> None:
    network = small_network()
    epochs = train(network, small_split(200), Recipe(8, 20, 0.1, augment=False), seed=0)
    assert [each.index for each in epochs] == list(range(8))
    assert epochs[-1].loss < 0.7 * epochs[0].loss
    assert epochs[-1].accuracy > 0.8
    assert not network.training


def test_the_seed_decides_and_global_generators_stay() -> None:
    before = generators()
    split = small_split()
    first, again, other = small_network(), small_network(), small_network()
    runs = [
        train(network, split, QUICK, seed=seed)
        for network, seed in ((first, 1), (again, 1), (other, 2))
    ]
    assert runs[0] == runs[1] != runs[2]
    assert same(first, again)
    assert not same(first, other)
    assert generators() == before


def test_equals_a_plain_loop() -> None:
    """Nesterov SGD written out: v = m v + g, w = w - r (g + m v), with decay on matrices only."""
    recipe = Recipe(2, 16, 0.1, weight_decay=0.01, augment=False, label_smoothing=0.0)
    split = small_split(48)
    network, oracle = small_network(dropout=0.0), small_network(dropout=0.0)
    train(network, split, recipe, seed=4)
    velocity = {name: torch.zeros_like(value) for name, value in oracle.named_parameters()}
    step = 0
    for epoch in range(2):
        for x, y in split.batches(16, shuffle=np.random.default_rng([4, epoch])):
            grads = torch.autograd.grad(F.cross_entropy(oracle(x), y), list(oracle.parameters()))
            for (name, value), grad in zip(oracle.named_parameters(), grads, strict=True):
                grad = grad + (0.01 * value.detach() if value.ndim > 1 else 0)
                velocity[name] = 0.9 * velocity[name] + grad
                value.data -= recipe.rate_at(step, 6) * (grad + 0.9 * velocity[name])
            step += 1
    for name, value in oracle.named_parameters():
        torch.testing.assert_close(network.get_parameter(name), value, rtol=1e-3, atol=1e-5)


def test_learning_rate_rises_then_falls_to_zero() -> None:
    recipe = Recipe(1, learning_rate=1.0, warmup=0.2)
    rates = [recipe.rate_at(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 21)
    assert rates[20] == 1.0 == max(rates)
    assert rates[60] == pytest.approx(0.5)
    assert rates[99] < 0.001
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)


def test_distillation_loss_by_hand() -> None:
    outputs, soft = torch.randn(5, 4), torch.randn(5, 4)
    labels = torch.tensor([0, 1, 2, 3, 0])
    recipe = Recipe(1, distillation=0.3, temperature=3.0, label_smoothing=0.0)
    p, q = F.softmax(soft / 3, 1), F.softmax(outputs / 3, 1)
    divergence = (p * (p / q).log()).sum() / 5
    hard = -F.softmax(outputs, 1)[torch.arange(5), labels].log().mean()
    expected = 0.7 * hard + 0.3 * 9 * divergence
    torch.testing.assert_close(training._loss(outputs, labels, soft, recipe), expected)
    torch.testing.assert_close(training._loss(outputs, labels, None, recipe), hard)


def test_a_teacher_alone_can_teach_and_is_left_as_found() -> None:
    split = small_split(200)
    teacher = small_network(seed=1)
    train(teacher, split, Recipe(8, 20, 0.1, augment=False), seed=0)
    teacher.train()
    teacher[1].eval()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    student = small_network(seed=2)
    wrong = dataclasses.replace(split, labels=(split.labels + 1) % 10)
    recipe = Recipe(8, 20, 0.1, augment=False, distillation=1.0)
    epochs = train(student, wrong, recipe, seed=0, teacher=teacher)
    assert epochs[-1].accuracy < 0.2  # against the wrong labels
    pictures, labels = next(iter(split.batches(200)))
    assert (student(pictures).argmax(1) == labels).float().mean() > 0.8
    assert [module.training for module in (teacher, teacher[0], teacher[1])] == [True, True, False]
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(value.grad is None for value in teacher.parameters())


def stop_after(steps: int) -> Callable[[int, int], None]:
    def on_step(done: int, total: int) -> None:
        if done == steps:
            raise KeyboardInterrupt

    return on_step


@pytest.mark.parametrize("steps", [2, 5, 9])
def test_a_resumed_run_equals_an_uninterrupted_one(steps: int, tmp_path: Path) -> None:
    path, split = tmp_path / "deep" / "run.safetensors", small_split()
    whole = small_network()
    expected = train(whole, split, QUICK, seed=1)
    broken = small_network()
    with pytest.raises(KeyboardInterrupt):
        train(broken, split, QUICK, seed=1, checkpoint=path, on_step=stop_after(steps))
    resumed = small_network() if steps < 4 else small_network(seed=9)  # its start is in the file
    assert train(resumed, split, QUICK, seed=1, checkpoint=path) == expected
    assert same(resumed, whole)
    calls: list[int] = []
    again = small_network(seed=8)
    train(again, split, QUICK, seed=1, checkpoint=path, on_step=lambda done, _: calls.append(done))
    assert calls == []
    assert same(again, whole)
    assert [file.name for file in path.parent.iterdir()] == ["run.safetensors"]


VARIANTS = {
    "plain": QUICK,
    "parts": dataclasses.replace(QUICK, accumulate=3),
    "average": dataclasses.replace(QUICK, ema=0.8),
    "bf16": dataclasses.replace(QUICK, precision="bf16"),
    "fp16": dataclasses.replace(QUICK, precision="fp16", ema=0.8),
}


@pytest.fixture(scope="module")
def whole() -> dict[str, tuple[nn.Module, list[Epoch]]]:
    """Every variant, uninterrupted."""
    networks = {name: small_network() for name in VARIANTS}
    return {
        name: (network, train(network, small_split(), VARIANTS[name], seed=1))
        for name, network in networks.items()
    }


@pytest.mark.parametrize("name", VARIANTS)
@settings(max_examples=6, deadline=None)
@given(stops=st.lists(st.integers(1, 12), min_size=1, max_size=3), every=st.integers(1, 5))
def test_a_training_goes_on_from_any_step(
    name: str, stops: list[int], every: int, whole: dict[str, tuple[nn.Module, list[Epoch]]]
) -> None:
    """The checkpoint is some steps old; what was done since is done again, to the bit."""
    expected, epochs = whole[name]
    with TemporaryDirectory() as folder:
        file = Path(folder) / "run.safetensors"

        def go_on(stop: int) -> tuple[nn.Module, list[Epoch]]:
            network = small_network(seed=9 if file.exists() else 0)  # the weights are in the file
            done = train(
                network,
                small_split(),
                VARIANTS[name],
                seed=1,
                on_step=stop_after(stop),
                checkpoint=file,
                every=Every(steps=every),
            )
            return network, done

        for stop in stops:
            with contextlib.suppress(KeyboardInterrupt):
                go_on(stop)
        resumed, again = go_on(stop=0)
    assert again == epochs
    assert same(resumed, expected)


def test_checkpoints_are_written_as_often_as_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    steps = [0]
    monkeypatch.setattr(training, "write_tensors", lambda *_: written.append(steps[-1]))

    def run(every: Every) -> list[int]:
        written.clear()
        file = tmp_path / "run.safetensors"
        step = lambda done, _: steps.append(done)  # noqa: E731
        train(
            small_network(), small_split(), QUICK, seed=0, checkpoint=file, every=every,
            on_step=step,
        )  # fmt: skip
        return list(written)

    assert run(Every()) == [4, 8, 12]
    assert run(Every(seconds=0)) == list(range(1, 13))
    assert run(Every(steps=3)) == [3, 4, 7, 8, 11, 12]


@pytest.mark.parametrize("every", [{"seconds": -1.0}, {"seconds": float("nan")}, {"steps": 0}])
def test_checkpoints_at_no_time_are_refused(every: Any) -> None:
    with pytest.raises(InputError, match="checkpoints cannot be written every"):
        Every(**every)


def test_a_batch_in_parts_has_the_gradient_of_the_whole() -> None:
    """Without batch norms; 16 images in 5 parts are 4, 3, 3, 3, 3."""
    recipe = Recipe(2, 16, 0.1)
    networks = [small_network(dropout=0.0) for _ in range(2)]
    teacher = small_network(seed=5)
    for network, parts in zip(networks, (1, 5), strict=True):
        network[1] = nn.Identity()
        split, own = small_split(), dataclasses.replace(recipe, accumulate=parts)
        train(network, split, own, seed=0, teacher=teacher)
    for name, tensor in networks[0].state_dict().items():
        torch.testing.assert_close(networks[1].state_dict()[name], tensor, rtol=1e-4, atol=1e-5)


def test_a_part_of_one_value_a_channel_is_refused() -> None:
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))
    with pytest.raises(InputError, match="in 16 parts of a batch of 16 images a batch norm sees"):
        train(network, small_split(), Recipe(1, 16, accumulate=16), seed=0)


def test_what_no_gradient_reaches_stays() -> None:
    """Neither decay nor momentum moves it."""

    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(64, 10), nn.Linear(64, 10)

        def forward(self, pictures: Tensor) -> Tensor:
            answers: Tensor = self.used(pictures.flatten(1))
            return answers

    network = Idle()
    before = network.idle.weight.detach().clone()
    train(network, small_split(), dataclasses.replace(QUICK, weight_decay=0.1), seed=0)
    assert torch.equal(network.idle.weight, before)


def test_the_average_of_weights_by_hand() -> None:
    recipe = Recipe(2, 16, 0.1, ema=0.3)
    network, averaged = small_network(), small_network()
    expected = {n: t.clone().double() for n, t in network.state_dict().items()}

    def follow(done: int, _: int) -> None:
        decay = min(0.3, done / (9 + done))
        for name, tensor in network.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * tensor.double()

    train(network, small_split(), dataclasses.replace(recipe, ema=0.0), seed=0, on_step=follow)
    train(averaged, small_split(), recipe, seed=0)
    for name, tensor in averaged.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert tensor == 8
        else:
            torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-4, atol=1e-5)
    assert not same(network, averaged)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_products_are_narrow_and_weights_are_not(precision: str) -> None:
    network = small_network()
    seen: list[torch.dtype] = []
    network[5].register_forward_hook(lambda *args: seen.append(args[-1].dtype))
    recipe = Recipe(8, 20, 0.1, augment=False, precision=precision)
    epochs = train(network, small_split(200), recipe, seed=0)
    assert set(seen) == {torch.bfloat16 if precision == "bf16" else torch.float16}
    assert {each.dtype for each in network.parameters()} == {torch.float32}
    assert epochs[-1].loss < 0.7 * epochs[0].loss


def test_a_scale_that_overflows_is_halved_and_its_step_left_out() -> None:
    """A gradient of 2 times 2^16 is more than the 65504 of float16."""

    class Steep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(64, 10, bias=False)

        def forward(self, pictures: Tensor) -> Tensor:
            answers: Tensor = self.linear(pictures.flatten(1) * 100.0)
            return answers

    network = Steep()
    before = network.linear.weight.detach().clone()
    found: list[bool] = []
    train(
        network,
        small_split(),
        Recipe(3, 16, 1e-4, precision="fp16"),
        seed=0,
        on_step=lambda *_: found.append(torch.equal(network.linear.weight, before)),
    )
    assert found[0]
    assert not found[-1]
    assert torch.isfinite(network.linear.weight).all()


def test_auto_is_what_accelerate_was_launched_with(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert precision._chosen("auto", cpu) == "no"
    assert precision._chosen("auto", cuda) == "bf16"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    assert precision._chosen("auto", cuda) == "fp16"
    assert precision._chosen("no", cuda) == "no"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")  # which it always says
    assert precision._chosen("auto", cuda) == "bf16"


def test_a_network_that_cannot_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(network: nn.Module) -> nn.Module:
        raise TorchDynamoException("no compiler was found\nand a page of advice")

    monkeypatch.setattr(torch, "compile", lambda network: lambda images: fail(network))
    with pytest.raises(RunError, match=r"\(no compiler was found\); train without --compile"):
        train(small_network(), small_split(), Recipe(1, compile=True), seed=0)


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # torch's own
@pytest.mark.slow
def test_a_compiled_network_trains_as_an_eager_one(tmp_path: Path) -> None:
    recipe = dataclasses.replace(QUICK, compile=True)
    eager, compiled = (small_network(dropout=0.0) for _ in range(2))
    train(eager, small_split(), QUICK, seed=1)
    whole = train(compiled, small_split(), recipe, seed=1)
    for name, tensor in eager.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)
    file, resumed = tmp_path / "run.safetensors", small_network(dropout=0.0)
    kept: Any = {"checkpoint": file, "every": Every(steps=1)}
    with pytest.raises(KeyboardInterrupt):
        train(
            small_network(dropout=0.0), small_split(), recipe, seed=1, on_step=stop_after(7), **kept
        )
    assert train(resumed, small_split(), recipe, seed=1, **kept) == whole
    assert same(resumed, compiled)


def test_checkpoints_of_other_runs_are_refused(tmp_path: Path) -> None:
    path, split = tmp_path / "run.safetensors", small_split()
    train(small_network(), split, QUICK, seed=1, checkpoint=path)
    other = dataclasses.replace(QUICK, epochs=4)
    for recipe, seed in ((QUICK, 2), (other, 1)):
        with pytest.raises(InputError, match="another network, recipe, data or seed"):
            train(small_network(), split, recipe, seed=seed, checkpoint=path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be read"):
        train(small_network(), split, QUICK, seed=1, checkpoint=path)


def test_a_checkpoint_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="cannot be written"):
        train(small_network(), small_split(), QUICK, seed=0, checkpoint=tmp_path / "file" / "run")


class NotANumber(nn.Module):
    """Turns into NaN at its n-th call."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.left = n
        self.scale = nn.Parameter(torch.ones(1, 10))

    def forward(self, pictures: Tensor) -> Tensor:
        self.left -= 1
        poison = float("nan") if self.left < 0 else 1.0
        return pictures.flatten(1)[:, :10] * self.scale * poison


@pytest.mark.parametrize("step", [0, 3, 7])
def test_a_loss_that_is_not_finite_ends_the_run(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_STEPS_BETWEEN_CHECKS", 3)
    with pytest.raises(RunError, match=rf"at step {step} with learning rate"):
        train(NotANumber(step), small_split(), QUICK, seed=0)


def test_progress_counts_every_step() -> None:
    calls: list[tuple[int, int]] = []
    train(small_network(), small_split(), QUICK, seed=0, on_step=lambda *call: calls.append(call))
    assert calls == [(done, 12) for done in range(1, 13)]


def test_a_split_smaller_than_a_batch_still_trains() -> None:
    assert len(train(small_network(), small_split(5), QUICK, seed=0)) == 3


def test_frozen_parameters_stay() -> None:
    network = small_network()
    weight = network.get_parameter("0.weight").requires_grad_(False)
    before = weight.clone()
    train(network, small_split(), QUICK, seed=0)
    assert torch.equal(network.get_parameter("0.weight"), before)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("learning_rate", -0.1),
        ("momentum", 1.5),
        ("weight_decay", float("nan")),
        ("label_smoothing", -1),
        ("warmup", 2),
        ("distillation", 1.1),
        ("temperature", 0),
        ("accumulate", 0),
        ("accumulate", 17),
        ("ema", 1.0),
    ],
)
def test_recipes_out_of_range(field: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"{field}="):
        dataclasses.replace(QUICK, **{field: value})


def test_precisions_that_do_not_exist() -> None:
    with pytest.raises(InputError, match="no precision is called 'int3'; choose auto, no"):
        Recipe(1, precision="int3")


def test_seconds_do_not_count_in_comparisons() -> None:
    assert Epoch(0, 1.0, 0.5, 0.1, seconds=1.0) == Epoch(0, 1.0, 0.5, 0.1, seconds=2.0)


def test_channels_first_pictures_of_one_class_train() -> None:
    pictures = torch.randint(0, 256, (8, 3, 4, 4), dtype=torch.uint8)
    split = Split(
        from_memory(pictures),
        np.arange(8),
        np.zeros(8, dtype=np.int64),
        Preparation((0.0,) * 3, (1.0,) * 3, shift=1, flip=True),
    )
    network = nn.Sequential(nn.Conv2d(3, 2, 4), nn.Flatten())
    assert train(network, split, Recipe(2, 4, 0.01), seed=0)[-1].accuracy >= 0
