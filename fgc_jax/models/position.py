"""Position embeddings: resampling them to another grid, and rotary embeddings.

Papers: An Image is Worth 16x16 Words (arXiv 2010.11929); RoFormer (arXiv 2104.09864) for the
rotation, DINOv3 (arXiv 2508.10104) for its coordinates.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np


def resample(table, old, new, *, prefix):
    """Position embeddings [1, prefix + h w, C] of the grid `old` (h, w) as those of `new`.

    The first `prefix` of them belong to tokens outside the grid and do not change. Bicubic with
    antialiasing; equal to PyTorch's interpolate up to rounding.
    """
    if tuple(old) == tuple(new):
        return table
    grid = table[:, prefix:].reshape(1, *old, -1)
    grid = jax.image.resize(grid, (1, *new, grid.shape[-1]), "bicubic", antialias=True)
    return jnp.concatenate([table[:, :prefix], grid.reshape(1, -1, grid.shape[-1])], axis=1)


def fit_stored(table, shape, *, prefix):
    """A stored table [1, n, C] resampled to `shape`, both of square grids, as a NumPy array.

    Returned unchanged if that is not possible (no square grid, other channels); the caller then
    raises the error.
    """
    counts = [size[1] - prefix for size in (table.shape, shape) if len(size) == 3]
    sides = [math.isqrt(max(count, 0)) for count in counts]
    if len(counts) != 2 or table.shape[2] != shape[2] or 0 in sides:
        return table
    if [side**2 for side in sides] != counts:
        return table
    old, new = ((side, side) for side in sides)
    return np.asarray(resample(np.asarray(table, np.float32), old, new, prefix=prefix))


@functools.lru_cache(maxsize=8)
def rotation(grid, features, *, prefix, temperature=100.0):
    """(cosine, sine), float32 [prefix + h w, features], of the angles for `rotate`.

    Coordinates are those of the cells' centres; each side of the grid (h, w) goes from -1 to 1.
    features / 4 wavelengths from 1 to nearly `temperature` are used for the rows, and the same for
    the columns. The first `prefix` tokens are not rotated.
    """
    centres = [2 * (np.arange(side) + 0.5) / side - 1 for side in grid]
    coordinates = np.stack(np.meshgrid(*centres, indexing="ij"), axis=-1).reshape(-1, 2, 1)
    periods = temperature ** (np.arange(features // 4) / (features // 4))
    angles = (2 * np.pi * coordinates / periods).reshape(len(coordinates), -1)
    angles = np.pad(np.tile(angles, 2), ((prefix, 0), (0, 0)))
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def rotate(x, turn):
    """Each pair (i, i + d / 2) of x [..., T, heads, d] rotated by `turn` (see `rotation`)."""
    cosine, sine = (part.reshape((1,) * (x.ndim - 3) + (len(part), 1, -1)) for part in turn)
    first, second = jnp.split(x, 2, axis=-1)
    turned = x * cosine + jnp.concatenate([-second, first], axis=-1) * sine
    return turned.astype(x.dtype)
