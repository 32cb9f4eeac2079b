"""Splits and data sets: subsets, stratified cuts, what is refused."""

import dataclasses
import json
import pickle

import numpy as np
import pytest

from fgc_jax import data
from fgc_jax.data import boxes as boxes_module
from fgc_jax.data import dataset, splitting
from tests import data_files


def numbers_split(n, labels=None):
    """A split whose image i is one pixel of value i."""
    labels = np.arange(n) % 3 if labels is None else labels
    boxes = np.arange(4 * n).reshape(n, 4)
    return dataset.Split(labels, [f"{i}.png" for i in range(n)], Pixel(), boxes)


class Pixel:
    def __call__(self, index):
        return np.full((1, 1, 3), index, np.uint8)


def numbers_dataset(n, **splits):
    return dataset.Dataset("numbers", ("a", "b", "c"), {"train": numbers_split(n), **splits})


def test_split_types():
    split = numbers_split(6)
    assert len(split) == 6
    assert split.labels.dtype == np.int32 and split.boxes.dtype == np.float32
    assert split.names[4] == "4.png" and isinstance(split.names[4], str)
    assert split.read(5)[0, 0, 0] == 5


def test_split_is_small_and_repr_is_short():
    n = 200_000
    names = [f"class_{i % 500:04d}/picture_{i:08d}.jpg" for i in range(n)]
    split = dataset.file_split("/data", names, np.zeros(n))
    data_ = pickle.dumps(split)
    assert len(data_) < 70 * n  # the text, 4 bytes of label; the names are stored once
    assert list(pickle.loads(data_).names[-2:]) == names[-2:]
    assert len(repr(split)) < 100
    assert len(repr(dataset.Dataset("big", ("a", "b"), {"train": split}))) < 200


def test_names_must_be_unicode():
    with pytest.raises(ValueError, match="not valid Unicode: 'a\\\\udcff.jpg'"):
        dataset.text_array(["fine.jpg", "a\udcff.jpg"])


def test_inconsistent_splits_are_refused():
    with pytest.raises(ValueError, match="2 names for labels of shape"):
        dataset.Split([0, 1, 2], ["a", "b"], Pixel())
    with pytest.raises(ValueError, match=r"boxes of shape \(3, 3\)"):
        dataset.Split([0, 1, 2], ["a", "b", "c"], Pixel(), np.zeros((3, 3)))


def test_inconsistent_datasets_are_refused():
    split = numbers_split(3)
    with pytest.raises(ValueError, match="at least 2 classes are needed, found: only"):
        dataset.Dataset("x", ("only",), {"train": split})
    with pytest.raises(ValueError, match="class names are not unique"):
        dataset.Dataset("x", ("a", "b", "a"), {"train": split})
    with pytest.raises(ValueError, match="unknown splits .'dev'."):
        dataset.Dataset("x", ("a", "b", "c"), {"dev": split})
    with pytest.raises(ValueError, match="labels of 'train' must be 0 to 1"):
        dataset.Dataset("x", ("a", "b"), {"train": split})
    with pytest.raises(ValueError, match="'test' has no images"):
        dataset.Dataset("x", ("a", "b", "c"), {"test": numbers_split(0)})


def test_subset_of_a_subset():
    split = dataset.subset(dataset.subset(numbers_split(10), [9, 3, 7, 1]), [2, 0])
    assert list(split.names) == ["7.png", "9.png"]
    assert [split.read(i)[0, 0, 0] for i in range(2)] == [7, 9]
    np.testing.assert_array_equal(split.labels, [1, 0])
    np.testing.assert_array_equal(split.boxes[:, 0], [28, 36])
    pickle.loads(pickle.dumps(split))


def test_cut_is_stratified_seeded_and_complete():
    labels = np.repeat([0, 1, 2], [50, 31, 19])[np.random.default_rng(0).permutation(100)]
    kept, cut = splitting.stratified_split(labels, 0.2, seed=3)
    assert len(cut) == 20
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, cut])), np.arange(100))
    np.testing.assert_array_equal(np.bincount(labels[cut]), [10, 6, 4])
    again = splitting.stratified_split(labels, 0.2, seed=3)
    np.testing.assert_array_equal(again[1], cut)
    assert not np.array_equal(splitting.stratified_split(labels, 0.2, seed=4)[1], cut)


