"""CUB-200-2011: labels, boxes, parts and masks of the official files, and what damaged ones say."""

import pickle
import shutil

import numpy as np
import pytest

from fgc_jax.data.sources import cub
from tests import data_benchmarks, data_files

original, copy = data_files.fixtures(data_benchmarks.write_cub)


@pytest.fixture(scope="module")
def data(original):
    return cub.load(original)


def test_splits_labels_and_names(data):
    names = data_benchmarks.bird_names()
    assert data.class_names == ("Black_footed_Albatross", "Laysan_Albatross", "Sooty_Albatross")
    assert list(data.splits) == ["train", "test"]
    for split, first in (("train", 1), ("test", 0)):
        assert list(data.splits[split].names) == names[first::2]
        np.testing.assert_array_equal(data.splits[split].labels, [0, 0, 1, 1, 2, 2])
    assert "Flickr" in data.licence and "5,794" in data.imagenet_overlap


def test_boxes_are_corners_and_clipped_only_in_boxes(data):
    raw = data.splits["train"].raw_boxes  # ids 2, 4, 6, ...
    np.testing.assert_array_equal(raw[0], [10, 20, 50, 50])
    np.testing.assert_array_equal(data.splits["train"].boxes[0], [10, 20, 48, 40])
    np.testing.assert_array_equal(raw[1:, 0], [6, 8, 10, 12, 14])
    np.testing.assert_array_equal(raw[1:, 2] - raw[1:, 0], 20)
    np.testing.assert_array_equal(data.splits["test"].boxes[0], [0, 0, 48, 40])


def test_parts_and_masks(data):
    assert data.part_names == data_benchmarks.PARTS
    for split, first in (("train", 1), ("test", 0)):
        annotations = pickle.loads(pickle.dumps(data.splits[split])).annotations
        for k in range(6):
            i = 2 * k + first
            points = [data_benchmarks.bird_point(i, part) for part in range(1, 16)]
            assert annotations["parts"](k).dtype == np.float32
            np.testing.assert_array_equal(annotations["parts"](k), points)
            mask = annotations["mask"](k)
            assert mask.dtype == np.uint8
            np.testing.assert_array_equal(mask, data_benchmarks.bird_mask(i))


@pytest.mark.parametrize("below", [".", "CUB_200_2011"])
def test_parts_and_masks_are_not_needed(copy, data, below):
    shutil.rmtree(copy / "segmentations")
    shutil.rmtree(copy / "CUB_200_2011" / "parts")
    bare = cub.load(copy / below)
    assert bare.part_names == () and not bare.splits["train"].annotations
    assert bare.facts() == data.facts()


def test_masks_may_lie_inside(copy):
    (copy / "segmentations").rename(copy / "CUB_200_2011" / "segmentations")
    mask = cub.load(copy).splits["test"].annotations["mask"](0)
    np.testing.assert_array_equal(mask, data_benchmarks.bird_mask(0))


LISTS = ("images", "image_class_labels", "train_test_split", "bounding_boxes", "parts/part_locs")


@pytest.mark.parametrize("file", LISTS)
def test_lists_that_are_cut_short_are_refused(copy, file):
    path = copy / "CUB_200_2011" / f"{file}.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))
    with pytest.raises(ValueError, match="only one of this list|179 rows of 5 numbers, not 15"):
        cub.load(copy)


def test_damaged_masks_are_named(copy):
    name = data_benchmarks.bird_names()[3].replace(".jpg", ".png")
    (copy / "segmentations" / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"0004_796132\.png: not an image"):
        cub.load(copy).splits["train"].annotations["mask"](1)


def test_names_keep_their_numbers_where_they_would_collide():
    assert cub.readable(["001.Gull", "002.Tern"]) == ("Gull", "Tern")
    assert cub.readable(["001.Gull", "002.Gull"]) == ("001.Gull", "002.Gull")
