"""Tiles against slices taken one by one in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgc_jax.methods import jigsaw


def numbered(height, width, batch=2):
    """Images in which no two values are the same."""
    return np.arange(batch * height * width * 3, dtype=np.float32).reshape(batch, height, width, 3)


def by_hand(images, orders, n):
    """Tile after tile."""
    result = images.copy()
    high, wide = images.shape[1] // n, images.shape[2] // n
    for image, order in enumerate(orders):
        for place, tile in enumerate(order):
            (to_row, to_column), (row, column) = divmod(place, n), divmod(tile, n)
            result[
                image,
                to_row * high : (to_row + 1) * high,
                to_column * wide : (to_column + 1) * wide,
            ] = images[image, row * high : (row + 1) * high, column * wide : (column + 1) * wide]
    return result


# Divisible or not, square or not.
@pytest.mark.parametrize(
    ("size", "n"), [((8, 8), 4), ((12, 6), 2), ((11, 8), 3), ((7, 9), 7), ((4, 4), 1)]
)
def test_tiles_move_whole_and_partition_the_image(size, n):
    images = numbered(*size)
    rng = np.random.default_rng(0)
    orders = np.stack([rng.permutation(n * n) for _ in images])
    moved = np.asarray(jigsaw.permute(jnp.asarray(images), orders, n))
    np.testing.assert_array_equal(moved, by_hand(images, orders, n))
    alike = np.asarray(jigsaw.permute(jnp.asarray(images), orders[0], n))
    np.testing.assert_array_equal(alike, by_hand(images, [orders[0]] * len(images), n))
    for before, after in zip(images, moved, strict=True):
        np.testing.assert_array_equal(np.sort(after.ravel()), before.ravel())
    back = jigsaw.permute(jnp.asarray(moved), np.argsort(orders, axis=1), n)
    np.testing.assert_array_equal(back, images)


def test_images_with_fewer_pixels_than_tiles_are_refused():
    with pytest.raises(ValueError, match="images of 8x6 pixels cannot be divided into 7x7 tiles"):
        jigsaw.permute(jnp.zeros((1, 8, 6, 3)), np.arange(49), 7)


def test_a_batch_is_shuffled_in_one_order():
    image = numbered(8, 8, batch=1)
    batch = jnp.asarray(np.concatenate([image, image + 1000]))
    draw = jax.jit(jigsaw.shuffle, static_argnums=2)
    first, other = (np.asarray(draw(jax.random.key(seed), batch, 4)) for seed in (0, 1))
    np.testing.assert_array_equal(first[0], first[1] - 1000)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(np.sort(first[0].ravel()), image.ravel())
    assert not np.array_equal(first[0], image[0])


def test_every_order_of_a_shuffle_is_as_likely():
    image = jnp.arange(4.0).reshape(1, 2, 2, 1)
    keys = jax.random.split(jax.random.key(0), 2400)
    draws = np.asarray(jax.vmap(lambda key: jigsaw.shuffle(key, image, 2))(keys)).reshape(-1, 4)
    orders, counts = np.unique(draws, axis=0, return_counts=True)
    assert len(orders) == 24
    assert 60 < counts.min() <= counts.max() < 145


@pytest.mark.parametrize(("n", "reach"), [(7, 2), (7, 1), (2, 1), (5, 4)])
def test_confused_tiles_stay_near(n, reach):
    orders = np.asarray(jigsaw.confusion(jax.random.key(0), 200, n, reach))
    assert orders.shape == (200, n * n)
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(n * n), (200, 1)))
    places = np.arange(n * n)
    rows, columns = (
        abs(new - old) for new, old in zip(np.divmod(orders, n), np.divmod(places, n), strict=True)
    )
    limit = min(2 * reach - 1, n - 1)
    assert rows.max() == columns.max() == limit
    assert len(np.unique(orders, axis=0)) > (5 if n == 2 else 190)


def test_each_row_and_column_is_drawn_by_itself():
    orders = np.asarray(jigsaw.confusion(jax.random.key(1), 50, 7, 2)).reshape(50, 7, 7)
    first, second = orders[:, 0] % 7, orders[:, 1] % 7
    assert (first != second).any(1).mean() > 0.8


def test_locations_by_hand():
    # 4 tiles: (index - 2) / 4; 9 tiles: (index - 4) / 9.
    four = jigsaw.locations(jnp.array([[3, 0, 1, 2]]))
    np.testing.assert_allclose(four, [[0.25, -0.5, -0.25, 0.0]], rtol=1e-6)
    for tiles in (9, 49):
        ends = jigsaw.locations(jnp.arange(tiles))[:: tiles // 2]
        middle = tiles // 2 / tiles
        np.testing.assert_allclose(ends, [-middle, 0, middle], rtol=1e-6)
