"""Food-101: the official lists, and what is said where they are damaged."""

import shutil

import numpy as np
import pytest

from fgc_jax.data.sources import food
from tests import data_collections


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return data_collections.write_food(tmp_path_factory.mktemp("food"))


@pytest.fixture
def copy(root, tmp_path):
    return shutil.copytree(root / "food-101", tmp_path / "food-101")


def test_official_splits(root):
    dataset = food.load(root)
    assert dataset.class_names == ("apple_pie", "baby_back_ribs", "takoyaki")
    train, test = dataset.splits["train"], dataset.splits["test"]
    np.testing.assert_array_equal(train.labels, [0, 0, 0, 1, 1, 1, 2, 2, 2])
    np.testing.assert_array_equal(test.labels, [0, 0, 1, 1, 2, 2])
    assert test.names[2] == "baby_back_ribs/1006299.jpg"
    assert test.read(2).shape == (30, 40, 3) and test.boxes is None
    assert "training labels are noisy" in dataset.notes and "fair use" in dataset.licence


def test_roots(root, tmp_path):
    facts = food.load(root).facts()
    assert food.load(root / "food-101").facts() == facts
    archive = data_collections.pack(root, tmp_path / "food.tar.gz", ["food-101"])
    assert food.load(str(archive)).facts() == facts


def test_missing_data_say_what_to_get(tmp_path):
    with pytest.raises(ValueError, match="85eeb15f3717b99a5da872d97d918f87") as error:
        food.load(tmp_path)
    assert "5.00 GB" in str(error.value) and "food-101.tar.gz" in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pizza/12\n", "1 unknown labels: pizza"),
        ("12\n", "1 unknown labels: "),
        (
            "apple_pie/1005649\n",
            "1 images are listed twice, .*: apple_pie/1005649",
        ),
        ("takoyaki/12\n", "1 images are not in .*takoyaki/12.jpg"),
    ],
)
def test_damaged_lists_are_named(copy, text, message):
    with open(copy / "meta" / "test.txt", "a") as file:
        file.write(text)
    with pytest.raises(ValueError, match=rf"meta/test\.txt: {message}"):
        food.load(copy)


def test_a_missing_list_is_named(copy):
    (copy / "meta" / "train.txt").unlink()
    with pytest.raises(ValueError, match=r"train\.txt: cannot be read"):
        food.load(copy)
