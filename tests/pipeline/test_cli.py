"""The command line as a user meets it: exit codes, one sentence, nothing finished lost."""

import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from importlib.metadata import entry_points, version
from pathlib import Path
from sqlite3 import connect
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import prunas
from prunas.pipeline import alone, export
from prunas.pipeline.cli import main
from prunas.pipeline.lock import claimed
from prunas.pipeline.networks import create_network
from prunas.pipeline.progress import Task
from prunas.pipeline.request import Request
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.workers import HERE, Workers
from tests.pipeline.left_over import an_ended_process

SIZE = (1, 12, 12)
MODEL = "test_byobnet"
EVALUATIONS = 8
BUDGET = ["--budget", "macs=40%"]
TINY = ["search", MODEL, "--data", "small.npz", *BUDGET, "--evaluations", str(EVALUATIONS)]
TINY += [
    "--epochs",
    "1",
    "--supernet-epochs",
    "1",
    "--final-epochs",
    "1",
    "--finalists",
    "2",
    "--finalist-epochs",
    "1",
]
TINY += ["--seeds", "2", "--batch-size", "16"]


def write_data(file: Path) -> None:
    """96 images of 3 classes, a brighter band in another third of each."""
    rng = np.random.default_rng(0)
    labels = np.arange(96) % 3
    images = rng.integers(0, 120, (96, 12, 12, 1)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4 * label : 4 * label + 4] += 100
    np.savez(file, images=images, labels=labels)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with the data in it."""
    write_data(tmp_path / "small.npz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder of a finished search in run/."""
    folder = tmp_path_factory.mktemp("searched")
    write_data(folder / "small.npz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*TINY, "--out", "run"]) == 0
    return folder


@pytest.fixture(scope="module")
def trained(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, trained."""
    folder = tmp_path_factory.mktemp("trained") / "there"
    shutil.copytree(searched, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(alone, "_cores", lambda: 1)  # in this process
        assert main(["train", "run"]) == 0
    return folder


@pytest.fixture
def a_search(searched: Path, place: Path) -> Path:
    """A copy of the finished search, to be spoilt."""
    shutil.copytree(searched / "run", place / "run")
    return place / "run"


@pytest.fixture
def a_training(trained: Path, place: Path) -> Path:
    shutil.copytree(trained / "run", place / "run")
    return place / "run"


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int) -> str:
    """The one sentence on the error stream."""
    capsys.readouterr()
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    *before, sentence = err.rstrip("\n").split("\n")
    assert not any("prunas: " in line or "Traceback" in line for line in before), err
    assert sentence.startswith("prunas: "), err
    return sentence.removeprefix("prunas: ")


def printed(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> Any:
    """The one JSON object on the output stream."""
    capsys.readouterr()
    assert main(arguments) == 0
    return json.loads(capsys.readouterr().out)


def scores(run: Path) -> list[tuple[str, float]]:
    with closing(connect(run / "archive.sqlite")) as archive:
        rows = archive.execute("SELECT candidate, score FROM evaluations ORDER BY id")
        return rows.fetchall()


def result(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "run.json").read_text())["result"]
    return {name: value for name, value in found.items() if name != "seconds"}


def same_weights(first: Path, second: Path) -> bool:
    tensors, others = (load_file(run / "model" / "weights.safetensors") for run in (first, second))
    return tensors.keys() == others.keys() and all(
        torch.equal(value, others[name]) for name, value in tensors.items()
    )


# -- the program itself ----------------------------------------------------------------------------


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"prunas {version('prunas')}\n"
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for command in ("profile", "search", "train", "report", "export", "demo"):
        assert f"\n  {command} " in text
        assert main([command, "--help"]) == 0


@pytest.mark.parametrize(
    "arguments",
    [["--nope"], ["profil", MODEL], ["profile"], ["train"], ["search", MODEL, "--seed", "-1"]],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Error: " in err
    assert "Traceback" not in err


def test_the_installed_command_is_main() -> None:
    (command,) = entry_points(group="console_scripts", name="prunas")
    assert command.load() is main


def test_the_arguments_of_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["anything", "--version"])
    assert main() == 0
    assert capsys.readouterr().out.startswith("prunas ")


def test_only_warnings_of_prunas_are_shown_and_as_a_note(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warned(run: Path) -> Path:
        import warnings

        warnings.warn_explicit("few images", UserWarning, "x.py", 1, module="prunas.eval.x")
        warnings.warn_explicit("old news", FutureWarning, "y.py", 1, module="torch.x")
        return run

    monkeypatch.setattr("prunas.pipeline.commands.report.write_report", warned)
    assert main(["report", "somewhere"]) == 0
    assert capsys.readouterr() == ("somewhere\n", "prunas: note: few images\n")


# -- profile ---------------------------------------------------------------------------------------


def test_profile_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, ["profile", MODEL, "--classes", "7", "--json"])
    network = create_network(MODEL, classes=7, input_size=(3, 160, 160))
    space = prunas.trace(network, (3, 160, 160))
    cost = prunas.Cost(space)
    assert found["macs"] == cost.macs([space.full()])[0]
    assert found["params"] == sum(p.numel() for p in network.parameters())
    assert found["smallest"]["macs"] == cost.macs([space.smallest()])[0]
    assert found["half"]["params"] == cost.params([space.uniform(0.5)])[0]
    assert int(found["size"]) == space.size
    genes = [(gene["name"], gene["kind"], tuple(gene["choices"])) for gene in found["genes"]]
    assert genes == [(gene.name, gene.kind, gene.choices) for gene in space.genes]
    pinned = [(entry["name"], entry["reason"]) for entry in found["pinned"]]
    assert pinned == [(entry.name, entry.reason) for entry in space.pinned]


def test_profile_takes_grid_keep_budget_and_data(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data", "small.npz", "--grid", "every", "--keep", "stem.*", *BUDGET]
    found = printed(capsys, ["profile", MODEL, *options, "--json"])
    assert (found["input_size"], found["classes"]) == ([1, 12, 12], 3)
    assert found["small_images"].startswith("For pictures of 12 x 12")
    assert found["genes"][0]["choices"] == list(range(1, found["genes"][0]["choices"][-1] + 1))
    assert "stem.conv.weight[0]" in [entry["name"] for entry in found["pinned"]]
    assert found["budget"] == {"macs": int(0.4 * found["macs"])}


@pytest.mark.parametrize(
    ("text", "size"), [("96", [3, 96, 96]), ("1,48,64", [1, 48, 64]), ("3x64x32", [3, 64, 32])]
)
def test_profile_reads_input_sizes(
    text: str, size: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert printed(capsys, ["profile", MODEL, "--input-size", text, "--json"])["input_size"] == size


def test_profile_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", MODEL, "--input-size", "64", *BUDGET]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith(f"{MODEL}, images of 3x64x64, 1000 classes\n")
    for text in ("every gene at half", "thop counts", "pinned, because", "For pictures of 64 x 64"):
        assert text in out


# -- a search and what follows ---------------------------------------------------------------------


def test_search_leaves_a_run(searched: Path) -> None:
    run = searched / "run"
    assert {"run.json", "archive.sqlite", "checkpoints", "model", "report.html"} == {
        entry.name for entry in run.iterdir()
    }
    assert len(scores(run)) == EVALUATIONS
    entries = json.loads((run / "run.json").read_text())
    assert entries["result"]["macs"] <= entries["budget"]["macs"]
    assert entries["result"]["evaluations"] == EVALUATIONS


def test_search_says_what_it_found_and_where(
    searched: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(searched / "run", Path("runs") / f"{MODEL}-small")
    assert main([*TINY, "--resume"]) == 0
    out = capsys.readouterr().out
    assert f"the best of 2 finalists of {EVALUATIONS} candidates" in out
    assert f"prunas train runs/{MODEL}-small\n" in out
    assert f"report: runs/{MODEL}-small/report.html\n" in out


def test_resume_takes_the_recorded_request_and_may_ask_for_more(
    a_search: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = scores(a_search)
    more = ["search", "--resume", "--out", "run", "--evaluations", str(EVALUATIONS + 3), "--json"]
    found = printed(capsys, more)
    assert found["result"]["evaluations"] == EVALUATIONS + 3
    assert found["request"]["evaluations"] == EVALUATIONS + 3
    assert found["request"]["data"] == "small.npz"
    assert (found["run"], found["model"]) == ("run", "run/model")
    assert scores(a_search)[:EVALUATIONS] == before
    assert len(scores(a_search)) == EVALUATIONS + 3


def test_every_option_arrives_in_the_request(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[Request, bool, Workers]] = []

    def begun(path: Path, request: Request, *, resume: bool, workers: Workers, **_: object) -> None:
        asked.append((request, resume, workers))
        raise prunas.InputError("enough")

    monkeypatch.setattr("prunas.pipeline.commands.search.begun", begun)
    monkeypatch.setattr("prunas.pipeline.commands.options.require_ray", lambda address: None)
    text = (
        "search m --data d --budget macs=1M --search nsga2 --evaluations 9 --seed 8 --seeds 7"
        " --epochs 6 --supernet-epochs 5 --final-epochs 4 --batch-size 3 --learning-rate 0.2"
        " --finalists 11 --finalist-epochs 12 --from-scratch"
        " --paths 1 --weights w.pth --grid every --keep a --keep b --input-size 64 --no-prior"
        " --schedule fair+warm-up --kernel-transform"
        " --batch 5 --in-flight 15 --workers 4 --executor ray --address h:1 --gpus-per-worker 0.5"
        " --limit 30"
    )
    assert refused(capsys, text.split(), 2) == "enough"
    assert (
        refused(capsys, ["search", "m", "--data", "d", "--budget", "b", "--pretrained"], 2)
        == "enough"
    )
    (request, resume, many), (other, _, none) = asked
    expected = Request(
        model="m", data="d", budget="macs=1M", search="nsga2", evaluations=9, seed=8, seeds=7,
        epochs=6, supernet_epochs=5, finalists=11, finalist_epochs=12, final_epochs=4,
        batch_size=3, learning_rate=0.2, paths=1, schedule="fair+warm-up", kernel_transform=True,
        batch=5, in_flight=15,
        weights="w.pth", grid="every", keep=("a", "b"), input_size=64, prior=False,
        from_scratch=True,
    )  # fmt: skip
    assert (request, resume) == (expected, False)
    assert many == Workers("ray", 4, "h:1", 0.5, 30.0)
    assert other == Request(model="m", data="d", budget="b", pretrained=True)
    assert none == HERE


@pytest.mark.parametrize(
    ("options", "source", "file"),
    [
        ("", "supernet", None),
        ("--weights pruningnet", "pruningnet", None),
        ("--weights pruningnet-published --start w.pth", "pruningnet-published", "w.pth"),
        ("--start w.pth", "supernet", "w.pth"),
        ("--weights w.pth", "supernet", "w.pth"),
        ("--weights ./supernet", "supernet", "./supernet"),
        ("--weights pruningnet --small-memory", "pruningnet", None),
    ],
)
def test_weights_are_a_source_or_a_file_to_start_from(
    options: str,
    source: str,
    file: str | None,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[Request] = []

    def begun(path: Path, request: Request, **_: object) -> None:
        asked.append(request)
        raise prunas.InputError("enough")

    monkeypatch.setattr("prunas.pipeline.commands.search.begun", begun)
    command = f"search m --data d --budget macs=1M {options}"
    assert refused(capsys, command.split(), 2) == "enough"
    assert (asked[0].source, asked[0].weights) == (source, file)
    assert asked[0].small_memory == ("--small-memory" in options)


def test_a_source_that_there_is_not(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = "search m --data d --budget macs=1M --weights hypernet --start w.pth"
    sentence = refused(capsys, command.split(), 2)
    assert sentence == (
        "no weights source is called 'hypernet'; choose supernet, pruningnet, pruningnet-published"
    )
    assert refused(capsys, command.split()[:-2], 2) == (
        "there is no weights file hypernet, nor a weights source of that name; sources are"
        " supernet, pruningnet, pruningnet-published"
    )
    with pytest.raises(prunas.InputError, match="no weights source is called 'x'"):
        Request(model="m", data="d", budget="macs=1M", source="x")


def test_train_compares_and_saves(
    a_training: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alone, "_cores", lambda: 1)
    found = printed(capsys, ["train", "run", "--json"])["result"]  # at once: all is done
    assert [row["seed"] for row in found["seeds"]] == [0, 1]
    assert set(found["accuracy"]) == {"full", "uniform", "found"}
    one = printed(capsys, ["train", "run", "--seeds", "1", "--json"])
    assert one["request"]["seeds"] == len(one["result"]["seeds"]) == 1
    assert main(["train", "run", "--seeds", "2"]) == 0
    out = capsys.readouterr().out
    for text in ("mean of 2 trainings", "  uniform ", "found - uniform", "run/report.html"):
        assert text in out
    code = out[out.index("  import prunas") :]
    lines = [line.strip() for line in code.splitlines()]
    assert len(lines) == 3
    names: dict[str, Any] = {}
    exec("\n".join(lines), names)
    assert names["scores"].shape == (1, 3)


def test_another_recipe_or_network_is_another_training(
    a_training: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(alone, "_cores", lambda: 1)
    longer = printed(capsys, ["train", "run", "--seeds", "1", "--final-epochs", "2", "--json"])
    assert longer["request"]["final_epochs"] == 2
    entries = json.loads((a_training / "run.json").read_text())
    entries["result"]["candidate"] = entries["result"]["uniform_candidate"]  # a later search's
    del entries["checksum"]
    (a_training / "run.json").write_text(json.dumps(entries))
    (row,) = printed(capsys, ["train", "run", "--json"])["result"]["seeds"]
    assert row["found"] == row["uniform"]
    params = sum(tensor.numel() for tensor in prunas.load(a_training / "model").parameters())
    assert params == entries["result"]["params_uniform"]


def test_report_is_written_again(a_search: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (a_search / "report.html").unlink()
    assert main(["report", "run"]) == 0
    assert capsys.readouterr().out == "run/report.html\n"
    assert (a_search / "report.html").stat().st_size > 10_000
    found = printed(capsys, ["report", "run", "--json"])
    assert found == {"run": "run", "report": "run/report.html"}


def test_an_export_that_is_stopped_says_what_is_kept(
    a_search: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("prunas.pipeline.commands.export.export_torch", stopped)
    assert refused(capsys, ["export", "run"], 130) == (
        "stopped; 1 finished files are kept in run/export"
    )
    assert [file.name for file in (a_search / "export").iterdir()] == ["model.onnx"]


def test_export_writes_files_and_says_their_sizes(
    a_search: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = printed(capsys, ["export", "run", "--json"])
    assert [(each["format"], each["file"]) for each in found["files"]] == [
        ("onnx", "run/export/model.onnx"),
        ("torch", "run/export/model.pt2"),
    ]
    for each in found["files"]:
        assert each["bytes"] == Path(each["file"]).stat().st_size
        assert each["difference"] <= export.TOLERANCE
    assert main(["export", "run", "--format", "torch", "--out", "other"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("other/model.pt2: ")
    assert "the weights of the full network take " in out
    assert [entry.name for entry in Path("other").iterdir()] == ["model.pt2"]


# -- bad input: exit 2, one sentence, nothing left behind ------------------------------------------


def one_class(place: Path) -> None:
    (place / "one" / "cat").mkdir(parents=True)
    for index in range(4):
        Image.new("L", (12, 12), index).save(place / "one" / "cat" / f"{index}.png")


def changed(**values: object) -> list[str]:
    """The tiny search with other options; None leaves one out."""
    arguments = list(TINY)
    for name, value in values.items():
        option = f"--{name.replace('_', '-')}"
        if option in arguments:
            at = arguments.index(option)
            del arguments[at : at + 2]
        arguments += [] if value is None else [option, str(value)]
    return arguments


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["search", "test_byobnot", *TINY[2:]], "no network 'test_byobnot'; did you mean test_by"),
        (["profile", "test_byobnot"], "no network 'test_byobnot'; did you mean test_byobnet"),
        (["profile", "resnet18.a1_in2k"], "'resnet18.a1_in2k'; did you mean resnet18.a1_in1k"),
        (["prune", "test_resnet.x", *BUDGET], "no network 'test_resnet.x'; did you mean"),
        (["search"], "name a network, or continue a run with --resume --out DIR"),
        (["search", "--resume"], "name a network, or continue a run with --resume --out DIR"),
        (changed(data=None), "a search needs --data, such as"),
        (changed(data=None, budget=None), "a search needs --data and --budget, such as"),
        (changed(keep="*"), "nothing in ByobNet can be pruned: it was asked to be left alone"),
        (changed(keep="nowhere.*"), "keep pattern 'nowhere.*' matches no parameter"),
        (changed(budget="macs=1000"), "no candidate has at most 1,000 macs: the smallest one has"),
        (changed(budget="macs=0.00001"), "the smallest one has"),
        (changed(budget="macs"), "'macs' is not a budget; write it as name=value"),
        (changed(budget="macs=much"), "macs=much is not a positive number"),
        (changed(budget="macs=-3"), "macs=-3 is not a positive number"),
        (changed(budget="flops=40%"), "write macs= instead of flops="),
        (changed(budget="watts=5"), "'watts' is not a cost that a budget can limit"),
        (["profile", MODEL, "--budget", "macs=10"], "no candidate has at most 10 macs"),
        (
            changed(data="smal.npz"),
            "no data set, folder or .npz called 'smal.npz'; did you mean sm",
        ),
        (changed(data="empty"), "empty"),
        (changed(data="one"), "one has only the class 'cat'; two or more are needed"),
        (["search", "inception_v3", *TINY[2:]], "does not take pictures of size (1, 12, 12)"),
        (["profile", "inception_v3", "--input-size", "12"], "does not take pictures of size"),
        (["profile", MODEL, "--input-size", "big"], "input size 'big' is not understood"),
        (["profile", MODEL, "--input-size", "3,4"], "input size '3,4' is not understood"),
        (["profile", MODEL, "--input-size", "0"], "input size '0' is not understood"),
        (["profile", MODEL, "--data", "small.npz", "--classes", "9"], "small.npz has 3 classes"),
        (changed(weights="none.safetensors"), "there is no weights file none.safetensors"),
        (changed(weights="other.safetensors"), "other.safetensors does not fit the network: stem"),
        (changed(weights="short.safetensors"), "the weights short.safetensors cannot be read"),
        (changed(weights="short.pth"), "the weights short.pth cannot be read"),
        (changed(weights="evil.pth"), "evil.pth is a pickle that holds more than tensors"),
        ([*changed(weights="x.pth"), "--pretrained"], "give either pretrained weights or a w"),
        (changed(latency_table="t.json"), "--latency-table t.json is for networks that are timed"),
        (changed(latency_batch=4), "--latency-batch 4 is for networks that are timed, and none is"),
        (
            changed(latency_table="small.npz", latency_backend="eager"),
            "the latency table small.npz cannot be read",
        ),
        (changed(search="luck"), "no search is called 'luck'; choose evolution"),
        (changed(grid="fine"), "no width grid is called 'fine'; choose one of default"),
        (changed(device="tpu"), "no device is called 'tpu'; choose auto, cpu, cuda"),
        (changed(device="cuda"), "there is no CUDA device that torch can use"),
        (changed(evaluations=0), "evaluations=0 must be at least 1"),
        (changed(batch_size=0), "batch_size=0 must be at least 1"),
        (changed(seed=2**63), "seed=9223372036854775808 cannot be used; give one from 0 to"),
        (changed(ema=1), "ema=1.0 of the recipe; choose from 0 to 0.999999999"),
        (changed(learning_rate="nan"), "learning_rate=nan of the recipe; choose from 0"),
        (changed(learning_rate="inf"), "learning_rate=inf of the recipe; choose from 0 upwards"),
        (["profile", MODEL, "--budget", ""], "'' is not a budget; write it as name=value"),
        (changed(learning_rate=-1), "learning_rate=-1.0 of the recipe; choose from 0"),
        (changed(out="small.npz"), "small.npz exists and holds no run; give another folder"),
        (changed(out="small.npz/run"), "small.npz/run cannot be made (Not a directory)"),
        (changed(out="one"), "one exists and holds no run; give another folder with --out"),
        (["search", "--resume", "--out", "none"], "none holds no run (run.json is missing)"),
        (["train", "none"], "none holds no run (run.json is missing)"),
        (["report", "none"], "none/run.json does not exist"),
        (["export", "none"], "none holds no run (run.json is missing)"),
        (["export", "none", "--format", "gif"], "no format is called 'gif'; choose onnx"),
    ],
)
def test_bad_input(
    arguments: list[str],
    sentence: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (place / "empty").mkdir()
    one_class(place)
    save_file({"stem": torch.zeros(3)}, "other.safetensors")
    torch.save(create_network(MODEL, classes=3, input_size=SIZE).state_dict(), "whole.pth")
    for name in ("short.pth", "short.safetensors"):
        Path(name).write_bytes(Path("whole.pth").read_bytes()[:5000])
    Path("evil.pth").write_bytes(pickle.dumps({"weight": Path("anything")}))
    before = sorted(place.rglob("*"))
    assert sentence in refused(capsys, arguments, 2)
    left = [entry for entry in place.rglob("*") if entry not in before]
    assert [entry.name for entry in left] in ([], ["runs"])


def test_a_folder_without_write_permission(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("locked").mkdir()
    # root may write anywhere
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    assert "locked cannot be written" in refused(capsys, changed(out="locked"), 2)


def test_a_run_of_before_whose_batch_nobody_times_goes_on(
    a_search: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def begun(path: Path, request: Request, **_: object) -> None:
        raise prunas.InputError(f"enough of {request.latency_batch}")

    monkeypatch.setattr("prunas.pipeline.commands.search.begun", begun)
    entries = json.loads((a_search / "run.json").read_text())
    del entries["checksum"]
    entries["request"]["latency_batch"] = 4
    (a_search / "run.json").write_text(json.dumps(entries))
    assert refused(capsys, ["search", "--resume", "--out", "run"], 2) == "enough of 4"


@pytest.mark.parametrize("command", [["criteria", MODEL], TINY, ["train", "run"], ["rank", "run"]])
def test_nobody_at_the_address_of_a_cluster_is_noticed_before_the_work(
    command: list[str], a_search: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    sentence = refused(capsys, [*command, "--address", "127.0.0.1:1"], 2)
    assert sentence.startswith("there is no Ray cluster to join at '127.0.0.1:1'")
    assert not Path("runs").exists()


def test_a_run_is_not_overwritten(a_search: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (a_search / "run.json").read_bytes()
    sentence = refused(capsys, changed(out="run"), 2)
    assert sentence == "run holds a run; continue it with --resume or give --out"
    assert (a_search / "run.json").read_bytes() == before


def test_another_run_is_not_continued(a_search: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (a_search / "run.json").read_bytes()
    sentence = refused(capsys, [*changed(out="run", seed=5), "--resume"], 2)
    assert sentence.startswith("run holds another run: seed was 0, now 5")
    assert (a_search / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    "command",
    [
        "train run",
        "rank run",
        "search --resume --out run",
        "compare --method random --method nsga2 --run run",
    ],
)
def test_a_run_whose_data_have_changed_is_not_continued(
    command: str, a_search: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load("small.npz") as stored:
        np.savez("small.npz", images=stored["images"][:-1], labels=stored["labels"][:-1])
    sentence = refused(capsys, command.split(), 2)
    assert sentence == (
        "small.npz is not what this run was made with: 95 pictures, were 96; put back what was"
        " there, or begin a new run"
    )


def test_a_run_of_before_knows_its_data_once_it_goes_on(a_search: Path) -> None:
    entries = json.loads((a_search / "run.json").read_text())
    del entries["checksum"]
    kept = entries.pop("data")
    (a_search / "run.json").write_text(json.dumps(entries))
    assert main(["search", "--resume", "--out", "run"]) == 0
    assert json.loads((a_search / "run.json").read_text())["data"] == kept


def test_a_test_picture_that_cannot_be_read_is_found_before_anything_begins(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(24):
        for part in ("train", "test"):
            folder = place / "pictures" / part / "abc"[index % 3]
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("L", (12, 12), 80 * (index % 3)).save(folder / f"{index}.png")
    (place / "pictures" / "test" / "b" / "1.png").write_bytes(b"no picture")
    sentence = refused(capsys, changed(data="pictures", out="run"), 2)
    assert sentence.startswith("the picture pictures/test/b/1.png cannot be read")
    assert not Path("run").exists()


@pytest.mark.parametrize("command", ["search", "train", "report", "export", "demo"])
def test_a_run_of_another_version(
    command: str, a_search: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = json.loads((a_search / "run.json").read_text())
    (a_search / "run.json").write_text(json.dumps({**entries, "schema": 99}))
    arguments = {"search": ["search", "--resume", "--out", "run"], "demo": ["demo", "--out", "run"]}
    sentence = refused(capsys, arguments.get(command, [command, "run"]), 2)
    assert "schema 99" in sentence


def test_a_damaged_archive_and_one_of_another_run(
    a_search: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = a_search / "archive.sqlite"
    again = ["search", "--resume", "--out", "run"]
    with closing(connect(archive)) as connection, connection:
        connection.execute("UPDATE runs SET fingerprint = 'other'")
    assert "holds the evaluations of another run" in refused(capsys, again, 2)
    archive.write_bytes(b"no database, for certain" * 100)
    assert "is damaged or not a prunas archive" in refused(capsys, again, 2)


def test_training_and_export_before_the_search(
    a_search: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = json.loads((a_search / "run.json").read_text())
    for name in ("result", "network", "checksum"):
        del entries[name]
    (a_search / "run.json").write_text(json.dumps(entries))
    assert main(["export", "run", "--format", "torch"]) == 0  # stopped just before the result
    shutil.rmtree(a_search / "model")
    assert "no found network yet; run its search" in refused(capsys, ["train", "run"], 2)
    assert "holds no artifact" in refused(capsys, ["export", "run"], 2)


def test_a_file_in_the_model_of_a_run_is_missed_before_anything_is_trained(
    a_search: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (a_search / "model" / "notes.txt").write_text("mine")
    for command in ("train run", "transform run", "search --resume --out run"):
        sentence = refused(capsys, command.split(), 2)
        assert sentence.startswith("run/model holds something else than an artifact, notes.txt")
    assert (a_search / "model" / "notes.txt").read_text() == "mine"


# -- runs that fail: exit 1, what was finished is kept ---------------------------------------------


def test_a_loss_that_is_not_finite(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sentence = refused(capsys, changed(learning_rate=1e30, epochs=3, out="run"), 1)
    assert "loss is not finite" in sentence
    assert sentence.endswith("train with a lower learning rate")


@pytest.mark.parametrize("file", ["run.json", "supernet.safetensors", "report.html"])
def test_a_full_disk(
    file: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rename = os.replace

    def full(source: Path, target: Path) -> None:
        if Path(target).name == file:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        sentence = refused(capsys, changed(out="run"), 1)
    assert file in sentence
    assert "No space left on device" in sentence
    again = changed(out="run") if file == "run.json" else ["search", "--resume", "--out", "run"]
    assert main(again) == 0


# -- Ctrl-C ----------------------------------------------------------------------------------------


@contextmanager
def ctrl_c_at(update: int) -> Iterator[None]:
    """A signal, as from the keyboard, at one of the steps that progress bars show."""
    seen = 0
    plain = Task.update

    def counted(task: Task, done: int, total: int) -> None:
        nonlocal seen
        plain(task, done, total)
        seen += 1
        if seen == update:
            signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Task, "update", counted)
        yield
    assert seen == update, f"there were only {seen} steps"


@pytest.mark.parametrize(
    ("update", "kept"),
    [
        (2, "finished stages and 0 evaluated"),  # the full network trains
        (5, "finished stages and 0 evaluated"),  # the shared weights do
        (8, "finished stages and 2 evaluated"),  # the second score has just been recorded
    ],
)
def test_a_search_goes_on_after_ctrl_c_as_if_nothing_had_happened(
    update: int,
    kept: str,
    searched: Path,
    place: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with ctrl_c_at(update):
        sentence = refused(capsys, changed(out="run", device="cpu"), 130)
    command = "prunas search --resume --out run --device cpu"
    assert sentence == f"stopped; {kept} candidates are kept in run; go on with: {command}"
    assert main(command.split()[1:]) == 0
    run, uninterrupted = place / "run", searched / "run"
    assert scores(run) == scores(uninterrupted)
    assert result(run) == result(uninterrupted)
    assert same_weights(run, uninterrupted)


@pytest.mark.parametrize("update", [1, 2])
def test_final_training_goes_on_after_ctrl_c(
    update: int,
    trained: Path,
    a_search: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(alone, "_cores", lambda: 1)
    with ctrl_c_at(update):
        sentence = refused(capsys, ["train", "run"], 130)
    assert sentence.endswith("are kept in run; go on with: prunas train run")
    assert main(["train", "run"]) == 0
    assert result(a_search) == result(trained / "run")
    assert same_weights(a_search, trained / "run")


def test_ctrl_c_before_there_is_a_run(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def slow(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("prunas.pipeline.stages.load_data", slow)
    assert refused(capsys, changed(out="run"), 130) == "stopped; nothing had been made yet"
    assert not Path("run").exists()
    monkeypatch.setattr("prunas.pipeline.commands.profile.load_data", slow)
    assert refused(capsys, ["profile", MODEL, "--data", "small.npz"], 130) == (
        "stopped; nothing was changed"
    )


def test_ctrl_c_ends_the_process_with_130(place: Path) -> None:
    code = """
import os, signal
from prunas.pipeline.cli import main
from prunas.search.archive import Archive
record = Archive.record
def record_and_stop(archive, evaluation, **place):
    record(archive, evaluation, **place)
    if len(archive) == 3:
        os.kill(os.getpid(), signal.SIGINT)
Archive.record = record_and_stop
raise SystemExit(main())
"""
    command = [sys.executable, "-c", code, *changed(out="run")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (130, "")
    assert "stopped; finished stages and 3 evaluated candidates are kept in run" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(scores(place / "run")) == 3


# -- runs ------------------------------------------------------------------------------------------


def test_a_second_process_on_a_run_is_refused(
    a_search: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with claimed(a_search):
        for command in (["search", "--resume", "--out"], ["train"], ["rank"], ["runs", "resume"]):
            sentence = refused(capsys, [*command, "run"], 2)
            assert f"run is being worked on by process {os.getpid()}; wait for it" in sentence
        assert main(["report", "run"]) == 0  # a reader disturbs nobody


def test_a_killed_start_is_begun_again(place: Path) -> None:
    (place / "run").mkdir()
    (place / "run" / f".run.json.{an_ended_process()}.part").write_text("{")
    (place / "run" / ".lock").write_text("{}")
    assert main(changed(out="run", epochs=0)) == 0
    assert not list((place / "run").glob(".*"))


def test_a_run_is_resumed_with_workers(
    a_search: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Workers] = []

    def begun(path: Path, request: Request, *, workers: Workers, **_: object) -> None:
        asked.append(workers)
        raise KeyboardInterrupt

    monkeypatch.setattr("prunas.pipeline.commands.runs.begun", begun)
    words = ["runs", "resume", "run", "--workers", "2"]
    assert refused(capsys, words, 130).endswith(f"go on with: prunas {' '.join(words)}")
    assert asked == [Workers("processes", 2)]


def test_a_stopped_training_does_not_change_what_is_trained(
    a_search: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Finalists of networks that are trained from scratch would be others."""
    monkeypatch.setattr(alone, "_cores", lambda: 1)
    before = result(a_search)
    with ctrl_c_at(1):
        refused(capsys, ["train", "run", "--from-scratch"], 130)
    assert main(["runs", "resume", "run"]) == 0
    found = result(a_search)
    assert {name: found[name] for name in before} == before
    assert not list((a_search / "checkpoints").glob("scratch-finalist*"))


def test_a_search_that_goes_on_after_a_training_is_resumed_as_a_search(
    a_training: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert RunFolder(a_training).read()["goal"] == "train"
    assert main(["search", "--resume", "--out", "run"]) == 0
    assert RunFolder(a_training).read()["goal"] == "search"


def save_weights(seed: int) -> None:
    network = create_network("test_byobnet", classes=3, input_size=(1, 16, 16), seed=seed)
    torch.save(network.state_dict(), "w.pt")


def test_weights_that_have_changed_are_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_weights(3)
    assert main(changed(out="run", epochs=0, weights="w.pt")) == 0
    save_weights(4)
    for again in (["search", "--resume", "--out", "run"], ["train", "run"]):
        sentence = refused(capsys, again, 2)
        assert sentence.startswith("the weights w.pt are not those that the run began with; put")


def test_a_run_goes_on_where_its_data_and_weights_were_moved(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(alone, "_cores", lambda: 1)
    save_weights(3)
    words = changed(epochs=0, weights="w.pt")
    assert main([*words, "--out", "whole"]) == 0
    with ctrl_c_at(3):
        refused(capsys, [*words, "--out", "run"], 130)
    (place / "there").mkdir()
    for file in ("small.npz", "w.pt"):
        (place / file).rename(place / "there" / file)
    assert refused(capsys, ["runs", "resume", "run"], 2) == "there is no weights file w.pt"
    moved = ["--data", "there/small.npz", "--weights", "there/w.pt"]
    assert main(["runs", "resume", "run", *moved]) == 0
    assert result(place / "run") == result(place / "whole")
    assert main(["train", "run"]) == 0, "it is remembered"


def test_other_data_and_weights_cannot_take_the_place_of_those_of_a_run(
    a_search: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load("small.npz") as known:
        np.savez("other.npz", images=known["images"] // 2, labels=known["labels"])
    save_weights(3)
    for option, said in (
        (
            ["--data", "other.npz"],
            "other.npz is not what this run was made with: as many pictures, but other",
        ),
        (["--weights", "w.pt"], "run does not know what its weights held"),
    ):
        assert refused(capsys, ["runs", "resume", "run", *option], 2).startswith(said)
    assert "moved" not in RunFolder(a_search).read()


def test_runs_are_resumed_to_what_was_asked_of_them(
    trained: Path,
    a_search: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(alone, "_cores", lambda: 1)
    found = printed(capsys, ["runs", "resume", "run", "--json"])
    assert "accuracy" not in found["result"]
    with ctrl_c_at(1):
        sentence = refused(capsys, ["train", "run"], 130)
    assert sentence.endswith("go on with: prunas train run")
    assert main(["runs", "resume", "run"]) == 0
    assert "test accuracy, mean of 2 trainings" in capsys.readouterr().out
    assert result(a_search) == result(trained / "run")
    assert same_weights(a_search, trained / "run")
    assert main(["search", "--resume", "--out", "run"]) == 0
    assert same_weights(a_search, trained / "run"), "a trained network is not replaced"


# -- demo ------------------------------------------------------------------------------------------


@pytest.fixture
def a_demo(a_training: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny one, finished, in run/."""
    monkeypatch.setattr(alone, "_cores", lambda: 1)
    ask_for(RunFolder(a_training).request(), monkeypatch)
    RunFolder(a_training).update({"demo": True})
    return a_training


def ask_for(request: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunas.pipeline.commands.demo.demo_request", lambda: request)


def forget_training(run: Path) -> None:
    """As if it had been stopped before the final trainings were done."""
    folder = RunFolder.open(run)
    result = folder.read()["result"]
    folder.update({"result": {name: each for name, each in result.items() if name != "accuracy"}})


@pytest.mark.parametrize("how", ["unfinished", "untold", "--resume"])
def test_a_demo_is_continued(how: str, a_demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also one that has a report already, as `prunas report` writes it at any time."""
    before = result(a_demo)
    if how == "unfinished":
        forget_training(a_demo)
    if how == "untold":
        (a_demo / "report.html").unlink()
    (a_demo / "mark").touch()
    options = ["--resume"] if how == "--resume" else []
    assert main(["demo", "--out", "run", *options]) == 0
    out = capsys.readouterr().out
    for text in ("mean of 2 trainings", "browser: run/report.html\n", "prunas.load('run/model')"):
        assert text in out
    found = printed(capsys, ["demo", "--out", "run", "--resume", "--json"])
    assert found["result"]["accuracy"] == before["accuracy"] == result(a_demo)["accuracy"]
    assert (a_demo / "mark").exists()
    assert (a_demo / "report.html").exists()


@pytest.mark.parametrize("how", ["finished", "--fresh", "other settings"])
def test_a_demo_starts_anew(
    how: str, a_demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if how != "finished":
        (a_demo / "report.html").unlink()
    (a_demo / "mark").touch()
    if how == "other settings":
        ask_for(replace(RunFolder(a_demo).request(), seed=1), monkeypatch)
    with ctrl_c_at(1):
        refused(capsys, ["demo", "--out", "run", *([how] if how == "--fresh" else [])], 130)
    assert not (a_demo / "mark").exists()
    assert not (a_demo / "archive.sqlite").exists()


@pytest.mark.parametrize("other", [{"model": "test_resnet"}, {"budget": "macs=77%"}])
def test_the_demo_never_replaces_another_run(
    other: dict[str, Any],
    a_training: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = RunFolder(a_training).request()
    ask_for(replace(before, **other), monkeypatch)
    (name,) = other
    for options, said in (
        ([], f"run holds another run: {name} was {getattr(before, name)!r}"),
        (["--fresh"], "run holds a run that is no demo; give another --out"),
    ):
        assert refused(capsys, ["demo", "--out", "run", *options], 2).startswith(said)
    assert result(a_training)["accuracy"]


def test_a_demo_that_is_killed_at_its_start_is_continued(
    place: Path, a_demo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RunFolder(a_demo).update({"demo": False})  # which is written after the request
    (a_demo / "mark").touch()
    assert main(["demo", "--out", "run"]) == 0
    assert (a_demo / "mark").exists()
    assert RunFolder(a_demo).read()["demo"]


def test_a_stopped_demo_says_how_to_go_on(
    place: Path, a_demo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ctrl_c_at(2):
        sentence = refused(capsys, ["demo", "--out", "there"], 130)
    assert sentence.endswith("go on with: prunas demo --out there")
    with ctrl_c_at(2):
        assert refused(capsys, ["demo"], 130).endswith(
            "are kept in runs/demo; go on with: prunas demo"
        )
