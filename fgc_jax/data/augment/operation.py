"""What an augmentation is made of: three kinds of operation, and random numbers.

Every function that draws takes one key per image, `keys` `[B]`, so that what happens to an image
depends on its own key and on nothing else in the batch.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

TRIES = 10
Padding = Literal["reflect", "zeros", "border"]  # see geometry.sample


@dataclasses.dataclass(frozen=True)
class Warp:
    """Moves pixels. `maps(keys, (height, width))` gives f32 `[B, 3, 3]`: from a place in the result
    to a place in what came in, both as (x, y, 1) in pixels from the centre of their picture.

    `padding`: what lies beyond the picture (see geometry.sample); None where nothing can be seen of
    it. `size`: side of the square that results, None: as before. `mirrors`: each map is the
    identity or a mirror image.
    """

    maps: Callable
    padding: str | None = None
    size: int | None = None
    mirrors: bool = False


@dataclasses.dataclass(frozen=True)
class Recolour:
    """Changes pixels in place: `apply(keys, images)`, f32 `[B, H, W, 3]` of 0..255 to the same."""

    apply: Callable


@dataclasses.dataclass(frozen=True)
class Mix:
    """Mixes images of a batch: `apply(key, keys, batch)`, the first for the whole batch, gives
    the batch with `label_b` and `weight` (see mixing.mixup_or_cutmix)."""

    apply: Callable


def per_image(key, count, numbers):
    """`numbers` arrays of keys `[count]`; those of image i depend on `key` and i alone."""
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(count, dtype=jnp.uint32))
    parts = jax.vmap(lambda key: jax.random.split(key, numbers))(keys)
    return [parts[:, number] for number in range(numbers)]


def uniform(keys, count):
    """f32 `[B, count]` of 0 to 1. Draw once what an operation needs: each call takes 0.2 s to
    compile."""
    return jax.vmap(lambda key: jax.random.uniform(key, (count,)))(keys)


def between(share, low, high):
    """From `low` (share 0) to `high` (share 1)."""
    return low + (high - low) * share


def below(share, count):
    """Whole numbers 0..count - 1, each as likely for a uniform `share` of 0 to 1; int32."""
    return jnp.minimum((share * count).astype(jnp.int32), count - 1)


def choose(number, changes, images, amounts):
    """f32 `[B, H, W, 3]`: changes[number[i]](images[i], amounts[i]) for each image.

    `number` int32 `[B]`, `amounts` f32 `[B]`.
    """

    def one(inputs):
        number, image, amount = inputs
        return jax.lax.switch(number, changes, image, amount)

    # Measured on 2 cores for 16 images of 224 px and TrivialAugment: 5 ms if only the chosen one
    # is computed, image after image, 100 ms if all are, of all images, and one is kept. A GPU has
    # time for the latter but not for a loop of small kernels, nor have several devices for images
    # fetched one by one.
    return jax.lax.platform_dependent(
        (number, images, amounts),
        cpu=lambda inputs: jax.lax.map(one, inputs),
        default=jax.vmap(one),
    )


def boxes(shares, height, width, scale, ratio):
    """Random boxes in a picture: f32 `[B]` each of box height, box width, and bool `[B]` `fits`.

    The box's share of the area is uniform in `scale`, the logarithm of height / width uniform in
    the logarithm of `ratio`. Of the boxes that `shares` `[B, 2 * TRIES]` of 0 to 1 make, the first
    that is smaller than the picture is taken; where there is none `fits` is False.
    """
    area = between(shares[:, :TRIES], *scale) * (height * width)
    aspect = jnp.exp(between(shares[:, TRIES:], *map(math.log, ratio)))
    high, wide = jnp.sqrt(area * aspect), jnp.sqrt(area / aspect)
    fits = (high <= height) & (wide <= width)
    first = jnp.argmax(fits, axis=1)[:, None]
    return tuple(jnp.take_along_axis(x, first, axis=1)[:, 0] for x in (high, wide, fits))
