"""RandAugment and TrivialAugment: one of 14 operations at a time for each image. Operations and
strengths are those of torchvision, but sampling is bilinear."""

import dataclasses
from collections.abc import Callable
from typing import Annotated

import jax.numpy as jnp

from fgc_jax.config.limits import between
from fgc_jax.data.augment import colour, geometry, operation
from fgc_jax.data.augment.operation import Padding

# By number: these, then shear and translate in x and y and rotate, then nothing.
RECOLOURING = (
    colour.adjust_brightness,
    colour.adjust_saturation,
    colour.adjust_contrast,
    colour.adjust_sharpness,
    lambda image, bits: colour.posterise(image, jnp.round(bits).astype(jnp.int32)),
    colour.solarise,
    lambda image, _: colour.autocontrast(image),
    lambda image, _: colour.equalise(image),
    lambda image, _: image,
)
SHEAR_X, SHEAR_Y, TRANSLATE_X, TRANSLATE_Y, ROTATE = range(8, 13)
KINDS = 14
BINS = 31


@dataclasses.dataclass(frozen=True)
class Strengths:
    """The effect of each operation at its greatest strength."""

    shear: float  # pixels per row or column
    translate: Callable[[int], float]  # side in pixels -> pixels
    degrees: float
    factor: float  # brightness, saturation, contrast and sharpness change by 1 +- this
    bits: int  # number of bits that posterise removes


RAND = Strengths(0.3, lambda side: 150 / 331 * side, 30.0, 0.9, 4)
TRIVIAL = Strengths(0.99, lambda side: 32.0, 135.0, 0.99, 6)


def rand_augment(
    *,
    num_ops: Annotated[int, between(1, 14)] = 2,
    magnitude: Annotated[int, between(0, BINS - 1)] = 9,
    padding: Padding = "zeros",
):
    """RandAugment, arXiv:1909.13719: `num_ops` operations one after the other, each drawn from 14,
    all with strength `magnitude` of 0..30."""

    return tuple(x for i in range(num_ops) for x in _layer(RAND, i, num_ops, magnitude, padding))


def trivial_augment(*, padding: Padding = "zeros"):
    """TrivialAugment Wide, arXiv:2103.10158: one operation of 14, its strength one of 31."""
    return _layer(TRIVIAL, 0, 1, None, padding)


def affine_maps(strengths, kind, share, shape):
    """f32 `[B, 3, 3]` of the operations numbered `kind` int32 `[B]`, at the `share` f32 `[B]`
    (-1..1) of their greatest strength; the identity for those that do not move pixels."""

    def of(number, most):
        return jnp.where(kind == number, share * most, 0.0)

    height, width = shape
    # As in the papers' code, the top left corner stays where it is when the picture is sheared.
    across, down = of(SHEAR_X, strengths.shear), of(SHEAR_Y, strengths.shear)
    sheared = geometry.affine(xy=across, x=across * height / 2, yx=down, y=down * width / 2)
    moved = geometry.affine(
        x=-jnp.trunc(of(TRANSLATE_X, strengths.translate(width))),
        y=-jnp.trunc(of(TRANSLATE_Y, strengths.translate(height))),
    )
    # At most one of the three is not the identity.
    turned = geometry.rotation_map(of(ROTATE, strengths.degrees))
    return geometry.compose(sheared, moved, turned)


def recolour(strengths, kind, share, images):
    """f32 `[B, H, W, 3]` after the operations numbered `kind`; see affine_maps."""
    factor, bits = strengths.factor, strengths.bits
    amounts = jnp.stack(
        [*[1 + factor * share] * 4, 8 - bits * abs(share), 255 - 255 * abs(share)], axis=1
    )
    amount = jnp.take_along_axis(amounts, jnp.minimum(kind, 5)[:, None], axis=1)[:, 0]
    chosen = jnp.minimum(kind, len(RECOLOURING) - 1)
    return operation.choose(chosen, RECOLOURING, images, amount)


def _layer(strengths, index, layers, magnitude, padding):
    """The Warp and the Recolour for operation `index` of `layers`, with strength `magnitude` (None:
    random). At most one of the two changes an image."""

    def draw(keys):
        shares = operation.uniform(keys, 3 * layers)[:, 3 * index : 3 * index + 3]
        strength = operation.below(shares[:, 1], BINS) if magnitude is None else magnitude
        sign = jnp.where(shares[:, 2] < 0.5, -1.0, 1.0)
        return operation.below(shares[:, 0], KINDS), sign * (strength / (BINS - 1))

    def maps(keys, shape):
        return affine_maps(strengths, *draw(keys), shape)

    def apply(keys, images):
        return recolour(strengths, *draw(keys), images)

    return operation.Warp(maps, padding), operation.Recolour(apply)
