"""Image regions where maps are large: boxes around them, crops, and images without them.

All shapes are fixed, everything stays on the device, and there are no gradients. Sizes are (rows,
columns) in pixels. Images are resampled bilinearly with aligned corners, as in the published code
of WS-DAN (arXiv 1901.09891) and CAL (arXiv 2108.08728).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np


def upsample(maps: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Maps f32 [B, h, w] resized to `size`, [B, H, W]: bilinear, with aligned corners."""
    rows, columns = (_weights(n, m) for n, m in zip(maps.shape[1:], size, strict=True))
    return jnp.einsum("Hh,bhw,Ww->bHW", rows, maps, columns, precision="highest")


def _weights(length: int, size: int) -> np.ndarray:
    """f32 [size, length]: the weights of `length` grid points for `size` pixels."""
    at = np.linspace(0, length - 1, size)[:, None]
    return np.float32(np.maximum(0, 1 - np.abs(at - np.arange(length)[None, :])))


def pick(attention: jax.Array, key: jax.Array, draws: int) -> tuple[jax.Array, ...]:
    """`draws` maps [B, h, w] of attention [B, h, w, M] >= 0, drawn for each image with replacement.

    A map's probability is proportional to the square root of its sum, as in WS-DAN's PyTorch code.
    """
    attention = jax.lax.stop_gradient(attention)
    sums = jnp.maximum(attention.sum((1, 2)), 0)
    logits = 0.5 * jnp.log(sums + 1e-6)
    shape = (draws, len(attention))
    chosen = jax.random.categorical(key, logits[None], axis=-1, shape=shape)
    return tuple(
        jnp.take_along_axis(attention, index[:, None, None, None], axis=-1)[..., 0]
        for index in chosen
    )


def above(maps: jax.Array, threshold: jax.Array | float, size: tuple[int, int]) -> jax.Array:
    """bool [B, H, W]: where maps [B, h, w], resized to `size`, are at least `threshold` (one
    number, or [B]) times the largest value of the map."""
    least = jnp.broadcast_to(threshold, len(maps)) * maps.max((1, 2))
    return upsample(maps, size) >= least[:, None, None]


def boxes(
    maps: jax.Array, threshold: jax.Array | float, padding: float, size: tuple[int, int]
) -> jax.Array:
    """int32 [B, 4], (top, bottom, left, right) in pixels, bottom and right exclusive: the box
    around the positions where maps [B, h, w] are `above` the threshold.

    padding: share of the image that is added on each side, within the image. If there is no such
    position (the map has NaN, or a peak narrower than a pixel), the box is the whole image.
    """
    mask = jax.lax.stop_gradient(above(maps, threshold, size))
    edges = []
    for axis, length in ((2, size[0]), (1, size[1])):
        hit = mask.any(axis)
        first, last = jnp.argmax(hit, -1), length - 1 - jnp.argmax(hit[:, ::-1], -1)
        more = round(padding * length, 6)
        first = jnp.maximum(first - math.ceil(more), 0)
        last = jnp.minimum(last + math.floor(more), length)
        found = hit.any(-1)
        edges.append(jnp.where(found, first, 0))
        edges.append(jnp.where(found, jnp.maximum(last, first + 1), length))
    return jnp.stack(edges, axis=-1).astype(jnp.int32)


def crop(images: jax.Array, regions: jax.Array) -> jax.Array:
    """The boxes int32 [B, 4] (see `boxes`) of images [B, H, W, C], each resized to H x W."""
    images = jax.lax.stop_gradient(images)
    rows = _resample(images, regions[:, 0], regions[:, 1])
    # Rows of the transposed image: contiguous memory, several times as fast on CPUs.
    columns = _resample(rows.transpose(0, 2, 1, 3), regions[:, 2], regions[:, 3])
    return columns.transpose(0, 2, 1, 3)


def _resample(images, start, stop):
    """images [B, N, W, C] resampled to N rows, evenly spaced from row start [B] to stop [B] - 1."""
    n = images.shape[1]
    step = (stop - start - 1).astype(jnp.float32) / max(n - 1, 1)
    at = start[:, None] + jnp.arange(n)[None, :] * step[:, None]
    below = jnp.clip(jnp.floor(at).astype(jnp.int32), 0, n - 1)
    share = (at - below)[:, :, None, None].astype(images.dtype)
    take = jax.vmap(lambda image, index: image[index])
    first, second = take(images, below), take(images, jnp.minimum(below + 1, n - 1))
    return first + share * (second - first)


def drop(images: jax.Array, maps: jax.Array, threshold: jax.Array | float) -> jax.Array:
    """Images [B, H, W, C] with zeros where `above(maps, threshold)`; an image whose map is 0
    everywhere does not change."""
    maps = jax.lax.stop_gradient(maps)
    covered = above(maps, threshold, images.shape[1:3]) & (maps.max((1, 2), keepdims=True) > 0)
    return jnp.where(covered[..., None], 0, jax.lax.stop_gradient(images))
