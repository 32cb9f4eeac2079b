"""Puts the tiles of images into another order, on the device and at fixed shapes.

An order has, for each place in reading order, the index of the tile that moves there. Tiles are
floor(H / n) x floor(W / n) pixels; the remaining rows at the bottom and columns at the right do not
move. So every pixel is in exactly one place before and after.
"""

import jax
import jax.numpy as jnp


def permute(images: jax.Array, order: jax.Array, n: int) -> jax.Array:
    """images [B, H, W, C] with their n x n tiles in `order`, int [n * n] for all images or
    [B, n * n].

    Raises:
        ValueError: a side shorter than n pixels.
    """
    b, height, width, c = images.shape
    high, wide = height // n, width // n
    if not (high and wide):
        raise ValueError(f"images of {height}x{width} pixels cannot be divided into {n}x{n} tiles")
    tiled = images[:, : n * high, : n * wide]
    tiles = jnp.swapaxes(tiled.reshape(b, n, high, n, wide, c), 2, 3)
    tiles = tiles.reshape(b, n * n, high, wide, c)
    orders = jnp.broadcast_to(order, (b, n * n))
    tiles = jax.vmap(lambda own, places: own[places])(tiles, orders)
    tiled = jnp.swapaxes(tiles.reshape(b, n, n, high, wide, c), 2, 3)
    tiled = tiled.reshape(b, n * high, n * wide, c)
    if tiled.shape == images.shape:
        return tiled
    return images.at[:, : n * high, : n * wide].set(tiled)


def shuffle(key: jax.Array, images: jax.Array, n: int) -> jax.Array:
    """images [B, H, W, C] with their n x n tiles in one random order, the same for all images.

    Paper: Fine-Grained Visual Classification via Progressive Multi-Granularity Training of Jigsaw
    Patches (arXiv 2003.03836). Every order has the same probability. The authors' code swaps each
    tile once with the first, so it draws only orders that are a single cycle.
    """
    return permute(images, jax.random.permutation(key, n * n), n)


def confusion(key: jax.Array, batch: int, n: int, reach: int) -> jax.Array:
    """An order of n x n tiles for each of `batch` images, int32 [batch, n * n], in which a tile
    moves fewer than 2 * reach rows and columns.

    Region confusion mechanism of Destruction and Construction Learning for Fine-Grained Image
    Recognition (CVPR 2019): in each row the places i are sorted by i + r, r ~ U(-reach, reach);
    then the same in each column of the result.
    """
    shifts = jax.random.uniform(key, (2, batch, n, n), minval=-reach, maxval=reach)
    places = jnp.arange(n, dtype=jnp.float32)
    along_rows = jnp.argsort(places.reshape(1, 1, n) + shifts[0], axis=2)
    along_columns = jnp.argsort(places.reshape(1, n, 1) + shifts[1], axis=1)
    grid = jnp.broadcast_to(jnp.arange(n * n, dtype=jnp.int32).reshape(1, n, n), (batch, n, n))
    grid = jnp.take_along_axis(grid, along_rows, axis=2)
    grid = jnp.take_along_axis(grid, along_columns, axis=1)
    return grid.reshape(batch, n * n)


def locations(order: jax.Array) -> jax.Array:
    """The original place of each tile of an order [..., N], f32 [..., N]:
    (index - floor(N / 2)) / N, from about -1/2 to below 1/2."""
    count = order.shape[-1]
    return (order - count // 2).astype(jnp.float32) / count


def alternate(first, second):
    """[2 B, ...]: entries of `first` and `second`, both [B, ...], in alternation, so that each
    device keeps the copies of its own images."""
    return jnp.stack([first, second], axis=1).reshape(-1, *first.shape[1:])
