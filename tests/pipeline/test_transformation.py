"""Replacing operators of a run's found network: the stage, its interruptions, its bad inputs."""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

import prunas
from prunas.errors import InputError
from prunas.eval.accuracy import accuracy
from prunas.eval.latency.timing import Timed
from prunas.eval.peak import PeakMemory
from prunas.pipeline import alone, shared_weights, transformation, transformation_record
from prunas.pipeline.cli import main
from prunas.pipeline.finals import train_finals
from prunas.pipeline.found import found_network, run_search_stages
from prunas.pipeline.progress import Progress
from prunas.pipeline.report import write_report
from prunas.pipeline.request import Request
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.seeking import Settings
from prunas.pipeline.shared_weights import SharedWeights
from prunas.pipeline.stages import Job
from prunas.pipeline.terminal import transform_text
from prunas.pipeline.transformation import preferred, transform
from prunas.pipeline.transformers import METHODS
from prunas.search.methods import SEARCHES
from prunas.supernet.space import Candidate
from prunas.transformer_nat import TRANSFORMERS, NothingToReplaceError
from tests.pipeline.pictures import bright_pictures
from tests.supernet.counting import macs_counted, parameters_counted

SHORT: dict[str, Any] = {"epochs": 2, "evaluations": 8, "finalists": 2}
BY_SCORE: dict[str, Any] = {"epochs": 0, "evaluations": 12, "finalists": 1}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bright_pictures(tmp_path_factory.mktemp("data"))


def request_of(pictures: Path, **changes: Any) -> Request:
    fields = {
        "model": "test_resnet", "data": str(pictures), "budget": "macs=50%", "evaluations": 6,
        "seeds": 2, "epochs": 1, "supernet_epochs": 1, "finalists": 1, "finalist_epochs": 1,
        "final_epochs": 1, "batch_size": 24, "learning_rate": 0.02, "calibration": 48,
    }  # fmt: skip
    return Request(**{**fields, **changes})


def job_in(folder: Path) -> Job:
    return Job(RunFolder.open(folder), torch.device("cpu"), Progress())


