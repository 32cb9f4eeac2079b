"""Functions that change the pixel values of one image, f32 `[H, W, 3]` RGB of 0..255, and random
operations that use them. Sums are written out, because matrix products may lose precision on GPUs.
"""

import math
from typing import Annotated

import jax
import jax.numpy as jnp

from fgc_jax.config.limits import NotNegative, Share, between, interval
from fgc_jax.data.augment import operation

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def grey(image):
    """Luma `[H, W, 1]`."""
    return sum(weight * image[..., i : i + 1] for i, weight in enumerate(LUMA))


def adjust_brightness(image, factor):
    """Times `factor`; 0 is black, 1 the image."""
    return jnp.clip(image * factor, 0, 255)


def adjust_contrast(image, factor):
    """Away from the mean luma (factor above 1) or towards it (0: only the mean luma is left)."""
    # In two steps, with the luma last: 6 times faster on CPUs than the mean of the luma.
    mean = image.mean(axis=0, keepdims=True).mean(axis=1, keepdims=True)
    return _blend(image, grey(mean), factor)


def adjust_saturation(image, factor):
    """Away from each pixel's luma (factor above 1) or towards it (0: a grey image)."""
    return _blend(image, grey(image), factor)


def adjust_hue(image, shift):
    """Turns the hue by `shift`, in turns from -0.5 to 0.5; saturation and value (HSV) do not
    change."""
    red, green, blue = (image[..., i] for i in range(3))
    value, low = image.max(-1), image.min(-1)
    span = value - low
    safe = jnp.where(span == 0, 1.0, span)
    sixths = jnp.where(
        value == red,
        (green - blue) / safe,
        jnp.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    sixths = sixths + 6 * shift

    def channel(offset):
        # How far a channel is below the value: a trapezium over the colour circle.
        place = sixths + offset
        place = place - 6 * jnp.floor(place / 6)
        return value - span * jnp.clip(jnp.minimum(place, 4 - place), 0, 1)

    return jnp.stack([channel(5), channel(3), channel(1)], axis=-1)


def adjust_sharpness(image, factor):
    """Away from a 3x3 smoothed image (factor above 1) or towards it; the outermost pixels do not
    change."""
    height, width, _ = image.shape
    if min(height, width) < 3:
        return image
    columns = image[:-2] + image[1:-1] + image[2:]
    around = columns[:, :-2] + columns[:, 1:-1] + columns[:, 2:]
    inner = image[1:-1, 1:-1]
    smooth = (around + 4 * inner) / 13
    return image.at[1:-1, 1:-1].set(_blend(inner, smooth, factor))


def blur(image, sigma, radius):
    """Gaussian of standard deviation `sigma` pixels, cut off at +-`radius` (static) pixels and
    mirrored at the outermost ones."""
    away = jnp.arange(-radius, radius + 1, dtype=jnp.float32)
    weights = jnp.exp(-0.5 * (away / sigma) ** 2)
    weights = weights / weights.sum()
    for axis in (0, 1):
        pad = [(radius, radius) if axis == i else (0, 0) for i in range(3)]
        wide = jnp.pad(image, pad, mode="reflect")
        length = image.shape[axis]
        image = sum(
            weights[i] * jax.lax.slice_in_dim(wide, i, i + length, axis=axis)
            for i in range(2 * radius + 1)
        )
    return image


def posterise(image, bits):
    """Keeps the highest `bits` (0..8) of each rounded level; with 8 the image does not change."""
    step = jnp.left_shift(1, 8 - bits).astype(jnp.float32)
    return jnp.where(bits >= 8, image, jnp.floor(jnp.round(image) / step) * step)


def solarise(image, threshold):
    """Inverts the levels of at least `threshold` (0..255)."""
    return jnp.where(image >= threshold, 255 - image, image)


def invert(image):
    """255 minus the image."""
    return 255 - image


def autocontrast(image):
    """Stretches each channel so that its least level becomes 0 and its highest 255."""
    low, high = (f(image, axis=(0, 1), keepdims=True) for f in (jnp.min, jnp.max))
    stretched = (image - low) * (255 / jnp.where(high > low, high - low, 255))
    return jnp.where(high > low, jnp.clip(stretched, 0, 255), image)


def equalise(image):
    """Spreads the levels of each channel so that all are about equally frequent, by Pillow's rule,
    for rounded levels. A channel with almost only one level does not change."""
    levels = jnp.clip(jnp.round(image), 0, 255).astype(jnp.int32)
    channels = jnp.broadcast_to(jnp.arange(3)[None, None, :], levels.shape)
    counts = jnp.zeros((3, 256), jnp.int32).at[channels, levels].add(1)
    total = image.shape[0] * image.shape[1]
    highest = 255 - jnp.argmax(counts[:, ::-1] > 0, axis=1, keepdims=True)
    step = (total - jnp.take_along_axis(counts, highest, axis=1)) // 255
    below = jnp.cumsum(counts, axis=1) - counts
    table = jnp.clip((below + step // 2) // jnp.maximum(step, 1), 0, 255).astype(jnp.float32)
    return jnp.where((step > 0).reshape(1, 1, 3), table[channels, levels], image)


def adjust_lighting(image, shift, factor):
    """Adds `shift` to the logits of the levels, then multiplies them by `factor` (fastai 1.0)."""
    share = jnp.clip(image / 255, 1e-7, 1 - 1e-7)
    return 255 * jax.nn.sigmoid((jnp.log(share) - jnp.log1p(-share) + shift) * factor)


def colour_jitter(
    *,
    brightness: NotNegative = 0.0,
    contrast: NotNegative = 0.0,
    saturation: NotNegative = 0.0,
    hue: Annotated[float, between(0, 0.5)] = 0.0,
    p: Share = 1.0,
):
    """Changes brightness, contrast and saturation by uniform factors of 1 +- these values, and the
    hue by up to +-`hue` turns. Always in this order; torchvision draws an order for each image."""
    if not (brightness or contrast or saturation or hue):
        raise ValueError("one of brightness, contrast, saturation and hue must be above 0")
    steps = [
        (adjust, max(0.0, middle - most), middle + most)
        for adjust, most, middle in (
            (adjust_brightness, brightness, 1.0),
            (adjust_contrast, contrast, 1.0),
            (adjust_saturation, saturation, 1.0),
        )
        if most
    ]
    steps += [(adjust_hue, -hue, hue)] if hue else []

    def apply(shares, images):
        for i, (adjust, low, high) in enumerate(steps):
            images = jax.vmap(adjust)(images, operation.between(shares[:, i], low, high))
        return images

    return _sometimes(len(steps), apply, p)


def lighting(
    *,
    brightness: Annotated[float, between(0, 0.99)] = 0.2,
    contrast: Annotated[float, between(0, 0.99)] = 0.2,
    p: Share = 0.75,
):
    """fastai 1.0's lighting: with probability `p` each, the logits of the levels shift by the logit
    of 0.5 (1 +- `brightness`), uniform, and are multiplied by 1 - `contrast` to 1 / (1 -
    `contrast`), uniform in the logarithm."""
    stretch = -math.log(1 - contrast)

    def apply(keys, images):
        shares = operation.uniform(keys, 4)
        half = operation.between(shares[:, 0], 0.5 * (1 - brightness), 0.5 * (1 + brightness))
        shift = jnp.log(half) - jnp.log1p(-half)
        factor = jnp.exp(operation.between(shares[:, 1], -stretch, stretch))
        first, second = shares[:, 2] < p, shares[:, 3] < p
        shift, factor = jnp.where(first, shift, 0.0), jnp.where(second, factor, 1.0)
        changed = jax.vmap(adjust_lighting)(images, shift, factor)
        return jnp.where((first | second)[:, None, None, None], changed, images)

    return operation.Recolour(apply)


def greyscale(*, p: Share = 0.1):
    """Makes the image grey with probability `p`."""
    return _fixed(lambda image: jnp.broadcast_to(grey(image), image.shape), p)


def gaussian_blur(*, sigma: interval(0.01, 32) = (0.1, 2.0), p: Share = 0.5):
    """Blurs, with probability `p`, by a Gaussian of `sigma` pixels, uniform."""
    radius = math.ceil(3 * sigma[1])

    def apply(shares, images):
        sigmas = operation.between(shares[:, 0], *sigma)
        return jax.vmap(lambda image, one: blur(image, one, radius))(images, sigmas)

    return _sometimes(1, apply, p)


def sharpen(*, factor: interval(0, math.inf) = (0.1, 1.9), p: Share = 0.5):
    """Sharpens (factor above 1) or softens with probability `p`, by a uniform factor."""

    def apply(shares, images):
        return jax.vmap(adjust_sharpness)(images, operation.between(shares[:, 0], *factor))

    return _sometimes(1, apply, p)


def posterised(*, bits: Annotated[int, between(1, 8)] = 4, p: Share = 0.5):
    """Keeps `bits` bits of each level with probability `p`."""
    return _fixed(lambda image: posterise(image, bits), p)


def solarised(*, threshold: Annotated[float, between(0, 255)] = 128.0, p: Share = 0.5):
    """Inverts the levels of at least `threshold` with probability `p`."""
    return _fixed(lambda image: solarise(image, threshold), p)


def inverted(*, p: Share = 0.5):
    """Inverts all levels with probability `p`."""
    return _fixed(invert, p)


def autocontrasted(*, p: Share = 0.5):
    """Stretches each channel's levels to 0..255 with probability `p`."""
    return _fixed(autocontrast, p)


def equalised(*, p: Share = 0.5):
    """Equalises each channel's histogram with probability `p`."""
    return _fixed(equalise, p)


def _blend(image, other, factor):
    return jnp.clip(image * factor + other * (1 - factor), 0, 255)


def _fixed(change, p):
    """A Recolour by `change` with probability p."""
    changes = (lambda image, _: image, lambda image, _: change(image))

    def apply(keys, images):
        chosen = (operation.uniform(keys, 1)[:, 0] < p).astype(jnp.int32)
        return operation.choose(chosen, changes, images, jnp.zeros(chosen.shape))

    return operation.Recolour(apply)


def _sometimes(count, apply, p):
    """A Recolour by `apply(shares, images)` with probability p; other images do not change.
    `shares` `[B, count]` are random numbers of 0 to 1."""

    def sometimes(keys, images):
        shares = operation.uniform(keys, count + 1)
        changed = shares[:, count, None, None, None] < p
        return jnp.where(changed, apply(shares[:, :count], images), images)

    return operation.Recolour(sometimes)
