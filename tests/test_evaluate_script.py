"""`fgc evaluate`, as a user calls it."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fgc_jax import predict
from fgc_jax.cli import evaluate
from fgc_jax.evaluation import scores
from fgc_jax.plots import style
from tests import commands, data_files, tiny_run

SCRIPT = commands.ROOT / "scripts" / "evaluate.py"


@pytest.fixture
def no_pictures(monkeypatch):
    """Drawing takes a second, and most tests look at numbers only."""
    monkeypatch.setattr(style, "save", lambda figure, path: path.write_bytes(b""))


@pytest.fixture(scope="module")
def tiny(tiny, tmp_path_factory):
    """A copy, into whose run the evaluations are written."""
    return shutil.copytree(tiny, tmp_path_factory.mktemp("evaluated") / "tiny")


@pytest.fixture(scope="module")
def expected(tiny):
    """Metrics of the test split from the Predictor's probabilities."""
    predictor = predict.Predictor(tiny / "run")
    files = sorted((tiny / "data" / "test").rglob("*.jpg"))
    labels = np.array([tiny_run.CLASSES.index(file.parent.name) for file in files])
    probabilities = predictor(files).astype(np.float64)
    hits = probabilities.argmax(1) == labels
    return {
        "images": 15,
        "unreadable": 0,
        "top1": 100 * hits.mean(),
        "top5": 100.0,
        "mean_class_accuracy": 100 * np.mean([hits[labels == label].mean() for label in range(3)]),
        "loss": -np.log(probabilities[np.arange(15), labels]).mean(),
    }


def metrics_in(folder):
    return json.loads((folder / "metrics.json").read_text())


def called(*arguments):
    assert evaluate.main([str(argument) for argument in arguments]) == 0


def table(path, root, columns):
    """A CSV of the images of root/CLASS/*, `columns`: header -> function of (file, label)."""
    files = sorted(root.rglob("*.jpg"))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for image in files:
            label = tiny_run.CLASSES.index(image.parent.name)
            writer.writerow([make(image, label) for make in columns.values()])
    return path


def test_the_test_split_of_the_best_checkpoint(tiny, expected, capsys):
    called(f"--workdir={tiny / 'run'}")
    folder = tiny / "run" / "evaluation" / "test"
    assert sorted(entry.name for entry in folder.iterdir()) == sorted(scores.FILES)
    metrics = metrics_in(folder)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    facts = {"checkpoint": tiny_run.BEST, "split": "test", "views": "raw"}
    assert {name: metrics[name] for name in facts} == facts
    out = capsys.readouterr().out
    for part in (f"{expected['top1']:.2f} %", "test, checkpoint of step 7", "raw", str(folder)):
        assert part in out
    assert "most confused" in out
    assert all(name in evaluate.__doc__ for name in scores.FILES)
    with (folder / "predictions.csv").open() as file:
        assert len({row["name"] for row in csv.DictReader(file)}) == 15


@pytest.mark.usefixtures("no_pictures")
def test_other_split_and_checkpoint_have_a_folder_of_their_own(tiny):
    called(f"--workdir={tiny / 'run'}", "--split=val", "--checkpoint=last", "--batch_size=5")
    metrics = metrics_in(tiny / "run" / "evaluation" / "val-last")
    assert (metrics["images"], metrics["checkpoint"]) == (6, tiny_run.LAST)


@pytest.mark.usefixtures("no_pictures")
def test_a_folder_of_other_images(tiny, expected, tmp_path, capsys):
    images = shutil.copytree(tiny / "data" / "test", tmp_path / "mine")
    (images / "gull" / "broken.jpg").write_bytes(b"")
    called(f"--workdir={tiny / 'run'}", f"--input={images}")
    metrics = metrics_in(tiny / "run" / "evaluation" / "mine")
    wanted = expected | {"unreadable": 1}
    assert {name: metrics[name] for name in wanted} == pytest.approx(wanted, rel=1e-4)
    assert metrics["unreadable_images"] == ["gull/broken.jpg"]
    assert metrics["split"] == str(images)
    out = capsys.readouterr().out
    assert "1 unreadable images are not counted above" in out and "gull/broken.jpg" in out


