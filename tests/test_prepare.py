"""Prepared data sets: what is stored, restarts, damage, reading back."""

import functools
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from fgc_jax.data import dataset, images, pipeline, prepare, records
from fgc_jax.data.sources import prepared, synthetic_birds
from tests import data_archives, data_files, data_prepared

FORM = records.Form(resize=32)


def parts_of(index):
    return np.array([[10, 20, 1], [np.nan, np.nan, 0]], np.float32)


def objects_of(index):
    return np.arange(4 * index, dtype=np.float32).reshape(index, 4)


def boxed(root, sizes, suffix=".jpg", **annotations):
    """A Dataset of one "train" split of pictures of these (width, height), with odd boxes."""
    names = [f"{i}{suffix}" for i in range(len(sizes))]
    for i, (name, size) in enumerate(zip(names, sizes, strict=True)):
        data_files.write_image(root / name, data_files.picture(i % 2, i, size))
    boxes = np.tile(np.array([-3, 4.5, 1000, 20], np.float32), (len(sizes), 1))
    boxes[1] = np.nan
    labels = np.arange(len(sizes)) % 2
    split = dataset.file_split(root, names, labels, boxes=boxes, annotations=annotations)
    facts = ("notes", "free", "none", (("x",), ("y",)), ("p", "q"))
    return dataset.Dataset("Öd-2", ("a b", "c"), {"train": split}, *facts)


def test_pictures_that_are_files_stay_as_they_are(tmp_path):
    data, out = data_prepared.prepared_folder(tmp_path)
    again = prepared.load(out)
    assert again.class_names == data.class_names
    assert again.facts()["splits"] == data.facts()["splits"]
    assert again.notes.startswith(data.notes) and "original size" in again.notes
    for name, split in data.splits.items():
        assert again.splits[name].boxes is None
        for i in range(len(split)):
            path = Path(split.read.root) / split.names[i]
            assert again.splits[name].read.stored(i) == path.read_bytes()
            np.testing.assert_array_equal(again.splits[name].read(i), split.read(i))


def test_pictures_are_shrunk_and_boxes_with_them(tmp_path):
    sizes = [(64, 96), (96, 64), (30, 90), (200, 40), (32, 32)]
    data = boxed(tmp_path / "photos", sizes, parts=parts_of, objects=objects_of, mask=parts_of)
    prepare.prepare(data, tmp_path / "out", name="Öd-2", form=FORM)
    again = prepared.load(tmp_path / "out")
    facts = (again.name, again.licence, again.imagenet_overlap, again.hierarchy, again.part_names)
    assert facts == ("Öd-2", "free", "none", (("x",), ("y",)), ("p", "q"))
    assert "without mask" in again.notes
    split, source = again.splits["train"], data.splits["train"]
    stored = [(32, 48), (48, 32), (30, 90), (160, 32), (32, 32)]
    assert [split.read(i).shape[1::-1] for i in range(5)] == stored
    scales = np.array([0.5, 0.5, 1, 0.8, 1], np.float32)[:, None]
    np.testing.assert_allclose(split.raw_boxes, source.raw_boxes * scales)
    np.testing.assert_allclose(split.boxes[0], [0, 2.25, 32, 10])  # clipped to the new picture
    for i in range(5):
        expected = parts_of(i) * np.append(np.repeat(scales[i], 2), 1)
        np.testing.assert_allclose(split.annotations["parts"](i), expected)
        np.testing.assert_allclose(split.annotations["objects"](i), objects_of(i) * scales[i])
    assert set(split.annotations) == {"parts", "objects"}
    small = Path(source.read.root) / "2.jpg"  # 30 pixels are never enlarged
    assert split.read.stored(2) == small.read_bytes()
    exact = images.resize_crop(source.read(0), (48, 32), (0, 0, 48, 32), "bicubic")
    assert np.abs(split.read(0).astype(int) - exact).mean() < 3


def test_cut_and_chosen_pictures(tmp_path):
    data_files.write_folder(tmp_path, classes=("a", "b"), splits=3)
    names = np.array(["a/000.jpg", "a/001.jpg", "b/000.jpg"])
    cut = dataset.file_split(tmp_path, names, [0, 0, 1], bottom=10)
    whole = dataset.subset(dataset.file_split(tmp_path, names, [0, 0, 1]), [2, 0])
    data = dataset.Dataset("x", ("a", "b"), {"train": cut, "test": whole})
    prepare.prepare(data, tmp_path / "out", name="x")
    again = prepared.load(tmp_path / "out")
    assert again.splits["train"].read(0).shape == (30, 48, 3)
    assert again.splits["train"].read.stored(0) == records.encode(cut.read(0), 95, "")
    assert again.splits["test"].read.stored(0) == (tmp_path / "b/000.jpg").read_bytes()
    prepare.prepare(again, tmp_path / "twice", name="prepared")  # without a second loss
    twice = prepared.load(tmp_path / "twice")
    assert twice.splits["train"].read.stored(0) == again.splits["train"].read.stored(0)


