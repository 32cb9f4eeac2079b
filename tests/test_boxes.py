"""Box conventions and crops to the object."""

import dataclasses
import pickle

import numpy as np
import pytest

from fgc_jax.data import boxes, dataset
from tests import data_files


def test_conventions():
    np.testing.assert_array_equal(boxes.from_corners([1, 1, 500, 375]), [0, 0, 500, 375])
    np.testing.assert_array_equal(boxes.from_corners([[3, 4, 5, 6]], origin=0), [[3, 4, 5, 6]])
    np.testing.assert_array_equal(boxes.from_sizes([[0, 0, 500, 375]]), [[0, 0, 500, 375]])
    np.testing.assert_array_equal(boxes.from_sizes([60.5, 27, 325, 304]), [60.5, 27, 385.5, 331])


@pytest.mark.parametrize(
    ("box", "options", "window"),
    [
        ((5.2, -3, 99, 20.5), {}, (5, 0, 40, 21)),
        ((10, 10, 20, 14), {}, (10, 10, 20, 14)),
        ((10, 10, 20, 14), {"margin": 0.25}, (7, 9, 23, 15)),
        ((10, 10, 20, 14), {"square": True}, (10, 7, 20, 17)),
        ((10, 0, 20, 4), {"square": True}, (10, 0, 20, 10)),  # moved in, not cut
        ((0, 5, 40, 10), {"square": True}, (0, 0, 40, 30)),  # wider than the picture is high
        ((30, 20, 40, 30), {"margin": 0.5, "square": True}, (20, 10, 40, 30)),
        ((np.nan,) * 4, {"margin": 1.0}, (0, 0, 40, 30)),
        ((40, 0, 50, 10), {}, None),
        ((0, -9, 10, 0), {}, None),
    ],
)
def test_windows(box, options, window):
    assert boxes.crop_window(np.array(box, np.float32), (30, 40, 3), **options) == window


@pytest.fixture
def birds(tmp_path):
    image = data_files.picture(0, 0, (40, 30))
    names = ["a.png", "b.png"]
    for name in names:
        data_files.write_image(tmp_path / name, image)
    corners = [[5, -3, 99, 20], [50, 2, 60, 5]]
    parts = {"parts": str}
    splits = {
        split: dataset.file_split(tmp_path, names, [0, 1], boxes=corners, annotations=parts)
        for split in ("train", "test")
    }
    return dataset.Dataset("birds", ("x", "y"), splits), image


def test_crops_of_chosen_splits(birds):
    whole, image = birds
    cropped = pickle.loads(pickle.dumps(boxes.with_box_crops(whole, ("train",))))
    np.testing.assert_array_equal(cropped.splits["train"].read(0), image[0:20, 5:40])
    np.testing.assert_array_equal(cropped.splits["test"].read(0), image)
    assert cropped.splits["train"].boxes is None and not cropped.splits["train"].annotations
    assert cropped.splits["test"].annotations["parts"](1) == "1"
    assert cropped.facts() == whole.facts()


def test_what_cannot_be_cropped_is_named(birds):
    whole, _ = birds
    with pytest.raises(ValueError, match=r"b\.png: the box \[50.* outside the picture of 40x30"):
        boxes.with_box_crops(whole, ("test",)).splits["test"].read(1)
    with pytest.raises(ValueError, match="no split 'val' to crop, only train, test"):
        boxes.with_box_crops(whole, ("val",))
    with pytest.raises(ValueError, match="margin of a box must not be negative"):
        boxes.with_box_crops(whole, ("train",), margin=-1)
    without = dataclasses.replace(whole.splits["train"], box_source=None)
    with pytest.raises(ValueError, match="the split 'train' has no boxes, so it cannot be cropped"):
        boxes.with_box_crops(dataclasses.replace(whole, splits={"train": without}), ("train",))


def test_synthetic_birds_are_cropped_too():
    from fgc_jax import data

    whole = data.load("synthetic_birds", "", {"species": 2, "train_per_class": 2, "size": 64})
    cropped = boxes.with_box_crops(whole, ("train",), square=True)
    height, width = cropped.splits["train"].read(0).shape[:2]
    assert height == width < 64
