"""NABirds: leaves as classes, their ancestors, boxes beyond the picture, points."""

import pickle
import shutil

import numpy as np
import pytest

from fgc_jax.data.sources import nabirds
from tests import data_benchmarks, data_collections, data_files

original, copy = data_files.fixtures(data_collections.write_nabirds)


def test_leaves_are_numbered_by_class_id(original):
    dataset = nabirds.load(original)
    eider, eagle = "Common Eider (Female/juvenile)", "Bald Eagle (Adult, subadult)"
    assert dataset.class_names == (eider, "Osprey", eagle)
    ducks, hawks = "Ducks, Geese, and Swans", "Hawks, Kites, Eagles, and Allies"
    assert dataset.hierarchy == ((ducks, "Common Eider"), (hawks, "Osprey"), (hawks,))
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 6, "test": 3}
    np.testing.assert_array_equal(dataset.splits["train"].labels, [2, 2, 0, 0, 1, 1])
    np.testing.assert_array_equal(dataset.splits["test"].labels, [2, 0, 1])
    assert dataset.splits["test"].names[1].startswith("0299/")
    assert "3 leaves" in dataset.notes and "non-commercial" in dataset.licence


def test_pictures_boxes_and_points(original):
    test = nabirds.load(original).splits["test"]
    np.testing.assert_array_equal(test.boxes, [[2, 3, 44, 48], [2, 3, 47, 48], [2, 3, 50, 48]])
    copied = pickle.loads(pickle.dumps(test))
    assert copied.read(2).shape == (48, 60, 3)
    points = copied.annotations["parts"](1)  # the sixth image of all
    assert points.shape == (11, 3) and points.dtype == np.float32
    np.testing.assert_array_equal(points[[0, 3, 8]], [[5, 0, 1], [8, 6, 1], [0, 0, 0]])
    assert nabirds.load(original).part_names[8] == "tail"


def test_sizes_come_from_the_list(copy):
    for file in (copy / "nabirds" / "images").glob("*/*.jpg"):
        file.write_bytes(b"")
    split = nabirds.load(copy).splits["train"]
    np.testing.assert_array_equal(split.boxes[0], [2, 3, 42, 48])
    with pytest.raises(ValueError, match=r"0817/0.*\.jpg"):
        split.read(0)


def test_parts_may_be_absent(copy):
    shutil.rmtree(copy / "nabirds" / "parts")
    dataset = nabirds.load(copy)
    assert dataset.part_names == () and not dataset.splits["train"].annotations


def test_another_data_set_of_birds_is_not_taken_for_it(original, tmp_path):
    data_benchmarks.write_cub(tmp_path)
    with pytest.raises(ValueError, match="no hierarchy.txt in "):
        nabirds.load(tmp_path)
    shutil.copytree(original, tmp_path / "of others")
    assert nabirds.load(tmp_path).facts() == nabirds.load(original).facts()


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_damaged_points_are_named(copy):
    change(copy / "nabirds" / "parts" / "part_locs.txt", " 3 ", " 11 ")
    split = nabirds.load(copy).splits["train"]
    with pytest.raises(ValueError, match=r"part_locs\.txt: 1 points of unknown .* 11$"):
        split.annotations["parts"](0)
