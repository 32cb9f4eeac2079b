"""The parts of augmentations: three kinds of operations, and random numbers.

Every random function takes one key per image, `keys` `[B]`, so that the result for an image depends
on its own key and on nothing else in the batch.
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
    """Moves pixels. `maps(keys, (height, width))` returns f32 `[B, 3, 3]`: from a place in the
    result to a place in the input, both as (x, y, 1) in pixels from the centre of their picture.

    `padding`: how the picture continues beyond its border (see geometry.sample); None if that is
    never visible. `size`: side of the resulting square; None: the size does not change. `mirrors`:
    each map is the identity or a mirror image.
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
    """Mixes images of a batch: `apply(key, keys, batch)` returns the batch with `label_b` and
    `weight` (see mixing.mixup_or_cutmix). `key` is for the whole batch."""

    apply: Callable


def per_image(key, count, numbers):
    """`numbers` arrays of keys `[count]`; those of image i depend only on `key` and i."""
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(count, dtype=jnp.uint32))
    parts = jax.vmap(lambda key: jax.random.split(key, numbers))(keys)
    return [parts[:, number] for number in range(numbers)]


def uniform(keys, count):
    """f32 `[B, count]` of 0 to 1. Draw all numbers of an operation with one call: each call takes
    0.2 s to compile."""
    return jax.vmap(lambda key: jax.random.uniform(key, (count,)))(keys)


def between(share, low, high):
    """From `low` (share 0) to `high` (share 1)."""
    return low + (high - low) * share


def below(share, count):
    """Whole numbers 0..count - 1, int32; uniform if `share` is uniform in 0 to 1."""
    return jnp.minimum((share * count).astype(jnp.int32), count - 1)


def choose(number, changes, images, amounts):
    """f32 `[B, H, W, 3]`: changes[number[i]](images[i], amounts[i]) for each image.

    `number` int32 `[B]`, `amounts` f32 `[B]`.
    """

    def one(inputs):
        number, image, amount = inputs
        return jax.lax.switch(number, changes, image, amount)

    # Measured on 2 cores for 16 images of 224 px and TrivialAugment: 5 ms if only the chosen change
    # is computed, image by image; 100 ms if all changes are computed for all images. On a GPU the
    # second is faster, because it is not a loop of small kernels; likewise on several devices.
    return jax.lax.platform_dependent(
        (number, images, amounts),
        cpu=lambda inputs: jax.lax.map(one, inputs),
        default=jax.vmap(one),
    )


def boxes(shares, height, width, scale, ratio):
    """Random boxes in a picture: f32 `[B]` each of box height, box width, and bool `[B]` `fits`.

    The box's share of the area is uniform in `scale`, the logarithm of height / width uniform in
    the logarithm of `ratio`. `shares` `[B, 2 * TRIES]` of 0 to 1 give TRIES boxes; the first that
    fits into the picture is taken. If none fits, `fits` is False.
    """
    area = between(shares[:, :TRIES], *scale) * (height * width)
    aspect = jnp.exp(between(shares[:, TRIES:], *map(math.log, ratio)))
    high, wide = jnp.sqrt(area * aspect), jnp.sqrt(area / aspect)
    fits = (high <= height) & (wide <= width)
    first = jnp.argmax(fits, axis=1)[:, None]
    return tuple(jnp.take_along_axis(x, first, axis=1)[:, 0] for x in (high, wide, fits))
