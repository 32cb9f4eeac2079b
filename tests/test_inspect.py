"""`fgc inspect_dataset` and what it measures."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from fgc_jax.cli import inspect_dataset
from fgc_jax.data import dataset, duplicates, images, inspection, statistics
from fgc_jax.data.sources import folder, synthetic_birds
from fgc_jax.plots import data as data_plots
from fgc_jax.plots import style
from tests import data_files


def photo(number, size=(96, 72)):
    """A picture with much structure, unlike any other."""
    noise = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC))


def resaved(image, scale=1.0, **options):
    """The picture after another size and compression."""
    picture = Image.fromarray(image)
    picture = picture.resize([round(scale * side) for side in picture.size])
    return data_files.encode(picture, ".jpg", **options)


def planted(root):
    """Folders of 3 classes; train/a/0 comes again twice exactly, train/b/1 twice nearly; two files
    are no images."""
    for part, split in enumerate(("train", "val", "test")):
        for label, name in enumerate("abc"):
            for i in range(4):
                image = photo(100 * part + 10 * label + i, (60 + 4 * i, 50))
                data_files.write_image(root / split / name / f"{i}.png", image)
    data_files.write_image(root / "train/b/same.png", photo(0, (60, 50)))
    data_files.write_image(root / "test/c/same.bmp", photo(0, (60, 50)))
    (root / "train/b/small.jpg").write_bytes(resaved(photo(11, (64, 50)), 0.7))
    (root / "test/b/coarse.jpg").write_bytes(resaved(photo(11, (64, 50)), quality=60))
    (root / "val/a/empty.jpg").write_bytes(b"")
    (root / "train/c/text.jpg").write_bytes(b"no image")
    return root


def test_numbers_of_a_whole_data_set(tmp_path, capsys):
    root, out = planted(tmp_path / "photos"), tmp_path / "out"
    flags = ["--name=folder", f"--root={root}", f"--output={out}"]
    assert inspect_dataset.main(flags) == 0
    assert sorted(path.name for path in out.iterdir()) == sorted(inspection.FILES)
    facts = json.loads((out / "inspection.json").read_text())
    train = facts["splits"]["train"]
    assert list(train["unreadable"]) == ["train/c/text.jpg"]
    assert list(facts["splits"]["val"]["unreadable"]) == ["val/a/empty.jpg"]
    assert train["class_counts"] == [4, 6, 5]
    assert train["images_per_class"] == {"min": 4, "median": 5, "max": 6}
    assert train["width"] == {"min": 45, "median": 64, "max": 72}
    assert train["height"]["max"] == 50 and "boxes" not in train
    exact, near = facts["duplicates"]["exact"], facts["duplicates"]["near"]
    assert (exact["groups"], exact["images"], exact["with_different_labels"]) == (1, 3, 1)
    assert [image["name"] for image in exact["list"][0]] == [
        "train/a/0.png", "train/b/same.png", "test/c/same.bmp",
    ]  # fmt: skip
    assert exact["list"][0][2]["class"] == "c"
    assert exact["shared"] == {"train": {"test": 2}, "test": {"train": 1}}
    found = {frozenset(each["name"] for each in pair["images"]) for pair in near["list"]}
    names = ["train/b/1.png", "train/b/small.jpg", "test/b/coarse.jpg"]
    assert found == {frozenset({names[i], names[j]}) for i, j in ((0, 1), (0, 2), (1, 2))}
    assert (near["groups"], near["with_different_labels"]) == (3, 0)
    assert near["shared"]["test"] == {"train": 1}
    text = (out / "summary.txt").read_text()
    assert text.strip() in capsys.readouterr().out
    assert "1 of test are exactly in train too" in text and "train/c/text.jpg" in text
    for name in ("contact_sheet.png", "class_counts.png"):
        assert images.read_shape(out / name)[1] > 600
    assert inspect_dataset.main(flags) == 0  # an earlier inspection makes way


def test_channels_are_those_of_numpy_over_all_pixels(tmp_path):
    data = folder.load(planted(tmp_path))
    found = statistics.survey(data, threads=3)
    split = data.splits["train"]
    good = [i for i in range(len(split)) if not split.names[i].endswith("text.jpg")]
    pictures = [split.read(i) / 255 for i in good]
    pixels = np.concatenate([image.reshape(-1, 3) for image in pictures])
    each = np.array([image.mean(axis=(0, 1)) for image in pictures])
    channels = statistics.channels(found["train"])
    np.testing.assert_allclose(channels["mean"], pixels.mean(0), rtol=1e-9)
    np.testing.assert_allclose(channels["std"], pixels.std(0), rtol=1e-9)
    np.testing.assert_allclose(channels["mean_of_images"], each.mean(0), rtol=1e-9)
    np.testing.assert_allclose(channels["std_of_images"], each.std(0), rtol=1e-9)


def test_a_split_without_a_readable_picture(tmp_path):
    root, out = data_files.write_folder(tmp_path / "photos", splits=2), tmp_path / "out"
    for path in root.rglob("*.jpg"):
        path.write_bytes(b"no image")
    words = ["--name=folder", f"--root={root}", f"--output={out}", "--options", "test_fraction=0"]
    assert inspect_dataset.main(words) == 0
    text = (out / "inspection.json").read_text()
    assert "NaN" not in text and json.loads(text)["channels_of_train"] is None
    assert not re.search(r"\bnan\b", (out / "summary.txt").read_text())


def test_boxes(tmp_path):
    names = [f"{i}.png" for i in range(5)]
    for i, name in enumerate(names):
        data_files.write_image(tmp_path / name, photo(i, (40, 20)))
    boxes = [[0, 0, 20, 20], [10, 5, 20, 10], [np.nan] * 4, [-5, 0, 50, 20], [40, 0, 50, 10]]
    split = dataset.file_split(tmp_path, names, [0, 1, 0, 1, 0], boxes=boxes)
    data = dataset.Dataset("x", ("a", "b"), {"train": split})
    found = statistics.survey(data)["train"]
    assert statistics.describe(data, "train", found)["boxes"] == {
        "share_of_images": 0.8,
        "share_of_area": {"min": 0.0, "median": 0.28125, "max": 1.0},
        "beyond_the_picture": 2,
        "empty": 1,
    }


def test_a_photo_of_two_boxes_is_no_duplicate(tmp_path):
    for name in ("0.png", "1.png"):
        data_files.write_image(tmp_path / name, photo(int(name[0])))
    train = dataset.file_split(tmp_path, ["0.png", "0.png", "1.png"], [0, 0, 1])
    test = dataset.file_split(tmp_path, ["1.png"], [1])
    data = dataset.Dataset("x", ("a", "b"), {"train": train, "test": test})
    found = statistics.describe_duplicates(data, statistics.survey(data), 4)
    assert found["exact"]["groups"] == 1
    assert found["exact"]["shared"] == {"train": {"test": 1}, "test": {"train": 1}}


@pytest.mark.parametrize("distance", [0, 1, 4, 11])
def test_near_pairs_are_all_there_are(distance):
    rng = np.random.default_rng(distance)
    hashes = rng.integers(0, 2**64, 150, np.uint64)
    flips = np.uint64(1) << rng.integers(0, 64, (distance, 60)).astype(np.uint64)
    changed = np.bitwise_xor.reduce([hashes[:60], *flips]) if distance else hashes[:60]
    hashes = np.concatenate([hashes, changed, hashes[:5], rng.integers(0, 2**8, 40, np.uint64)])
    pairs, distances, complete = duplicates.near_pairs(hashes, distance)
    matrix = np.bitwise_count(hashes[:, None] ^ hashes)
    expected = np.argwhere(np.triu(matrix <= distance, 1))
    assert complete and len(expected) >= 60
    assert sorted(map(tuple, pairs)) == list(map(tuple, expected))
    np.testing.assert_array_equal(distances, np.sort(matrix[expected[:, 0], expected[:, 1]]))


def test_pairs_count_once_towards_the_most():
    """Each pair shares at least three of the five groups of bits."""
    low, high = np.arange(2, dtype=np.uint64), np.arange(20, dtype=np.uint64) << np.uint64(32)
    hashes = np.concatenate([(low[:, None] + high).ravel(), np.zeros(20, np.uint64)])
    every = np.triu(np.bitwise_count(hashes[:, None] ^ hashes) <= 4, 1).sum()
    pairs, _, complete = duplicates.near_pairs(hashes, 4, most=every)
    assert complete and len(pairs) == every
    assert not duplicates.near_pairs(hashes, 4, most=every - 1)[2]


def test_exact_copies_use_up_no_near_pairs(tmp_path, monkeypatch):
    """30 copies of one picture in each split, and one of train that is nearly the same."""
    data_files.write_image(tmp_path / "copy.png", photo(1))
    names = [f"{i}.png" for i in range(30)]
    for name in names:
        (tmp_path / name).write_bytes((tmp_path / "copy.png").read_bytes())
    (tmp_path / "near.jpg").write_bytes(resaved(photo(1), quality=60))
    train = dataset.file_split(tmp_path, [*names, "near.jpg"], [0] * 30 + [1])
    test = dataset.file_split(tmp_path, names, [0] * 30)
    data = dataset.Dataset("x", ("a", "b"), {"train": train, "test": test})
    search = duplicates.near_pairs
    monkeypatch.setattr(duplicates, "near_pairs", lambda *given: search(*given, most=10))
    found = statistics.describe_duplicates(data, statistics.survey(data), 4)
    assert (found["exact"]["groups"], found["exact"]["images"]) == (1, 60)
    near = found["near"]
    assert near["complete"] and (near["groups"], near["with_different_labels"]) == (1, 1)
    assert [image["name"] for image in near["list"][0]["images"]] == ["0.png", "near.jpg"]
    assert near["shared"] == {"train": {"test": 1}, "test": {"train": 30}}


def test_too_many_pairs_are_not_all_kept():
    pairs, _, complete = duplicates.near_pairs(np.zeros(500, np.uint64), 4, most=1000)
    assert not complete and 1000 < len(pairs) < 3000


def test_pictures_of_one_look_and_other_colours_are_no_duplicates(tmp_path):
    image = photo(1)
    data_files.write_image(tmp_path / "0.png", image)
    data_files.write_image(tmp_path / "1.png", image[..., [0, 1, 2]] // 2)
    split = dataset.file_split(tmp_path, ["0.png", "1.png"], [0, 1])
    data = dataset.Dataset("x", ("a", "b"), {"train": split})
    found = statistics.describe_duplicates(data, statistics.survey(data), 8)
    assert found["near"]["groups"] == 0
    hashes = [duplicates.perceptual_hash(split.read(i)) for i in range(2)]
    assert (hashes[0] ^ hashes[1]).bit_count() <= 8


def test_boxes_are_drawn_on_the_contact_sheet(monkeypatch):
    data = synthetic_birds.load("", species=3, train_per_class=2, size=64)
    rows = data_plots.sheet_rows(data)
    assert [label for label, _ in rows] == [0, 1, 2]
    places = [place for _, chosen in rows for place in chosen]
    assert sorted(i for _, i in places) == list(range(6))
    found = statistics.survey(data, keep=data_plots.thumbnail, chosen=places)
    sheet = data_plots.contact_sheet(data, found, rows).axes[0].images[0].get_array()
    x0, y0, x1, y1 = (data.splits["train"].boxes[0] * data_plots.TILE / 64).round().astype(int)
    assert (sheet[y0 : y1 - 1, x0] == data_plots.BOX).all()
    assert (sheet[y1 - 1, x0 : x1 - 1] == data_plots.BOX).all()


@pytest.mark.parametrize("number", [5, 100])
def test_counts_of_few_and_of_many_classes(tmp_path, number):
    labels = np.repeat(np.arange(number), np.linspace(50, 1, number).astype(int))
    split = dataset.Split(labels, [str(i) for i in range(len(labels))], None)
    names = tuple(f"a rather long name of class_$x^{i}" for i in range(number))
    data = dataset.Dataset("x", names, {"train": split, "test": split})
    style.save(data_plots.class_counts(data), tmp_path / "counts.png")
    assert images.read_shape(tmp_path / "counts.png")[0] > 150


def test_nothing_is_written_on_bad_input(tmp_path, capsys):
    root = data_files.write_folder(tmp_path / "photos", splits=2)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    before = sorted(tmp_path.rglob("*"))
    for wrong, message in (
        ([f"--root={root}", f"--output={tmp_path / 'mine'}"], "contains other files (thesis.tex)"),
        ([f"--root={root}", f"--output={tmp_path / 'mine/thesis.tex'}"], "not a folder"),
        (["--root=gone", f"--output={tmp_path / 'out'}"], "the data root is missing"),
    ):
        assert inspect_dataset.main(["--name=folder", *wrong]) == 1
        assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
