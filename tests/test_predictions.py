"""`fgc predict` and the files that it writes, byte for byte."""

import json
import shutil

import numpy as np
import pytest

from fgc_jax import predict
from fgc_jax.cli import predict as script
from fgc_jax.evaluation import predictions
from tests import tiny_run

CLASSES = ("gull", "tern, arctic", "wren")
ROWS = [
    np.float32([0.7, 0.1, 0.2]),
    np.float32([0.0, 0.25, 0.75]),
    np.float32([1e-9, 0.5, 0.5]),
]
NAMES = ["a.jpg", "below/b.jpg", "ü.png"]
BAD = "below/b.jpg: damaged or not an image"
FILES = {
    "csv": "name,predicted,probability,class_2,probability_2,error\n"
    "a.jpg,gull,0.700000,wren,0.200000,\n"
    'below/b.jpg,wren,0.750000,"tern, arctic",0.250000,\n'
    'ü.png,"tern, arctic",0.500000,wren,0.500000,\n',
    "jsonl": '{"name": "a.jpg", "classes": [{"class": "gull", "probability": 0.7}, '
    '{"class": "wren", "probability": 0.2}]}\n'
    '{"name": "below/b.jpg", "classes": [{"class": "wren", "probability": 0.75}, '
    '{"class": "tern, arctic", "probability": 0.25}]}\n'
    '{"name": "ü.png", "classes": [{"class": "tern, arctic", "probability": 0.5}, '
    '{"class": "wren", "probability": 0.5}]}\n',
    "answer": "a.jpg gull\nbelow/b.jpg wren\nü.png tern, arctic",
    "cars": "1\n3\n2\n",
    "triplet": 'a,gull,0.7\na,wren,0.2\nb,wren,0.75\nb,"tern, arctic",0.25\n'
    'ü,"tern, arctic",0.5\nü,wren,0.5\n',
}


def written(path, file_format, rows=ROWS):
    top_k = 2 if predictions.FORMATS[file_format].ranked else None
    top_k = predictions.check(file_format, top_k, CLASSES, NAMES)
    found = predictions.best(NAMES, iter(rows), top_k)
    return predictions.write(path, found, CLASSES, file_format, top_k)


@pytest.mark.parametrize("file_format", predictions.FORMATS)
def test_formats_byte_for_byte(file_format, tmp_path):
    path = tmp_path / "new" / "file"
    assert written(path, file_format) == []
    assert path.read_bytes() == FILES[file_format].encode()
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_all_classes_of_small_probability_keep_their_digits(tmp_path):
    found = predictions.best(NAMES, ROWS, 3)
    predictions.write(tmp_path / "it", found, CLASSES, "triplet", 3)
    assert "ü,gull,1e-09" in (tmp_path / "it").read_text()


@pytest.mark.parametrize("row", [ValueError(BAD), np.float32([0.5, np.nan, 0.1])])
@pytest.mark.parametrize("file_format", ["csv", "jsonl"])
def test_tables_name_what_has_no_prediction(file_format, row, tmp_path):
    failed = written(tmp_path / "it", file_format, [ROWS[0], row, ROWS[2]])
    why = BAD if isinstance(row, ValueError) else "the network's output is not finite"
    assert [(each.name, each.error) for each in failed] == [("below/b.jpg", why)]
    lines = (tmp_path / "it").read_text().splitlines()
    expected = FILES[file_format].splitlines()
    other = {"csv": f"below/b.jpg,,,,,{why}", "jsonl": json.dumps({"name": NAMES[1], "error": why})}
    expected[-2] = other[file_format]
    assert lines == expected


@pytest.mark.parametrize("file_format", ["answer", "cars", "triplet"])
def test_submission_files_are_complete_or_not_written(file_format, tmp_path):
    (tmp_path / "it").write_text("of yesterday")
    rows = [ValueError("a.jpg: cut short"), ValueError(BAD), ROWS[2]]
    with pytest.raises(ValueError, match="2 images have no prediction") as raised:
        written(tmp_path / "it", file_format, rows)
    assert "a.jpg: cut short" in str(raised.value) and BAD in str(raised.value)
    assert (tmp_path / "it").read_text() == "of yesterday"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    def cut_off():
        yield ROWS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        written(tmp_path / "it", "csv", cut_off())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("file_format", "top_k", "names", "message"),
    [
        ("xml", None, NAMES, "unknown format 'xml', allowed: csv, jsonl, answer, cars, triplet"),
        ("cars", 2, NAMES, "--top_k has no effect on the format 'cars'"),
        ("csv", 4, NAMES, "--top_k=4 must be 1 to 3"),
        ("csv", 0, NAMES, "--top_k=0 must be 1 to 3"),
        ("answer", None, ["a b.jpg"], "'answer' does not allow these names of images: a b.jpg"),
        ("triplet", None, ["x/a.jpg", "y/a.jpg"], "does not allow .* x/a.jpg, y/a.jpg"),
    ],
)
def test_what_a_format_cannot_hold(file_format, top_k, names, message):
    with pytest.raises(ValueError, match=message):
        predictions.check(file_format, top_k, CLASSES, names)
    assert predictions.check("csv", None, CLASSES, names) == 3
    assert predictions.check("cars", None, CLASSES, NAMES) == 1