@pytest.mark.parametrize(
    ("flags", "folder"),
    [
        ([], "test"),
        (["--split=val", "--checkpoint=best"], "val"),
        (["--checkpoint=7"], "test-7"),
        (["--input=photos/mine.csv"], "mine"),
        (["--input=photos/mine/", "--checkpoint=last"], "mine-last"),
        (["--views=crop3", "--logits=effect"], "test-crop3-effect"),
        (["--views=2*raw + crop(0.1, 0.05)"], "test-2_raw_crop_0.1_0.05"),
        (["--input=photos/test"], "input-test"),  # the run's own test keeps its place
    ],
)
def test_where_the_files_go(flags, folder):
    arguments = evaluate.parse(["--workdir=a", *flags])
    split_name = None if arguments.input else arguments.split or "test"
    assert evaluate.default_output(arguments, split_name) == Path("a/evaluation") / folder


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    "flags",
    [
        ["--label_column=kind"],
        ["--label_column=3", "--path_column=same", "--first_label=1"],
    ],
)
def test_a_table_of_other_images(tiny, expected, tmp_path, flags):
    root = tiny / "data" / "test"
    columns = {
        "file": lambda image, label: image.relative_to(root),
        "kind": lambda image, label: image.parent.name,
        "same": lambda image, label: image.relative_to(root),
        "number": lambda image, label: label + 1,
    }
    path = table(tmp_path / "photos.csv", root, columns)
    output = tmp_path / "out" / "here"
    called(
        f"--workdir={tiny / 'run'}",
        f"--input={path}",
        f"--image_root={root}",
        f"--output={output}",
        *flags,
    )
    metrics = metrics_in(output)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-4)


def wrong_calls(tiny, tmp_path):
    """Name -> (flags, what the message must say)."""
    workdir = f"--workdir={tiny / 'run'}"
    data_files.write_folder(tmp_path / "owls", classes=("gull", "owl"), splits=1)
    table(tmp_path / "a.csv", tiny / "data" / "test", {"path": lambda image, label: image})
    for name in ("empty", "full", "broken/gull"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "full" / "thesis.tex").write_text("")
    (tmp_path / "broken" / "gull" / "a.jpg").write_bytes(b"")
    return {
        "no run": ([f"--workdir={tmp_path / 'empty'}"], "config.json does not exist"),
        "no views": ([workdir, "--views=crop4"], "unknown view 'crop4'; allowed: raw, raw_crop"),
        "no effect": ([workdir, "--logits=effect"], "has no effect logits"),
        "no checkpoint": ([workdir, "--checkpoint=5"], "'best', 'last', [3, 7, 9]"),
        "no cluster": ([workdir, "--multi_host=host:1,2"], "or HOST:PORT,COUNT,INDEX"),
        "moved": ([workdir, f"--data_root={tmp_path / 'gone'}"], "the data root is missing"),
        "not ours": ([workdir, f"--output={tmp_path / 'full'}"], "other files (thesis.tex)"),
        "unknown class": ([workdir, f"--input={tmp_path / 'owls'}"], "'owl'"),
        "no input": ([workdir, f"--input={tmp_path / 'gone'}"], "no such folder or CSV file"),
        "no column": ([workdir, f"--input={tmp_path / 'a.csv'}"], "give the label column"),
        "column": ([workdir, f"--input={tmp_path / 'owls'}", "--label_column=1"], "is a folder"),
        "all damaged": ([workdir, f"--input={tmp_path / 'broken'}"], "no image of this split"),
    }


def test_errors_are_one_line_and_leave_nothing_behind(tiny, tmp_path, capsys):
    calls = wrong_calls(tiny, tmp_path)
    before = sorted(map(str, (*tiny.rglob("*"), *tmp_path.rglob("*"))))
    for name, (flags, message) in calls.items():
        assert evaluate.main(flags) == 1, name
        captured = capsys.readouterr()
        errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and message in errors[0], (name, captured.err)
        assert captured.out == "", name
    assert sorted(map(str, (*tiny.rglob("*"), *tmp_path.rglob("*")))) == before


def test_on_four_devices_from_another_folder(tiny, expected, tmp_path):
    environment = {**os.environ, **commands.devices(4)}
    environment.pop("PYTHONPATH", None)
    finished = subprocess.run(
        [sys.executable, "-W", "error", SCRIPT, f"--workdir={tiny / 'run'}", "--output=here"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr
    assert "WARNING" not in finished.stderr
    metrics = metrics_in(tmp_path / "here")
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-4)