def test_a_cut_keeps_groups_together():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 150, 400)  # photos with 1 to 8 objects, of mixed classes
    labels = np.where(rng.random(400) < 0.7, groups % 4, rng.integers(0, 4, 400))
    kept, cut = splitting.stratified_split(labels, 0.2, seed=3, groups=groups)
    assert not set(groups[kept]) & set(groups[cut])
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, cut])), np.arange(400))
    np.testing.assert_allclose(np.bincount(labels[cut]), 0.2 * np.bincount(labels), atol=3)
    again = splitting.stratified_split(labels, 0.2, seed=3, groups=groups.tolist())
    np.testing.assert_array_equal(again[1], cut)
    assert not np.array_equal(
        splitting.stratified_split(labels, 0.2, seed=4, groups=groups)[1], cut
    )


def test_a_pair_does_not_change_who_else_is_cut():
    labels = np.arange(200) % 2
    groups = np.arange(200)
    single = splitting.stratified_split(labels, 0.1, seed=0)[1]
    groups[single[0]] = groups[single[2]]
    assert set(single) <= set(splitting.stratified_split(labels, 0.1, seed=0, groups=groups)[1])


def test_every_class_keeps_a_group():
    labels, groups = np.array([0, 0, 1, 1, 1, 2]), np.array([0, 0, 1, 2, 2, 2])
    for fraction in (0.1, 0.5, 0.9):
        kept, _ = splitting.stratified_split(labels, fraction, seed=0, groups=groups)
        assert set(labels[kept]) == {0, 1, 2}


def test_cut_of_the_aircraft_size_is_project_as():
    """6,667 images, 66 or 67 a class: a fifth is 1,334, and 13 or 14 of each class."""
    labels = np.repeat(np.arange(100), np.where(np.arange(100) < 67, 67, 66))
    kept, cut = splitting.stratified_split(labels, 0.2, seed=42)
    assert (len(kept), len(cut)) == (5333, 1334)
    counts = np.bincount(labels[cut])
    assert (counts.min(), counts.max()) == (13, 14)


def test_every_class_keeps_an_image():
    labels = np.array([0, 1, 1, 2, 2, 2])
    for fraction in (0.1, 0.5, 0.9, 0.999):
        kept, cut = splitting.stratified_split(labels, fraction, seed=0)
        assert set(labels[kept]) == {0, 1, 2}
    assert len(cut) == 3
    for fraction in (0, 1, -0.1, 1.5):
        with pytest.raises(ValueError, match="between 0 and 1"):
            splitting.stratified_split(labels, fraction, seed=0)


def test_with_validation():
    cut = splitting.with_validation(numbers_dataset(30, test=numbers_split(3)), 0.2, seed=0)
    sizes = {name: len(split) for name, split in cut.splits.items()}
    assert sizes == {"train": 24, "val": 6, "test": 3}
    np.testing.assert_array_equal(np.bincount(cut.splits["val"].labels), [2, 2, 2])
    assert not set(cut.splits["train"].names) & set(cut.splits["val"].names)
    assert "val: 6 images drawn from train, stratified, seed 0" in cut.notes


def test_validation_and_test_are_cut_by_photo():
    n = 90  # three objects, one of each class, in each photo
    names = [f"{i // 3}.png" for i in range(n)]
    train = dataset.Split(np.arange(n) % 3, names, Pixel())
    whole = dataset.Dataset("numbers", ("a", "b", "c"), {"train": train})
    tested = splitting.with_fraction(whole, "test", 0.2, seed=0)
    cut = splitting.with_validation(tested, 0.25, seed=1)
    photos = [set(split.names) for split in cut.splits.values()]
    assert [len(split) for split in cut.splits.values()] == [54, 18, 18]
    assert len(set.union(*photos)) == sum(map(len, photos)) == 30


def test_an_own_validation_split_stays():
    whole = numbers_dataset(30, val=numbers_split(5))
    assert splitting.with_validation(whole, 0.2, seed=0) is whole
    assert "val" not in splitting.with_validation(numbers_dataset(30), 0, seed=0).splits


def test_too_small_to_cut():
    with pytest.raises(ValueError, match="3 training images are too few to draw 'val' from"):
        splitting.with_validation(numbers_dataset(3), 0.2, seed=0)