@pytest.fixture(scope="module")
def expected(tiny):
    """Best class of each test image, by its path below the folder."""
    files = sorted((tiny / "data" / "test").rglob("*.jpg"))
    best = predict.Predictor(tiny / "run")(files).argmax(1)
    names = [file.relative_to(tiny / "data" / "test").as_posix() for file in files]
    return {name: tiny_run.CLASSES[number] for name, number in zip(names, best, strict=True)}


def called(*arguments, code=0):
    assert script.main([str(argument) for argument in arguments]) == code


def test_a_folder(tiny, expected, tmp_path, capsys):
    photos = shutil.copytree(tiny / "data" / "test", tmp_path / "photos")
    (photos / "notes.md").write_text("no image")
    (photos / "tern" / "000_broken.jpg").write_bytes(b"broken")
    called(f"--workdir={tiny / 'run'}", f"--input={photos}", f"--output={tmp_path / 'it.csv'}")
    header, *lines = (tmp_path / "it.csv").read_text().splitlines()
    assert header.endswith("class_3,probability_3,error")
    found = {line.split(",")[0]: line.split(",")[1] for line in lines}
    assert found == expected | {"tern/000_broken.jpg": ""}
    assert list(found) == sorted(found) and len(set(expected.values())) > 1
    captured = capsys.readouterr()
    assert "15 images, views raw, checkpoint of step 7: written to" in captured.out
    assert "1 images have no prediction" in captured.out and "tern/000_broken.jpg" in captured.out
    assert "predicting" in captured.err


@pytest.mark.parametrize("kind", ["txt", "csv"])
def test_an_order_file(tiny, expected, tmp_path, kind):
    order = sorted(expected, key=lambda name: name[::-1])
    listed = tmp_path / f"order.{kind}"
    lines = (
        order if kind == "txt" else ["id;image", *(f"{i};{name}" for i, name in enumerate(order))]
    )
    listed.write_text("\n".join(lines))
    (tmp_path / "test").symlink_to(tiny / "data" / "test")
    flags = [] if kind == "txt" else ["--path_column=image", "--delimiter=;"]
    called(
        f"--workdir={tiny / 'run'}",
        f"--input={listed}",
        "--image_root=test",
        "--format=answer",
        "--views=flip",
        f"--output={tmp_path / 'answer.txt'}",
        *flags,
    )
    predictor = predict.Predictor(tiny / "run", views="flip")
    best = predictor([tiny / "data" / "test" / name for name in order]).argmax(1)
    wanted = "\n".join(f"{name} {tiny_run.CLASSES[k]}" for name, k in zip(order, best, strict=True))
    assert (tmp_path / "answer.txt").read_text() == wanted


def test_one_image(tiny, expected, tmp_path):
    name = next(iter(expected))
    called(
        f"--workdir={tiny / 'run'}",
        f"--input={tiny / 'data' / 'test' / name}",
        "--format=cars",
        f"--output={tmp_path / 'cars.txt'}",
    )
    assert (tmp_path / "cars.txt").read_text() == f"{tiny_run.CLASSES.index(expected[name]) + 1}\n"


def test_errors_are_clear_and_leave_nothing_behind(tiny, tmp_path, capsys):
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    (inputs / "empty").mkdir()
    (inputs / "gone.txt").write_text("a.jpg\n")
    (inputs / "none.txt").write_text("\n")
    (inputs / "twice.txt").write_text("a.jpg\nb.jpg\na.jpg\n")
    (inputs / "gone.csv").write_text("path\na.jpg\n")
    (inputs / "broken.jpg").write_bytes(b"broken")
    images = tiny / "data" / "test"
    calls = [
        ("missing", [], "no such folder, table, list or image"),
        ("empty", [], "the folder has no images"),
        ("gone.txt", [], "1 images are not in"),
        ("none.txt", [], "the list contains no images"),
        ("twice.txt", [], "images are listed twice"),
        ("gone.csv", [], "there is no file"),
        ("gone.csv", ["--path_column=file"], "no column 'file'"),
        ("gone.txt", ["--path_column=0"], "path_column have no effect"),
        (images, ["--image_root=x"], "image_root have no effect"),
        (images, ["--format=xml"], "unknown format 'xml'"),
        (images, ["--top_k=9"], "--top_k=9 must be 1 to 3"),
        (images, ["--views=raw,flip"], "is not a view"),
        (images, ["--checkpoint=5"], "'best', 'last', [3, 7, 9]"),
        (images, [f"--output={inputs}"], "is a folder; give the name of a file"),
        ("broken.jpg", ["--format=cars"], "broken.jpg: damaged or not an image"),
    ]
    before = sorted(map(str, tmp_path.rglob("*")))
    for name, flags, message in calls:
        output = f"--output={tmp_path / 'new' / 'it'}"
        called(f"--workdir={tiny / 'run'}", f"--input={inputs / name}", output, *flags, code=1)
        captured = capsys.readouterr()
        errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and message in captured.err, (name, flags, captured.err)
        assert captured.out == "", name
    shutil.rmtree(tmp_path / "new", ignore_errors=True)
    assert sorted(map(str, tmp_path.rglob("*"))) == before
