"""An evaluation on disk: what the files say, and that they are written whole or not at all."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from fgc_jax.data import dataset
from fgc_jax.evaluation import metrics, scores
from fgc_jax.plots import evaluation as pictures
from fgc_jax.plots import style
from fgc_jax.runs.results import Evaluation

CLASSES = ("gull", "tern, arctic", "wren")


def read_grey(index):
    return np.full((6, 9, 3), index, np.uint8)


SPLIT = dataset.Split(
    np.array([0, 2, 0, 1, 1, 1, 0]), [f"{index}.jpg" for index in range(7)], read_grey
)
# Image 1 is unreadable, image 6 has no finite score. 3 and 4 are errors.
RESULTS = metrics.Rows(
    index=np.array([0, 2, 3, 4, 5, 6]),
    label=np.array([0, 0, 1, 1, 1, 0]),
    loss=np.array([0.1, 0.2, 1.5, 1.6, 0.3, np.nan], np.float32),
    rank=np.array([0, 0, 1, 2, 0, 3]),
    classes=np.array([[0, 1, 2], [0, 2, 1], [0, 1, 2], [0, 2, 1], [1, 0, 2], [0, 1, 2]]),
    probabilities=np.array(
        [[0.9, 0.06, 0.04], [0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.6, 0.3, 0.1]]
        + [[np.nan] * 3],
        np.float32,
    ),
    unreadable=np.array([1]),
)


def write(folder, results=RESULTS, split=SPLIT, class_names=CLASSES, *, checkpoint=12):
    """Writes the evaluation of one split and returns it."""
    summary = metrics.summarise(results, len(class_names))
    evaluation = Evaluation(checkpoint, "test", "raw", summary)
    scores.write(folder, evaluation, results, split, class_names)
    return evaluation


def perfect(number):
    zeros = np.zeros(number, int)
    return metrics.Rows(
        index=np.arange(number),
        label=zeros,
        loss=zeros,
        rank=zeros,
        classes=np.tile([0, 1], (number, 1)),
        probabilities=np.tile([0.75, 0.25], (number, 1)),
        unreadable=np.array([], int),
    )


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "evaluation" / "test"
    write(folder)
    return folder


def test_all_files_are_there_and_nothing_else(folder):
    assert sorted(entry.name for entry in folder.iterdir()) == sorted(scores.FILES)
    assert [entry.name for entry in folder.parent.iterdir()] == ["test"]


def test_metrics_have_facts_and_no_nan(folder):
    metrics = json.loads((folder / "metrics.json").read_text(), parse_constant=pytest.fail)
    facts = {"checkpoint": 12, "split": "test", "views": "raw"}
    assert {key: metrics[key] for key in facts} == facts
    assert metrics["top1"] == 50.0
    assert metrics["images"] == 6
    assert metrics["loss"] is None
    assert metrics["unreadable_images"] == ["1.jpg"]


def test_per_class(folder):
    gull, tern, wren = rows_of(folder / "per_class.csv")
    assert gull == {
        "number": "0",
        "class": "gull",
        "images": "3",
        "correct": "2",
        "accuracy": "66.67",
        "precision": "50.00",
        "most_common_wrong_prediction": "",
        "wrong_predictions": "",
    }
    assert (tern["class"], tern["accuracy"], tern["precision"]) == (CLASSES[1], "33.33", "100.00")
    assert (tern["most_common_wrong_prediction"], tern["wrong_predictions"]) == ("gull", "2")
    assert (wren["images"], wren["accuracy"], wren["precision"]) == ("0", "", "")


def test_confusion(folder):
    with open(folder / "confusion.csv", newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header[1:] == list(CLASSES)
    assert rows == [["gull", "2", "0", "0"], [CLASSES[1], "2", "1", "0"], ["wren", "0", "0", "0"]]


def test_most_confused(folder):
    assert rows_of(folder / "most_confused.csv") == [
        {"true": CLASSES[1], "predicted": "gull", "images": "2", "percent_of_true": "66.67"}
    ]


def test_predictions_name_every_image_once(folder):
    rows = rows_of(folder / "predictions.csv")
    assert [row["name"] for row in rows] == list(SPLIT.names)
    assert [row["label"] for row in rows] == [CLASSES[label] for label in SPLIT.labels]
    assert rows[4] == {
        "name": "4.jpg",
        "label": CLASSES[1],
        "predicted": "gull",
        "probability": "0.500000",
        "correct": "0",
        "place_of_label": "3",
        "class_2": "wren",
        "probability_2": "0.300000",
        "class_3": CLASSES[1],
        "probability_3": "0.200000",
    }
    for unscored in (rows[1], rows[6]):
        assert not any(unscored[key] for key in unscored if key not in ("name", "label"))


def test_pictures_open(folder):
    for name in ("confusion.png", "predictions.png"):
        with Image.open(folder / name) as picture:
            assert min(picture.convert("RGB").size) > 200


def shown(monkeypatch, tmp_path, results, split=SPLIT, class_names=CLASSES):
    """The tiles of predictions.png."""
    seen = []

    def keep(tiles, title):
        seen.append((tiles, title))
        return style.Figure()

    monkeypatch.setattr(pictures, "predictions", keep)
    write(tmp_path / "test", results, split, class_names)
    return seen[0]


def test_grid_shows_the_right_images_errors_first(monkeypatch, tmp_path):
    tiles, title = shown(monkeypatch, tmp_path, RESULTS)
    assert [int(tile["image"][0, 0, 0]) for tile in tiles] == [3, 4, 0, 2, 5]
    assert [tile["correct"] for tile in tiles] == [False, False, True, True, True]
    assert (tiles[1]["predicted"], tiles[1]["label"]) == ("gull", CLASSES[1])
    assert tiles[1]["probability"] == pytest.approx(0.5)
    assert title.splitlines() == [
        "test: top-1 50.00 % of 6 images, checkpoint of step 12, views raw",
        "Here: 2 of 2 errors, 3 of 3 hits",
    ]


@pytest.mark.parametrize(
    ("errors", "expected"),
    [(0, (0, 24)), (5, (5, 19)), (40, (12, 12)), (95, (19, 5)), (100, (24, 0))],
)
def test_grid_mixes_errors_and_hits(monkeypatch, tmp_path, errors, expected):
    results = perfect(100)
    wrong = np.arange(100) < errors
    results = dataclasses.replace(
        results,
        rank=wrong.astype(int),
        classes=np.where(wrong[:, None], [[1, 0]], [[0, 1]]),
    )
    split = dataset.Split(np.zeros(100), [str(index) for index in range(100)], read_grey)
    tiles, _ = shown(monkeypatch, tmp_path, results, split, ("gull", "tern"))
    correct = [tile["correct"] for tile in tiles]
    assert (correct.count(False), correct.count(True)) == expected
    again, _ = shown(monkeypatch, tmp_path, results, split, ("gull", "tern"))
    for one, other in zip(tiles, again, strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])


def test_perfect_and_hopeless_evaluations_are_written(tmp_path):
    split = dataset.Split(np.zeros(3), list("abc"), read_grey)
    write(tmp_path / "perfect", perfect(3), split, ("gull", "tern"))
    nothing = dataclasses.replace(perfect(3), rank=np.full(3, 2), loss=np.full(3, np.nan))
    evaluation = write(tmp_path / "nothing", nothing, split, ("gull", "tern"))
    assert evaluation.metrics.top1 == 0
    metrics = json.loads((tmp_path / "nothing" / "metrics.json").read_text())
    assert metrics["ece"] is None


def test_new_evaluation_replaces_the_earlier_one(tmp_path):
    folder = tmp_path / "test"
    write(folder)
    write(folder, checkpoint=99)
    assert json.loads((folder / "metrics.json").read_text())["checkpoint"] == 99
    assert [entry.name for entry in tmp_path.iterdir()] == ["test"]


def test_failure_leaves_the_earlier_evaluation_and_nothing_else(tmp_path, monkeypatch):
    folder = tmp_path / "test"
    write(folder)
    before = {entry.name: entry.read_bytes() for entry in folder.iterdir()}

    def fail(figure, path):
        raise OSError("no space left on device")

    monkeypatch.setattr(style, "save", fail)
    for target in (folder, tmp_path / "other"):
        with pytest.raises(OSError, match="no space"):
            write(target, checkpoint=99)
    assert {entry.name: entry.read_bytes() for entry in folder.iterdir()} == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["test"]


def test_remains_of_a_killed_process_do_no_harm(tmp_path):
    for remains in (".test.new", ".test.old"):
        (tmp_path / remains).mkdir()
        (tmp_path / remains / "metrics.json").write_text("half")
    write(tmp_path / "test")
    assert [entry.name for entry in tmp_path.iterdir()] == ["test"]


def test_other_peoples_files_are_never_deleted(tmp_path):
    write(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"contains other files \(notes.txt\)"):
        write(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(ValueError, match="not a folder"):
        write(tmp_path / "notes.txt")


def test_report():
    summary = Evaluation(12, "test", "raw", metrics.summarise(RESULTS, 3))
    text = scores.report(summary, metrics.confusion_matrix(RESULTS, 3), CLASSES)
    for part in ("test, checkpoint of step 12", "50.00 %", "raw", "nan nats", "67 %"):
        assert part in text
    assert [line.split()[-1] for line in text.splitlines() if line.startswith("images")] == ["6"]
    none = scores.report(summary, np.diag([1, 2, 3]), CLASSES)
    assert none.endswith("no classes are confused")