def test_facts_tell_data_sets_apart():
    facts = numbers_dataset(6).facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["class_names"] == ["a", "b", "c"] and facts["splits"]["train"]["images"] == 6
    others = [numbers_dataset(7), splitting.with_validation(numbers_dataset(6), 0.4, seed=0)]
    hashes = {other.facts()["splits"]["train"]["sha256"] for other in others}
    assert facts["splits"]["train"]["sha256"] not in hashes
    assert numbers_dataset(6).facts() == facts
    renamed = dataclasses.replace(numbers_split(6), names=[f"{i}.jpg" for i in range(6)])
    other = dataset.Dataset("numbers", ("a", "b", "c"), {"train": renamed})
    assert other.facts()["splits"] != facts["splits"]


def test_files_cut_and_crop(tmp_path):
    image = data_files.picture(0, 0, (40, 30))
    data_files.write_image(tmp_path / "a.png", image)
    boxes = [[5.2, -3, 99, 20.5]]
    plain = dataset.file_split(tmp_path, ["a.png"], [0], boxes=boxes, bottom=10)
    np.testing.assert_array_equal(plain.read(0), image[:20])
    np.testing.assert_allclose(plain.boxes, [[5.2, 0, 40, 20]])


def test_no_file_is_opened_before_boxes_are_asked_for(tmp_path, monkeypatch):
    names = [f"{i}.png" for i in range(6)]
    for name in names:
        data_files.write_image(tmp_path / name, data_files.picture(0, 0, (40, 30)))
    opened = []

    def read_shape(path, real=dataset.images.read_shape):
        opened.append(path)
        return real(path)

    monkeypatch.setattr(dataset.images, "read_shape", read_shape)
    boxes = np.full((6, 4), [-3, 5, 99, 20])
    train = dataset.file_split(tmp_path, names, [0, 1] * 3, boxes=boxes)
    whole = dataset.Dataset("files", ("a", "b"), {"train": train})
    crops = boxes_module.with_box_crops(whole, ["train"]).splits["train"]
    assert crops.read(0).shape == (15, 40, 3)
    cut = pickle.loads(pickle.dumps(splitting.with_validation(whole, 0.3, seed=0)))
    assert not opened
    np.testing.assert_array_equal(cut.splits["val"].raw_boxes, [[-3, 5, 99, 20]] * 2)
    assert not opened
    np.testing.assert_array_equal(cut.splits["val"].boxes, [[0, 5, 40, 20]] * 2)
    assert len(opened) == 6
    assert cut.splits["val"].boxes is cut.splits["val"].boxes


def test_files_without_pixels_left_are_named(tmp_path):
    data_files.write_image(tmp_path / "a.png", data_files.picture(0, 0, (40, 10)))
    with pytest.raises(ValueError, match=r"a\.png: the picture has 10 rows; the last 10"):
        dataset.file_split(tmp_path, ["a.png"], [0], bottom=10).read(0)


def test_boxes_of_an_unreadable_file_wait_for_its_reading(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    split = dataset.file_split(tmp_path, ["a.png"], [0], boxes=[[1, 2, 3, 4]])
    np.testing.assert_array_equal(split.boxes, [[1, 2, 3, 4]])


def test_load_refuses_unknown_names_and_options(tmp_path):
    for name in ("bird", "tfds", "tfds:", "cub:2011"):
        with pytest.raises(ValueError, match=f"unknown data set '{name}', allowed: folder, .*NAME"):
            data.load(name, tmp_path, {})
    with pytest.raises(ValueError, match="'folder': colour is unknown: allowed: 'test_fr"):
        data.load("folder", tmp_path, {"colour": 1})
    with pytest.raises(ValueError, match="'csv': label_column must be given"):
        data.load("csv", tmp_path, {})


@pytest.mark.parametrize("name", sorted(set(data.DATASETS) - {"synthetic_birds", "tfds"}))
@pytest.mark.parametrize("root", ["", None, "/no/such/place"])
def test_missing_roots_are_named(name, root):
    options = {"csv": {"label_column": 1}, "inaturalist": {"year": 2021}}.get(name, {})
    with pytest.raises(ValueError, match="/no/such/place" if root else "data.root"):
        data.load(name, root, options)
