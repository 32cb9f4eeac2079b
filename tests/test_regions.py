import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgc_jax.models import regions
from tests import by_hand


def box_by_hand(attention, threshold, padding, size):
    mask = by_hand.resized(np.float64(attention), *size) >= threshold * attention.max()
    if not mask.any():
        return (0, size[0], 0, size[1])
    rows, columns = np.nonzero(mask)
    return (
        max(int(rows.min() - padding * size[0]), 0),
        min(int(rows.max() + padding * size[0]), size[0]),
        max(int(columns.min() - padding * size[1]), 0),
        min(int(columns.max() + padding * size[1]), size[1]),
    )


def attention(seed=0, shape=(4, 5, 6)):
    return np.random.default_rng(seed).random(shape).astype(np.float32) ** 4


@pytest.mark.parametrize("size", [(20, 20), (33, 17), (5, 6), (3, 40)])
def test_upsample_is_bilinear_with_aligned_corners(size):
    maps = attention()
    expected = np.stack([by_hand.resized(np.float64(each), *size) for each in maps])
    np.testing.assert_allclose(regions.upsample(maps, size), expected, atol=1e-6)


def test_the_corners_of_a_grid_of_one_point():
    np.testing.assert_allclose(regions.upsample(np.ones((1, 1, 1), np.float32), (4, 3)), 1.0)


@pytest.mark.parametrize("padding", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("size", [(30, 30), (41, 26)])
def test_boxes_are_those_drawn_by_hand(size, padding):
    maps, thresholds = attention(), np.float32([0.1, 0.45, 0.6, 0.9])
    expected = [
        box_by_hand(each, threshold, padding, size)
        for each, threshold in zip(maps, thresholds, strict=True)
    ]
    found = np.asarray(regions.boxes(maps, thresholds, padding, size))
    np.testing.assert_array_equal(found, expected)
    assert (found[:, 1] - found[:, 0] < size[0]).any()  # not all of the image


def test_a_peak_at_each_corner():
    """The padding stops at the edges of the image."""
    maps = np.zeros((4, 3, 3), np.float32)
    for index, (row, column) in enumerate(((0, 0), (0, 2), (2, 0), (2, 2))):
        maps[index, row, column] = 1
    found = np.asarray(regions.boxes(maps, 0.5, 0.1, (21, 21)))
    # Pixels 0 to 5 or 15 to 20, half of the way to the middle, and 2.1 of padding.
    ends = ([0, 7], [12, 21])
    np.testing.assert_array_equal(found, [rows + columns for rows in ends for columns in ends])


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_maps_that_point_nowhere_have_the_whole_image(value):
    maps = np.full((1, 3, 3), value, np.float32)
    np.testing.assert_array_equal(regions.boxes(maps, 0.5, 0.1, (10, 14)), [[0, 10, 0, 14]])


def test_a_peak_lost_between_the_pixels_has_the_whole_image():
    """Five points onto four pixels: none is near enough to the second point."""
    maps = np.zeros((1, 5, 5), np.float32)
    maps[0, 2, 2] = 1
    np.testing.assert_array_equal(regions.boxes(maps, 0.9, 0.1, (4, 4)), [[0, 4, 0, 4]])


@pytest.mark.parametrize(
    "box", [(0, 12, 0, 9), (2, 7, 3, 8), (11, 12, 0, 1), (0, 2, 7, 9), (5, 6, 1, 8)]
)
def test_crops_are_boxes_resized(box):
    images = np.random.default_rng(1).normal(size=(2, 12, 9, 3)).astype(np.float32)
    other = (1, 9, 2, 6)
    found = regions.crop(images, np.int32([box, other]))
    for image, (top, bottom, left, right), got in zip(images, (box, other), found, strict=True):
        expected = by_hand.resized(np.float64(image[top:bottom, left:right]), 12, 9)
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_drop_zeroes_what_a_map_covers():
    maps, thresholds = attention(shape=(2, 3, 3)), np.float32([0.2, 0.5])
    images = np.random.default_rng(1).normal(size=(2, 13, 11, 3)).astype(np.float32)
    found = regions.drop(images, maps, thresholds)
    for image, each, threshold, got in zip(images, maps, thresholds, found, strict=True):
        keep = by_hand.resized(np.float64(each), 13, 11) < threshold * each.max()
        assert 0 < keep.mean() < 1
        np.testing.assert_array_equal(got, image * keep[..., None])


def test_a_map_of_zeros_erases_nothing():
    images = jnp.ones((2, 6, 6, 3))
    maps = jnp.zeros((2, 3, 3)).at[1, 1, 1].set(1.0)
    kept = np.asarray(regions.drop(images, maps, jnp.float32([0.0, 0.5])))
    assert kept[0].all() and not kept[1].all()


def test_maps_are_drawn_by_the_root_of_their_sums():
    maps = np.float32(np.ones((1, 2, 2, 1)) * [0.0, 1.0, 4.0, 9.0])
    many = np.broadcast_to(maps, (4000, 2, 2, 4))
    first, second = regions.pick(many, jax.random.key(0), 2)
    for drawn in (first, second):
        values, counts = np.unique(np.asarray(drawn)[:, 0, 0], return_counts=True)
        shares = dict(zip(values.tolist(), counts / 4000, strict=True))
        for value, share in ((1.0, 1 / 6), (4.0, 2 / 6), (9.0, 3 / 6)):
            assert abs(shares[value] - share) < 0.03
        assert shares.get(0.0, 0) < 0.005
    together = (np.asarray(first)[:, 0, 0] == np.asarray(second)[:, 0, 0]).mean()
    assert abs(together - (1 + 4 + 9) / 36) < 0.03  # with replacement, independent


def test_maps_of_zeros_can_be_drawn():
    (drawn,) = regions.pick(jnp.zeros((3, 2, 2, 4)), jax.random.key(0), 1)
    np.testing.assert_array_equal(drawn, np.zeros((3, 2, 2)))


def test_no_gradient_passes():
    images = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)

    def value(maps, images):
        (chosen,) = regions.pick(maps, jax.random.key(0), 1)
        cut = regions.crop(images, regions.boxes(chosen, 0.5, 0.1, (8, 8)))
        return (cut + regions.drop(images, chosen, 0.5)).sum() + chosen.sum()

    for gradient in jax.grad(value, (0, 1))(attention(shape=(2, 3, 3, 4)), images):
        assert not np.asarray(gradient).any()
