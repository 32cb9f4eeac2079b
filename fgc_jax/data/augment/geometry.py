"""Operations that move pixels: random maps, one 3x3 matrix for each image, and their sampling.

A map goes from a place in the result to the place in the picture whose colour it gets, both
as (x, y, 1) in pixels from the centre of their picture, x to the right and y downwards. The maps of
consecutive operations are multiplied, so an image is sampled only once.
"""

import math
import typing
from typing import Annotated

import jax
import jax.numpy as jnp

from fgc_jax.config.limits import Count, Share, between, interval
from fgc_jax.data.augment import operation
from fgc_jax.data.augment.operation import Padding

PADDINGS = typing.get_args(Padding)


def flip(*, p: Share = 0.5):
    """Mirrors left to right with probability `p`."""

    def maps(keys, shape):
        return affine(xx=jnp.where(operation.uniform(keys, 1)[:, 0] < p, -1.0, 1.0))

    return operation.Warp(maps, mirrors=True)


def crop(*, size: Count | None = None):
    """A square of `size` pixels, which must be given, at a random place of the picture, on whole
    pixels."""
    if size is None:
        raise ValueError("size must be given")

    def maps(keys, shape):
        if size > min(shape):
            raise ValueError(f"crop: size {size} is larger than the images, {shape[1]}x{shape[0]}")
        shares = operation.uniform(keys, 2)
        y, x = (
            operation.below(shares[:, i], shape[i] - size + 1) - (shape[i] - size) / 2
            for i in range(2)
        )
        return affine(x=x, y=y)

    return operation.Warp(maps, size=size)


def resized_crop(
    *,
    scale: interval(0.0001, 1) = (0.08, 1.0),
    ratio: interval(0.01, 100) = (3 / 4, 4 / 3),
    size: Count | None = None,
):
    """A part of the picture, resized to a square of `size` pixels (None: as large as the picture).

    `scale`: the part's share of the area, uniform; `ratio`: its width / height, uniform in the
    logarithm. The place is uniform. A part larger than `size` is not averaged, so the host should
    send squares of at most about 1.5 times `size`.
    """

    def maps(keys, shape):
        height, width = shape
        shares = operation.uniform(keys, 2 * operation.TRIES + 2)
        inverse = (1 / ratio[1], 1 / ratio[0])
        high, wide, fits = operation.boxes(shares[:, 2:], height, width, scale, inverse)
        # If no box was found: the largest one of an allowed shape, in the centre.
        aspect = min(max(height / width, inverse[0]), inverse[1])
        high = jnp.where(fits, high, min(height, width * aspect))
        wide = jnp.where(fits, wide, min(width, height / aspect))
        place = jnp.where(fits[:, None], shares[:, :2], 0.5)
        top, left = place[:, 0] * (height - high), place[:, 1] * (width - wide)
        return crop_map(top, left, high, wide, shape, (size, size) if size else shape)

    # Enlarged, the outermost pixels reach half a pixel beyond the picture; zeros would darken them.
    return operation.Warp(maps, "reflect", size=size)


def rotate(
    *,
    degrees: Annotated[float, between(0, 180)] = 20.0,
    p: Share = 1.0,
    padding: Padding = "reflect",
):
    """Rotates by an angle of -`degrees` to +`degrees`, with probability `p`."""

    def maps(shares, shape):
        return rotation_map(operation.between(shares[:, 0], -degrees, degrees))

    return _sometimes(1, maps, p, padding)


def shear(
    *,
    x: Annotated[float, between(0, 2)] = 0.1,
    y: Annotated[float, between(0, 2)] = 0.0,
    p: Share = 1.0,
    padding: Padding = "reflect",
):
    """Moves rows by up to +-`x` pixels per row from the middle, columns by up to +-`y`."""

    def maps(shares, shape):
        by = operation.between(shares, -1, 1)
        return affine(xy=by[:, 0] * x, yx=by[:, 1] * y)

    return _sometimes(2, maps, p, padding)


def translate(*, x: Share = 0.1, y: Share = 0.1, p: Share = 1.0, padding: Padding = "reflect"):
    """Moves by up to +-`x` of the width and +-`y` of the height."""

    def maps(shares, shape):
        by = operation.between(shares, -1, 1)
        return affine(x=by[:, 0] * (x * shape[1]), y=by[:, 1] * (y * shape[0]))

    return _sometimes(2, maps, p, padding)