def test_tfds_reads_it_without_tensorflow(tmp_path):
    data = boxed(tmp_path / "photos", [(40, 30)] * 5, ".png", parts=parts_of)
    prepare.prepare(data, tmp_path / "out", name="Öd-2", form=records.Form(shard_bytes=4000))
    code = """
        import sys, numpy as np, tensorflow_datasets as tfds
        builder = tfds.builder_from_directory(sys.argv[1])
        source = builder.as_data_source("train")
        assert len(source) == builder.info.splits["train"].num_examples == 5
        assert builder.info.splits["train"].num_shards > 1
        assert builder.info.features["label"].names == ["a b", "c"]
        example = source[3]
        assert example["image"].shape == (30, 40, 3) and example["image"].any()
        assert (example["label"], example["filename"], example["index"]) == (1, b"3.png", 3)
        assert example["box"].tolist() == [-3, 4.5, 1000, 20], example["box"]
        assert np.isnan(source[1]["box"]).all() and example["parts"].shape == (2, 3)
        assert example["original_size"].tolist() == [40, 30]
        assert "tensorflow" not in sys.modules
    """
    code = textwrap.dedent(code)
    subprocess.run([sys.executable, "-c", code, tmp_path / "out"], check=True, timeout=120)
    assert (tmp_path / "out" / "LICENSE").read_text() == "free"


def test_generated_pictures_are_encoded(tmp_path):
    data = synthetic_birds.load("", species=2, train_per_class=2, size=64)
    prepare.prepare(data, tmp_path / "out", name="synthetic_birds", form=records.Form(quality=100))
    split = prepared.load(tmp_path / "out").splits["train"]
    np.testing.assert_array_equal(split.raw_boxes, data.splits["train"].boxes)
    difference = np.abs(split.read(1).astype(int) - data.splits["train"].read(1))
    assert 0 < difference.mean() < 4


def test_unreadable_images(tmp_path):
    data = data_prepared.folder_data(tmp_path, splits={"train": 6, "test": 2})
    bad = [data.splits["train"].names[i] for i in (1, 2, 7)]
    for name in bad:
        (tmp_path / "photos" / name).write_bytes(b"no image")
    options = {"name": "folder", "form": records.Form(shard_bytes=2000)}
    run = functools.partial(prepare.prepare, data, tmp_path / "out", **options)
    with pytest.raises(ValueError, match="3 images cannot be read") as error:
        run()
    assert all(name in str(error.value) for name in bad)
    with pytest.raises(ValueError, match="not finished"):
        prepared.load(tmp_path / "out")
    facts = run(on_bad_image="skip")
    assert list(facts["skipped"]) == bad
    again = prepared.load(tmp_path / "out")
    assert "without 3 unreadable images" in again.notes
    assert [len(split) for split in again.splits.values()] == [15, 6]
    assert not set(bad) & set(again.splits["train"].names)
    for name, split in again.splits.items():
        for i in range(len(split)):
            place = list(data.splits[name].names).index(split.names[i])
            np.testing.assert_array_equal(split.read(i), data.splits[name].read(place))
    assert prepare.verify(tmp_path / "out") == 21


def test_what_is_there_is_not_touched(tmp_path):
    data = data_prepared.folder_data(tmp_path)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("")
    (tmp_path / "file").write_text("")
    run = functools.partial(prepare.prepare, data, name="folder")
    with pytest.raises(ValueError, match="not empty"):
        run(tmp_path / "thesis")
    with pytest.raises(ValueError, match="not a folder"):
        run(tmp_path / "file")
    run(tmp_path / "out")
    before = data_archives.contents(tmp_path)
    run(tmp_path / "out")
    with pytest.raises(ValueError, match="name: 'folder' there, 'csv' now"):
        prepare.prepare(data, tmp_path / "out", name="csv")
    assert data_archives.contents(tmp_path) == before


@pytest.mark.parametrize("workers", [0, 1])
def test_the_pipeline_gives_the_same_batches(tmp_path, workers):
    data, out = data_prepared.prepared_folder(tmp_path)
    transform = pipeline.Transform(32, "squash", 24, True, "bilinear")
    seen = []
    for split in (data.splits["train"], prepared.load(out).splits["train"]):
        options = {"batch_size": 5, "seed": 1, "threads": 3, "workers": workers}
        reader = data_files.reader_of(options)
        with pipeline.train_batches(split, transform, reader, **options) as batches:
            seen.append([next(batches) for _ in range(6)])
    data_files.assert_equal(*seen)


def test_a_split_is_cheap_to_send_to_a_process(tmp_path):
    _, out = data_prepared.prepared_folder(tmp_path)
    split = prepared.load(out).splits["train"]
    first = split.read(0)
    copy = pickle.loads(pickle.dumps(split))
    assert len(pickle.dumps(split)) < 5000
    np.testing.assert_array_equal(copy.read(0), first)


def test_options_without_effect_are_no_other_data_set(tmp_path):
    data, out = data_prepared.prepared_folder(tmp_path)
    form = records.Form(mode="squash", quality=50)  # nothing is shrunk or encoded
    before = data_archives.contents(out)
    prepare.prepare(data, out, name="folder", form=form)
    assert data_archives.contents(out) == before
    birds = synthetic_birds.load("", species=2, train_per_class=1, size=64)
    run = functools.partial(prepare.prepare, birds, tmp_path / "birds", name="synthetic_birds")
    run()
    with pytest.raises(ValueError, match="jpeg_quality: 95 there, 50 now[^;]*$"):
        run(form=form)


@pytest.mark.parametrize(
    ("mode", "shape", "stored"),
    [
        ("short_side", (60, 80), (32, 42)),
        ("short_side", (30, 80), (30, 80)),
        ("squash", (60, 80), (32, 32)),
        ("squash", (20, 80), (20, 32)),
    ],
)
def test_pictures_are_shrunk_and_never_enlarged(mode, shape, stored):
    assert records.Form(32, mode).shape((*shape, 3)) == stored


def test_unknown_resize_mode():
    with pytest.raises(ValueError, match="resize_mode 'crop' is unknown, allowed: short_side, sq"):
        records.Form(32, "crop")
