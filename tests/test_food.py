"""Food-101: the official lists."""

import numpy as np
import pytest

from fgc_jax.data.sources import food
from tests import data_collections


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return data_collections.write_food(tmp_path_factory.mktemp("food"))


def test_official_splits(root):
    dataset = food.load(root)
    assert dataset.class_names == ("apple_pie", "baby_back_ribs", "takoyaki")
    train, test = dataset.splits["train"], dataset.splits["test"]
    np.testing.assert_array_equal(train.labels, [0, 0, 0, 1, 1, 1, 2, 2, 2])
    np.testing.assert_array_equal(test.labels, [0, 0, 1, 1, 2, 2])
    assert test.names[2] == "baby_back_ribs/1006299.jpg"
    assert test.read(2).shape == (30, 40, 3) and test.boxes is None
    assert "training labels are noisy" in dataset.notes and "fair use" in dataset.licence


def test_roots(root):
    assert food.load(root / "food-101").facts() == food.load(root).facts()
