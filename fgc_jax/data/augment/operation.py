"""What an augmentation is made of: three kinds of operation, random numbers, checks of options.

Every function that draws takes one key per image, `keys` `[B]`, so that what happens to an image
depends on its own key and on nothing else in the batch.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


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
    """Mixes images of a batch: `apply(key, batch)` gives the batch with `label_b` and `weight`."""

    apply: Callable


def per_image(key, count):
    """Keys `[count]`; the one of image i depends on `key` and i, not on `count`."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(count, dtype=jnp.uint32))


def split(keys, count):
    """`count` arrays of keys `[B]`, independent of each other."""
    parts = jax.vmap(lambda key: jax.random.split(key, count))(keys)
    return [parts[:, i] for i in range(count)]


def uniform(keys, low, high, shape=()):
    """f32 `[B, *shape]`, each number from `low` to `high`."""
    return jax.vmap(lambda key: jax.random.uniform(key, shape, minval=low, maxval=high))(keys)


def chance(keys, p):
    """bool `[B]`, each True with probability p."""
    return uniform(keys, 0.0, 1.0) < p


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


def boxes(keys, height, width, scale, ratio, tries=10):
    """Random boxes in a picture: f32 `[B]` each of box height, box width, and bool `[B]` `fits`.

    The box's share of the area is uniform in `scale`, the logarithm of height / width uniform in
    the logarithm of `ratio`; of `tries` such boxes the first that is smaller than the picture is
    taken, and where there is none `fits` is False (and the box too large).
    """
    for_area, for_ratio = split(keys, 2)
    area = uniform(for_area, *scale, shape=(tries,)) * (height * width)
    aspect = jnp.exp(uniform(for_ratio, *map(math.log, ratio), shape=(tries,)))
    high, wide = jnp.sqrt(area * aspect), jnp.sqrt(area / aspect)
    fits = (high <= height) & (wide <= width)
    first = jnp.argmax(fits, axis=1)[:, None]
    return (*(jnp.take_along_axis(x, first, axis=1)[:, 0] for x in (high, wide, fits)),)


def check_number(name, value, low, high):
    """Raises ValueError unless `value` is a number from `low` to `high`."""
    if not _is_number(value) or not low <= value <= high:
        raise ValueError(f"{name} must be {_range(low, high)}, got {value!r}")


def check_interval(name, value, low, high):
    """Raises ValueError unless `value` is two numbers from `low` to `high` in ascending order."""
    fine = isinstance(value, (tuple, list)) and len(value) == 2 and all(map(_is_number, value))
    if not fine or not low <= value[0] <= value[1] <= high:
        raise ValueError(
            f"{name} must be two numbers (least, most) {_range(low, high)[9:]}, got {value!r}"
        )


def check_choice(name, value, allowed):
    """Raises ValueError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def check_whole(name, value, low, high):
    """Raises ValueError unless `value` is a whole number from `low` to `high`."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    check_number(name, value, low, high)


def _is_number(value):
    kinds = (int, float, np.integer, np.floating)
    return isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)


def _range(low, high):
    return f"a number of at least {low:g}" if high == math.inf else f"a number {low:g} to {high:g}"
