"""Oxford-IIIT Pets: breeds and species, head boxes, trimaps, photos in other formats."""

import pickle
import shutil

import numpy as np
import pytest

from fgc_jax.data.sources import pets
from tests import data_collections, data_files

original, copy = data_files.fixtures(data_collections.write_pets)


def test_official_splits(original):
    dataset = pets.load(original)
    assert dataset.class_names == ("Abyssinian", "american_bulldog", "Maine_Coon")
    assert dataset.hierarchy == (("cat",), ("dog",), ("cat",))
    train, test = dataset.splits["train"], dataset.splits["test"]
    np.testing.assert_array_equal(train.labels, [0, 0, 0, 1, 1, 1, 2, 2, 2])
    names = ["Abyssinian_4.jpg", "Abyssinian_5.jpg", "american_bulldog_4.jpg"]
    assert list(test.names[:3]) == names
    assert "trainval" in dataset.notes and "heads" in dataset.notes


def test_heads(original):
    splits = pets.load(original).splits
    train = splits["train"].boxes
    np.testing.assert_array_equal(train[[0, 1, 3]], [[4, 5, 20, 30]] * 3)
    assert np.isnan(train[[2, 5, 8]]).all()
    assert splits["test"].boxes is None


def test_of_two_heads_the_larger(copy):
    path = copy / "annotations" / "xmls" / "Abyssinian_1.xml"
    text = path.read_text()
    start, end = text.index("<object>"), text.index("</annotation>")
    small = text[start:end].replace("<xmax>20", "<xmax>7")
    path.write_text(text[:start] + small + text[start:])
    np.testing.assert_array_equal(pets.load(copy).splits["train"].boxes[0], [4, 5, 20, 30])


def test_trimaps(original):
    split = pickle.loads(pickle.dumps(pets.load(original).splits["test"]))
    mask = split.annotations["mask"](0)
    assert mask.shape == split.read(0).shape[:2] and mask.dtype == np.uint8
    assert mask[20, [0, 8, 9, 10, 39, 40, 41]].tolist() == [0, 0, 128, 255, 255, 128, 0]


def test_a_png_called_jpg_is_read_without_its_alpha(original):
    image = pets.load(original).splits["train"].read(0)
    np.testing.assert_array_equal(image, data_files.picture(1, 1, (50, 40), 3))


def test_the_index_opens_neither_photos_nor_heads(copy):
    shutil.rmtree(copy / "annotations" / "trimaps")
    for path in [*(copy / "images").iterdir(), *(copy / "annotations" / "xmls").iterdir()]:
        path.write_bytes(b"<")
    split = pets.load(copy).splits["train"]
    with pytest.raises(ValueError, match=r"xmls/Abyssinian_1\.xml: not XML"):
        _ = split.boxes
    with pytest.raises(ValueError, match=r"images/Abyssinian_1\.jpg"):
        split.read(0)
    with pytest.raises(ValueError, match=r"trimaps/Abyssinian_1\.png: cannot be read"):
        split.annotations["mask"](0)


def test_heads_may_be_absent(copy):
    shutil.rmtree(copy / "annotations" / "xmls")
    assert pets.load(copy).splits["train"].boxes is None


def test_a_damaged_trimap_is_named(copy):
    path = copy / "annotations" / "trimaps" / "Abyssinian_1.png"
    data_files.write_image(path, np.full((4, 5), 7, np.uint8))
    mask = pets.load(copy).splits["train"].annotations["mask"]
    with pytest.raises(ValueError, match=r"Abyssinian_1\.png: not a trimap, .* \[7\]"):
        mask(0)