def zoom(*, scale: interval(0.01, 100) = (1.0, 1.1), p: Share = 1.0, padding: Padding = "reflect"):
    """Enlarges by a factor in `scale` around a random point. For factors above 1 every part of the
    picture that can fill the frame has the same probability; factors below 1 shrink."""

    def maps(shares, shape):
        inverse = 1 / operation.between(shares[:, 0], *scale)
        x, y = ((shares[:, 1 + i] - 0.5) * (1 - inverse) * shape[1 - i] for i in range(2))
        return affine(xx=inverse, yy=inverse, x=x, y=y)

    return _sometimes(3, maps, p, padding)


def symmetric_warp(
    *,
    magnitude: Annotated[float, between(0, 0.9)] = 0.2,
    p: Share = 1.0,
    padding: Padding = "reflect",
):
    """Views the picture from one side: each of its four sides becomes longer or shorter, around
    its middle, by up to `magnitude` of its length (the symmetric warp of fastai 1.0)."""

    def maps(shares, shape):
        lengths = operation.between(shares, 1 - magnitude, 1 + magnitude)
        left, right, top, bottom = (lengths[:, i] for i in range(4))
        corners = ((-top, -left), (top, -right), (bottom, right), (-bottom, left))
        return perspective_map(_pixels(corners, shape))

    return _sometimes(4, maps, p, padding)


def perspective(
    *,
    distortion: Annotated[float, between(0, 0.9)] = 0.5,
    p: Share = 0.5,
    padding: Padding = "zeros",
):
    """Moves each corner towards the centre, by up to `distortion` / 2 of the width and of the
    height (torchvision's RandomPerspective)."""

    def maps(shares, shape):
        by = 1 - distortion * shares
        signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
        corners = [(x * by[:, i], y * by[:, 4 + i]) for i, (x, y) in enumerate(signs)]
        return perspective_map(_pixels(corners, shape))

    return _sometimes(8, maps, p, padding)


def affine(xx=1.0, xy=0.0, x=0.0, yx=0.0, yy=1.0, y=0.0):
    """f32 `[B, 3, 3]` of the map (xx x' + xy y' + x, yx x' + yy y' + y); numbers or `[B]` each."""
    return _matrices(xx, xy, x, yx, yy, y, 0.0, 0.0, 1.0)


def rotation_map(degrees):
    """f32 `[B, 3, 3]`: rotates the picture counter-clockwise by `degrees` `[B]`."""
    radians = degrees * (math.pi / 180)
    cosine, sine = jnp.cos(radians), jnp.sin(radians)
    return affine(xx=cosine, xy=-sine, yx=sine, yy=cosine)


def crop_map(top, left, high, wide, shape, size):
    """f32 `[B, 3, 3]`: the box at (top, left) of high x wide pixels fills the result. The four are
    f32 `[B]`, counted from 0, and may have fractions. `shape`, `size`: (height, width) before and
    after."""
    return affine(
        xx=wide / size[1],
        yy=high / size[0],
        x=left + wide / 2 - shape[1] / 2,
        y=top + high / 2 - shape[0] / 2,
    )


def perspective_map(moves):
    """f32 `[B, 3, 3]` of a change of perspective. `moves`: ((x, y), (x', y')) of the four corners,
    where each is and where it goes, clockwise from the top left; in pixels from the centre."""
    before, after = zip(*moves, strict=True)
    return compose(_square_to(before), _adjugate(_square_to(after)))


def compose(*maps):
    """The map `[B, 3, 3]` of operations in the order in which they are applied."""
    result = maps[0]
    for following in maps[1:]:
        # Products in the default precision may keep only 10 bits on a GPU: errors of 1/5 pixel.
        result = jnp.matmul(result, following, precision="highest")
    return result


def sample(images, maps, size, padding):
    """The pictures sampled through their maps: f32 `[B, size[0], size[1], C]`, bilinear.

    `images`: `[B, H, W, C]` of any type; `maps`: `[B, 3, 3]`. `padding`, beyond the picture:
    "reflect" (mirrored at the outermost pixels), "border" (these repeated), "zeros" (black).
    """
    return jax.vmap(lambda image, one: _sample(image, one, size, padding))(images, maps)