@pytest.fixture(scope="module")
def searched(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "searched"
    RunFolder.create(folder, request_of(pictures), resume=False)
    run_search_stages(job_in(folder))
    return folder


@pytest.fixture
def run(searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with a found network, of one's own; whatever trains does so in this process."""
    monkeypatch.setattr(alone, "_cores", lambda: 1)
    return Path(shutil.copytree(searched, tmp_path / "run"))


@pytest.fixture
def frugal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores are the better the less is kept: something is replaced for sure."""
    _score_by(monkeypatch, lambda candidate: -sum(candidate) / 100)


def _score_by(patch: pytest.MonkeyPatch, value: Callable[[Candidate], float]) -> None:
    def scorer(*_: object) -> Callable[[Sequence[Candidate]], Iterator[float]]:
        return lambda candidates: (value(each) for each in candidates)

    patch.setattr(shared_weights, "scorer", scorer)


def result_of(run: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((run / "run.json").read_text())["result"]
    return result


# -- what it does ----------------------------------------------------------------------------------


def test_never_dearer_never_worse(run: Path) -> None:
    before = result_of(run)
    entry = transform(job_in(run), SHORT)
    assert entry["macs_before"] == before["macs"]
    assert entry["params_before"] == before["params"]
    assert entry["macs"] <= entry["macs_before"]
    assert entry["params"] <= entry["params_before"]
    assert entry["held_out"] >= entry["held_out_before"]
    assert len(entry["finalists"]) == 2
    assert 4 <= entry["evaluations"] <= 8
    assert json.loads((run / "run.json").read_text())["transformation"] == entry
    stages = [stage["name"] for stage in json.loads((run / "run.json").read_text())["stages"]]
    assert "replace redundant operators" in stages


@pytest.mark.usefixtures("frugal")
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=6))
def test_the_cheapest_that_is_not_worse_is_preferred(networks: list[tuple[int, int]]) -> None:
    rows = [{"held_out": right / 4, "macs": macs, "params": 0} for right, macs in networks]
    ordered = preferred(rows)
    assert sorted(map(str, ordered)) == sorted(map(str, rows))
    passed = [row for row in rows if row["held_out"] >= rows[0]["held_out"]]
    assert ordered[0] in passed
    assert ordered[0]["macs"] == min(row["macs"] for row in passed)
    equally_cheap = [row for row in passed if row["macs"] == ordered[0]["macs"]]
    assert ordered[0]["held_out"] == max(row["held_out"] for row in equally_cheap)
    others = [row["held_out"] for row in ordered[len(passed) :]]
    assert others == sorted(others, reverse=True)
    assert all(right < rows[0]["held_out"] for right in others)


def test_usual_settings_are_those_of_the_run(run: Path) -> None:
    epochs = job_in(run).request.supernet_epochs
    record = transformation_record.Record.of(job_in(run), Candidate((1,)), {}, fresh=True)
    assert record.settings == Settings(epochs=epochs, seed=job_in(run).request.seed)


def test_the_transformed_network_is_the_artifact_and_is_trained_like_the_found_one(
    run: Path,
) -> None:
    job = job_in(run)
    entry = transform(job, BY_SCORE)
    result = result_of(run)
    network, size = prunas.load(run / "model"), result["input_size"]
    assert result["replacements"] == entry["replacements"] != []
    assert parameters_counted(network) == entry["params"] == result["params_transformed"]
    assert macs_counted(network, tuple(size)) == entry["macs"] == result["macs_transformed"]
    assert entry["macs"] < entry["macs_before"] <= job.feasible.limits["macs"]
    assert "transformed" not in result.get("accuracy", {})
    weights = run / "checkpoints" / "transformation.safetensors"
    assert not weights.exists()  # no epoch was asked for

    trained = train_finals(job)
    assert set(trained["accuracy"]) == {"full", "uniform", "found", "transformed"}
    assert {"full", "uniform", "found", "transformed", "seed"} == set(trained["seeds"][0])
    assert trained["paired_transformed"]["n"] == 2
    network = prunas.load(run / "model")
    assert parameters_counted(network) == entry["params"]
    tested = accuracy(network, job.fixed(job.data.test))
    assert tested in [row["transformed"] for row in trained["seeds"]]

    again = transform(job_in(run), {})  # what is trained stays
    assert again == entry
    assert result_of(run)["accuracy"] == trained["accuracy"]
    assert accuracy(prunas.load(run / "model"), job.fixed(job.data.test)) == tested


@pytest.mark.usefixtures("frugal")
def test_a_run_that_is_resumed_keeps_its_transformed_network(run: Path) -> None:
    entry = transform(job_in(run), BY_SCORE)
    before = load_file(run / "model" / "weights.safetensors")
    run_search_stages(job_in(run))
    assert result_of(run)["replacements"] == entry["replacements"] != []
    assert parameters_counted(prunas.load(run / "model")) == entry["params"]
    after = load_file(run / "model" / "weights.safetensors")
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.usefixtures("frugal")
def test_where_nothing_is_replaced_any_more_the_trained_network_is_back(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = run / "model" / "weights.safetensors"
    accuracies = train_finals(job_in(run))["accuracy"]
    found = weights.read_bytes()
    assert transform(job_in(run), BY_SCORE)["replacements"]
    train_finals(job_in(run))
    assert weights.read_bytes() != found
    _score_by(monkeypatch, lambda candidate: float(sum(candidate)))
    assert transform(job_in(run), BY_SCORE, fresh=True)["replacements"] == []
    assert weights.read_bytes() == found
    assert result_of(run)["accuracy"] == accuracies


@pytest.mark.usefixtures("frugal")
def test_the_report_shows_what_was_replaced(run: Path) -> None:
    entry = transform(job_in(run), BY_SCORE)
    page = write_report(run).read_text()
    assert "Operators that were replaced" in page
    for each in entry["replacements"]:
        assert f"<code>{each['path']}</code>" in page
    assert page.count('<svg viewBox="0 0 900') == 1
    assert ">before</text>" in page
    assert "Test accuracy after equal training" not in page
    train_finals(job_in(run))
    page = write_report(run).read_text()
    assert "Test accuracy after equal training" in page
    assert "<th scope=row>Transformed</th>" in page


def test_where_nothing_helps_nothing_is_replaced(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _score_by(monkeypatch, lambda candidate: float(sum(candidate)))
    before = (run / "model" / "weights.safetensors").read_bytes()
    entry = transform(job_in(run), BY_SCORE)
    assert entry["replacements"] == []
    assert entry["macs"] == entry["macs_before"]
    assert "replacements" not in result_of(run)
    assert (run / "model" / "weights.safetensors").read_bytes() == before
    assert "No operator was replaced" in write_report(run).read_text()
    assert set(train_finals(job_in(run))["accuracy"]) == {"full", "uniform", "found"}


def test_ties_go_to_the_cheaper(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _score_by(monkeypatch, lambda candidate: 0.5)
    entry = transform(job_in(run), BY_SCORE | {"method": "random"})
    assert entry["macs"] < entry["macs_before"]
    assert entry["score"] == entry["score_before"] == 0.5


@pytest.mark.usefixtures("frugal")
@pytest.mark.parametrize("method", ["lstm", "random", "greedy", "evolution", "regression"])
def test_other_methods_look_for_transformations_too(run: Path, method: str) -> None:
    entry = transform(job_in(run), BY_SCORE | {"method": method})
    assert entry["method"] == method
    assert entry["macs"] < entry["macs_before"]


def test_every_method_is_on_offer() -> None:
    assert set(METHODS) == set(TRANSFORMERS) | set(SEARCHES)


@pytest.mark.usefixtures("frugal")
def test_a_budget_of_memory_is_kept_too(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    budget = "macs=50%,memory=70%"
    RunFolder.create(folder, request_of(pictures, budget=budget), resume=False)
    run_search_stages(job_in(folder))
    asked: list[object] = []
    peak = PeakMemory.bytes

    def measured(self: PeakMemory, candidates: Any) -> Any:
        asked.append(candidates)
        return peak(self, candidates)

    monkeypatch.setattr(PeakMemory, "bytes", measured)
    job = job_in(folder)
    transform(job, BY_SCORE)
    assert asked
    network = prunas.load(folder / "model")
    space = prunas.trace(network, result_of(folder)["input_size"], genes=("width",))
    assert PeakMemory(network, space).bytes([space.full()])[0] <= job.feasible.limits["memory"]


@pytest.mark.usefixtures("frugal")
def test_what_is_slower_than_the_budget_is_not_chosen(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The found network took 2 ms, 3 ms are allowed; beside it, cheaper ones take twice as long."""
    folder = RunFolder.open(run)
    folder.update({"result": {**result_of(run), "latency": 2.0}})
    watch = SimpleNamespace(backend=None)
    monkeypatch.setattr(Job, "stopwatch", property(lambda _: watch))
    beside: list[float] = []

    def timed(_: object, space: Any, candidates: list[Candidate], *__: Any, **___: Any) -> Any:
        assert candidates[0] == space.full()
        return [Timed(5.0 * factor, 0, 0, 1) for factor in (1.0, beside[-1])]

    monkeypatch.setattr(transformation, "measured", timed)
    for factor, fits in ((2.0, False), (1.4, True)):
        beside.append(factor)
        job = job_in(run)
        job.feasible.limits = {**job.feasible.limits, "latency": 3_000_000}
        entry = transform(job, BY_SCORE, fresh=True)
        assert (entry["replacements"] != []) == fits


@pytest.mark.usefixtures("frugal")
def test_networks_that_see_smaller_images(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alone, "_cores", lambda: 1)
    folder = tmp_path / "run"
    request = request_of(pictures, budget="macs=40%", resolutions=(8,), genes=("depth",))
    RunFolder.create(folder, request, resume=False)
    run_search_stages(job_in(folder))
    found = result_of(folder)
    assert found["input_size"] == [1, 8, 8]
    entry = transform(job_in(folder), BY_SCORE | {"epochs": 1})
    assert entry["macs_before"] == found["macs"]
    network = prunas.load(folder / "model")
    assert macs_counted(network, (1, 8, 8)) == entry["macs"] < found["macs"]
    assert "transformed" in train_finals(job_in(folder))["accuracy"]


def test_random_weights_where_the_final_training_begins_with_them(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder.open(run)
    request = Request.from_json({**folder.request().to_json(), "from_scratch": True})
    folder.update({"request": request.to_json()})
    factored = [{"path": "layer1.0.conv1", "source": "conv_3x3", "operator": "ds_conv_3x3",
                 "alone": True}]  # fmt: skip
    folder.update({"result": {**result_of(run), "replacements": factored}})
    began: list[torch.nn.Module] = []
    monkeypatch.setattr(alone, "train", lambda network, *_, **__: began.append(network))
    train_finals(job_in(run))
    pairs = [n.get_submodule("layer1.0.conv1") for n in began if len(list(n.get_submodule(
        "layer1.0.conv1").children())) == 2]  # fmt: skip
    weights = [pair[1].weight for pair in pairs]  # type: ignore[index]
    assert len(weights) == 3  # two seeds, and the better one again for the artifact
    assert not torch.equal(weights[0], weights[1])


# -- interruptions, and asking twice ---------------------------------------------------------------


def _interrupting(patch: pytest.MonkeyPatch, after: int) -> None:
    calls = 0
    score = SharedWeights.score

    def interrupted(self: Any, positions: Candidate) -> float:
        nonlocal calls
        calls += 1
        if calls > after:
            raise KeyboardInterrupt
        return score(self, positions)

    patch.setattr(SharedWeights, "score", interrupted)


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(entry))  # type: ignore[no-any-return]


def test_an_interrupted_transformation_goes_on_to_the_same_result(
    run: Path, tmp_path: Path
) -> None:
    whole = transform(job_in(Path(shutil.copytree(run, tmp_path / "whole"))), SHORT)
    for after in (0, 3, 2):
        with pytest.MonkeyPatch.context() as patch:
            _interrupting(patch, after)
            with pytest.raises(KeyboardInterrupt):
                transform(job_in(run), SHORT)
        assert "transformation" not in json.loads((run / "run.json").read_text())
    assert _plain(transform(job_in(run), SHORT)) == _plain(whole)
    models = [folder / "model" / "weights.safetensors" for folder in (run, tmp_path / "whole")]
    assert models[0].read_bytes() == models[1].read_bytes()


def test_weights_of_networks_with_frozen_layers_are_kept(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def frozen(*args: Any) -> torch.nn.Module:
        network = found_network(*args)
        network.get_submodule("layer1.0.conv1").requires_grad_(False)
        return network

    monkeypatch.setattr(transformation, "found_network", frozen)
    with monkeypatch.context() as patch:
        _interrupting(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            transform(job_in(run), SHORT | {"finalists": 1})
    entry = transform(job_in(run), {})
    assert transform(job_in(run), SHORT | {"finalists": 1}, fresh=True) == entry


@pytest.mark.usefixtures("frugal")
def test_asked_twice(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = transform(job_in(run), BY_SCORE)
    with monkeypatch.context() as patch:
        patch.setattr(transformation._Work, "searched", lambda _: pytest.fail("it is done"))
        assert transform(job_in(run), {}) == entry
        assert transform(job_in(run), BY_SCORE) == entry
    with pytest.raises(InputError, match="has a transformation with method=policy, now it"):
        transform(job_in(run), {"method": "random"})
    assert result_of(run)["replacements"] == entry["replacements"]
    _score_by(monkeypatch, lambda candidate: float(sum(candidate)))
    anew = transform(job_in(run), BY_SCORE | {"method": "random"}, fresh=True)
    assert anew["replacements"] == []
    assert "macs_transformed" not in result_of(run)
    found = prunas.load(run / "model")
    assert parameters_counted(found) == result_of(run)["params"]


@pytest.mark.usefixtures("frugal")
def test_scores_of_an_earlier_transformation_do_not_count(run: Path) -> None:
    entry = transform(job_in(run), SHORT | {"finalists": 1})
    weights = run / "checkpoints" / "transformation.safetensors"
    before = load_file(weights)
    assert transform(job_in(run), SHORT | {"finalists": 1}, fresh=True) == entry
    again = load_file(weights)  # trained anew, to the same bits
    assert all(torch.equal(tensor, again[name]) for name, tensor in before.items())
    transform(job_in(run), SHORT | {"finalists": 1, "seed": 5}, fresh=True)
    other = load_file(weights)
    assert not all(torch.equal(tensor, other[name]) for name, tensor in before.items())


# -- bad input -------------------------------------------------------------------------------------


def test_a_run_without_a_found_network(pictures: Path, tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", request_of(pictures), resume=False)
    with pytest.raises(InputError, match="has no found network yet; run its search first"):
        transform(job_in(tmp_path / "run"), {})


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        (
            {"method": "magic"},
            "no way to look for transformations is called 'magic'; choose policy",
        ),
        ({"evaluations": 0}, "evaluations=0 of the transformation must be at least 1"),
        ({"epochs": -1}, "epochs=-1 of the transformation must be at least 0"),
        ({"seed": 2**63}, "seed=9223372036854775808 cannot be used; give one from 0 to"),
        ({"finalists": 0}, "finalists=0 of the transformation must be at least 1"),
        ({"paths": 0}, "paths=0 of the transformation must be at least 1"),
        ({"thrift": -0.1}, "thrift=-0.1 of the transformation must be between 0 and 1"),
        ({"thrift": math.nan}, "thrift=nan of the transformation must be between 0 and 1"),
    ],
)
def test_settings_that_make_no_sense(run: Path, stated: dict[str, Any], message: str) -> None:
    before = (run / "run.json").read_text()
    with pytest.raises(InputError, match=message):
        transform(job_in(run), stated)
    assert (run / "run.json").read_text() == before
    assert Settings().method == "policy"


def test_damaged_records_are_refused(run: Path) -> None:
    transform(job_in(run), SHORT | {"finalists": 1})
    record = run / "checkpoints" / "transformation.json"
    kept = record.read_text()
    for text in ("{", "[]", json.dumps({**json.loads(kept), "scores": {"0": [5]}})):
        record.write_text(text)
        with pytest.raises(InputError, match=r"transformation.json cannot be read \(.*delete it"):
            transform(job_in(run), {})
    record.write_text(kept)
    RunFolder.open(run).update({"transformation": None})
    scores = json.loads(kept)
    del scores["scores"]["1"]
    del scores["checksum"]
    record.write_text(json.dumps(scores))
    with pytest.raises(InputError, match="lacks scores on weights that were trained on"):
        transform(job_in(run), {})
    weights = run / "checkpoints" / "transformation.safetensors"
    flipped = bytearray(weights.read_bytes())
    flipped[-3] ^= 1
    weights.write_bytes(flipped)
    with pytest.raises(InputError, match=r"transformation.safetensors is damaged: .*delete"):
        transform(job_in(run), {})
    weights.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"transformation.safetensors cannot be read \(.*delete"):
        transform(job_in(run), {})


# -- the command line ------------------------------------------------------------------------------


def test_transform_on_the_command_line(
    run: Path, capsys: pytest.CaptureFixture[str], frugal: None
) -> None:
    options = ["--epochs", "0", "--evaluations", "12", "--finalists", "1"]
    assert main(["transform", str(run), *options]) == 0
    said = capsys.readouterr().out
    assert "multiply-adds" in said
    assert "score on the shared weights" in said
    assert f"prunas train {run}" in said
    assert main(["transform", str(run), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["macs"] < answer["macs_before"]
    assert answer["replacements"]
    assert "graph" not in answer
    assert main(["transform", str(run), "--method", "random"]) == 2
    assert "begin anew with --fresh" in capsys.readouterr().err
    assert main(["transform", str(run / "nowhere")]) == 2
    assert main(["train", str(run), "--seeds", "2"]) == 0
    said = capsys.readouterr().out
    assert "  transformed " in said
    assert "transformed - found: mean difference" in said


def test_what_is_said_where_nothing_is_replaced(run: Path) -> None:
    rows = [{"held_out": right, "macs": macs} for right, macs in ((0.99, 200), (0.98, 100))]
    entry = {"evaluations": 80, "size": "1944", "replacements": [], "finalists": rows}
    assert transform_text(run, entry).endswith(
        "none that costs less is right on held-out images as often as the found network (99.0 %):"
        " 98.0 % at 50.0 % of its multiply-adds"
    )
    by_worth = [{"held_out": None, "macs": 200}]
    assert transform_text(run, entry | {"finalists": by_worth}).endswith("none is worth more")
    alone = transform_text(run, entry | {"finalists": rows[:1]})
    assert alone.endswith("(99.0 %): no other was trained")


@pytest.mark.parametrize("command_again", ["search", "runs"])
def test_a_search_may_transform_as_well(
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command_again: str,
) -> None:
    monkeypatch.setattr(alone, "_cores", lambda: 1)
    asked: list[Job] = []

    def refused(job: Job, stated: dict[str, Any]) -> None:
        asked.append(job)
        raise NothingToReplaceError("nothing in this network may be replaced")

    command = ["search", "test_resnet", "--data", str(pictures), "--budget", "macs=50%"]
    command += ["--epochs", "1", "--supernet-epochs", "1", "--evaluations", "4", "--finalists", "1"]
    command += ["--batch-size", "24", "--transform", "--out", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        patch.setattr(transformation, "transform", refused)
        assert main(command) == 0
    assert len(asked) == 1
    assert "note: nothing in this network may be replaced" in capsys.readouterr().err
    assert (tmp_path / "run" / "report.html").exists()
    monkeypatch.setattr(
        transformation_record, "Settings", lambda **given: Settings(**{**BY_SCORE, **given})
    )
    again = ["search", "--resume", "--out"] if command_again == "search" else ["runs", "resume"]
    assert main([*again, str(tmp_path / "run")]) == 0
    assert "score on the shared weights" in capsys.readouterr().out
    assert "transformation" in json.loads((tmp_path / "run" / "run.json").read_text())


def test_runs_without_transformations_keep_their_records(pictures: Path) -> None:
    """Neither the name of a training nor the owner of a score changes by what was added."""
    request = request_of(pictures)
    training = alone.Training(Candidate([1, 2]), request.final_recipe(), 0, "final")
    assert "replacements" not in json.dumps(training.name)
    assert training.name == "final-" + _digest(
        {
            "candidate": [1, 2],
            "recipe": request.final_recipe().decisive(),
            "seed": 0,
            "purpose": "final",
        }
    )
    transformed = request_of(pictures, transform=True)
    assert transformed.fingerprint() == request.fingerprint()


def _digest(data: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]
