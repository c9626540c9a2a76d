"""The main job on a tiny network and made data: every stage, and every interruption."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import prunas
from prunas.eval.accuracy import accuracy
from prunas.pipeline import alone, finals, found, source_training, sources, stages, training
from prunas.pipeline.finals import train_finals
from prunas.pipeline.found import run_search_stages
from prunas.pipeline.networks import create_network
from prunas.pipeline.progress import Progress
from prunas.pipeline.request import Request
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.sources import train_source
from prunas.pipeline.stages import Job
from prunas.search.archive import Archive
from prunas.search.budget import as_values
from prunas.search.prior import Prior, allocate
from prunas.supernet.space import Candidate
from tests.pipeline.pictures import bright_pictures
from tests.search.toys import chain_space, feasible


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bright_pictures(tmp_path_factory.mktemp("data"))


def _request(pictures: Path, **changes: object) -> Request:
    request = Request(
        model="test_resnet",
        data=str(pictures),
        budget="macs=50%",
        evaluations=8,
        seeds=1,
        epochs=2,
        supernet_epochs=1,
        finalists=3,
        finalist_epochs=1,
        final_epochs=1,
        batch_size=24,
        learning_rate=0.02,
        calibration=48,
    )
    return replace(request, **changes)  # type: ignore[arg-type]


def _job(folder: Path, request: Request, *, resume: bool = False) -> Job:
    run = RunFolder.create(folder, request, resume=resume)
    return Job(run, torch.device("cpu"), Progress())


@pytest.fixture(scope="module")
def finished(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        _in_one_process(patch)
        _all_stages(_job(folder, _request(pictures)))
    return folder


def _in_one_process(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(alone, "_cores", lambda: 1)


def _all_stages(job: Job) -> None:
    run_search_stages(job)
    train_finals(job)


def test_run_json_says_what_the_design_promises(finished: Path) -> None:
    data = json.loads((finished / "run.json").read_text())
    result = data["result"]
    assert set(data["budget"]) == {"macs"}
    assert result["macs"] <= data["budget"]["macs"] == result["macs_full"] // 2
    assert result["macs_uniform"] <= data["budget"]["macs"]
    assert result["params"] < result["params_full"]
    assert result["evaluations"] == 8
    assert set(result["accuracy"]) == {"full", "uniform", "found"}
    assert all(0 <= value <= 1 for value in result["accuracy"].values())
    assert {"prunas", "torch", "timm", "python"} <= set(data["versions"])
    assert data["stages"][0]["name"] == "train the full network"
    assert result["seconds"] == pytest.approx(sum(s["seconds"] for s in data["stages"]), abs=0.01)


def test_the_artifact_is_the_trained_found_network(finished: Path) -> None:
    job = Job(RunFolder.open(finished), torch.device("cpu"), Progress())
    network = prunas.load(finished / "model")
    result = job.folder.read()["result"]
    assert sum(p.numel() for p in network.parameters()) == result["params"]
    measured = accuracy(network, job.fixed(job.data.test))
    assert measured == result["seeds"][0]["found"]


def test_from_scratch_begins_with_random_weights_of_each_seed(
    pictures: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    _in_one_process(monkeypatch)
    began: list[dict[str, torch.Tensor]] = []

    def train(network: nn.Module, *args: object, **kwargs: object) -> None:
        began.append({name: p.detach().clone() for name, p in network.named_parameters()})
        training.train(network, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(alone, "train", train)
    job = _job(folder, _request(pictures, from_scratch=True, seeds=2), resume=True)
    result = train_finals(job)
    assert len(result["seeds"]) == 2
    candidate = Candidate(result["candidate"])
    for seed, start in enumerate(began[:2]):
        fresh = create_network(
            "test_resnet", classes=len(job.data.classes), input_size=job.data.input_size, seed=seed
        )
        oracle = prunas.cut(fresh, job.space, candidate)
        assert all(torch.equal(start[name], p) for name, p in oracle.named_parameters())
    kept = json.loads((finished / "run.json").read_text())["result"]["seeds"]
    monkeypatch.setattr(alone, "_train", lambda *a: pytest.fail("what was trained before is kept"))
    assert train_finals(_job(folder, _request(pictures), resume=True))["seeds"] == kept


def test_two_processes_train_what_one_does(
    pictures: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    for final in folder.glob("checkpoints/final-*"):
        final.unlink()
    monkeypatch.setattr(alone, "_cores", lambda: 2)
    train_finals(_job(folder, _request(pictures), resume=True))
    names = [file.name for file in finished.glob("checkpoints/final-*.safetensors")]
    assert len(names) == 2
    for name in names:
        ours, theirs = (load_file(place / "checkpoints" / name) for place in (folder, finished))
        assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())


def _interrupting(monkeypatch: pytest.MonkeyPatch, module: object, name: str, calls: int) -> None:
    """The `calls`-th call of a function raises instead."""
    original: Callable[..., object] = getattr(module, name)
    made = 0

    def maybe(*args: object, **kwargs: object) -> object:
        nonlocal made
        made += 1
        if made == calls:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, maybe)


@pytest.mark.parametrize(
    ("module", "name", "calls"),
    [
        (stages, "di_prior", 1),
        (source_training, "train_supernet", 1),
        (found, "save", 1),
        (Archive, "record", 1),
        (Archive, "record", 5),
        (alone, "_train", 1),  # of three finalists
        (alone, "_train", 3),
        (alone, "_train", 4),  # of two final trainings
        (alone, "_train", 5),
        (finals, "save", 1),
    ],
)
def test_an_interrupted_run_continues_to_the_same_result(
    pictures: Path,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: object,
    name: str,
    calls: int,
) -> None:
    _in_one_process(monkeypatch)  # where the mock is
    request = _request(pictures)
    with monkeypatch.context() as patch:
        _interrupting(patch, module, name, calls)
        with pytest.raises(KeyboardInterrupt):
            _all_stages(_job(tmp_path / "run", request))
    _all_stages(_job(tmp_path / "run", request, resume=True))
    assert _scores(tmp_path / "run") == _scores(finished)
    ours, whole = (json.loads((f / "run.json").read_text()) for f in (tmp_path / "run", finished))
    for key in ("candidate", "accuracy", "seeds", "macs", "front"):
        assert ours["result"][key] == whole["result"][key]
    for first, second in zip(
        prunas.load(tmp_path / "run" / "model").parameters(),
        prunas.load(finished / "model").parameters(),
        strict=True,
    ):
        assert torch.equal(first, second)


def _scores(folder: Path) -> list[tuple[object, float]]:
    fingerprint = RunFolder.open(folder).request().fingerprint()
    with Archive(folder / "archive.sqlite", fingerprint=fingerprint) as archive:
        return [(row.candidate, row.score) for row in archive.rows()]


def test_a_second_run_in_the_folder_needs_resume_and_the_same_request(
    pictures: Path, finished: Path
) -> None:
    with pytest.raises(prunas.InputError, match="continue it with --resume"):
        RunFolder.create(finished, _request(pictures), resume=False)
    with pytest.raises(prunas.InputError, match=r"another run: seed was 0, now 1"):
        RunFolder.create(finished, _request(pictures, seed=1), resume=True)


def test_a_folder_that_holds_something_else_is_refused(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(prunas.InputError, match="holds no run"):
        RunFolder.create(tmp_path, _request(pictures), resume=False)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "cannot be read"),
        ("[]", "has schema None"),
        ('{"schema": 7}', "has schema 7"),
        ('{"schema": 1, "stages": [1]}', "its 'stages' is"),
        ('{"schema": 1, "request": 1}', "its 'request' is 1"),
        ('{"schema": 1, "result": {"candidate": "x"}}', "its 'result' is"),
        ('{"schema": 1, "space": []}', "its 'space' is"),
        ('{"schema": 1, "space": {"genes": true}}', "its 'space' is"),
        ('{"schema": 1, "space": {"genes": [{}]}}', "its 'space' is"),
        ("[" * 9999, "nested too deeply"),
    ],
)
def test_a_damaged_run_json_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(prunas.InputError, match=sentence):
        RunFolder.open(tmp_path)


def test_a_missing_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(prunas.InputError, match=r"holds no run \(run.json is missing\)"):
        RunFolder.open(tmp_path)


def test_a_truncated_checkpoint_is_refused(pictures: Path, finished: Path, tmp_path: Path) -> None:
    job = Job(RunFolder.open(finished), torch.device("cpu"), Progress())
    file = job.folder.checkpoint("supernet")
    content = file.read_bytes()
    try:
        file.write_bytes(content[:1000])
        with pytest.raises(prunas.InputError, match="delete it to redo it"):
            train_source(job, job.network(), None)
    finally:
        file.write_bytes(content)


def test_final_training_without_a_search_is_refused(pictures: Path, tmp_path: Path) -> None:
    job = _job(tmp_path / "run", _request(pictures))
    with pytest.raises(prunas.InputError, match="run its search first"):
        train_finals(job)


def test_a_result_of_another_space_is_refused(
    pictures: Path, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    run = RunFolder.open(tmp_path / "run")
    run.update({"result": {**run.read()["result"], "candidate": [1, 2]}})
    with pytest.raises(prunas.InputError, match="it belongs to another space"):
        train_finals(Job(run, torch.device("cpu"), Progress()))


def test_a_budget_out_of_reach_is_refused_before_any_training(
    pictures: Path, tmp_path: Path
) -> None:
    job = _job(tmp_path / "run", _request(pictures, budget="macs=10"))
    with pytest.raises(prunas.InputError, match="smallest"):
        run_search_stages(job)
    assert not job.folder.checkpoint("full").exists()


def test_the_uniform_network_is_on_the_budget(pictures: Path, tmp_path: Path) -> None:
    job = _job(tmp_path / "run", _request(pictures))
    assert job.feasible.in_window(np.array([job.uniform])).all()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"search": "magic"}, "no search is called 'magic'"),
        ({"evaluations": 0}, "evaluations=0 must be at least 1"),
        ({"paths": 0}, "paths=0 must be at least 1"),
        ({"schedule": "sandwitch"}, "did you mean sandwich"),
        ({"pretrained": True, "weights": "file"}, "not both"),
    ],
)
def test_requests_that_make_no_sense(
    pictures: Path, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(prunas.InputError, match=sentence):
        _request(pictures, **changes)


def test_a_request_survives_json(pictures: Path) -> None:
    request = _request(pictures, keep=("fc*",))
    assert Request.from_json(json.loads(json.dumps(request.to_json()))) == request
    with pytest.raises(prunas.InputError, match=r"unknown fields: \['spell'\]"):
        Request.from_json({**request.to_json(), "spell": 1})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"evaluations": "many"}, "evaluations must be a whole number, not 'many'"),
        ({"evaluations": True}, "evaluations must be a whole number, not True"),
        ({"epochs": 1.5}, "epochs must be a whole number or null, not 1.5"),
        ({"learning_rate": None}, "learning_rate must be a number, not None"),
        ({"keep": "fc"}, "keep must be a list in which each is a text, not 'fc'"),
        ({"resolutions": [8, "9"]}, "resolutions must be a list in which each is a whole number"),
        ({"model": ["resnet18"]}, "model must be a text"),
    ],
)
def test_a_request_of_other_types_is_refused(
    pictures: Path, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(prunas.InputError, match=sentence):
        Request.from_json({**_request(pictures).to_json(), **changes})


class _Told:
    """A log that remembers."""

    def __init__(self) -> None:
        self.curves: dict[str, list[tuple[int, float]]] = {}

    def write(self, name: str, value: float, step: int) -> None:
        self.curves.setdefault(name, []).append((step, value))


def test_a_run_that_goes_on_tells_its_log_everything_again(
    pictures: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _in_one_process(monkeypatch)
    shutil.copytree(finished, tmp_path / "run")
    told = _Told()
    run = RunFolder.open(tmp_path / "run")
    with _no_training(monkeypatch):
        _all_stages(Job(run, torch.device("cpu"), Progress(log=told)))
    assert [step for step, _ in told.curves["full network/loss"][:2]] == [0, 1]
    assert [score for _, score in told.curves["search/score"]] == [s for _, s in _scores(finished)]
    best = told.curves["search/best score"][-1][1]
    assert best == max(score for _, score in _scores(finished))
    assert len(told.curves["supernet/loss"]) >= 1
    assert all(loss > 0 for _, loss in told.curves["supernet/loss"])
    result = run.read()["result"]
    assert told.curves["final/found test accuracy"] == [(0, result["seeds"][0]["found"])]
    for name in ("found", "uniform"):
        assert [step for step, _ in told.curves[f"final {name} seed 0/loss"]] == [0]


@contextmanager
def _no_training(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(training._Run, "epoch", lambda *_: pytest.fail("it is on record"))
        patch.setattr(
            source_training, "train_supernet", lambda *_, **__: pytest.fail("it is on record")
        )
        yield


@pytest.mark.parametrize("file", ["prior.json", "finalist-*.json"])
def test_damaged_records_say_how_to_make_them_again(
    file: str, pictures: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _in_one_process(monkeypatch)
    shutil.copytree(finished, tmp_path / "run")
    (damaged, *_) = (tmp_path / "run" / "checkpoints").glob(file)
    damaged.write_text(damaged.read_text().replace("0.", "1.", 1))
    with pytest.raises(prunas.InputError, match=r"was changed .*; delete it to redo it"):
        _all_stages(_job(tmp_path / "run", _request(pictures), resume=True))
    damaged.unlink()
    _all_stages(_job(tmp_path / "run", _request(pictures), resume=True))
    assert _scores(tmp_path / "run") == _scores(finished)


def test_more_evaluations_or_seeds_do_not_change_the_fingerprint(pictures: Path) -> None:
    request = _request(pictures)
    assert replace(request, evaluations=9, seeds=4).fingerprint() == request.fingerprint()
    assert replace(request, small_memory=True).fingerprint() == request.fingerprint()
    assert replace(request, seed=5).fingerprint() != request.fingerprint()
    assert replace(request, source="pruningnet").fingerprint() != request.fingerprint()


def _falling(widths: tuple[int, ...]) -> Prior:
    """The first channel of gene 0 is worth most; of the others every channel a little."""
    gains = [np.full(width, 1.0 if gene == 0 else 0.01) for gene, width in enumerate(widths)]
    return Prior(
        tuple(tuple(range(width)) for width in widths),
        tuple((0.0, *np.cumsum(gain).tolist()) for gain in gains),
    )


def test_paths_lie_between_the_uniform_shape_and_the_allocation() -> None:
    space = chain_space(6)
    problem = feasible(space, "macs=25%")
    prior = _falling(space.widths)
    favoured = allocate(prior.values, problem)
    assert favoured[0] == space.full()[0]
    assert min(favoured) < favoured[0]

    def first_shares(prior: Prior | None) -> tuple[float, float]:
        drawn = sources.paths_in_budget(problem, prior)(np.random.default_rng(0), 200)
        values = as_values(drawn)
        assert problem.in_window(values).all()
        shares = values[:, 0] / values.mean(axis=1)
        return float(np.quantile(shares, 0.1)), float(np.quantile(shares, 0.9))

    low, high = first_shares(prior)
    even_low, even_high = first_shares(None)
    assert even_low < low < even_high < high < 2 * favoured[0] / np.mean(favoured)


def test_paths_of_a_whole_front_have_any_cost_below_the_budget() -> None:
    problem = feasible(chain_space(6), "macs=50%")
    paths = sources.paths_in_budget(problem, _falling(problem.space.widths), whole_front=True)
    shares = problem.shares(as_values(paths(np.random.default_rng(0), 300)))[:, 0]
    assert shares.max() <= 1
    counts, _ = np.histogram(shares, bins=4, range=(0, 1))
    assert counts.min() > 40  # of 75 in each quarter, were widths not in steps


@pytest.mark.parametrize("share", [0.4, 0.99])
def test_blocks_are_left_out_where_the_budget_asks_for_it(
    share: float, pictures: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With 0.99 of the MACs of the narrowest network that has all blocks, some must go."""
    _in_one_process(monkeypatch)
    drawn = _job(tmp_path / "drawn", _request(pictures, genes=("width", "depth")))
    narrowest = drawn.cost.macs([drawn.space.full(), drawn.space.uniform(1e-6)])
    limit = int(share * narrowest[0 if share < 0.5 else 1])
    job = _job(
        tmp_path / "run", _request(pictures, genes=("width", "depth"), budget=f"macs={limit}")
    )
    _all_stages(job)
    result = job.folder.read()["result"]
    kinds = [gene["kind"] for gene in job.folder.read()["space"]["genes"]]
    assert kinds.count("depth") == len(job.space.blocks) > 0
    network = prunas.load(tmp_path / "run" / "model")
    assert sum(p.numel() for p in network.parameters()) == result["params"]
    gone = [b.path for b in job.space.left_out(result["candidate"])]
    assert all(isinstance(network.get_submodule(path), torch.nn.Identity) for path in gone)
    assert gone or share < 0.5