def _sample(image, one, size, padding):
    height, width, channels = image.shape
    rows = jnp.arange(size[0], dtype=jnp.float32) - (size[0] - 1) / 2
    columns = jnp.arange(size[1], dtype=jnp.float32) - (size[1] - 1) / 2
    y, x = jnp.meshgrid(rows, columns, indexing="ij")
    depth = one[2, 0] * x + one[2, 1] * y + one[2, 2]
    depth = jnp.where(jnp.abs(depth) < 1e-6, 1e-6, depth)
    x, y = (
        (one[0, 0] * x + one[0, 1] * y + one[0, 2]) / depth + (width - 1) / 2,
        (one[1, 0] * x + one[1, 1] * y + one[1, 2]) / depth + (height - 1) / 2,
    )
    (left, right), x_weights = _neighbours(x, width, padding)
    (above, below), y_weights = _neighbours(y, height, padding)
    # Whole pixels are fetched from a list of them: on CPUs 5 times faster than a 2x2 window at
    # once, than pixels packed into integers, and than products with interpolation matrices.
    pixels = image.reshape(-1, channels)

    def row(y):
        a, b = (pixels.at[y * width + x].get(mode="promise_in_bounds") for x in (left, right))
        return a * x_weights[0][..., None] + b * x_weights[1][..., None]

    return row(above) * y_weights[0][..., None] + row(below) * y_weights[1][..., None]


def _neighbours(place, length, padding):
    """Two numbers of pixels and their weights for places along an axis of `length` pixels."""
    if padding == "reflect" and length > 1:
        period = 2 * (length - 1)
        place = place - period * jnp.floor(place / period)
        place = jnp.minimum(place, period - place)
    elif padding == "zeros":
        place = jnp.clip(place, -1.0, length)
    else:
        place = jnp.clip(place, 0.0, length - 1)
    low = jnp.floor(place)
    share = place - low
    low = low.astype(jnp.int32)
    pair, weights = (low, low + 1), (1 - share, share)
    if padding == "zeros":
        weights = tuple(
            jnp.where((i >= 0) & (i < length), weight, 0.0)
            for i, weight in zip(pair, weights, strict=True)
        )
    return tuple(jnp.clip(i, 0, length - 1) for i in pair), weights


def _sometimes(count, maps, p, padding):
    """A Warp by `maps(shares, shape)` with probability p, by the identity otherwise; `shares`
    `[B, count]` are random numbers of 0 to 1."""

    def sometimes(keys, shape):
        shares = operation.uniform(keys, count + 1)
        applied = shares[:, count, None, None] < p
        return jnp.where(applied, maps(shares[:, :count], shape), jnp.eye(3)[None])

    return operation.Warp(sometimes, padding)


def _pixels(corners, shape):
    """Corners moved to `corners`, in units of half the width and height, as perspective_map's."""
    x, y = shape[1] / 2, shape[0] / 2
    before = ((-x, -y), (x, -y), (x, y), (-x, y))
    return [(old, (new[0] * x, new[1] * y)) for old, new in zip(before, corners, strict=True)]


def _square_to(corners):
    """The map that takes (0, 0), (1, 0), (1, 1), (0, 1) to four corners (x, y)."""
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = corners
    ax, ay, bx, by = x1 - x2, y1 - y2, x3 - x2, y3 - y2
    sx, sy = x0 - x1 + x2 - x3, y0 - y1 + y2 - y3
    scale = ax * by - bx * ay
    g, h = (sx * by - bx * sy) / scale, (ax * sy - sx * ay) / scale
    return _matrices(
        *(x1 - x0 + g * x1, x3 - x0 + h * x3, x0),
        *(y1 - y0 + g * y1, y3 - y0 + h * y3, y0),
        *(g, h, 1.0),
    )


def _adjugate(m):
    """The inverse of `[B, 3, 3]` up to a factor, which does not change a map."""
    rows = [jnp.cross(m[:, (i + 1) % 3], m[:, (i + 2) % 3]) for i in range(3)]
    return jnp.stack(rows, axis=-1)


def _matrices(*entries):
    entries = jnp.broadcast_arrays(*(jnp.atleast_1d(jnp.float32(e)) for e in entries))
    return jnp.stack(entries, axis=-1).reshape(-1, 3, 3)
